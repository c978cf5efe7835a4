"""The script everybody writes first: a Pool, a full decode, a LANCZOS resize, once for each size."""

from __future__ import annotations

import sys
from functools import partial
from multiprocessing import Pool
from pathlib import Path

from PIL import Image


def resize(path: Path, into: Path, sizes: list[int], suffix: str) -> None:
    for size in sizes:
        with Image.open(path) as image:
            image.load()
            scale = min(1, size / image.width, size / image.height)
            small = image.resize(
                (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS
            )
            small.save(into / f"{size}-{path.stem}{suffix}", quality=82)  # Pillow ignores it for a PNG


def main(source: str, into: str, suffix: str, *sizes: str) -> None:
    work = partial(resize, into=Path(into), sizes=[int(size) for size in sizes], suffix=suffix)
    with Pool(2) as pool:
        for _ in pool.imap_unordered(work, sorted(Path(source).iterdir())):
            pass


if __name__ == "__main__":
    main(*sys.argv[1:])
