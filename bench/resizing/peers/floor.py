"""The floor: decode a JPEG at the N/8 that is just large enough, and encode it as it is. Nothing is resized.

With `--list` it does nothing but print, for djpeg and cjpeg, a line for each picture: N/8, source, target.
"""

from __future__ import annotations

import sys
from functools import partial
from multiprocessing import Pool
from pathlib import Path

from PIL import Image


def reduction(side: int, size: int) -> int:
    """By how much the decoder may divide a side that is to become this long."""
    return next((n for n in (8, 4, 2) if -(-side // n) >= size), 1)


def pass_through(path: Path, into: Path, size: int) -> None:
    with Image.open(path) as image:
        n = reduction(max(image.size), size)
        image.draft(None, (image.width // n, image.height // n))
        image.save(into / f"{size}-{path.stem}.jpg", quality=82)


def main(source: str, into: str, size: str) -> None:
    paths = sorted(Path(source).iterdir())
    with Pool(2) as pool:
        for _ in pool.imap_unordered(partial(pass_through, into=Path(into), size=int(size)), paths):
            pass


def show(source: str, into: str, size: str) -> None:
    for path in sorted(Path(source).iterdir()):
        with Image.open(path) as image:
            n = reduction(max(image.size), int(size))
        print(f"{8 // n}/8", path, Path(into, f"{size}-{path.stem}.jpg"))


if __name__ == "__main__":
    show(*sys.argv[2:]) if sys.argv[1] == "--list" else main(*sys.argv[1:])
