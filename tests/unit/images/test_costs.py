"""What costs more than its size lets expect is counted before it is decoded, and refused by its name."""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image
from support.pictures import bomb_png, encode, paint, png_chunk
from support.program import ROOT

from pipeline.allowance import Allowance, MoreMemoryNeeded, allowance
from pipeline.errors import Unreadable
from pipeline.images import Limits, limited_to
from pipeline.images.costs import refuse_if_too_costly
from pipeline.images.decode import open_picture
from pipeline.images.fast_png import FAST_BYTES_A_PIXEL, read_png

SIZE = (100, 100)


def png(depth: str, _bits: str, color_type: str, beside: str = "") -> bytes:
    """A black PNG of this kind, with linear light or with a transparent colour where that is named."""
    channels = {"0": 1, "2": 3, "4": 2, "6": 4}[color_type]
    values = {"gAMA": struct.pack(">I", 100_000), "tRNS": bytes(2 * channels)}
    row = bytes(1 + SIZE[0] * channels * int(depth) // 8)
    chunks = [
        png_chunk(b"IHDR", struct.pack(">IIBBBBB", *SIZE, int(depth), int(color_type), 0, 0, 0)),
        *([png_chunk(beside.encode(), values[beside])] if beside else []),
        png_chunk(b"IDAT", zlib.compress(row * SIZE[1])),
        png_chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def made(kind: str) -> bytes:
    image = paint(*SIZE)
    if kind == "PFM":
        return b"Pf\n100 100\n-1.0\n" + struct.pack("<10000f", *[0.5] * 10_000)
    if kind.startswith("PNG, ") and kind != "PNG, palette":
        return png(*kind.split()[1:])
    if kind.endswith(", palette"):
        return encode(image.quantize(8), kind.partition(",")[0])
    if kind == "JPEG2000, tiled":
        return encode(image, "JPEG2000", tile_size=(20, 20))
    if kind.startswith("JPEG, progressive"):
        finely = {"subsampling": 0} if kind.endswith("4") else {}
        return encode(image.convert("CMYK" if kind.endswith("CMYK") else "RGB"), "JPEG", progressive=True, **finely)
    return encode(image, kind)


@pytest.mark.parametrize(
    ("kind", "most", "why"),
    [
        ("JPEG", 10_000, ""),
        ("JPEG, progressive", 17_500, "takes 7 bytes a pixel"),
        ("JPEG, progressive 4:4:4", 25_000, "takes 10 bytes a pixel"),
        ("JPEG, progressive CMYK", 30_000, "takes 12 bytes a pixel"),
        ("PNG", 10_000, ""),
        ("PNG, 8 bits 2 gAMA", 10_000, ""),
        ("PNG, 8 bits 2 tRNS", 20_000, "takes 8 bytes a pixel"),
        ("PNG, 8 bits 0 tRNS", 12_500, "takes 5 bytes a pixel"),
        ("PNG, palette", 12_500, "takes 5 bytes a pixel"),
        ("BMP, palette", 12_500, "takes 5 bytes a pixel"),
        ("TGA, palette", 12_500, "takes 5 bytes a pixel"),
        ("PNG, 16 bits 0", 10_000, ""),
        ("PNG, 16 bits 0 gAMA", 10_000, ""),
        ("PNG, 16 bits 0 tRNS", 17_500, "takes 7 bytes a pixel"),
        ("PNG, 16 bits 2", 10_000, ""),
        ("PNG, 16 bits 2 gAMA", 22_500, "takes 9 bytes a pixel"),
        ("PNG, 16 bits 2 tRNS", 22_500, "takes 9 bytes a pixel"),
        ("PNG, 16 bits 4", 20_000, "takes 8 bytes a pixel"),
        ("PNG, 16 bits 4 gAMA", 20_000, "takes 8 bytes a pixel"),
        ("PNG, 16 bits 6 gAMA", 22_500, "takes 9 bytes a pixel"),
        ("GIF", 20_000, "takes 8 bytes a pixel"),
        ("BMP", 10_000, ""),
        ("PPM", 10_000, ""),
        ("WEBP", 40_000, "takes 16 bytes a pixel"),
        ("AVIF", 25_000, "takes 10 bytes a pixel"),
        ("JPEG2000", 47_500, "takes 19 bytes a pixel"),
        ("JPEG2000, tiled", 11_500, "takes 5 bytes a pixel"),
        ("PFM", 30_000, "takes 12 bytes a pixel"),
        ("QOI", 100_000, "is decoded slowly"),
    ],
)
def test_a_pixel_counts_as_what_it_costs(kind: str, most: int, why: str) -> None:
    """The limit of pixels is one of memory and time, of which some decoders take more for each."""
    data = made(kind)
    with limited_to(Limits(most)):
        assert open_picture(data).load((10, 10)).size == (10, 10)
    with limited_to(Limits(most - 1)), pytest.raises(Unreadable) as refused:
        open_picture(data)
    assert refused.value.text.startswith("too large: 100x100, limit ")
    assert not why or refused.value.text.endswith(f" for a picture which {why}; inputs.max_pixels raises it")


@pytest.mark.parametrize(("extra", "name", "bytes_a_pixel"), [("pillow_heif", "HEIF", 7), ("pillow_jxl", "JXL", 8)])
def test_formats_of_plugins_count_as_what_they_cost(extra: str, name: str, bytes_a_pixel: int) -> None:
    """A JPEG XL before it is opened, since that decodes it."""
    module = pytest.importorskip(extra)
    if name == "HEIF":
        module.register_heif_opener()
    data, most = encode(paint(*SIZE), name), 10_000 * bytes_a_pixel // 4
    with limited_to(Limits(most)):
        assert open_picture(data).load().size == SIZE
    with limited_to(Limits(most - 1)), pytest.raises(Unreadable, match=f"which takes {bytes_a_pixel} bytes a pixel"):
        open_picture(data)


@pytest.mark.parametrize(("kind", "megapixels"), [
    ("JPEG", 100), ("JPEG, progressive", 50), ("JPEG, progressive 4:4:4", 40), ("PNG", 100), ("HEIF", 50), ("JXL", 50),
])  # fmt: skip
def test_what_cameras_make_is_within_the_default_limit(kind: str, megapixels: int) -> None:
    """Phones make HEIC and JPEG of 50 MP, and cameras JPEG of 100."""
    pytest.importorskip({"HEIF": "pillow_heif", "JXL": "pillow_jxl"}.get(kind, "PIL"))
    with limited_to(Limits(100 * 10_000 // megapixels)):
        assert open_picture(encode(paint(*SIZE), kind) if "," not in kind else made(kind)).size == SIZE


@pytest.mark.parametrize(("spare", "is_fast"), [(None, False), (-4, False), (4, True)])
def test_a_png_near_the_limit_is_decoded_with_less_memory(
    spare: int | None, is_fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left to Pillow where the faster decoder and the whole file would take too much, and not refused."""
    pytest.importorskip("pyspng")
    data, asked = made("PNG"), list[bool]()
    monkeypatch.setattr("pipeline.images.decode.read_png", lambda file: asked.append(True) or read_png(file))
    most = 10_000 if spare is None else (10_000 * FAST_BYTES_A_PIXEL + len(data) + spare) // 4
    with limited_to(Limits(most)):
        assert open_picture(data).load().tobytes() == paint(*SIZE).tobytes()
    assert bool(asked) == is_fast


def noise(size_bytes: int) -> bytes:
    return random.Random(size_bytes).randbytes(size_bytes)


def incompressible(kind: str) -> bytes:
    """An RGB picture of 600x500, whose file is as large as its samples, in which something has to be replaced."""
    width, height = 600, 500
    if kind == "PNG":
        rows = b"".join(b"\0" + noise(3 * width) for _ in range(height))
        head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        pixels = zlib.compress(rows, 0)
        parts = [png_chunk(b"IDAT", pixels[at : at + 8192]) for at in range(0, len(pixels), 8192)]
        gamma = png_chunk(b"gAMA", struct.pack(">I", 60_000))
        return b"\x89PNG\r\n\x1a\n" + head + gamma + b"".join(parts) + png_chunk(b"IEND", b"")
    if kind.startswith("PPM"):
        maxval = int(kind.split()[1])
        return b"P6\n%d %d\n%d\n" % (width, height, maxval) + noise(width * height * (6 if maxval > 255 else 3))
    if kind == "PSD":
        head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, height, width, 8, 3) + bytes(12)
        return head + b"\0\0" + noise(3 * width * height)
    row, rows = b"".join(b"\xff" + noise(127) for _ in range(4)) + b"\xdc" + noise(92), 3 * height
    head = struct.pack(">HBBHHHH", 474, 1, 1, 3, width, height, 3).ljust(512, b"\0")
    places = [512 + 8 * rows + number * len(row) for number in range(rows)]
    return head + struct.pack(f">{2 * rows}I", *places, *[len(row)] * rows) + row * rows


@pytest.mark.parametrize(
    ("kind", "most"), [("PNG", 0.9), ("PPM 200", 0.9), ("PPM 65535", 0.9), ("PSD", 0.5), ("SGI", 0.9)]
)
def test_a_file_is_read_in_parts(kind: str, most: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside its pixels there is never a copy of a file in memory; of a PSD not even of a channel."""
    monkeypatch.setattr("pipeline.images.decode.read_png", lambda file: None)
    monkeypatch.setattr("pipeline.images.psd._BLOCK", 1 << 16)
    monkeypatch.setattr("pipeline.images.png_chunks._BLOCK", 1 << 16)
    file = tmp_path / "file"
    file.write_bytes(incompressible(kind))
    with closing(open_picture(file)) as picture:
        picture.load()  # which loads modules
    tracemalloc.start()  # of Python's memory, which has no pixels
    try:
        with closing(open_picture(file)) as picture:
            assert picture.load().mode == "RGB"
        assert tracemalloc.get_traced_memory()[1] < most * file.stat().st_size
    finally:
        tracemalloc.stop()


def test_a_transparent_gif_takes_what_it_counts_as(tmp_path: Path) -> None:
    """8 bytes a pixel, and not a copy more of every frame that is laid on the canvas."""
    size = 3000, 2400
    image = Image.new("P", size, 1)
    image.putpalette(bytes(range(256)) * 3)
    image.save(tmp_path / "large.gif", transparency=3)
    image.crop((0, 0, 20, 20)).save(tmp_path / "small.gif", transparency=3)
    program = (
        "import resource\nfrom pathlib import Path\nfrom pipeline.images import open_picture\n"
        "for name in ('small.gif', 'large.gif'):\n"
        "    open_picture(Path(name)).load((10, 10))\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    said = subprocess.check_output([sys.executable, "-c", program], cwd=tmp_path, env=environment)
    before, after = map(int, said.split())
    assert (after - before) * 1024 < 11 * size[0] * size[1]


# -- pictures inside of others -----------------------------------------------------------------------------------------


def icon(*pictures: bytes) -> bytes:
    at, entries = 6 + 16 * len(pictures), b""
    for picture in pictures:
        entries += struct.pack("<4B2H2I", 16, 16, 0, 0, 1, 32, len(picture), at)
        at += len(picture)
    return struct.pack("<3H", 0, 1, len(pictures)) + entries + b"".join(pictures)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", ["PNG", "bitmap"])
def test_a_bomb_inside_an_icon_is_refused_when_it_is_opened(kind: str, first: bool) -> None:
    """Its directory says 16x16; the picture's own header counts, before any of it is decoded."""
    bomb = (
        bomb_png(60_000, 60_000) if kind == "PNG" else struct.pack("<IiiHH", 40, 60_000, 120_000, 1, 32) + bytes(2000)
    )
    small = encode(paint(16, 16), "PNG")
    with pytest.raises(Unreadable, match=r"^too large: 60000x60000, limit 100 MP; inputs.max_pixels raises it$"):
        open_picture(icon(bomb, small) if first else icon(small, bomb))
    assert open_picture(icon(small, small)).load().size == (16, 16)


def test_a_codestream_larger_than_its_box_is_refused() -> None:
    """A JP2 whose own head says 16x16, and the codestream in it 60000x60000."""
    data = bytearray(encode(paint(16, 16), "JPEG2000"))
    struct.pack_into(">II", data, data.index(b"\xff\x4f\xff\x51") + 8, 60_000, 60_000)
    with pytest.raises(Unreadable, match=r"^too large: 60000x60000, limit 100 MP; inputs.max_pixels raises it$"):
        open_picture(bytes(data))


@pytest.mark.parametrize("tile", [(1, 1), (0, 0)])
def test_tiles_are_counted(tile: tuple[int, int]) -> None:
    """Each takes memory before it is decoded, so that 100x101 of one pixel are too many."""
    data = bytearray(encode(paint(100, 101), "JPEG2000", tile_size=(50, 50)))
    struct.pack_into(">II", data, data.index(b"\xff\x4f\xff\x51") + 24, *tile)
    with pytest.raises(Unreadable, match=r"^too large: a JPEG 2000 of 10100 tiles, limit 10000$"):
        open_picture(bytes(data))


# -- scans of a JPEG ---------------------------------------------------------------------------------------------------


def scans(count: int, *, progressive: bool, channels: int = 1) -> bytes:
    """A JPEG with a scan repeated until there are so many."""
    data = encode(paint(64, 64), "JPEG", progressive=progressive)
    begin, last, end = data.index(b"\xff\xda"), data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    have = data[begin:end].count(b"\xff\xda")
    again = data[last:end]
    if not progressive and channels == 1:  # a scan of one channel, which makes it one of several scans
        again = b"\xff\xda\0\x08\1\1\0\0\x3f\0" + bytes(9)
        return data[:begin] + again * count + data[end:]
    return data[:end] + again * (count - have) + data[end:]


@pytest.mark.parametrize("progressive", [True, False])
def test_many_scans_are_refused_before_they_are_decoded(progressive: bool) -> None:
    """Progressive or not, where a scan is not the only one they are counted, up to the end of the image."""
    for count in (101, 5000):
        with pytest.raises(Unreadable, match=r"^too large: a JPEG of more than 100 scans, which is the limit$"):
            open_picture(scans(count, progressive=progressive))
    assert open_picture(scans(100, progressive=progressive)).size == (64, 64)


def test_what_is_no_scan_is_not_counted() -> None:
    """Neither behind the end of the image, as in the film of a phone's picture, nor in a comment or another segment."""
    marks = b"\xff\xda\0\x08" * 500
    for progressive in (True, False):
        data = encode(paint(64, 64), "JPEG", progressive=progressive)
        last = data.rindex(b"\xff\xda")
        comment = b"\xff\xfe" + struct.pack(">H", 2 + len(marks)) + marks
        assert open_picture(data + marks).load().size == (64, 64)
        assert open_picture(data[:last] + comment + data[last:]).load().size == (64, 64)


def test_the_file_is_left_where_it_was() -> None:
    """Counting moves nothing that a decoder relies on."""
    image = Image.open(io.BytesIO(encode(paint(64, 64), "JPEG", progressive=True)))
    here = image.fp.tell()
    refuse_if_too_costly(image)
    assert image.fp.tell() == here


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Allowance]:
    """The allowance of this process, which is 10 MB."""
    monkeypatch.setattr(allowance, "allowed_bytes", 10_000_000)
    yield allowance
    allowance.take_claim()


@pytest.mark.parametrize(
    ("format_", "options", "least", "most"),
    [
        ("PNG", {}, 4, 8),
        ("BMP", {}, 4, 4),
        ("WEBP", {"lossless": True}, 16, 16),
        ("JPEG", {"quality": 95, "progressive": True}, 2, 8),
    ],
)
def test_memory_is_claimed_before_it_is_taken(
    allowed: Allowance, format_: str, options: dict[str, object], least: float, most: float
) -> None:
    """So much for each pixel, whatever the size of the file; once that is granted, it is decoded."""
    data = encode(Image.new("RGB", (2000, 2000), "red"), format_, **options)
    opened = open_picture(data)
    tracemalloc.start()
    with pytest.raises(MoreMemoryNeeded):
        opened.load((10, 10))
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    claimed = allowed.take_claim()
    assert least <= claimed / 4_000_000 <= most + 0.1
    allowed.allowed_bytes = claimed
    assert opened.load((10, 10)).size == (10, 10)
    with pytest.raises(MoreMemoryNeeded):  # a whole one takes more, and is copied
        open_picture(data).load()


def test_what_a_decoder_leaves_out_is_not_claimed(allowed: Allowance) -> None:
    """A large JPEG takes little for a small picture."""
    data = encode(Image.new("RGB", (4000, 4000), "red"), "JPEG")
    assert open_picture(data).load((100, 100)).size == (100, 100)
    assert not allowed.claimed_bytes


def test_all_frames_are_claimed_together(allowed: Allowance) -> None:
    """Each is small."""
    frames = [Image.new("RGB", (300, 300), (number, 0, 0)) for number in range(30)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert open_picture(data).load().size == (300, 300)
    with pytest.raises(MoreMemoryNeeded):
        open_picture(data).load(frames="all")
