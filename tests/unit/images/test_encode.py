"""pipeline/images/encode.py: every save option is heard, refused where it is wrong, and gives the same bytes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, features
from support.pictures import decode, encode, mean, paint, saved, worst
from support.project import Project

from pipeline.errors import ConfigError, FileFailure
from pipeline.images.encode import SAVERS, flatten

FORMATS = [".jpg", ".webp", ".avif", ".png", ".tiff", ".gif"]
ROOT = Path(__file__).parents[3]


def noisy(size: tuple[int, int] = (200, 150)) -> Image.Image:
    """A picture of so much detail that every setting of an encoder shows; the same each time."""
    return Image.frombytes("RGB", size, random.Random(1).randbytes(size[0] * size[1] * 3))


DETAILED = Image.blend(paint(200, 150), noisy(), 0.3)


# -- heard -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp", ".avif"])
def test_quality_is_heard_over_its_whole_range(suffix: str) -> None:
    """More quality, more bytes and more likeness; the ends of the range are settings like any other."""
    made = [saved(DETAILED, suffix, quality=quality) for quality in (1, 30, 60, 90, 100)]
    worst_of_all, *_, best_of_all = [mean(decode(data), DETAILED) for data in made]

    assert [len(data) for data in made] == sorted({len(data) for data in made})
    assert worst_of_all > 1.1 * best_of_all


@pytest.mark.parametrize(
    ("suffix", "one", "other"),
    [
        (".jpg", {"progressive": True}, {}),
        (".jpg", {"optimize": True}, {"optimize": False}),
        (".avif", {"subsampling": "4:2:2"}, {}),
        (".avif", {"subsampling": "4:2:2"}, {"subsampling": "4:4:4"}),
        (".jpg", {"subsampling": "4:2:2"}, {}),
        (".webp", {"lossless": True}, {}),
        *[(".webp", {"method": method}, {"method": method - 1}) for method in (1, 3, 5)],
        *[(".avif", {"speed": speed}, {"speed": speed + 3}) for speed in (4, 6)],
        *[(".png", {"compress_level": level}, {"compress_level": level - 1}) for level in (1,)],
        (".tiff", {"compression": "none"}, {}),
        (".tiff", {"compression": "deflate"}, {}),
        (".tiff", {"compression": "jpeg"}, {}),
        (".tif", {"compression": "none"}, {"compression": "lzw"}),
    ],
)
def test_every_option_changes_the_file(suffix: str, one: dict[str, Any], other: dict[str, Any]) -> None:
    """No option is taken and then forgotten."""
    assert saved(DETAILED, suffix, **one) != saved(DETAILED, suffix, **other)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".webp", {"lossless": True}), (".png", {}), (".png", {"optimize": True}), (".png", {"compress_level": 0}),
        (".tiff", {"compression": "none"}), (".tiff", {"compression": "lzw"}), (".tiff", {"compression": "deflate"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_what_is_lossless_loses_nothing(suffix: str, options: dict[str, Any], mode: str) -> None:
    """What is opaque comes back bit by bit, and transparency with it."""
    image = DETAILED.convert(mode)
    if mode.endswith("A"):
        image.putalpha(Image.linear_gradient("L").resize(image.size).point(lambda value: max(1, value)))
    back = decode(saved(image, suffix, **options))

    assert back.convert(mode).tobytes() == image.tobytes()


@pytest.mark.parametrize(("size", "is_small"), [((500, 500), True), ((501, 500), False), ((10, 25_001), False)])
def test_a_small_jpeg_is_optimized_unless_it_says_otherwise(size: tuple[int, int], is_small: bool) -> None:
    """Up to 0.25 MP the codes are made for the picture, since that costs little; the pixels are the same."""
    image = DETAILED.resize(size)
    by_default, on, off = (
        saved(image, ".jpg"),
        saved(image, ".jpg", optimize=True),
        saved(image, ".jpg", optimize=False),
    )
    assert by_default == (on if is_small else off) and len(on) < len(off)
    assert worst(decode(on), decode(off)) == 0


@pytest.mark.parametrize(("quality", "subsampling"), [(60, "4:2:0"), (89, "4:2:0"), (90, "4:4:4"), (100, "4:4:4")])
@pytest.mark.parametrize("suffix", [".jpg", ".avif"])
def test_colour_is_stored_at_half_size_below_quality_90(suffix: str, quality: int, subsampling: str) -> None:
    """JPEG and AVIF have the same default."""
    named = saved(DETAILED, suffix, quality=quality, subsampling=subsampling)
    assert saved(DETAILED, suffix, quality=quality) == named


@pytest.mark.parametrize("quality", [1, 75, 89, 90, 91, 100])
@pytest.mark.parametrize("asked", [None, "4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("extra", [{}, {"progressive": True}, {"optimize": True}])
def test_subsampling(quality: int, asked: str | None, extra: dict[str, bool]) -> None:
    """4:2:0 below quality 90 and 4:4:4 from there, unless the option says it."""
    expected = asked or ("4:4:4" if quality >= 90 else "4:2:0")
    layer: Any = decode(saved(paint(40, 40), ".jpg", quality=quality, subsampling=asked, **extra)).layer

    assert layer[0][1:3] == {"4:4:4": (1, 1), "4:2:2": (2, 1), "4:2:0": (2, 2)}[expected]


@pytest.mark.parametrize("extra", [{"progressive": True}, {"optimize": True}, {"progressive": True, "optimize": True}])
@pytest.mark.parametrize("quality", [82, 90, 94, 95, 100])
@pytest.mark.parametrize("subsampling", [None, "4:4:4"])
def test_detail_is_no_reason_to_fail(quality: int, subsampling: str | None, extra: dict[str, bool]) -> None:
    """A JPEG of pure noise is large; progressive or optimised it is written all the same."""
    image = noisy((320, 300))
    plain = saved(image, ".jpg", quality=quality, subsampling=subsampling)
    data = saved(image, ".jpg", quality=quality, subsampling=subsampling, **extra)

    assert decode(data).tobytes() == decode(plain).tobytes()


# -- background --------------------------------------------------------------------------------------------------------


def half_clear(mode: str) -> Image.Image:
    """A dark picture, opaque at the left, half transparent in the middle and clear at the right."""
    image = Image.new(mode, (48, 16), (40,) if mode == "LA" else (60, 20, 20))
    alpha = Image.new("L", image.size, 255)
    alpha.paste(128, (16, 0, 32, 16))
    alpha.paste(0, (32, 0, 48, 16))
    image.putalpha(alpha)
    return image


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize(
    ("written", "colour"),
    [
        ("white", (255, 255, 255)),
        ("#00f", (0, 0, 255)),
        ("rgb(10, 200, 30)", (10, 200, 30)),
        ("hsl(0,100%,50%)", (255, 0, 0)),
    ],
)
def test_transparency_is_laid_on_the_colour(suffix: str, mode: str, written: str, colour: tuple[int, int, int]) -> None:
    """In every format, in proportion, and nothing of the alpha is left."""
    image = half_clear(mode)
    exact = {".jpg": {"quality": 100}, ".webp": {"lossless": True}, ".avif": {"quality": 100}}
    back = decode(saved(image, suffix, background=written, **exact.get(suffix, {})))
    left = image.convert("RGB").getpixel((4, 8))
    middle = tuple((a * 128 + b * 127) / 255 for a, b in zip(left, colour, strict=True))

    assert back.convert("RGBA").getextrema()[3] == (255, 255)
    for x, expected in ((4, left), (24, middle), (40, colour)):
        seen = back.convert("RGB").getpixel((x, 8))
        assert max(abs(a - b) for a, b in zip(seen, expected, strict=True)) <= 6


@pytest.mark.parametrize("suffix", sorted(set(FORMATS) - {".jpg"}))
def test_without_a_background_transparency_stays(suffix: str) -> None:
    """Only JPEG has a background of its own, and a TIFF that is packed as one."""
    alpha = decode(saved(half_clear("RGBA"), suffix)).convert("RGBA").getchannel("A")

    assert (alpha.getpixel((4, 8)), alpha.getpixel((40, 8))) == (255, 0)
    assert alpha.getpixel((24, 8)) in ((0, 255) if suffix == ".gif" else (127, 128, 129))
    jpeg = decode(saved(half_clear("RGBA"), ".tiff", compression="jpeg"))
    assert jpeg.mode == "RGB" and min(jpeg.getpixel((40, 8))) > 245


@pytest.mark.parametrize("ground", ["white", "black", "red"])
def test_a_gif_has_no_dark_fringe(ground: str) -> None:
    """Each pixel of a GIF is opaque in its own colour or wholly clear: on no page is an edge darker."""
    image = Image.new("RGBA", (64, 64), (230, 200, 60, 0))
    image.putalpha(ImageChops.invert(Image.radial_gradient("L").resize((64, 64))))
    back = decode(saved(image, ".gif")).convert("RGBA")

    assert set(back.getchannel("A").tobytes()) == {0, 255}
    opaque = Image.new("RGB", (64, 64), (230, 200, 60))
    opaque.paste(back.convert("RGB"), (0, 0), back.getchannel("A"))
    assert worst(opaque, Image.new("RGB", (64, 64), (230, 200, 60))) <= 8
    on_page = decode(saved(image, ".gif", background=ground)).convert("RGB")
    assert mean(on_page, flatten(image, ground)) < 6


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_background_does_not_touch_what_is_opaque(suffix: str, mode: str) -> None:
    """Where there is no transparency the option changes not a byte."""
    assert saved(paint(40, 30, mode), suffix, background="red") == saved(paint(40, 30, mode), suffix)


# -- the same bytes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", sorted(SAVERS))
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_the_same_bytes_twice(suffix: str, mode: str) -> None:
    """Neither what was written before nor the clock shows."""
    image = DETAILED.convert(mode)
    first = saved(image, suffix)
    saved(noisy((30, 30)), suffix)

    assert saved(image.copy(), suffix) == first


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or (os.cpu_count() or 1) < 2, reason="needs two CPUs")
def test_bytes_do_not_depend_on_the_cpus(tmp_path: Path) -> None:
    """The same AVIF, WebP and JPEG from a process that may use one CPU and one that may use all."""
    (tmp_path / "a.png").write_bytes(encode(paint(900, 700), "PNG"))
    program = (
        "import sys, os, io, hashlib\n"
        "if sys.argv[1] == 'one': os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from PIL import Image\n"
        "from pipeline.images.encode import SAVERS\n"
        "image = Image.open(sys.argv[2]); image.load()\n"
        "for suffix in ('.avif', '.webp', '.jpg'):\n"
        "    file = io.BytesIO(); SAVERS[suffix](image, file)\n"
        "    print(hashlib.sha256(file.getvalue()).hexdigest())\n"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", program, which, tmp_path / "a.png"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        ).stdout
        for which in ("one", "all")
    ]  # fmt: skip

    assert said[0] == said[1] and len(said[0].split()) == 3


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "longest"), [(".webp", 16_383), (".jpg", 65_500), (".gif", 65_535), (".avif", 32_768), (".png", 65_500),
                            (".tiff", 65_500)],
)  # fmt: skip
@pytest.mark.parametrize("upright", [True, False])
def test_the_longest_side_of_a_format_is_written(suffix: str, longest: int, upright: bool) -> None:
    """Up to its limit a format writes what can be read back."""
    size = (1, longest) if upright else (longest, 1)

    assert decode(saved(Image.new("RGB", size), suffix)).size == size


@pytest.mark.parametrize(
    ("suffix", "side"),
    [(".webp", 16_384), (".jpg", 65_501), (".jpg", 65_536), (".gif", 65_536), (".avif", 32_769), (".avif", 65_536),
     (".avif", 65_537)],
)  # fmt: skip
@pytest.mark.parametrize("upright", [True, False])
def test_past_it_the_file_fails_by_name(suffix: str, side: int, upright: bool) -> None:
    """Nothing is written that nobody can read, and the failure names the format."""
    name = {".jpg": "JPEG"}.get(suffix, suffix[1:].upper())
    with pytest.raises(FileFailure, match=f"cannot be written as {name}: "):
        saved(Image.new("RGB", (1, side) if upright else (side, 1)), suffix)


@pytest.mark.parametrize("suffix", sorted(SAVERS))
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 1), (2, 2), (17, 9)])
def test_the_smallest_pictures_are_written(suffix: str, mode: str, size: tuple[int, int]) -> None:
    """One pixel is a picture."""
    assert decode(saved(Image.new(mode, size), suffix)).size == size


# -- refused -----------------------------------------------------------------------------------------------------------


def refusal(folder: Path, suffix: str, save: str) -> tuple[str, str]:
    """The first complaint about a pipeline, and the line it is about."""
    line = f"  - {{name: a, uses: resize, with: {{width: 9}}, output: {{path: 'o/{{stem}}{suffix}', save: {save}}}}}"
    with pytest.raises(ConfigError) as refused:
        Project(folder, f"inputs: in\nstages:\n{line}\n").plan()
    return str(refused.value).splitlines()[0], line


WRONG = {
    "quality": (["0", "101", "-1", "82.5", "'82'", "true", "null", "high", "1e9", "[82]"], [".jpg", ".webp", ".avif"]),
    "progressive": (["1", "'true'", "yes", "null"], [".jpg"]),
    "optimize": (["1", "on"], [".jpg", ".png"]),
    "subsampling": (["'4:1:1'", "420", "4:4:4:4", "2"], [".jpg"]),
    "lossless": (["0", "yes"], [".webp"]),
    "method": (["-1", "7", "4.5"], [".webp"]),
    "speed": (["-1", "11", "fast"], [".avif"]),
    "compress_level": (["-1", "10", "'6'"], [".png"]),
    "compression": (["zip", "LZW", "5", "null"], [".tiff", ".tif"]),
    "background": (["blurple", "'#12'", "3", "[1, 2, 3]", "''", "'#gggggg'"], FORMATS),
    "color": (["sRGB", "cmyk", "true", "null", "''"], [".jpg", ".webp", ".avif", ".png", ".tiff"]),
}


@pytest.mark.parametrize(
    ("option", "value", "suffix"),
    [
        (option, value, suffix)
        for option, (values, suffixes) in WRONG.items()
        for value in values
        for suffix in suffixes
    ],
)
def test_a_wrong_value_is_refused_at_its_place(tmp_path: Path, option: str, value: str, suffix: str) -> None:
    """Out of range, of another type or misspelt: an error at the value's own line and column, before anything runs."""
    said, line = refusal(tmp_path, suffix, f"{{{option}: {value}}}")

    assert f"pipeline.yaml:3:{line.rindex(f'{option}: {value}') + len(option) + 3}: " in said
    assert f"option {option!r}" in said


@pytest.mark.parametrize(
    ("suffix", "key"),
    [(suffix, key) for suffix in FORMATS for key in ("qualty", "backgruond", "exif", "icc_profile", "dpi", "save_all")]
    + [(".png", "quality"), (".gif", "quality"), (".gif", "color"), (".gif", "metadata"), (".tiff", "quality"),
       (".webp", "progressive"), (".avif", "method"), (".jpg", "lossless"), (".jpg", "kept"), (".png", "image")],
)  # fmt: skip
def test_an_option_that_the_format_has_not_is_refused(tmp_path: Path, suffix: str, key: str) -> None:
    """Pillow would ignore it; here it is an error at the key, that says what there is."""
    said, line = refusal(tmp_path, suffix, f"{{{key}: 1}}")

    assert f"pipeline.yaml:3:{line.rindex(key) + 1}: " in said and f"no option {key!r}" in said


@pytest.mark.parametrize("suffix", [".jp2", ".bmp", ".heic", ".pdf", ".eps", ".txt", ""])
def test_a_suffix_that_is_no_format_is_refused(tmp_path: Path, suffix: str) -> None:
    """What no picture is written as is known before anything runs."""
    said, _ = refusal(tmp_path, suffix, "{}")

    assert "pipeline.yaml:3:" in said and "no picture can be written" in said


# -- the source's own format -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", ["out/{name}", "out/", "out/{dir}/{stem}{suffix}"])
def test_an_output_in_the_sources_own_format(tmp_path: Path, template: str) -> None:
    """Each file in the format its own name says, with that format's defaults and nothing of its metadata."""
    stage = f"{{name: a, uses: resize, with: {{width: 20}}, output: '{template}'}}"
    project = Project(tmp_path, f"inputs: in\nstages:\n  - {stage}\nengine: serial\n")
    names = {"a.jpg": "JPEG", "b.JPEG": "JPEG", "c.png": "PNG", "d.webp": "WEBP", "e.avif": "AVIF", "f.TIF": "TIFF",
             "g.tiff": "TIFF", "h.gif": "GIF"}  # fmt: skip
    for name, kind in names.items():
        project.write(f"in/{name}", encode(paint(40, 30), kind))
    project.write("in/i.bmp", encode(paint(40, 30), "BMP"))
    project.write("in/j", encode(paint(40, 30), "PNG"))
    project.write("in/k.png", encode(paint(40, 30), "JPEG"))
    summary = project.run()
    outputs = project.outputs()

    assert {name: decode(data).format for name, data in outputs.items()} == names | {"k.png": "PNG"}
    assert {decode(data).size for data in outputs.values()} == {(20, 15)}
    assert {str(origin): result.text for origin, result in summary.failures} == {
        "i.bmp": "no picture can be written with the suffix '.bmp'",
        "j": "no picture can be written with the suffix ''",
    }


@pytest.mark.parametrize("template", ["out/{name}", "out/"])
def test_the_own_format_has_no_options(tmp_path: Path, template: str) -> None:
    """Which options there are depends on the file: to give one is an error at its place."""
    line = f"  - {{name: a, uses: resize, with: {{width: 9}}, output: {{path: '{template}', save: {{quality: 9}}}}}}"
    with pytest.raises(ConfigError) as refused:
        Project(tmp_path, f"inputs: in\nstages:\n{line}\n").plan()

    assert "has no save options, since its format differs from file to file" in str(refused.value)


def test_what_these_tests_need_is_there() -> None:
    """All six formats are read and written by the Pillow at hand; one without a codec would pass by failing."""
    assert all(features.check(each) for each in ("jpg", "zlib", "webp", "avif", "libtiff"))
