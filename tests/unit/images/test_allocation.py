"""What one picture leaves to the next."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
from support.pictures import encode, paint

# Prints how many pages the system had to hand out for a picture when others had been decoded before it; the least of
# some, since the heap still grows now and then.
COUNT = """
import resource, sys
from pathlib import Path
from pipeline.images import open_picture

def decode():
    picture = open_picture(Path(sys.argv[1]))
    picture.load((300, 200))
    picture.close()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

after = [decode() for _ in range(9)]
print(min(later - earlier for earlier, later in zip(after, after[1:])))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_a_picture_is_decoded_into_the_memory_of_the_one_before(tmp_path: Path, name: str) -> None:
    """The system hands out few new pages for it, each of which it would have to clear."""
    (tmp_path / "picture").write_bytes(encode(paint(2000, 1500), name))
    pages = 2000 * 1500 * 4 // 4096
    done = subprocess.run(
        [sys.executable, "-c", COUNT, str(tmp_path / "picture")], stdout=subprocess.PIPE, check=True, text=True
    )

    assert int(done.stdout) < pages / 10
