"""Makes the little set of example pictures in data/input: painted landscapes, the same bytes on every run."""

import math
import struct
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

from PIL import ExifTags, Image, ImageChops, ImageCms, ImageDraw, ImageFilter, ImageOps
from PIL.TiffImagePlugin import IFDRational

Picture = Image.Image
Size = tuple[int, int]

INPUT = Path(__file__).resolve().parent / "input"
WIDE, TALL = (2400, 1600), (1800, 2400)


def make_noise(size: Size, rng: Random, cells: int, stretch: float) -> Picture:
    noise = Image.new("L", size, 128)
    for octave in reversed(range(7)):
        columns = cells << octave
        rows = max(2, round(columns * size[1] / size[0] * stretch))
        layer = Image.frombytes("L", (columns, rows), rng.randbytes(columns * rows))
        noise = Image.blend(layer.resize(size, Image.Resampling.BICUBIC), noise, 0.5)
    return ImageOps.autocontrast(noise)


def make_sky(size: Size, rng: Random, colours: str, cloud: str) -> Picture:
    column = Image.new("RGB", (1, len(colours.split())))
    for y, colour in enumerate(colours.split()):
        column.paste(colour, (0, y, 1, y + 1))
    sky = column.resize(size, Image.Resampling.BICUBIC)
    sky.paste(cloud, mask=make_noise(size, rng, 3, 2.5).point(lambda v: max(0, min(235, (v - 150) * 3))))
    return sky


def shine(picture: Picture, x: float, y: float, disc: int, colour: str) -> None:
    left, top, reach = round(x * picture.width), round(y * picture.height), 10 * disc
    halo = Image.radial_gradient("L").point(lambda v: max(0, 180 - v) ** 2 // 150)
    picture.paste(colour, (left - reach, top - reach), halo.resize((2 * reach, 2 * reach)))
    ImageDraw.Draw(picture).ellipse((left - disc, top - disc, left + disc, top + disc), fill=colour)


def raise_hill(picture: Picture, rng: Random, level: float, colours: str, craggy: bool = False) -> None:
    """Cover everything below a wavy line around level (0 top, 1 bottom) with side-lit ground."""
    width, height = picture.size
    phases = [rng.uniform(0, math.tau) for _ in range(7 if craggy else 3)]
    line = [(0.0, float(height))]
    for x in range(0, width + 4, 4):
        sines = [math.sin(phase + 2.17**k * 5 * x / width) for k, phase in enumerate(phases)]
        bumps = [4 - 8 * abs(sine) for sine in sines] if craggy else sines
        line.append((x, height * (level - 0.03 * sum(bump * 0.45**k for k, bump in enumerate(bumps)))))
    mask = Image.new("L", picture.size)
    ImageDraw.Draw(mask).polygon([*line, (width, height)], fill=255)
    noise = make_noise((width + 9, height + 6), rng, 5, 0.6 if craggy else 3)
    here, there = noise.crop((0, 0, width, height)), noise.crop((9, 6, width + 9, height + 6))
    slope = ImageChops.subtract(here, there, 0.14 if craggy else 0.5, 128)
    shadow, light = colours.split()
    picture.paste(ImageOps.colorize(slope, shadow, light), mask=mask)


def plant_pines(picture: Picture, rng: Random, foot: float, tall: float, colours: str) -> None:
    draw, (dark, lit) = ImageDraw.Draw(picture), colours.split()
    for _ in range(round(8 / tall)):
        tree = picture.height * tall * rng.uniform(0.6, 1.1)
        x, y = rng.uniform(0, picture.width), picture.height * rng.uniform(foot - 0.02, foot + 0.02)
        for tier in range(11, 0, -1):
            top, reach = y - tree * (1.08 - tier / 12), tree * tier * rng.uniform(0.013, 0.019)
            low = top + tree * 0.2
            draw.polygon([(x, top), (x - reach, low), (x, low - reach / 4), (x + reach, low)], fill=dark)
            draw.polygon([(x, top), (x - reach, low), (x - reach / 4, low - reach / 2)], fill=lit)


def sow_flowers(picture: Picture, rng: Random, level: float, colours: str) -> None:
    draw, (width, height) = ImageDraw.Draw(picture), picture.size
    for depth in ((k / 9000) ** 1.3 for k in range(9000)):
        x, y, size = rng.uniform(0, width), height * (level + (1 - level) * depth), 2 + 15 * depth
        draw.ellipse((x - size, y - size, x + size, y + size * 0.7), fill=rng.choice(colours.split()))


def flood(picture: Picture, rng: Random, level: float, tint: str) -> None:
    """Turn everything below the level into water that mirrors what stands above."""
    width, height = picture.size
    shore = round(level * height)
    above = picture.crop((0, 0, width, shore))
    for depth in range(height - shore):
        ripple = math.sin(40 * math.log(depth + 30)) * depth * 0.04 + rng.gauss(0, 1 + depth * 0.01)
        y = max(0, min(shore - 1, round(shore - 1 - depth * shore / (height - shore) + ripple)))
        picture.paste(above.crop((0, y, width, y + 1)), (round(rng.gauss(0, 1)), shore + depth))
    waves = make_noise((width, height - shore), rng, 4, 18).point(lambda v: 60 + v // 3)
    picture.paste(tint, (0, shore, width, height), waves)


def draw_land(
    size: Size,
    rng: Random,
    sky: str,
    *grounds: str,
    top: float = 0.5,
    low: float = 0.95,
    craggy: bool = False,
    pines: float = 0,
    lake: float = 1,
    cloud: str = "white",
    sun: tuple[float, float, int, str] | None = None,
) -> Picture:
    """Draw a sky, one ridge for each ground from far (top) to near (low), and a lake below its level."""
    picture = make_sky(size, rng, sky, cloud)
    if sun:
        shine(picture, *sun)
    for nearness, colours in enumerate(grounds):
        level = top + (low - top) * nearness / max(1, len(grounds) - 1)
        raise_hill(picture, rng, level, colours, craggy and nearness == 0)
        if pines and nearness:
            plant_pines(picture, rng, level + 0.05, pines * nearness, colours)
    if lake < 1:
        flood(picture, rng, lake, sky.split()[0])
    return picture


def build_lighthouse(picture: Picture) -> None:
    draw = ImageDraw.Draw(picture)
    for strip in range(60):  # each a little darker than the one before, which makes the tower round
        left, right, shade = strip / 30 - 1, (strip + 1) / 30 - 1, 1 - strip / 120
        for band in range(6):
            colour = (245, 242, 232) if band % 2 else (200, 45, 40)
            top, slim = 700 + band * 250, 110 + band * 14
            corners = [
                (1050 + left * slim, top),
                (1050 + right * slim, top),
                (1050 + right * (slim + 14), top + 250),
                (1050 + left * (slim + 14), top + 250),
            ]
            draw.polygon(corners, fill=tuple(round(part * shade) for part in colour))
    draw.rectangle((910, 680, 1190, 710), fill="#2b2f36")
    draw.rectangle((980, 540, 1120, 680), fill="#f7e9a0", outline="#2b2f36", width=12)
    draw.polygon([(950, 545), (1050, 430), (1150, 545)], fill="#a32a28")


def fly_balloon(picture: Picture) -> None:
    draw = ImageDraw.Draw(picture)
    for gore, colour in enumerate(("#d9412f", "#f6b73c", "#2f6fb0") * 2):
        reach = 480 * math.cos(math.pi * gore / 12)
        draw.ellipse((900 - reach, 300, 900 + reach, 1220), fill=colour)
        skirt = ((-0.82, 1024), (0.82, 1024), (0.14, 1420), (-0.14, 1420))
        draw.polygon([(900 + side * reach, y) for side, y in skirt], fill=colour)
    draw.line([(840, 1420), (850, 1540), (950, 1540), (960, 1420)], fill="#4a3a2a", width=6)
    draw.rectangle((840, 1530, 960, 1630), fill="#7a5230", outline="#4a3018", width=10)


def develop(picture: Picture, size: Size, grain: int = 6) -> Picture:
    """Scale to the final size and add the softness of a lens and the grain of a sensor."""
    picture = ImageOps.fit(picture.filter(ImageFilter.GaussianBlur(0.8)), size)
    noise = Image.frombytes("L", size, Random(0).randbytes(size[0] * size[1]))
    noise = noise.point(lambda v: v * grain // 256)
    return ImageChops.add(picture, Image.merge("RGB", [noise] * 3), 1, -(grain // 2))


def build_wide_profile() -> bytes:
    """Return a minimal ICC v2 display profile with the primaries of Adobe RGB (1998)."""

    def xyz(*values: float) -> bytes:
        return struct.pack(">4s4x3i", b"XYZ ", *(round(value * 65536) for value in values))

    name, gamma = b"Wide gamut sample\0", struct.pack(">4s4xIH", b"curv", 1, round(2.2 * 256))
    tags = {
        b"desc": struct.pack(">4s4xI", b"desc", len(name)) + name + bytes(78),
        b"cprt": b"text" + bytes(4) + b"Public domain\0",
        b"wtpt": xyz(0.9642, 1, 0.8249),
        b"rXYZ": xyz(0.60974, 0.31111, 0.01947),
        b"rTRC": gamma,
        b"gXYZ": xyz(0.20528, 0.62567, 0.06087),
        b"gTRC": gamma,
        b"bXYZ": xyz(0.14919, 0.06322, 0.74457),
        b"bTRC": gamma,
    }
    index, body = struct.pack(">I", len(tags)), b""
    for tag, data in tags.items():
        index += struct.pack(">4s2I", tag, 132 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(
        ">I4xI12s6H4s28x12s48x",
        128 + len(index) + len(body),
        0x02100000,
        b"mntrRGB XYZ ",
        2024,
        1,
        1,
        0,
        0,
        0,
        b"acsp",
        tags[b"wtpt"][8:],
    )
    return header + index + body


def cut_oval(picture: Picture, softness: int) -> Picture:
    """Return the picture with everything outside an oval transparent, colours and all."""
    oval = Image.radial_gradient("L").resize(picture.size)
    oval = oval.point(lambda v: min(255, max(0, 176 - v) * 256 // softness))
    cutting = Image.new("RGBA", picture.size)
    cutting.paste(picture, mask=oval.point(lambda v: 255 * (v > 0)))
    cutting.putalpha(oval)
    return cutting


def deepen(picture: Picture, size: Size) -> Picture:
    """Return a 16-bit grey picture; averaging many pixels into one is what earns the extra bits."""
    grey = picture.convert("L").convert("F").resize(size, Image.Resampling.BOX)
    levels = struct.unpack(f"{size[0] * size[1]}f", grey.tobytes())
    low, high = min(levels), max(levels)
    deep = [round((level - low) / (high - low) * 65535) for level in levels]
    return Image.frombytes("I;16", size, struct.pack(f"<{len(deep)}H", *deep))


def save(path: str, picture: Picture, **options: Any) -> None:
    (INPUT / path).parent.mkdir(parents=True, exist_ok=True)
    picture.save(INPUT / path, **options)


def main() -> None:
    lake = draw_land(
        WIDE,
        Random(1),
        "#2f6fb5 #8fbfe6 #e4eef2",
        "#35466a #f6f8fc",
        "#1d3a33 #6d8f5d",
        top=0.42,
        low=0.57,
        craggy=True,
        pines=0.07,
        lake=0.64,
    )
    save("lake.jpg", develop(lake, WIDE), quality=75)
    sunset = draw_land(
        WIDE,
        Random(2),
        "#3b3f77 #a8587a #f08a4b #ffd27a",
        "#2b1d33 #57304a",
        top=0.63,
        cloud="#6b3d5e",
        sun=(0.6, 0.5, 80, "#fff0c0"),
        lake=0.62,
    )
    save("sunset.jpg", develop(sunset, (2000, 1333)), quality=75, progressive=True)
    forest = draw_land(
        TALL,
        Random(3),
        "#9fb4b8 #eef0e4",
        "#b4c4bf #ccd6cc",
        "#8aa39c #a8bcb0",
        "#5b7d70 #7f9c86",
        "#24493c #4f7a50",
        pines=0.1,
        cloud="#d4dcd4",
    )
    save("forest.jpg", develop(forest, TALL), quality=70)

    poppies = draw_land(WIDE, Random(4), "#3d8ed0 #f3f1e0", "#56788a #9fbcb0", "#2f6a25 #86b544", low=0.6)
    sow_flowers(poppies, Random(4), 0.63, "#d8211c #ee3a24 #b3151a #4f8a30")
    profile = build_wide_profile()
    widen = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), BytesIO(profile), "RGB", "RGB")
    save("poppies.jpg", widen.apply(develop(poppies, (1800, 1200))), quality=75, icc_profile=profile)

    coast = draw_land(TALL, Random(5), "#3a86c8 #8cc4ea #f3efe2", lake=0.68)
    build_lighthouse(coast)
    raise_hill(coast, Random(5), 0.86, "#26341d #8fa656")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # stored lying on its left side, as a phone held upright does
    exif[ExifTags.IFD.GPSInfo] = {
        ExifTags.GPS.GPSLatitudeRef: "N",
        ExifTags.GPS.GPSLatitude: tuple(map(IFDRational, (48, 41, 3))),
        ExifTags.GPS.GPSLongitudeRef: "W",
        ExifTags.GPS.GPSLongitude: tuple(map(IFDRational, (2, 19, 4))),
    }
    sideways = develop(coast, TALL).transpose(Image.Transpose.ROTATE_90)
    save("summer trip/IMG_2041.JPG", sideways, quality=75, exif=exif)
    ascent = draw_land(
        TALL, Random(6), "#4a9fe0 #a9d8f5 #f5f1df", "#3f6a52 #9cc08a", "#2c5429 #9dbb4f", top=0.78, low=0.88
    )
    fly_balloon(ascent)
    save("summer trip/balloon.png", cut_oval(develop(ascent, (450, 600), grain=2), 50))
    bay = draw_land(
        WIDE, Random(7), "#58b0e8 #d6eef8", "#8fa8c0 #b8c8d4", "#4a7a8c #88b0a8", "#2f6a3c #a4cc66", low=0.64, lake=0.66
    )
    save("summer trip/bay.gif", develop(bay, (480, 320), grain=2).quantize(128))

    winter = draw_land(
        WIDE, Random(8), "#5f9ad0 #e6f0f6", "#9fb4cf #e4ecf6", "#8aa2c4 #f4f8fc", "#8fa9c8 #ffffff", pines=0.12
    )
    save("Zürich/winter.webp", develop(winter, (1200, 800)), quality=75)
    night = draw_land(
        WIDE,
        Random(9),
        "#0b1230 #6a7cbe",
        "#1a2246 #26315c",
        "#05080f #121a30",
        low=0.75,
        cloud="#2a3560",
        sun=(0.3, 0.25, 70, "#fff8e0"),
    )
    save("Zürich/moon.jpg", develop(night, (150, 100)), quality=85)

    harvest = draw_land(WIDE, Random(10), "#6f9cc0 #e8dcc0", "#8a8f6a #c4b98a", "#a87a24 #f0cf6a", low=0.6)
    sow_flowers(harvest, Random(10), 0.63, "#e2b54a #c99632 #f3d987 #a8782a")
    save("scans/harvest.jpg", develop(harvest, (1200, 800)).convert("CMYK"), quality=70)
    dunes = draw_land(
        WIDE,
        Random(11),
        "#707070 #ffffff",
        "#a8a8a8 #d0d0d0",
        "#707070 #b0b0b0",
        "#404040 #888888",
        "#000000 #585858",
        sun=(0.7, 0.2, 50, "#ffffff"),
    )
    save("scans/dunes.png", deepen(dunes, (480, 320)))
    badge = draw_land(
        TALL,
        Random(12),
        "#e9d9b0 #f3b58a #e8735a",
        "#3d3f6a #f6e3da",
        "#26463f #6f9a6a",
        low=0.7,
        craggy=True,
        sun=(0.7, 0.25, 150, "#c8342c"),
        lake=0.8,
    )
    save("scans/badge.png", cut_oval(develop(badge, (360, 480), grain=2), 1).quantize())

    files = [path for path in INPUT.rglob("*") if path.is_file()]
    print(f"{len(files)} pictures, {sum(path.stat().st_size for path in files):,} bytes in {INPUT}")


if __name__ == "__main__":
    main()
