"""Outputs depend on the input and the options and on nothing else: not on who makes them, when, or in company."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from PIL import Image, ImageCms
from support.pictures import encode, paint
from support.program import ROOT
from support.project import contents_below

SUFFIXES = ("jpg", "webp", "avif", "png", "tif", "gif")
# A GIF keeps nothing; the EXIF of a TIFF is tried by itself below.
KEPT = dict.fromkeys(("jpg", "webp", "avif", "png"), "icc, exif, xmp") | {"tif": "icc, xmp"}
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
STAGES = [
    ("large", "inputs", "width: 90, height: 90"),
    ("small", "inputs", "width: 30, height: 30, fit: cover, position: top left"),
    ("moves", "inputs", "width: 20, frames: all"),
    ("below", "large", "width: 40"),
]


def tree(order: int = 1) -> str:
    """Every format for sizes of the source and of another size, in either order; the metadata kept where it can be."""
    text = ""
    for name, parent, options in STAGES:
        for suffix in SUFFIXES[::order]:
            save = f"metadata: [{KEPT[suffix]}]" if suffix in KEPT else ""
            above = f"{parent}-jpg" if parent != "inputs" else parent
            text += (
                f"  - name: {name}-{suffix}\n    from: {above}\n    uses: resize\n    with: {{{options}}}\n"
                f'    output: {{path: "out/{name}/{{name}}.{suffix}", save: {{{save}}}}}\n'
            )
    return f"inputs: in\nstages:\n{text}"


@cache
def pictures() -> dict[str, bytes]:
    """A photograph with all its metadata, and what moves, has pages, alpha or a palette."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    exif.get_ifd(0x8769)[0x9003] = "2024:01:02 03:04:05"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    frames = [paint(60, 44).rotate(50 * each) for each in range(3)]
    more = {"save_all": True, "append_images": frames[1:]}
    return {
        "a.jpg": encode(paint(300, 200), "JPEG", exif=exif.tobytes(), icc_profile=profile, xmp=XMP),
        "b.png": encode(paint(120, 90, "RGBA"), "PNG", exif=exif.tobytes()),
        "c.gif": encode(frames[0], "GIF", duration=[30, 60, 90], loop=0, **more),
        "d.webp": encode(frames[0], "WEBP", duration=40, **more),
        "e.tif": encode(frames[0], "TIFF", **more),
        "sub/é.png": encode(paint(100, 90, "P"), "PNG"),
    }


def make(folder: Path, *arguments: str, umask: int = 0o022, order: int = 1, **environment: str) -> dict[str, bytes]:
    """Run the program in a folder, over the pictures made there if it is new; gives its outputs."""
    if not (folder / "in").exists():
        for name in list(pictures())[::order]:
            file = folder / "in" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(pictures()[name])
            os.utime(file, (1_000_000_000 + order, 1_000_000_000 + order))
        (folder / "pipeline.yaml").write_text(tree(order))
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        umask=umask,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return contents_below(folder / "out")


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes of the pictures, one after the other."""
    made = make(tmp_path_factory.mktemp("serial"), "--engine", "serial")
    assert len(made) == len(pictures()) * len(STAGES) * len(SUFFIXES)
    return made


def different(made: dict[str, bytes], wanted: dict[str, bytes]) -> list[str]:
    """The outputs that are not the same; a list is read more easily than bytes."""
    return sorted(name for name in made.keys() | wanted.keys() if made.get(name) != wanted.get(name))


@pytest.mark.parametrize(("context", "processes"), [("fork", 1), ("fork", 3), ("forkserver", 2), ("spawn", 3)])
def test_no_engine_makes_other_bytes(tmp_path: Path, wanted: dict[str, bytes], context: str, processes: int) -> None:
    """A pool of any size, however its workers are started, makes what one process makes."""
    arguments = ["--engine", "pool", "-j", str(processes), "--set", f"pool.context={context}"]

    assert different(make(tmp_path, *arguments), wanted) == []


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONHASHSEED": "4711", "TZ": "Pacific/Kiritimati"},
        {"TZ": "America/St_Johns", "LC_ALL": "C", "LANG": "C"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0"},
        {"LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": "1", "PYTHONOPTIMIZE": "2"},
    ],
    ids=lambda environment: " ".join(environment.values()),
)
def test_no_environment_makes_other_bytes(
    tmp_path: Path, wanted: dict[str, bytes], environment: dict[str, str]
) -> None:
    """Neither the hash seed, the time zone nor the locale is in an output."""
    assert different(make(tmp_path, "--engine", "serial", **environment), wanted) == []


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_umask_is_for_permissions(tmp_path: Path, wanted: dict[str, bytes], umask: int) -> None:
    """It decides who may read an output, and nothing in it."""
    assert different(make(tmp_path, "--engine", "serial", umask=umask), wanted) == []
    modes = {file.stat().st_mode & 0o777 for file in (tmp_path / "out").rglob("*.*") if file.name != ".filemill"}
    sources = {file.stat().st_mode & 0o666 for file in (tmp_path / "in").rglob("*.*")}
    assert modes == {mode & ~umask for mode in sources}


def test_no_order_makes_other_bytes(tmp_path: Path, wanted: dict[str, bytes]) -> None:
    """Files written in another order, at another time, and stages declared the other way round."""
    assert different(make(tmp_path, "--engine", "serial", order=-1), wanted) == []


def test_one_file_at_a_time_is_the_same(tmp_path: Path, wanted: dict[str, bytes]) -> None:
    """Runs for one file each, and one for the rest, make what one run makes of all."""
    for name in ("/d.webp", "/a.jpg", "*"):
        made = make(tmp_path, "--engine", "serial", "--only", name)

    assert different(made, wanted) == []


def test_made_anew_alone_or_together_is_the_same(tmp_path: Path, wanted: dict[str, bytes]) -> None:
    """Outputs that were deleted, one stage's, one format's, or a cascade's end, come back as they were."""
    make(tmp_path, "--engine", "serial")
    for pattern in ("below/*", "*/*.webp", "small/a.jpg.*"):
        gone = [file for file in (tmp_path / "out").glob(pattern) if file.is_file() and file.name != ".filemill"]
        assert gone, pattern
        for file in gone:
            file.unlink()
        assert different(make(tmp_path, "--engine", "serial"), wanted) == [], pattern


def test_what_was_something_else_in_between_is_the_same(tmp_path: Path, wanted: dict[str, bytes]) -> None:
    """Sizes changed for one run with `--set`, and back: nothing of it stays."""
    make(tmp_path, "--engine", "serial")
    change = ["--set", "stages.large-jpg.with.width=70", "--set", "stages.small-png.with.filter=box"]
    changed = make(tmp_path, "--engine", "serial", *change)

    assert {name.split("/")[0] for name in different(changed, wanted)} >= {"large", "small", "below"}
    assert different(make(tmp_path, "--engine", "serial"), wanted) == []
    assert different(make(tmp_path, "--engine", "serial", "--force"), wanted) == []


def test_a_tiff_keeps_the_exif_and_is_the_same(tmp_path: Path) -> None:
    """EXIF in a TIFF: kept, with not a word from its library, and the same every time."""
    made = []
    for name in ("one", "two"):
        folder = tmp_path / name
        (folder / "in").mkdir(parents=True)
        for picture in ("a.jpg", "b.png"):
            (folder / "in" / picture).write_bytes(pictures()[picture])
        (folder / "pipeline.yaml").write_text(
            "inputs: in\nstages:\n  - {name: a, uses: resize, with: {width: 40}, output: {path: 'out/{name}.tif', "
            "save: {metadata: [exif, icc, xmp], compression: none}}}\n"
        )
        made.append(make(folder, "--engine", "serial"))
    assert made[0] == made[1] and len(made[0]) == 2
    for data in made[0].values():
        with Image.open(io.BytesIO(data)) as image:
            assert image.getexif()[0x010F] == "a camera"
