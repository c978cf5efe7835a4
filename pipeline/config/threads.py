"""The environment variables that say how many threads a library starts; without them, one for each CPU.

Those of BLAS and OpenMP are threadpoolctl's list; the others are of OpenCV, Rayon, Polars and libvips.
"""

from __future__ import annotations

from collections.abc import Mapping

THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "FLEXIBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", "RAYON_NUM_THREADS",
    "POLARS_MAX_THREADS", "VIPS_CONCURRENCY",
)  # fmt: skip


def thread_limits(cpus: int, workers: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which the workers' libraries together start about one thread for each CPU.

    Those that the run has are told too: a forkserver has the environment of the moment at which it was started.

    Args:
        cpus: The number of CPUs that filemill may use.
        workers: The number of all workers.
        environment: The environment of the run, whose own variables count.
    """
    share = str(max(1, cpus // workers))
    return {name: environment.get(name, share) for name in THREAD_VARIABLES}
