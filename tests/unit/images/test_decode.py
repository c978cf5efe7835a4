"""Every trap of a picture, as a real file made here: what comes out of `load` and what is written by the savers."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, ImageFilter
from support.lanczos import backend, exact_lanczos, psnr_db
from support.pictures import (
    LINEAR_GREY,
    STORED,
    SWAPPED,
    bomb_bmp,
    bomb_jpeg,
    bomb_png,
    cmyk_profile,
    decode,
    encode,
    mean,
    paint,
    png_chunk,
    saved,
    worst,
)

from pipeline.errors import FileFailure, Unreadable
from pipeline.images.decode import OpenedPicture, as_plain, open_picture
from pipeline.images.encode import SAVERS, flatten
from pipeline.images.resample import resample
from pipeline.notes import collected
from pipeline.types import FitBox
from stages.resize import Resize

__all__ = ["backend"]
PLAIN = ("L", "LA", "RGB", "RGBA")
FORMATS = sorted(set(SAVERS) - {".jpeg", ".tif"})
BLACK, WHITE = 0, 255


def png(width: int, height: int, depth: int, colour: int, rows: list[bytes], *, trns: bytes = b"") -> bytes:
    """A PNG written by hand, for the kinds that Pillow does not write."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    clear = png_chunk(b"tRNS", trns) if trns else b""
    return b"\x89PNG\r\n\x1a\n" + header + clear + pixels + png_chunk(b"IEND", b"")


def turned(orientation: int) -> Image.Exif:
    """An EXIF that says nothing but this."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


# -- the right way up --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(("name", "options"), [
    ("JPEG", {"quality": 95, "subsampling": 0}), ("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("AVIF", {}),
])  # fmt: skip
def test_every_orientation_comes_out_upright(orientation: int, name: str, options: dict[str, Any]) -> None:
    """Whichever way a picture is stored, its size, its pixels, a small version and a region of it are upright."""
    upright = paint(166, 96)
    turn = STORED[orientation]
    exif = turned(orientation)
    data = encode(upright.transpose(turn) if turn is not None else upright, name, exif=exif, **options)
    box = (40.0, 10.0, 140.0, 70.0)

    assert open_picture(data).size == upright.size
    assert mean(open_picture(data).load(), upright) < 3
    assert mean(open_picture(data).load((83, 48)), upright.resize((83, 48))) < 3
    assert mean(open_picture(data).load((50, 30), box=box), upright.resize((50, 30), box=box)) < 3
    assert mean(open_picture(data).load(box=box), upright.crop((40, 10, 140, 70))) < 3


@pytest.mark.parametrize("fit", ["inside", "outside", "cover", "contain", "fill"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_fit_of_a_turned_picture_is_that_of_the_upright_one(orientation: int, fit: Any) -> None:
    """Resize is asked in upright pixels: the same stage makes the same picture from all eight ways to store it."""
    upright = paint(640, 400)
    turn = STORED[orientation]
    exif = turned(orientation)
    stored = upright.transpose(turn) if turn is not None else upright
    resize = Resize(width=96, height=80, fit=fit)

    made = resize(open_picture(encode(stored, "JPEG", exif=exif, quality=95)))

    assert mean(made, resize(OpenedPicture(upright, upright=True))) < 3


def test_orientation_after_the_pixels_of_a_png_counts() -> None:
    """PNG may carry its EXIF behind the pixels."""
    data = png(2, 1, 8, 2, [bytes([1, 2, 3, 4, 5, 6])])
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"

    assert open_picture(data[:-12] + png_chunk(b"eXIf", exif) + data[-12:]).size == (1, 2)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\x05"])
def test_broken_exif_is_no_reason_to_refuse_a_picture(name: str, exif: bytes) -> None:
    """A picture whose EXIF cannot be read is taken as upright, and nothing is said on stderr."""
    data = encode(paint(32, 24), name, exif=exif)

    with warnings.catch_warnings(record=True) as said:
        assert open_picture(data).load().size == (32, 24)
    assert not said


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(value: int) -> None:
    """Orientations other than 1 to 8 are what cameras write by mistake."""
    exif = turned(value)

    assert open_picture(encode(paint(32, 24), "JPEG", exif=exif)).size == (32, 24)


# -- colours -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_an_icc_profile_is_converted_to_srgb(name: str) -> None:
    """A red by a profile whose red is blue comes out blue, in full and small, with no profile left."""
    data = encode(Image.new("RGB", (64, 48), (250, 10, 10)), name, icc_profile=SWAPPED)

    for image in (open_picture(data).load(), open_picture(data).load((16, 12))):
        red, _, blue = image.getpixel((5, 5))
        assert blue > 240 and red < 40
        assert image.info == {}


def test_icc_conversion_keeps_the_alpha() -> None:
    """Only the colours of a picture with transparency are converted."""
    image = Image.new("RGBA", (8, 8), (250, 10, 10, 77))
    red, _, blue, alpha = open_picture(encode(image, "PNG", icc_profile=SWAPPED)).load().getpixel((0, 0))

    assert blue > 240 and red < 40 and alpha == 77


def test_an_srgb_profile_changes_nothing() -> None:
    """The commonest profile of all costs nothing, neither time nor a bit."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = paint(40, 30)

    assert open_picture(encode(image, "PNG", icc_profile=srgb)).load().tobytes() == image.tobytes()


@pytest.mark.parametrize("profile", [b"nonsense", SWAPPED[:150], b"\0" * 400, cmyk_profile(), LINEAR_GREY])
def test_a_broken_profile_or_one_of_other_channels_reads_as_srgb(profile: bytes) -> None:
    """A profile that does not fit the pixels is no reason to refuse the picture."""
    image = paint(40, 30)

    assert open_picture(encode(image, "PNG", icc_profile=profile)).load().tobytes() == image.tobytes()


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_grey_profile_keeps_greys_grey(mode: str) -> None:
    """A linear grey of 55 is 128 in sRGB; the mode stays."""
    data = encode(Image.new("L", (8, 8), 55).convert(mode), "PNG", icc_profile=LINEAR_GREY)
    image = open_picture(data).load()

    assert image.mode == mode
    assert 124 <= image.getchannel(0).getpixel((0, 0)) <= 132


@pytest.mark.parametrize("name", ["JPEG", "TIFF"])
def test_cmyk_without_a_profile(name: str) -> None:
    """Plain CMYK is turned into RGB, the right way round: ink is dark, though Adobe's JPEG stores it inverted."""
    image = Image.new("CMYK", (64, 64), (0, 0, 0, 0))
    image.paste((0, 255, 255, 0), (0, 0, 32, 64))
    made = open_picture(encode(image, name)).load((32, 32))

    assert made.mode == "RGB"
    left, right = made.getpixel((4, 16)), made.getpixel((28, 16))
    assert left[0] > 230 and max(left[1:]) < 30
    assert min(right) > 240


@pytest.mark.parametrize("name", ["JPEG", "TIFF"])
def test_cmyk_goes_through_its_profile(name: str) -> None:
    """The profile decides what an ink looks like, not a formula: this one prints in reverse."""
    image = Image.new("CMYK", (32, 32), (255, 255, 255, 255))
    made = open_picture(encode(image, name, icc_profile=cmyk_profile())).load()

    assert made.mode == "RGB"
    assert min(made.getpixel((5, 5))) > 240


def test_ycck_as_adobe_writes_it() -> None:
    """A CMYK JPEG stored as YCCK, which Adobe's marker says, has the colours of its CMYK."""
    ycck = bytearray(encode(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG", quality=100))
    marker = ycck.index(b"Adobe") + 11
    assert ycck[marker] == 0  # CMYK as it is; all 255, since Adobe stores no ink as 255
    ycck[marker] = 2  # the same numbers read as YCCK: Y = Cb = Cr = K = 255
    red, green, blue = open_picture(bytes(ycck)).load().getpixel((8, 8))

    # By JFIF 1.02 the first three are R = 255, G = 255 - 0.344 * 127 - 0.714 * 127 = 121, B = 255. These stand for
    # inverted inks C = 255 - R and so on, so there is full cyan, 121 of magenta, full yellow and no black.
    assert red == blue == 0 and abs(green - (255 - 121)) <= 2


def test_lab_becomes_rgb() -> None:
    """TIFF may hold CIE Lab; a neutral light grey of it is one."""
    image = Image.new("LAB", (8, 8), (200, 128, 128))
    red, green, blue = open_picture(encode(image, "TIFF")).load().getpixel((0, 0))

    assert max(red, green, blue) - min(red, green, blue) <= 3 and 180 < green < 210


# -- greys of more than eight bits -------------------------------------------------------------------------------------


def ramp16(order: str) -> bytes:
    return struct.pack(f"{order}65536H", *range(65536))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda: encode(Image.frombytes("I;16", (256, 256), ramp16("<")), "PNG"), id="PNG"),
        pytest.param(lambda: encode(Image.frombytes("I;16", (256, 256), ramp16("<")), "TIFF"), id="TIFF"),
        pytest.param(lambda: encode(Image.frombytes("I;16B", (256, 256), ramp16(">")), "TIFF"), id="TIFF-big-endian"),
        pytest.param(lambda: b"P5 256 256 65535\n" + ramp16(">"), id="PGM"),
    ],
)
def test_sixteen_bit_greys_are_scaled_not_clipped(data: Any) -> None:
    """Every one of the 65536 values becomes the nearest of 256: value / 257."""
    image = open_picture(data()).load()

    assert image.mode == "L"
    assert image.tobytes() == bytes(round(value / 257) for value in range(65536))


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.25, 1.0], [0, 64, 255]),
        ([0.5, 0.75, 1.001], [128, 191, 255]),
        ([-5.0, 0.5, 1_000_000.0], [0, 128, 255]),
        ([NAN, 0.25, 1.0], [0, 64, 255]),
        ([-INFINITE, 0.25, INFINITE], [0, 64, 255]),
    ],
)
def test_floats_are_scaled_from_nought_to_one_whatever_is_in_them(values: list[float], expected: list[int]) -> None:
    """The range is not that of the pixels, so that all files of a series look alike; that it is a guess is noted."""
    with collected() as notes:
        image = open_picture(b"Pf 3 1 -1.0\n" + struct.pack("<3f", *values)).load()

    assert image.mode == "L" and list(image.tobytes()) == expected
    assert list(notes) == ["its range of values is not stated, 0 was taken for black and 1 for white"]


def test_deep_pictures_of_a_stage_have_the_ranges_of_pillow() -> None:
    """What a stage converts to floats with Pillow goes from 0 to 255, and its integers are those of 16 bits."""
    floats = Image.frombytes("L", (3, 1), bytes([0, 64, 255])).convert("F")
    integers = Image.frombytes("I", (4, 1), struct.pack("=4i", -1, 257 * 64, 65535, 2**31 - 1))

    assert list(as_plain(floats).tobytes()) == [0, 64, 255]
    assert list(as_plain(integers).tobytes()) == [0, 64, 255, 255]


# -- palettes and transparency -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["P", "1"])
@pytest.mark.parametrize("name", ["PNG", "GIF", "TIFF", "BMP"])
def test_palettes_and_bitmaps_are_resampled_smoothly(mode: str, name: str) -> None:
    """A chessboard of single pixels becomes grey, where Pillow would pick the nearest: black or white."""
    board = Image.new("L", (2, 2), BLACK)
    board.putpixel((0, 0), WHITE)
    board.putpixel((1, 1), WHITE)
    chess = Image.new("L", (64, 64))
    for x in range(0, 64, 2):
        for y in range(0, 64, 2):
            chess.paste(board, (x, y))
    small = open_picture(encode(chess.convert(mode), name)).load((16, 16)).convert("L")

    assert all(100 < value < 156 for value in small.tobytes())


def palette_with_transparency() -> bytes:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(1, (0, 0, 2, 4))
    return encode(image, "PNG", transparency=bytes([0, 128]))


@pytest.mark.parametrize(
    ("data", "mode", "expected"),
    [
        pytest.param(palette_with_transparency, "RGBA", [(0, 255, 0, 128), (255, 0, 0, 0)], id="P, alpha per colour"),
        pytest.param(
            lambda: encode(Image.frombytes("P", (4, 1), bytes([1, 1, 0, 0])), "GIF", transparency=1),
            "RGBA", [0, 255], id="P, one colour",
        ),
        pytest.param(lambda: png(4, 1, 8, 0, [bytes([7, 7, 9, 9])], trns=b"\0\7"), "LA", [(7, 0), (9, 255)], id="L"),
        pytest.param(lambda: png(4, 1, 1, 0, [b"\x30"], trns=b"\0\1"), "LA", [(0, 255), (255, 0)], id="1"),
        pytest.param(
            lambda: png(4, 1, 16, 0, [struct.pack(">4H", 1000, 1000, 1001, 1001)], trns=b"\x03\xe8"),
            "LA", [(4, 0), (4, 255)], id="I;16",
        ),
        pytest.param(
            lambda: png(4, 1, 8, 2, [bytes([1, 2, 3] * 2 + [1, 2, 4] * 2)], trns=struct.pack(">3H", 1, 2, 3)),
            "RGBA", [(1, 2, 3, 0), (1, 2, 4, 255)], id="RGB",
        ),
        pytest.param(
            lambda: png(4, 1, 8, 4, [bytes([9, 0, 9, 0, 9, 5, 9, 5])]), "LA", [(9, 0), (9, 5)], id="LA",
        ),
    ],
)  # fmt: skip
def test_transparency_survives(data: Any, mode: str, expected: list[Any]) -> None:
    """However a file says which pixels are transparent, the alpha of its left and its right half says so too."""
    image = open_picture(data()).load()

    assert image.mode == mode
    found = [image.getpixel((0, 0)), image.getpixel((3, 0))]
    assert found == expected or [each[3] for each in found] == expected


def test_a_palette_with_alpha_made_by_a_stage_is_plain() -> None:
    """Mode PA, which no file has but a stage can make, becomes RGBA."""
    image = as_plain(paint(8, 8, "RGBA").convert("PA"))

    assert image.mode == "RGBA" and image.size == (8, 8)


def test_no_colour_bleeds_out_of_transparent_pixels() -> None:
    """The green halo: what hides behind transparent pixels must not tint the edge of what is seen."""
    image = Image.new("RGBA", (64, 64), (0, 255, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 31, 64))
    small = open_picture(encode(image, "PNG")).load((16, 16))

    for x in range(16):
        red, green, _, alpha = small.getpixel((x, 8))
        assert alpha == 0 or (green <= 2 and red >= 253)


def test_an_opaque_picture_stays_without_alpha() -> None:
    """No channel is added that the file does not have."""
    assert open_picture(encode(paint(8, 8, "P"), "PNG")).load().mode == "RGB"
    assert open_picture(encode(paint(8, 8, "L"), "PNG")).load().mode == "L"


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(name: str) -> None:
    """Of an animation the first frame is taken, and how many there are can be asked before and after."""
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    picture = open_picture(encode(frames[0], name, save_all=True, append_images=frames[1:], duration=50))

    assert picture.frames == 3
    image = picture.load()
    assert picture.frames == 3
    red, green, blue = image.convert("RGB").getpixel((5, 5))
    assert red > 240 and green < 15 and blue < 15


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (bomb_png(60000, 60000), "too large: 60000x60000, limit 100 MP; inputs.max_pixels raises it"),
        (bomb_png(10001, 10000), "too large: 10001x10000, limit 100 MP; inputs.max_pixels raises it"),
        (bomb_png(1, 84_000_000), "too large: 1x84000000, limit 65500 pixels a side; inputs.max_side raises it"),
        (bomb_png(84_000_000, 1), "too large: 84000000x1, limit 65500 pixels a side; inputs.max_side raises it"),
        (bomb_jpeg(65_000, 60_000), "too large: 65000x60000, limit 100 MP; inputs.max_pixels raises it"),
        (bomb_jpeg(65_535, 1), "too large: 65535x1, limit 65500 pixels a side; inputs.max_side raises it"),
        (bomb_bmp(1, 84_000_000), "too large: 1x84000000, limit 65500 pixels a side; inputs.max_side raises it"),
        (b"P5 20000 20000 255\n", "too large: 20000x20000, limit 100 MP; inputs.max_pixels raises it"),
        (b"P6 1 65501 255\n", "too large: 1x65501, limit 65500 pixels a side; inputs.max_side raises it"),
    ],
)
def test_a_bomb_is_refused_from_its_header(data: bytes, says: str) -> None:
    """Too many pixels, or too long a side, is said from the header; there is not even anything to decode here."""
    with pytest.raises(Unreadable) as refused:
        open_picture(data)
    assert str(refused.value) == says


def test_what_is_within_the_limits_is_opened() -> None:
    """The limits themselves are allowed, and Pillow's own warning at 89 MP is not heard."""
    assert open_picture(b"P5 10000 10000 255\n").size == (10000, 10000)
    assert open_picture(b"P5 1 65500 255\n").size == (1, 65500)


def test_a_bomb_inside_an_icon_is_refused_too() -> None:
    """An ICO says one size in its own header and another in the PNG it holds."""
    bomb = bomb_png(60000, 60000)
    icon = struct.pack("<3H", 0, 1, 1) + struct.pack("<4B2H2I", 16, 16, 0, 0, 1, 32, len(bomb), 22) + bomb

    with pytest.raises(Unreadable):
        open_picture(icon).load()


def test_nobody_may_ask_for_a_bomb(tmp_path: Path) -> None:
    """To enlarge past the limits is refused before the memory is taken."""
    with pytest.raises(FileFailure, match="too large: 60000x60000"):
        open_picture(encode(paint(8, 8), "PNG")).load((60000, 60000))


@pytest.mark.parametrize(("name", "options"), [
    ("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True}),
    ("AVIF", {}), ("GIF", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "jpeg"}),
    ("BMP", {}), ("JPEG2000", {}), ("PPM", {}), ("TGA", {"compression": "tga_rle"}), ("ICO", {}), ("PCX", {}),
    ("QOI", {}), ("SGI", {}),
])  # fmt: skip
@pytest.mark.parametrize("size", [None, (20, 15)])
def test_a_truncated_picture_is_never_half_a_picture(name: str, options: dict[str, Any], size: Any) -> None:
    """Cut anywhere, a file is refused as truncated, damaged or no picture; or only what follows its pixels is gone."""
    noise = Image.effect_noise((60, 45), 60).convert("RGB")
    data = encode(Image.blend(paint(60, 45), noise, 0.3), name, **options)
    whole = open_picture(data).load(size).tobytes()
    for length in [*range(1, len(data), max(1, len(data) // 60)), *range(len(data) - 9, len(data))]:
        try:
            made = open_picture(data[:length]).load(size).tobytes()
        except Unreadable as refused:
            assert str(refused).startswith(("truncated picture", "not a picture", "damaged picture"))
        else:
            assert made == whole, f"half a picture from {length} of {len(data)} bytes"


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_every_truncation_of_a_jpeg_and_a_png_is_called_so(name: str) -> None:
    """A JPEG or PNG cut after its header is said to be truncated, and loading it again does not help."""
    data = encode(Image.blend(paint(60, 45), Image.effect_noise((60, 45), 60).convert("RGB"), 0.3), name)
    pixels_begin = data.index(b"\xff\xda" if name == "JPEG" else b"IDAT") + 16
    # Up to the last of the pixels: a PNG's checksum and end, which may be missing, take some 24 bytes after them.
    for length in range(pixels_begin, len(data) - 30, 11):
        with pytest.raises(Unreadable, match=r"^truncated picture"):
            open_picture(data[:length]).load()
    picture = OpenedPicture(Image.open(io.BytesIO(encode(paint(60, 45), "JPEG")[:-40])))
    for _ in range(2):
        with pytest.raises(Unreadable, match=r"^truncated picture"):
            picture.load((30, 22))


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"\xff\xfe", b"hello, I am a text\n" * 50, b"BM, I begin", b"<html><body>Error 502</body></html>"],
)
def test_what_is_no_picture_is_said_to_be_none(data: bytes, tmp_path: Path) -> None:
    """An empty file and a file that is no picture have each their own reason, from bytes and from a path."""
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    for file in (data, path):
        with pytest.raises(Unreadable, match="not a picture" if data else "empty file"):
            open_picture(file)


def test_the_content_decides_not_the_suffix(tmp_path: Path) -> None:
    """A PNG called .jpg is opened as the PNG it is."""
    path = tmp_path / "liar.jpg"
    path.write_bytes(encode(paint(8, 8), "PNG"))

    picture = open_picture(path)
    assert picture.format == "PNG"
    picture.close()


@pytest.mark.parametrize("data", [
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
    b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\n",
    b"\xd7\xcd\xc6\x9a\0\0\0\0\0\0\x10\0\x10\0\x60\0" + bytes(60),
    b"\1\0\0\0" + bytes(36) + b" EMF" + bytes(60),
])  # fmt: skip
def test_no_foreign_program_is_ever_started(data: bytes, tmp_path: Path) -> None:
    """EPS, PDF, WMF and EMF are not read, even with a Ghostscript at hand."""
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    ghostscript.chmod(0o755)
    (tmp_path / "x.eps").write_bytes(data)
    code = (
        f"from pathlib import Path; from pipeline.images.decode import *; open_picture(Path('{tmp_path}/x.eps')).load()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env={"PATH": str(tmp_path)}, capture_output=True, text=True, cwd=Path.cwd()
    )

    assert "Unreadable: unsupported: " in ended.stderr
    assert not (tmp_path / "started").exists()


def test_pillows_own_limits_are_left_as_they_were() -> None:
    """A stage that opens pictures itself keeps the protection that Pillow gives it."""
    before = Image.MAX_IMAGE_PIXELS
    for data in (encode(paint(8, 8), "PNG"), b"no picture"):
        try:
            open_picture(data)
        except Unreadable:
            pass
    assert before == Image.MAX_IMAGE_PIXELS is not None


# -- the decoder's own scaling -----------------------------------------------------------------------------------------


def decoded_size(data: bytes, size: tuple[int, int], **how: Any) -> tuple[int, int]:
    """What a decoder delivered for a picture of this size."""
    image = Image.open(io.BytesIO(data))
    OpenedPicture(image).load(size, **how)
    return image.size


# By what a JPEG's decoder reduces at a scale: sharp's thresholds, and from 1.5 times the size on with the extra `fast`.
REDUCTIONS = {
    "Pillow": {1: 1, 1.99: 1, 2: 1, 2.99: 1, 3: 2, 4: 2, 4.99: 2, 5: 4, 8: 4, 8.99: 4, 9: 8, 16: 8, 40: 8},
    "cykooz-resizer": {1: 1, 2: 1, 2.99: 1, 3: 2, 4: 2, 5: 2, 5.99: 2, 6: 4, 8: 4, 11.99: 4, 12: 8, 16: 8, 40: 8},
}


def test_a_jpeg_is_decoded_no_larger_than_is_worth_it(backend: str) -> None:
    """The decoder averages fewer pixels than the scale, and never as many, which would be all there is of a filter."""
    for scale, reduction in REDUCTIONS[backend].items():
        size = (round(200 * scale), round(120 * scale))
        data = encode(Image.new("RGB", size, "red"), "JPEG")

        assert decoded_size(data, (200, 120)) == (-(-size[0] // reduction), -(-size[1] // reduction)), scale


@pytest.mark.parametrize(
    ("stored", "wanted", "decoded"),
    [
        ((5120, 2880), (800, 450), (1280, 720)),
        ((960, 641), (80, 53), (120, 81)),  # 53.4, rounded down
        ((960, 642), (80, 54), (120, 81)),  # 53.5, rounded up by us, and 80.25 by the decoder
        ((960, 640), (81, 54), (240, 160)),
        ((960, 640), (1280, 960), (960, 640)),
    ],
)
def test_a_rounded_side_does_not_decide(
    stored: tuple[int, int], wanted: tuple[int, int], decoded: tuple[int, int]
) -> None:
    """Half a pixel more or less on the side that follows from the other makes no decoder work harder."""
    assert decoded_size(encode(Image.new("RGB", stored, "red"), "JPEG"), wanted) == decoded


def test_the_gap_says_how_much_more_is_decoded(backend: str) -> None:
    """`gap` times the size is what the decoder must deliver at least; a region asks for the whole in proportion."""
    data = encode(Image.new("RGB", (2400, 1800), "red"), "JPEG")

    assert decoded_size(data, (200, 150)) == (300, 225)
    assert decoded_size(data, (200, 150), gap=1.5) == (300, 225)
    assert decoded_size(data, (200, 150), gap=2.0) == (600, 450)
    assert decoded_size(data, (200, 150), gap=4.0) == (1200, 900)
    assert decoded_size(data, (200, 150), box=(600, 450, 1800, 1350)) == (600, 450)


def fitted(data: bytes, stage: Resize, least: FitBox | None) -> Image.Image:
    """What a stage makes of a picture of which the pipeline's largest stage makes this much."""
    picture = open_picture(data)
    picture.decode_for(least, own_colors=False)
    made = stage(picture)
    picture.close()
    return made


@pytest.mark.parametrize("box", [FitBox(1600, 1600), FitBox(1600, None), FitBox(400, 400, "cover")])
def test_smaller_pictures_are_made_from_the_largest_of_the_pipeline(
    backend: str, box: FitBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of its size and less; what is nearer to it, or has another shape or filter, is made from the decoded one."""
    sources = set()

    def watched(image: Image.Image, *how: Any) -> Image.Image:
        sources.add(image.size)
        return resample(image, *how)

    monkeypatch.setattr("pipeline.images.decode.resample", watched)
    data, largest = encode(paint(3000, 2000), "JPEG"), tuple(map(round, box.whole((3000, 2000))))
    half = largest[0] // 2
    for how, is_shared in [
        ({"width": half, "height": half}, True),
        ({"width": half, "height": half, "gap": 3.0}, False),
        ({"width": half, "height": half, "filter": "bicubic"}, False),
        ({"width": half + 2}, False),
        ({"width": 60, "height": 20, "fit": "cover"}, True),
        ({"width": 60, "height": 40, "fit": "fill"}, True),
        ({"width": 60, "height": largest[1], "fit": "fill"}, False),
        ({"width": 50, "frames": "all"}, True),
    ]:
        sources.clear()
        fitted(data, Resize(**how), box)
        assert (largest in sources) == is_shared, (how, sources)


def test_what_runs_beside_it_changes_no_pixel(backend: str) -> None:
    """A stage that runs alone tonight makes what it made with the others, whichever of them came first."""
    data, largest = encode(paint(1203, 801), "JPEG", exif=turned(6)), FitBox(600, 600)
    stages = [
        Resize(width=600, height=600),
        Resize(width=300, height=300),
        Resize(width=50, height=40, fit="cover"),
        Resize(width=500, height=500),
    ]
    alone = [fitted(data, stage, largest).tobytes() for stage in stages]
    picture = open_picture(data)
    picture.decode_for(largest, own_colors=False)

    assert [stage(picture).tobytes() for stage in stages] == alone
    assert [stage(picture).tobytes() for stage in reversed(stages)] == alone[::-1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(
    st.tuples(st.integers(9, 900), st.integers(9, 900)), st.integers(9, 400), st.integers(16, 200),
    st.sampled_from(["inside", "outside", "cover", "fill"]), st.integers(1, 8),
)  # fmt: skip
def test_what_is_made_from_the_largest_is_neither_shifted_nor_stretched(
    backend: str, size: tuple[int, int], large: int, small: int, fit: Any, orientation: int
) -> None:
    """Whatever the sides and the orientation: as near to Lanczos of the whole picture as rounding twice explains."""
    data = encode(paint(*size).filter(ImageFilter.GaussianBlur(4)), "PNG", exif=turned(orientation))
    stage = Resize(width=small, height=small, fit=fit)

    made, direct = fitted(data, stage, FitBox(large, large)), fitted(data, stage, None)
    assert made.size == direct.size
    assert mean(made, direct) < 3


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_what_is_made_from_the_largest_is_as_good(backend: str, name: str) -> None:
    """At least 50 dB to Lanczos of the whole picture, where sharp has 47 to 52."""
    photo = paint(2400, 1600).filter(ImageFilter.GaussianBlur(1))
    data = encode(photo, name, **({"quality": 95} if name == "JPEG" else {}))
    whole = decode(data)
    for side in (400, 200, 90):
        made = fitted(data, Resize(width=side, height=side), FitBox(800, 800))
        assert psnr_db(made, exact_lanczos(whole, made.size, (0, 0, *whole.size))) > 50


@pytest.mark.parametrize("stored", [(640, 480), (641, 481), (647, 479), (1023, 769)])
@pytest.mark.parametrize("box", [None, (0.0, 0.0, 320.0, 240.0), (101.5, 33.25, 501.5, 333.25), (301, 201, 637, 453)])
@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_what_the_decoder_reduced_is_neither_shifted_nor_stretched(
    stored: tuple[int, int], box: Any, reduction: int
) -> None:
    """Odd sizes and fractional regions decoded small are where a full decode puts them, to the last row and column."""
    smooth = paint(*stored).filter(ImageFilter.GaussianBlur(6))
    data = encode(smooth, "JPEG", quality=98, subsampling=0)
    left, top, right, bottom = box or (0, 0, *stored)
    size = (max(1, int((right - left) / reduction)), max(1, int((bottom - top) / reduction)))
    wanted = decode(data).resize(size, Image.Resampling.LANCZOS, box)

    made = open_picture(data).load(size, box=box)

    assert mean(made, wanted) < 1.5
    assert worst(made, wanted) < 16


def test_a_picture_can_be_loaded_again_in_any_order() -> None:
    """A stage may load twice, small and then large or the other way round, and gets what a fresh one would give."""
    data = encode(paint(640, 480), "JPEG")
    asks: list[tuple[Any, Any]] = [((80, 60), None), (None, None), ((160, 120), (0, 0, 320, 240)), ((80, 60), None)]
    fresh = [open_picture(data).load(size, box=box) for size, box in asks]
    picture = open_picture(data)

    # A decoder that has given all its pixels is not asked for fewer, which shows in the last bits.
    for (size, box), each in zip(asks, fresh, strict=True):
        assert mean(picture.load(size, box=box), each) < 1
    assert picture.size == (640, 480)


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_what_was_loaded_can_be_changed_without_changing_what_is_loaded_next(name: str) -> None:
    """Every load gives an image of its own."""
    picture = open_picture(encode(paint(64, 48), name))
    first = picture.load()
    before = first.tobytes()
    first.paste("black", (0, 0, 64, 48))

    assert picture.load().tobytes() == before
    assert picture.load((64, 48)).tobytes() == before


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1", "CMYK", "I;16", "I", "F", "LAB", "YCbCr", "HSV"])
def test_every_mode_loads_plain_and_bare(mode: str) -> None:
    """Whatever the mode, what a stage sees is L, LA, RGB or RGBA with nothing beside the pixels."""
    image = Image.new(mode, (12, 9)) if mode in ("I;16", "I", "F", "LAB") else paint(12, 9, "RGB").convert(mode)
    picture = OpenedPicture(image, upright=True)
    for each in (picture.load(), picture.load((6, 5)), as_plain(image)):
        assert each.mode in PLAIN
        assert each.info == {}


def test_what_cannot_be_asked_of_a_picture_is_an_error_of_the_stage() -> None:
    """A region outside, no pixels, a gap below 1 are the stage's mistakes, and not taken for damage of the file."""
    picture = open_picture(encode(paint(40, 30), "PNG"))
    asks: list[dict[str, Any]] = [
        {"box": (0, 0, 41, 30)}, {"box": (-1, 0, 10, 10)}, {"box": (10, 0, 10, 10)}, {"size": (0, 5)}, {"gap": 0.5},
    ]  # fmt: skip
    for ask in asks:
        with pytest.raises(ValueError):
            picture.load(**({"size": (5, 5)} | ask))


def test_closing_what_a_stage_made_leaves_it_whole() -> None:
    """A Picture over a stage's image does not own it: its sibling still wants it."""
    image = paint(12, 9)
    picture = OpenedPicture(image, upright=True)
    picture.load((6, 5))
    picture.close()

    assert image.getpixel((0, 0)) is not None


def test_a_file_that_is_gone_is_no_damaged_picture(tmp_path: Path) -> None:
    """The system's own errors keep their kind, so that nobody blames the picture."""
    with pytest.raises(FileNotFoundError):
        open_picture(tmp_path / "gone.jpg")


# -- what a stage made -------------------------------------------------------------------------------------------------


def test_an_image_that_a_stage_opened_itself_is_turned_upright(tmp_path: Path) -> None:
    """`return Image.open(path)` gives on a sideways picture that nobody has turned yet."""
    exif = turned(6)
    (tmp_path / "x.png").write_bytes(encode(paint(80, 60).rotate(90, expand=True), "PNG", exif=exif))
    opened = Image.open(tmp_path / "x.png")

    assert as_plain(opened).tobytes() == paint(80, 60).tobytes()


@pytest.mark.parametrize("name", ["PNG", "JPEG", "GIF", "TIFF", "WEBP"])
def test_a_picture_that_a_stage_has_opened_and_decoded_is_taken(tmp_path: Path, name: str) -> None:
    """Pillow has let go of its file by then, or has not, as it likes."""
    (tmp_path / "a").write_bytes(encode(paint(8, 6), name))
    image = Image.open(tmp_path / "a")
    image.load()
    assert as_plain(image).size == (8, 6)
    image.close()


def test_the_profile_of_a_stages_image_is_converted() -> None:
    """A stage's image that still carries a profile is brought to sRGB and given on without it."""
    image = Image.new("RGB", (8, 8), (250, 10, 10))
    image.info = {"icc_profile": SWAPPED, "comment": b"x"}
    made = as_plain(image)

    assert made.getpixel((0, 0))[2] > 240 and made.info == {}
    assert image.info["comment"] == b"x"


# -- saving ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("mode", PLAIN)
def test_every_plain_mode_can_be_written_in_every_format(suffix: str, mode: str) -> None:
    """What a stage makes can always be saved, looks the same, and is transparent where the format can be."""
    image = paint(64, 48, mode)
    if mode.endswith("A"):
        image.putalpha(Image.new("L", (64, 48), 255))
        image.paste((0,) * len(mode), (0, 0, 20, 48))
    back = decode(saved(image, suffix))

    assert back.size == (64, 48)
    clear = back.convert("RGBA").getpixel((5, 20))
    if mode.endswith("A"):
        assert clear[3] == 0 if suffix != ".jpg" else min(clear[:3]) > 240
    assert mean(flatten(back.convert("RGBA"), "white"), flatten(image.convert("RGBA"), "white")) < 6


@pytest.mark.parametrize("suffix", FORMATS)
def test_no_metadata_survives(suffix: str) -> None:
    """EXIF with its place on the map, profile, XMP, comment: none of it is in what is written."""
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "SECRET-artist"
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (48.0, 41.0, 3.0)}
    rich = encode(
        paint(64, 48), "JPEG", exif=exif, icc_profile=SWAPPED, comment=b"SECRET-comment", xmp=b"<x:xmpmeta>SECRET</x>",
        dpi=(300, 300),
    )  # fmt: skip
    by_the_stage = decode(rich)
    for image in (open_picture(rich).load(), open_picture(rich).load((20, 30)), as_plain(by_the_stage)):
        data = saved(image, suffix)
        back = decode(data)
        assert b"SECRET" not in data and b"GPS" not in data and SWAPPED[128:300] not in data
        assert ExifTags.IFD.GPSInfo not in back.getexif() and ExifTags.Base.Orientation not in back.getexif()
        assert not {"icc_profile", "comment", "xmp"} & set(back.info) and not back.info.get("exif")


@pytest.mark.parametrize(("quality", "sampling"), [(1, 2), (82, 2), (89, 2), (90, 0), (100, 0)])
def test_colour_is_halved_below_quality_90(quality: int, sampling: int) -> None:
    """4:2:0 (two by two) below 90 and 4:4:4 (one by one) from there; what is asked for outright wins."""
    layer = decode(saved(paint(32, 32), ".jpg", quality=quality)).layer
    assert layer[0][1:3] == ((2, 2) if sampling else (1, 1))
    layer = decode(saved(paint(32, 32), ".jpg", quality=quality, subsampling="4:2:2")).layer
    assert layer[0][1:3] == (2, 1)


def test_transparency_is_laid_on_the_background() -> None:
    """JPEG knows no alpha: white by default, or the colour named, in proportion where half transparent."""
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 128))

    assert flatten(image, "white").getpixel((0, 0)) == (255, 127, 127)
    assert decode(saved(Image.new("RGBA", (16, 16), (9, 9, 9, 0)), ".jpg")).getpixel((8, 8)) == (255, 255, 255)
    blue = decode(saved(Image.new("LA", (16, 16), (9, 0)), ".jpg", background="#0000ff", quality=95)).getpixel((8, 8))
    assert blue[2] > 250 and blue[0] < 5


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_same_picture_gives_the_same_bytes(suffix: str) -> None:
    """No clock, no thread count, no order shows in what is written."""
    data = encode(paint(300, 200, "RGBA"), "PNG")
    made = [saved(open_picture(data).load((150, 100)), suffix) for _ in range(2)]

    assert made[0] == made[1]


def test_avif_bytes_do_not_depend_on_the_number_of_cpus() -> None:
    """AVIF cuts a picture into one tile a thread, unless told to take one."""
    image = paint(1200, 900)

    assert saved(image, ".avif", speed=10) == encode(image, "AVIF", quality=60, speed=10, max_threads=1)


def test_save_options_are_heard() -> None:
    """Every option of every format changes what it says it changes."""
    image = Image.blend(paint(200, 150), Image.effect_noise((200, 150), 60).convert("RGB"), 0.3)

    assert len(saved(image, ".jpg", quality=30)) < len(saved(image, ".jpg", quality=80))
    assert decode(saved(image, ".jpg", progressive=True)).info.get("progressive")
    assert len(saved(image, ".jpg", optimize=True)) < len(saved(image, ".jpg", optimize=False))
    assert decode(saved(image, ".webp", lossless=True)).tobytes() == image.tobytes()
    assert len(saved(image, ".webp", method=6)) != len(saved(image, ".webp", method=0))
    assert len(saved(image, ".avif", quality=30)) < len(saved(image, ".avif", quality=80))
    assert len(saved(image, ".png", compress_level=9)) < len(saved(image, ".png", compress_level=0))
    for compression, code in {"none": 1, "lzw": 5, "deflate": 8, "jpeg": 7}.items():
        assert decode(saved(image, ".tiff", compression=compression)).tag_v2[259] == code


@pytest.mark.parametrize(("suffix", "size"), [(".webp", (16384, 1)), (".jpg", (65501, 1)), (".gif", (65536, 1))])
def test_what_a_format_cannot_hold_says_so(suffix: str, size: tuple[int, int]) -> None:
    """Each format has a longest side; past it the file fails with the format's name, not with a traceback."""
    with pytest.raises(FileFailure, match=r"cannot be written as (WEBP|JPEG|GIF): "):
        saved(Image.new("RGB", size), suffix)


def test_a_full_disk_is_no_fault_of_the_picture() -> None:
    """The system's own errors come through as they are."""
    with pytest.raises(OSError) as failed, open("/dev/full", "wb") as full:
        SAVERS[".png"](Image.effect_noise((300, 300), 90), full)
    assert failed.value.errno == 28
