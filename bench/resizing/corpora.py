"""The pictures to measure with: photographs of Debian's wallpaper packages, made like a camera roll, in a cache.

`big` are JPEGs of 9 to 24 MP, some progressive, 4:4:4, sideways by EXIF, or in Adobe RGB; `web` are JPEGs of 1 to 2 MP,
`alpha` cut-out PNGs of 1.3 to 4 MP, `huge` JPEGs of 24 MP for the memory they take. `kinds-jpeg` and `kinds-png` are
photographs, scans, drawings and a zone plate, named for what they are. Each is repeated by hard links, so that a tool's
start does not decide.
"""

from __future__ import annotations

import os
import random
import shutil
import string
import subprocess
from collections.abc import Callable, Iterator
from multiprocessing import Pool
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, ImageChops, ImageDraw, ImageFont

PACKAGES = (
    "gnome-backgrounds", "lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04", "mate-backgrounds",
    "plasma-workspace-wallpapers", "ukui-wallpapers", "icc-profiles-free",
)  # fmt: skip
_WIDE_PROFILE = "usr/share/color/icc/compatibleWithAdobeRGB1998.icc"

# Bumped when other pictures come out, so that a cache of older ones is made anew.
_EDITION = "1"
_MEGA = 1_000_000

Make = Callable[[int, Path, Path, bytes], None]


def corpus(name: str, cache: Path, at_least: int) -> Path:
    """The folder of a corpus with so many pictures, made if need be."""
    if name == "quick":
        return _repeat(_made(cache / "quick", _make_quick), cache / "quick-repeated", at_least)
    if name in ("kinds-jpeg", "kinds-png"):
        once = _made(
            cache / name, lambda folder: _make_kinds(cache, folder, ".jpg" if name == "kinds-jpeg" else ".png")
        )
        return _repeat(once, cache / f"{name}-repeated", at_least)
    make = {"big": _make_big, "web": _make_web, "alpha": _make_alpha, "huge": _make_huge}[name]
    once = _made(cache / name, lambda folder: _make_all(make, cache, folder))
    return _repeat(once, cache / f"{name}-repeated", at_least)


def _made(folder: Path, fill: Callable[[Path], None]) -> Path:
    """A folder of the cache, filled once for each edition of this module."""
    done = folder / f".edition-{_EDITION}"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        fill(folder)
        done.touch()
    return folder


def _repeat(folder: Path, into: Path, at_least: int) -> Path:
    """The same pictures again and again under new names until there are enough."""
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for turn in range(-(-at_least // len(paths))):
        for path in paths:
            os.link(path, into / f"{turn:02}-{path.name}")
    return into


# -- photographs from Debian -------------------------------------------------------------------------------------------


def _make_all(make: Make, cache: Path, folder: Path) -> None:
    unpacked = _made(cache / "packages", _fetch)
    profile = (unpacked / _WIDE_PROFILE).read_bytes()
    with Pool(2) as pool:
        jobs = [(number, path, folder, profile) for number, path in enumerate(_photographs(unpacked))]
        pool.starmap(make, jobs, chunksize=1)


def _fetch(folder: Path) -> None:
    subprocess.run(["apt-get", "download", "-q", *PACKAGES], cwd=folder, check=True)
    for package in sorted(folder.glob("*.deb")):
        subprocess.run(["dpkg", "-x", package, folder], check=True)
        package.unlink()


def _photographs(unpacked: Path) -> list[Path]:
    """Every wallpaper once: the largest file of its folder of sizes, drawings of a few flat colours left out."""
    largest: dict[object, tuple[int, Path]] = {}
    for path in sorted((unpacked / "usr/share").rglob("*")):
        if path.suffix.lower() in (".jpg", ".png", ".webp") and path.is_file() and not path.is_symlink():
            with Image.open(path) as image:
                pixels = image.width * image.height
            if pixels >= 4 * _MEGA and path.stat().st_size / pixels > 0.07:
                key = path.parent if path.parent.name.startswith("images") else path.stem.partition("_3840")[0]
                largest[key] = max(largest.get(key, (0, path)), (pixels, path))
    return [path for _, path in sorted(largest.values(), key=lambda each: each[1])]


def _scaled(path: Path, megapixels: float) -> Image.Image:
    with Image.open(path) as image:
        rgb = image.convert("RGB")
        scale = (megapixels * _MEGA / (rgb.width * rgb.height)) ** 0.5
        return rgb.resize((round(rgb.width * scale), round(rgb.height * scale)), Image.Resampling.LANCZOS)


def _grained(image: Image.Image, sigma: float) -> Image.Image:
    """With the noise of a sensor, which an enlarged picture lacks."""
    noise = Image.effect_noise(image.size, sigma)
    return ImageChops.add(image, Image.merge("RGB", [noise] * 3), 1, -128)


def _photograph(path: Path, number: int) -> Image.Image:
    with Image.open(path) as image:
        megapixels = image.width * image.height / _MEGA
    if megapixels < 9:
        return _grained(_scaled(path, 12 + number % 7), 3)
    with Image.open(path) as image:
        return image.convert("RGB")


def _like_a_camera(number: int, profile: bytes) -> dict[str, Any]:
    """How the picture of this number is saved."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = {2: 6, 6: 8, 9: 3}.get(number % 10, 1)
    return {
        "quality": 92,
        "exif": exif,
        "progressive": number % 7 == 1,
        "subsampling": "4:4:4" if number % 5 == 3 else "4:2:0",
        **({"icc_profile": profile} if number % 6 == 4 else {}),
    }


def _make_big(number: int, path: Path, folder: Path, profile: bytes) -> None:
    _photograph(path, number).save(folder / f"{number:03}.jpg", **_like_a_camera(number, profile))


def _make_huge(number: int, path: Path, folder: Path, profile: bytes) -> None:
    if number < 20:
        image = _grained(_scaled(path, 24), 3)
        image.save(folder / f"{number:03}.jpg", **_like_a_camera(number, profile))


def _make_web(number: int, path: Path, folder: Path, profile: bytes) -> None:
    _scaled(path, 1 + number % 5 / 4).save(folder / f"{number:03}.jpg", quality=85, progressive=number % 4 == 1)


def _make_alpha(number: int, path: Path, folder: Path, profile: bytes) -> None:
    image = _scaled(path, 1.3 + number % 10 * 0.3)
    oval = Image.radial_gradient("L").resize(image.size).point(lambda v: min(255, max(0, 176 - v) * 5))
    cut = Image.new("RGBA", image.size)
    cut.paste(image, mask=oval.point(lambda v: 255 * (v > 0)))
    cut.putalpha(oval)
    cut.save(folder / f"{number:03}.png")


# -- of every kind, to look at closely ---------------------------------------------------------------------------------

# Pixels: the width of each picture, so that a scale is one size for all of them.
KINDS_WIDTH = 2400
_KINDS_SIZE = (KINDS_WIDTH, 1600)


def _make_kinds(cache: Path, folder: Path, suffix: str) -> None:
    """Pictures as KIND-NUMBER, with transparency if they are PNGs."""
    photographs = _photographs(_made(cache / "packages", _fetch))[::12]
    kinds = {
        "photo": [_scaled_to_width(path) for path in photographs],
        "scan": [_page(number) for number in range(2)],
        "drawing": [_drawing(number) for number in range(2)],
        "zone plate": [_zone_plate()],
    }
    for kind, images in kinds.items():
        for number, image in enumerate(images):
            if suffix == ".png":
                image.putalpha(Image.radial_gradient("L").resize(image.size).point(lambda v: min(255, (255 - v) * 2)))
            save = {"quality": 92, "progressive": number % 3 == 1, "subsampling": "4:4:4" if number % 2 else "4:2:0"}
            image.save(folder / f"{kind}-{number}{suffix}", **(save if suffix == ".jpg" else {}))


def _scaled_to_width(path: Path) -> Image.Image:
    with Image.open(path) as image:
        height = round(image.height * KINDS_WIDTH / image.width)
        return image.convert("RGB").resize((KINDS_WIDTH, height), Image.Resampling.LANCZOS)


def _page(number: int) -> Image.Image:
    """A page of text, not quite straight and with the grain of a scanner."""
    some, page = random.Random(number), Image.new("RGB", _KINDS_SIZE, (250, 248, 240))
    pen, top = ImageDraw.Draw(page), 40
    while top < page.height - 60:
        size = some.choice([18, 22, 28, 40])
        text = " ".join("".join(some.choices(string.ascii_lowercase, k=some.randint(2, 9))) for _ in range(40))
        pen.text((60, top), text, (20, 20, 30), ImageFont.load_default(size))
        top += int(size * 1.4)
    return _grained(page.rotate(1.5 * number, Image.Resampling.BICUBIC, fillcolor=(250, 248, 240)), 4)


def _drawing(number: int) -> Image.Image:
    """Flat colours and thin lines."""
    some, image = random.Random(number), Image.new("RGB", _KINDS_SIZE, "white")
    pen = ImageDraw.Draw(image)
    for _ in range(300):
        x, y, side = some.randrange(image.width), some.randrange(image.height), some.randrange(10, 200)
        colour = (some.randrange(256), some.randrange(256), some.randrange(256))
        pen.ellipse((x, y, x + side, y + side), fill=colour)
        x, y = some.randrange(image.width), some.randrange(image.height)
        pen.line((x, y, x + 3 * side, y + some.randrange(200)), fill=colour, width=some.randrange(1, 6))
    return image


def _zone_plate() -> Image.Image:
    """Rings that become finer outwards, up to what pixels can hold; each wrong frequency is seen as moire."""
    import numpy as np

    x = np.arange(_KINDS_SIZE[0]) - _KINDS_SIZE[0] / 2
    y = np.arange(_KINDS_SIZE[1])[:, None] - _KINDS_SIZE[1] / 2
    rings = 127.5 + 127.5 * np.cos((x**2 + y**2) * np.pi / _KINDS_SIZE[0])
    return Image.fromarray(rings.astype(np.uint8)).convert("RGB")


# -- generated, for the quick form -------------------------------------------------------------------------------------


def _make_quick(folder: Path) -> None:
    for number, image in enumerate(_generated()):
        image.save(folder / f"{number:03}.jpg", quality=88, progressive=number % 4 == 1)


def _generated() -> Iterator[Image.Image]:
    ramp, hill = Image.linear_gradient("L"), Image.radial_gradient("L")
    for number in range(6):
        size = (2000 + 100 * number, 1500)
        layers = [each.resize(size) for each in (ramp, hill, ramp.rotate(90 * number))]
        yield _grained(Image.merge("RGB", layers), 6)
