"""What is said of files that cannot be read: every kind of rubbish has one reason, and never anything but a reason."""

from __future__ import annotations

import io
import random
import struct
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.pictures import encode, paint
from support.program import Pipeline

from pipeline.errors import Unreadable
from pipeline.images.decode import open_picture

REASONS = ("empty file", "not a picture", "unsupported", "truncated picture", "damaged picture",
           "too large")  # fmt: skip

FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "JPEG": ("JPEG", {}),
    "JPEG, progressive": ("JPEG", {"progressive": True}),
    "PNG": ("PNG", {}),
    "WebP": ("WEBP", {}),
    "WebP, lossless": ("WEBP", {"lossless": True}),
    "AVIF": ("AVIF", {}),
    "GIF": ("GIF", {}),
    "TIFF": ("TIFF", {}),
    "TIFF, LZW": ("TIFF", {"compression": "tiff_lzw"}),
    "TIFF, deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "TIFF, JPEG": ("TIFF", {"compression": "jpeg"}),
    "BMP": ("BMP", {}),
    "DIB": ("DIB", {}),
    "JPEG 2000": ("JPEG2000", {}),
    "JPEG 2000, bare": ("JPEG2000", {"no_jp2": True}),
    "PPM": ("PPM", {}),
    "TGA": ("TGA", {}),
    "TGA, packed": ("TGA", {"compression": "tga_rle"}),
    "ICO": ("ICO", {}),
    "PCX": ("PCX", {}),
    "QOI": ("QOI", {}),
    "SGI": ("SGI", {}),
}
# What the C libraries print goes to the stage's output and into the log; here it would be in the way.
pytestmark = pytest.mark.usefixtures("capfd")


def sample(kind: str) -> bytes:
    """A small picture that does not compress well, so that its pixels are most of its file."""
    name, options = FILES[kind]
    noise = random.Random(1).randbytes(40 * 30 * 3)
    return encode(Image.blend(paint(40, 30), Image.frombytes("RGB", (40, 30), noise), 0.3), name, **options)


def reason(file: bytes | Path) -> str:
    """The class of what is said of a file, or "read"; anything but a picture or `Unreadable` is an error here.

    A warning is one as well.
    """
    with warnings.catch_warnings(action="error"):
        try:
            picture = open_picture(file)
            try:
                assert picture.frames >= 1
                picture.load((20, 15))
                picture.load(frames="all")
            finally:
                picture.close()
        except Unreadable as refused:
            text = str(refused)
            assert text.partition(":")[0] in REASONS and "\n" not in text
            return text.partition(":")[0]
    return "read"


# -- files cut short ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FILES)
def test_every_cut_has_a_reason(kind: str) -> None:
    """Cut in its header or in its pixels, a file has a reason and raises nothing else."""
    data = sample(kind)
    for length in [*range(1, min(len(data), 200)), *range(200, len(data), max(1, len(data) // 40))]:
        assert reason(data[:length]) in {*REASONS, "read"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "WebP, lossless", "AVIF", "GIF", "TIFF", "JPEG 2000", "QOI"])
def test_a_file_that_ends_too_early_is_called_truncated(kind: str) -> None:
    """Half of a file is a truncated picture, whatever its format: not a damaged one, nor none."""
    data = sample(kind)
    assert {reason(data[: len(data) * part // 8]) for part in (2, 4, 6)} == {"truncated picture"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "AVIF", "QOI"])
def test_a_file_cut_within_its_header_is_called_truncated(kind: str) -> None:
    """Of a file that begins as no other does, a few bytes are enough to know it again."""
    assert reason(sample(kind)[:20]) == "truncated picture"


@pytest.mark.parametrize("kind", FILES)
def test_the_reason_is_the_same_from_a_path(kind: str, tmp_path: Path) -> None:
    """From bytes and from a file the same is said."""
    data = sample(kind)
    for length in (0, 3, 17, 60, len(data) // 2, len(data)):
        path = tmp_path / "x"
        path.write_bytes(data[:length])
        assert reason(path) == reason(data[:length])


# -- files that are damaged --------------------------------------------------------------------------------------------


def flips(data: bytes, upto: int) -> Iterator[bytes]:
    """The file with one bit of its beginning turned over, for each of them."""
    for at in range(min(len(data), upto)):
        for bit in range(8):
            yield data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


@pytest.mark.parametrize("kind", FILES)
def test_a_flipped_bit_in_a_header_is_read_or_has_a_reason(kind: str) -> None:
    """Whichever bit of a header is turned over, there is a picture or a reason, and no warning."""
    for data in flips(sample(kind), 40 if kind in ("QOI", "AVIF") else 70):
        assert reason(data) in {*REASONS, "read"}


@pytest.mark.parametrize("kind", FILES)
def test_bytes_put_in_at_random_are_read_or_have_a_reason(kind: str) -> None:
    """Several bytes at random places, and stretches of zeros, do no worse."""
    chance, data = random.Random(kind), sample(kind)
    for _ in range(60):
        broken = bytearray(data)
        for _ in range(chance.randint(1, 5)):
            at, length = chance.randrange(min(len(data), 400)), chance.choice((1, 1, 2, 4, 20))
            broken[at : at + length] = chance.choice((chance.randbytes(length), bytes(length), b"\xff" * length))
        assert reason(bytes(broken)) in {*REASONS, "read"}


MAGIC = [
    b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\x40\0\0\0WEBPVP8 ",
    b"RIFF\x40\0\0\0WEBPVP8X\n\0\0\0", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"BM", b"P5 ", b"P6\n", b"P7\n",
    b"Pf\n", b"\xff\x4f\xff\x51", b"qoif", b"8BPS\0\1", b"\1\xda\1\1", b"\0\0\1\0\1\0", b"\x0a\5\1\x08",
    b"\0\0\0\x1cftypavif", b"\0\0\x02\0", b"(\0\0\0", b"\0\0\0\x0cjP  \r\n\x87\n", b"",
]  # fmt: skip


@given(st.sampled_from(MAGIC), st.binary(max_size=300))
@settings(max_examples=600, deadline=None, derandomize=True)
def test_random_bytes_have_a_reason(magic: bytes, rest: bytes) -> None:
    """Random bytes, alone or after the first bytes of a format, have a reason and raise nothing else."""
    assert reason(magic + rest) in {*REASONS, "read"}


def tiff(*more: tuple[int, int, int, bytes]) -> bytes:
    """A grey TIFF of 20x10 by hand, with further entries: tag, type, count and the four bytes of the value."""
    plain = [(256, 20), (257, 10), (258, 8), (259, 1), (262, 1), (273, 400), (277, 1), (278, 10), (279, 200)]
    others = {entry[0] for entry in more}
    entries = sorted([*((tag, 4, 1, struct.pack("<I", value)) for tag, value in plain if tag not in others), *more])
    packed = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + bytes(4)).ljust(400, b"\0") + bytes(200)


def test_a_camera_raw_is_not_its_preview() -> None:
    """A NEF, DNG or ARW is a TIFF whose first page is a preview: that page is never taken for the picture."""
    raw = tiff((254, 4, 1, b"\1\0\0\0"), (330, 4, 1, b"\x90\1\0\0"))
    with pytest.raises(Unreadable, match=r"^unsupported: a camera's raw; its first page is only a preview$"):
        open_picture(raw)
    assert reason(tiff()) == reason(tiff((254, 4, 1, bytes(4)))) == "read"
    assert reason(tiff((254, 4, 1, b"\1\0\0\0"))) == "read"


@pytest.mark.parametrize(
    "entry",
    [(254, 2, 4, b"abc\0"), (254, 11, 1, struct.pack("<f", 1)), (254, 3, 2, b"\1\0\1\0"), (254, 7, 4, b"\1\0\0\0"),
     (254, 5, 1, b"\x90\1\0\0"), (254, 4, 0, bytes(4)), (254, 4, 4_000_000_000, bytes(4)), (254, 99, 1, bytes(4))],
    ids=["text", "float", "two", "bytes", "fraction", "none", "billions", "unknown type"],
)  # fmt: skip
def test_a_tiff_whose_subfile_type_is_no_number(entry: tuple[int, int, int, bytes]) -> None:
    """A tag that should be a number and is not costs nobody the picture, let alone with an error of ours."""
    for more in ((), ((330, 4, 1, b"\x90\1\0\0"),)):
        assert reason(tiff(entry, *more)) in {*REASONS, "read"}


@pytest.mark.parametrize("tags", [[(322, 60_000), (323, 60_000), (324, 400), (325, 200)], [(278, 4_000_000_000)],
                                  [(277, 65_535)], [(258, 60_000)]])  # fmt: skip
def test_a_tiff_that_asks_for_much_memory(tags: list[tuple[int, int]]) -> None:
    """Huge tiles, strips, samples and bits in a picture of 20x10 are damage, at no great cost."""
    for compression in (1, 5, 8):
        more = [(tag, 4, 1, struct.pack("<I", value)) for tag, value in [*tags, (259, compression)]]
        assert reason(tiff(*more)) in {*REASONS, "read"}


# -- files of other kinds ----------------------------------------------------------------------------------------------

OTHERS: dict[str, tuple[str, bytes]] = {
    "PDF": ("unsupported: PDF", b"%PDF-1.7\n%\xe2\xe3\n1 0 obj<</Type/Catalog>>endobj\n"),
    "EPS": ("unsupported: EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"),
    "EPS of DOS": ("unsupported: EPS", b"\xc5\xd0\xd3\xc6" + bytes(30)),
    "WMF": ("unsupported: WMF", b"\xd7\xcd\xc6\x9a\0\0" + bytes(60)),
    "EMF": ("unsupported: WMF", b"\1\0\0\0" + bytes(36) + b" EMF" + bytes(60)),
    "SVG": ("unsupported: SVG", b"<?xml version='1.0'?>\n<!-- made -->\n<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "SVG, bare": ("unsupported: SVG", b"<SVG width='1'/>"),
    "HEIC": ("truncated picture", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
    "HEIF": ("truncated picture", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic"),
    "JPEG XL": ("damaged picture", b"\xff\x0a" + bytes(40)),
    "JPEG XL, boxed": ("damaged picture", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20)),
    "the beginning of a JPEG XL": ("truncated picture", b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl \0\0"),
    "CR2": ("unsupported: CR2", b"II*\0\x10\0\0\0CR\2\0" + bytes(100)),
    "CR3": ("unsupported: CR3", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom"),
    "RAF": ("unsupported: RAF", b"FUJIFILMCCD-RAW 0201" + bytes(50)),
    "RW2": ("unsupported: RW2", b"IIU\0" + bytes(100)),
    "ORF": ("unsupported: ORF", b"IIRO\x08\0\0\0" + bytes(50)),
    "BLP": ("unsupported: BLP", b"BLP2" + bytes(200)),
    "DDS": ("unsupported: DDS", b"DDS " + struct.pack("<I", 124) + bytes(130)),
    "ICNS": ("unsupported: ICNS", b"icns" + struct.pack(">I", 100) + bytes(100)),
    "text": ("not a picture", b"Nothing to see here.\n" * 9),
    "HTML": ("not a picture", b"<!doctype html><html><body><h1>502 Bad Gateway</h1></body></html>"),
    "HTML with an icon": ("not a picture", b"<!DOCTYPE html><html><body><svg><path/></svg>404</body></html>"),
    "JSON": ("not a picture", b'{"error": "forbidden"}'),
    "CSV": ("not a picture", b"name,size\na.jpg,17\n"),
    "a program in C": ("not a picture", b"/* Copyright */\n#include <stdio.h>\nint main(void) { return 0; }\n"),
    "a header in C": ("not a picture", b"#define LIMIT 17\n#include <stdio.h>\n"),
    "a style sheet": ("not a picture", b"/* normalize */\nhtml { margin: 0 }\n"),
    "a text that begins with P5": ("not a picture", b"P5 is the fifth of the parts that we ordered.\n" * 3),
    "a text that begins with P6": ("not a picture", b"P6\nhello\n"),
    "a text that begins with P3": ("not a picture", b"P3 costs a hundred pounds\n"),
    "a long text that begins with BM": ("not a picture", b"BMW makes cars in Munich, and has done so.\n" * 3),
    "a short text that begins with BM": ("not a picture", b"BM, I begin"),
    "zeros behind BM": ("not a picture", b"BM" + bytes(60)),
    "the beginning of a BMP": ("truncated picture", encode(paint(9, 9), "BMP")[:30]),
    "the beginning of a cursor": ("truncated picture", b"\0\0\2\0\1\0"),
    "more of a cursor": ("truncated picture", b"\0\0\2\0\1\0\x10\x10" + bytes(10)),
    "the beginning of a TGA": ("not a picture", encode(paint(9, 9), "TGA")[:17]),
    "more of a TGA": ("truncated picture", encode(paint(9, 9), "TGA")[:18]),
    "zip": ("not a picture", b"PK\3\4\x14\0\0\0\x08\0" + bytes(100)),
    "Word": ("not a picture", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)),
    "MP4": ("not a picture", b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(40)),
    "WAV": ("not a picture", b"RIFF\x24\0\0\0WAVEfmt " + bytes(40)),
    "MP3": ("not a picture", b"ID3\3" + bytes(100)),
    "a program": ("not a picture", b"\x7fELF\2\1\1" + bytes(60)),
    "zeros": ("not a picture", bytes(5000)),
    "ones": ("not a picture", b"\xff" * 5000),
    "text of UTF-16": ("not a picture", "hello".encode("utf-16")),
    "a PNG as text": ("not a picture", b"\x89PNG\n\x1a\n" + bytes(100)),
    "the beginning of a JPEG": ("truncated picture", b"\xff\xd8\xff"),
    "the beginning of a PNG": ("truncated picture", b"\x89PNG\r\n\x1a\n"),
    "the beginning of a PSD": ("truncated picture", b"8BPS\0\1" + bytes(20)),
    "nothing": ("empty file", b""),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_said_of_other_kinds_of_files(name: str, tmp_path: Path) -> None:
    """A picture that is not read is named; what is no picture is said to be none, however it begins."""
    says, data = OTHERS[name]
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    for file in (data, path):
        with pytest.raises(Unreadable) as refused, closing(open_picture(file)) as picture:
            picture.load()
        assert str(refused.value).startswith(says), str(refused.value)


# -- the whole program -------------------------------------------------------------------------------------------------

YAML = """
inputs: in
engine: ENGINE
stages:
  - name: small
    uses: resize
    with: {width: 20}
    output: "out/{name}.webp"
"""


@pytest.mark.parametrize("engine", ["serial", "pool"])
def test_the_summary_counts_each_reason_apart(engine: str, tmp_path: Path, pipeline: Pipeline) -> None:
    """Of a folder of rubbish and one picture, the picture is made and each reason is counted; stderr is the summary."""
    folder = tmp_path / "in"
    folder.mkdir()
    broken = bytearray(sample("TIFF, deflate"))
    broken[12:22] = bytes(10)
    jpeg = sample("JPEG")
    files = {
        "good.jpg": jpeg, "empty.jpg": b"", "empty2.png": b"", "text.jpg": b"hello\n" * 99, "page.pdf": b"%PDF-1.4\n",
        "phone.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.png": sample("PNG")[:900], "bad.tif": bytes(broken),
        "raw.nef": tiff((254, 4, 1, b"\1\0\0\0"), (330, 4, 1, bytes(4))),
        "huge.ppm": b"P6 60000 60000 255\n", "odd.tif": tiff((262, 4, 1, b"\x99\0\0\0")),
    }  # fmt: skip
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (tmp_path / "pipeline.yaml").write_text(YAML.replace("ENGINE", engine))

    ended = pipeline("pipeline.yaml")

    assert ended.returncode == 1 and not ended.stdout
    # In one process nobody catches what libtiff itself writes to stderr; a pool does.
    headline, *rest = [line for line in ended.stderr.splitlines() if engine == "pool" or "ZIPDecode" not in line]
    assert "1 done, 9 failed, 2 unmatched (1 pdf, 1 nef) (12 files" in headline
    again = pipeline("pipeline.yaml", "-v").stderr.splitlines()
    (counted,) = (line for line in again if line.startswith("reasons: "))
    assert dict(reversed(part.split(" ", 1)) for part in counted.removeprefix("reasons: ").split(", ")) == {
        "empty file": "2", "truncated picture": "3", "not a picture": "1", "damaged picture": "1",
        "too large": "1", "unsupported": "1",
    }  # fmt: skip
    # Nothing of what the decoders say themselves: every further line is of a file, or where to look.
    assert [line.partition(": ")[0] for line in rest if not line.startswith("  ")] == [
        "next",
        "pipeline",
        "state",
        "log",
        "report",
    ]
    assert sorted(file.name for file in (tmp_path / "out").iterdir() if file.name != ".filemill") == ["good.jpg.webp"]


def test_damage_found_only_when_saving_metadata_fails_nobody(tmp_path: Path, pipeline: Pipeline) -> None:
    """A picture that a stage makes of a file that is none keeps no metadata, and is made all the same."""
    (tmp_path / "in").mkdir()
    (tmp_path / "stages").mkdir()
    (tmp_path / "in" / "a.txt").write_text("no picture")
    (tmp_path / "stages" / "draw.py").write_text(
        "from PIL import Image\ndef draw(text: str) -> Image.Image:\n    return Image.new('RGB', (9, 9), 'red')\n"
    )
    (tmp_path / "pipeline.yaml").write_text(
        "inputs: in\nstages:\n  - name: draw\n    uses: draw\n"
        "    output: {path: 'out/{stem}.jpg', save: {metadata: [exif, xmp]}}\n"
    )

    assert pipeline("pipeline.yaml").returncode == 0
    assert Image.open(io.BytesIO((tmp_path / "out" / "a.jpg").read_bytes())).size == (9, 9)
