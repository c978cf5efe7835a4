"""The best that can be written by hand with pyvips: shrink on load, upright, sRGB, stripped, in a Pool.

As a cascade, each size is made of the one before, and the file is decoded once.
"""

from __future__ import annotations

import sys
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import pyvips


def save(image: pyvips.Image, path: Path) -> None:
    if path.suffix == ".jpg":
        image.jpegsave(str(path), Q=82, keep="none")
    else:
        image.pngsave(str(path), keep="none")


def thumbnail(path: Path, size: int) -> pyvips.Image:
    small = pyvips.Image.thumbnail(str(path), size, height=size, size="down")
    # Asked for with `output_profile`, the colours of every picture are converted, and it takes twice as long.
    return small.icc_transform("srgb", embedded=True) if small.get_typeof("icc-profile-data") else small


def resize(path: Path, into: Path, sizes: list[int], suffix: str) -> None:
    for size in sizes:
        save(thumbnail(path, size), into / f"{size}-{path.stem}{suffix}")


def cascade(path: Path, into: Path, sizes: list[int], suffix: str) -> None:
    image = None
    for size in sorted(sizes, reverse=True):
        smaller = image.thumbnail_image(size, height=size, size="down") if image else thumbnail(path, size)
        image = smaller.copy_memory()
        save(image, into / f"{size}-{path.stem}{suffix}")


def main(how: str, source: str, into: str, suffix: str, *sizes: str) -> None:
    do = cascade if how == "cascade" else resize
    work = partial(do, into=Path(into), sizes=[int(size) for size in sizes], suffix=suffix)
    with Pool(2) as pool:
        for _ in pool.imap_unordered(work, sorted(Path(source).iterdir())):
            pass


if __name__ == "__main__":
    main(*sys.argv[1:])
