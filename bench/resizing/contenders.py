"""Who is measured: this program, its peers and the floors; how each is called, and which version it is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PEERS = Path(__file__).parent / "peers"
WITHOUT_FAST = Path(__file__).parent / "without_fast"

Command = list[str]


@dataclass(frozen=True)
class Work:
    """What everybody is to do with a corpus."""

    name: str
    title: str
    corpus: str
    sizes: tuple[int, ...]
    suffix: str = ".jpg"


WORKS = (
    Work("big-800", "big JPEG (9-24 MP) to fit 800", "big", (800,)),
    Work("big-256", "big JPEG to fit 256", "big", (256,)),
    Work("web-256", "web JPEG (1-2 MP) to fit 256", "web", (256,)),
    Work("alpha-400", "PNG with alpha (1.3-4 MP) to fit 400", "alpha", (400,), ".png"),
    Work("three", "three sizes of a big JPEG: 1600, 800, 200", "big", (1600, 800, 200)),
    Work("huge-800", "JPEG of 24 MP to fit 800", "huge", (800,)),
)
QUICK = (
    Work("quick-400", "generated JPEG (3 MP) to fit 400", "quick", (400,)),
    Work("quick-three", "three sizes of a generated JPEG: 1200, 600, 150", "quick", (1200, 600, 150)),
)

# Those of the quick form: they need nothing but Pillow.
QUICK_NAMES = ("filemill", "floor: in-process decode and encode", "naive Pillow")


@dataclass(frozen=True)
class Place:
    """Where a run reads and writes; `home` is a folder of its own for what it needs besides."""

    source: Path
    into: Path
    home: Path
    cache: Path


@dataclass(frozen=True)
class Contender:
    """Something to measure: `version` is None where it is not installed."""

    name: str
    version: str | None
    command: Callable[[Work, Place], Command | None]
    """None for work that it is not for."""
    env: dict[str, str] = field(default_factory=dict)
    slow: bool = False
    """Whether a fifth of the corpus is enough to wait for."""


def contenders(cache: Path, simd_python: Path | None) -> Iterator[Contender]:
    """Everybody, this program first."""
    pillow = f"Pillow {_package('pillow')}"
    yield Contender("filemill", pillow, _filemill(sys.executable), {"PYTHONPATH": str(WITHOUT_FAST)})
    fast = [f"{name} {found}" for name in ("cykooz-resizer", "pyspng") if (found := _package(name))]
    yield Contender("filemill, fast", ", ".join(fast) if len(fast) == 2 else None, _filemill(sys.executable))
    simd = _ask(str(simd_python), "-c", "import PIL; print(PIL.__version__)") if simd_python else None
    yield Contender("filemill, pillow-simd", simd and f"pillow-simd {simd}", _filemill(str(simd_python)))
    yield Contender("floor: in-process decode and encode", pillow, _floor)
    djpeg = _ask("djpeg", "-version") if shutil.which("cjpeg") else None
    yield Contender("floor: djpeg, cjpeg", djpeg and djpeg.partition(" (")[0], _djpeg_cjpeg)
    yield Contender("sharp", _sharp_version(cache), _sharp)
    one_thread = {"VIPS_CONCURRENCY": "1"}
    vips = _package("pyvips-binary")
    yield Contender("pyvips", vips, _script("vips.py", "each"), one_thread)
    yield Contender("pyvips, cascade", vips, _for_several_sizes(_script("vips.py", "cascade")), one_thread)
    vipsthumbnail = _ask("vipsthumbnail", "--vips-version")
    yield Contender("vipsthumbnail", vipsthumbnail and vipsthumbnail.split()[-1], _vipsthumbnail, one_thread)
    yield Contender("naive Pillow", pillow, _script("naive.py"))
    magick = _ask("mogrify", "-version")
    magick = magick and magick.split()[2]
    one_thread = {"MAGICK_THREAD_LIMIT": "1"}
    yield Contender("mogrify, jpeg:size", magick, _mogrify(hinted=True), one_thread, slow=True)
    yield Contender("mogrify", magick, _mogrify(hinted=False), one_thread, slow=True)


def _package(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _ask(*command: str) -> str | None:
    """The first line of what a program says, on whichever of the two; None if there is no such program."""
    try:
        said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    except FileNotFoundError:
        return None
    return said.partition("\n")[0]


def _sharp_version(cache: Path) -> str | None:
    package = cache / "npm/node_modules/sharp/package.json"
    return str(json.loads(package.read_text())["version"]) if package.exists() and shutil.which("node") else None


# -- this program ------------------------------------------------------------------------------------------------------


def _filemill(python: str) -> Callable[[Work, Place], Command]:
    def command(work: Work, place: Place) -> Command:
        pipeline = place.home / "pipeline.yaml"
        pipeline.write_text(_pipeline(work, place))
        return [python, "-m", "pipeline", str(pipeline)]

    return command


def _pipeline(work: Work, place: Place) -> str:
    """A stage for each size, of the source."""
    lines = [f"inputs: {place.source}", "stages:"]
    for size in work.sizes:
        lines += [
            f"  - name: to{size}",
            "    from: inputs",
            "    uses: resize",
            f"    with: {{width: {size}, height: {size}}}",
            f"    output: {place.into}/{size}-{{stem}}{work.suffix}",
        ]
    return "\n".join([*lines, "pool: {processes: 2}", ""])


# -- the peers ---------------------------------------------------------------------------------------------------------


def _script(name: str, *first: str) -> Callable[[Work, Place], Command]:
    def command(work: Work, place: Place) -> Command:
        sizes = [str(size) for size in work.sizes]
        return [sys.executable, str(PEERS / name), *first, str(place.source), str(place.into), work.suffix, *sizes]

    return command


def _for_several_sizes(of: Callable[[Work, Place], Command]) -> Callable[[Work, Place], Command | None]:
    return lambda work, place: of(work, place) if len(work.sizes) > 1 else None


def _floor(work: Work, place: Place) -> Command | None:
    if work.suffix != ".jpg":
        return None
    return [sys.executable, str(PEERS / "floor.py"), str(place.source), str(place.into), str(work.sizes[0])]


def _djpeg_cjpeg(work: Work, place: Place) -> Command | None:
    if work.suffix != ".jpg" or len(work.sizes) > 1:
        return None
    listing = [sys.executable, str(PEERS / "floor.py"), "--list"]
    listed = subprocess.check_output([*listing, str(place.source), str(place.into), str(work.sizes[0])])
    (place.home / "list").write_bytes(listed)
    # The colours of a picture in Adobe RGB stay as they are: a floor need not be right.
    each = 'djpeg -scale "$0" "$1" | cjpeg -quality 82 > "$2"'
    return ["xargs", "-a", str(place.home / "list"), "-P2", "-n3", "sh", "-c", each]


def _sharp(work: Work, place: Place) -> Command:
    sizes = [str(size) for size in work.sizes]
    home = str(place.cache / "npm")
    return ["node", str(PEERS / "sharp.mjs"), home, str(place.source), str(place.into), work.suffix, *sizes]


def _runs(place: Place, lines: list[str]) -> Command:
    """A shell that makes each of these runs over all the files, eight at a time, two in parallel."""
    files = "\n".join(str(path) for path in sorted(place.source.iterdir()))
    (place.home / "list").write_text(files)
    return ["sh", "-ec", "\n".join(f"xargs -a {place.home}/list -P2 -n8 {line}" for line in lines)]


def _vipsthumbnail(work: Work, place: Place) -> Command:
    options = f"{work.suffix}[Q=82,strip]" if work.suffix == ".jpg" else f"{work.suffix}[strip]"
    return _runs(
        place,
        [f"vipsthumbnail --size '{size}x{size}>' -o '{place.into}/{size}-%s{options}'" for size in work.sizes],
    )


def _mogrify(hinted: bool) -> Callable[[Work, Place], Command | None]:
    def command(work: Work, place: Place) -> Command | None:
        if hinted and work.suffix != ".jpg":
            return None
        lines = []
        for size in work.sizes:
            (place.into / str(size)).mkdir()
            hint = f"-define jpeg:size={size}x{size} " if hinted else ""
            options = f"-auto-orient -resize '{size}x{size}>' -quality 82 -strip" if work.suffix == ".jpg" else (
                f"-resize '{size}x{size}>' -strip"
            )  # fmt: skip
            lines.append(f"mogrify {hint}-path {place.into}/{size} {options}")
        return _runs(place, lines)

    return command
