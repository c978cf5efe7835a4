"""pipeline/images/metadata.py: a source's EXIF, XMP and profile in its outputs, by real pipelines."""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, TiffImagePlugin
from support.camera import DATE, LATITUDE, STORED, UPRIGHT, XMP, exif_of_a_camera
from support.pictures import SWAPPED, decode, encode, mean, png_chunk
from support.project import Project

from pipeline.errors import ConfigError, FileFailure
from pipeline.images.encode import SAVERS
from pipeline.images.metadata import XMP_TAG, read_metadata

UPRIGHT_XMP = XMP.replace(b'"6"', b'"1"')
THUMBNAIL = encode(Image.new("RGB", (16, 12), "red"), "JPEG", comment=b"SECRET-thumbnail")
BESIDE = 50  # bytes of a thumbnail, a packet or a profile that are nobody else's by chance

OUTPUTS = [".jpg", ".png", ".webp", ".avif", ".tiff"]
WANTED = {"strip": "strip", "icc": "[icc]", "exif": "[exif]", "xmp": "[xmp]", "all": "[icc, exif, xmp, gps]"}


# -- sources -----------------------------------------------------------------------------------------------------------


def with_thumbnail(exif: bytes) -> bytes:
    """The same EXIF with a second directory, which holds a thumbnail (Exif 2.32, 4.5.8)."""
    tiff = bytearray(exif[6:])
    order = "<" if tiff[:2] == b"II" else ">"
    (count,) = struct.unpack_from(order + "H", tiff, 8)
    begin = len(tiff) + len(tiff) % 2
    struct.pack_into(order + "I", tiff, 10 + 12 * count, begin)
    data_at = begin + 2 + 3 * 12 + 4
    entries = ((259, 3, 1, 6), (513, 4, 1, data_at), (514, 4, 1, len(THUMBNAIL)))
    packed = b"".join(
        struct.pack(order + ("HHIHxx" if kind == 3 else "HHII"), tag, kind, n, value) for tag, kind, n, value in entries
    )
    return exif[:6] + tiff + bytes(begin - len(tiff)) + struct.pack(order + "H", 3) + packed + bytes(4) + THUMBNAIL


def png_with(exif: bytes, *, after: bool) -> bytes:
    """A PNG with XMP as text, its EXIF before or after the pixels."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    info.add_text("Comment", "SECRET-comment")
    data = encode(STORED, "PNG", pnginfo=info, icc_profile=SWAPPED)
    place = -12 if after else 33  # before the end, or after the header
    return data[:place] + png_chunk(b"eXIf", exif[6:]) + data[place:]


def tiff_with(exif: Image.Exif) -> bytes:
    """A TIFF, whose own directory is the EXIF's."""
    exif[XMP_TAG] = XMP
    return encode(STORED, "TIFF", exif=exif.tobytes(), icc_profile=SWAPPED)


def sources() -> dict[str, bytes]:
    exif = with_thumbnail(exif_of_a_camera().tobytes())
    beside: dict[str, Any] = {"exif": exif, "xmp": XMP, "icc_profile": SWAPPED}
    return {
        "JPEG": encode(STORED, "JPEG", quality=95, comment=b"SECRET-comment", **beside),
        "PNG": png_with(exif, after=False),
        "PNG-after": png_with(exif, after=True),
        "WEBP": encode(STORED, "WEBP", lossless=True, **beside),
        "AVIF": encode(STORED, "AVIF", quality=95, **beside),
        "TIFF": tiff_with(exif_of_a_camera()),
    }


SOURCES = list(sources())

# -- a run for each of the ways to keep --------------------------------------------------------------------------------


def stage_yaml(name: str, suffix: str, save: str, *, uses: str = "resize, with: {width: 20, height: 30}") -> str:
    if suffix == ".tiff" and "exif" in save:
        save = save.replace("}", ", compression: none}")  # what libtiff compresses has no room for EXIF
    return (
        f"  - {{name: {name}, from: inputs, uses: {uses},\n"
        f"     output: {{path: 'out/{name}/{{stem}}{suffix}', save: {save}}}}}\n"
    )


def yaml_of(stages: str) -> str:
    return f"inputs: in\nstages:\n{stages}engine: serial\n"


@dataclass(frozen=True)
class Made:
    """What a project made, and what it said of what it did not."""

    outputs: dict[str, bytes]
    failures: str

    def of(self, output: str) -> bytes:
        """One output; the reason where there is none."""
        assert output in self.outputs, self.failures
        return self.outputs[output]


def make_all(folder: Path, yaml: str, files: dict[str, bytes]) -> Made:
    project = Project(folder, yaml)
    for name, data in files.items():
        project.write(f"in/{name}", data)
    summary = project.run()
    return Made(project.outputs(), "\n".join(summary.lines()))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """Every source in every format, for every way to keep its metadata."""
    results = {}
    for wanted, metadata in WANTED.items():
        stages = "".join(stage_yaml(f"to{suffix[1:]}", suffix, f"{{metadata: {metadata}}}") for suffix in OUTPUTS)
        folder = tmp_path_factory.mktemp(f"metadata-{wanted}")
        results[wanted] = make_all(folder, yaml_of(stages), {f"{name}.bin": data for name, data in sources().items()})
    return results


def output_of(made: dict[str, Made], wanted: str, source: str, suffix: str) -> bytes:
    return made[wanted].of(f"to{suffix[1:]}/{source}{suffix}")


def xmp_of(image: Image.Image) -> bytes | None:
    tag = image.tag_v2.get(XMP_TAG) if image.format == "TIFF" else image.info.get("xmp")
    return None if tag is None else bytes(tag)


pairs = [(source, suffix) for source in SOURCES for suffix in OUTPUTS]
for_all = pytest.mark.parametrize(("source", "suffix"), pairs)


@for_all
def test_strip_leaves_nothing(made: dict[str, Made], source: str, suffix: str) -> None:
    """By default no place, name, date, comment, preview, packet or profile of the source's is in the output."""
    data = output_of(made, "strip", source, suffix)
    image = decode(data)

    for secret in (b"SECRET", b"Maker", b"Model", b"2024:05", b"xmpmeta", SWAPPED[150 : 150 + BESIDE]):
        assert secret not in data
    assert not image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    assert not {"icc_profile", "comment", "xmp", "exif"} & {key for key, value in image.info.items() if value}
    assert xmp_of(image) is None


@for_all
def test_exif_is_kept_as_far_as_it_is_true(made: dict[str, Made], source: str, suffix: str) -> None:
    """Make, model and date are the source's; nothing else of the source's is in the file, and no place."""
    data = output_of(made, "exif", source, suffix)
    exif = decode(data).getexif()

    assert (exif[ExifTags.Base.Make], exif[ExifTags.Base.Model]) == ("Maker", "Model 1")
    assert not exif.get_ifd(ExifTags.IFD.GPSInfo)
    assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] == DATE
    assert b"SECRET" not in data and b"xmpmeta" not in data and SWAPPED[150 : 150 + BESIDE] not in data


@for_all
def test_kept_exif_says_nothing_of_the_stored_pixels(made: dict[str, Made], source: str, suffix: str) -> None:
    """No size of the source's, no preview, and no layout of a TIFF's is told of the smaller picture."""
    image = decode(output_of(made, "exif", source, suffix))
    exif = image.getexif()
    camera = exif.get_ifd(ExifTags.IFD.Exif)

    assert not {ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight} & set(camera)
    assert not exif.get_ifd(ExifTags.IFD.IFD1)
    if image.format != "TIFF":
        assert not set(exif) & {254, 256, 257, 258, 259, 262, 273, 277, 278, 279, 284, XMP_TAG, 34675}


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_kept_exif_has_no_other_size_in_its_interoperability(made: dict[str, Made], suffix: str) -> None:
    """The size stands a third time in EXIF, beside the rules for exchange (Exif 2.32, 4.6.7)."""
    camera = decode(output_of(made, "exif", "JPEG", suffix)).getexif().get_ifd(ExifTags.IFD.Exif)

    assert camera[ExifTags.Base.DateTimeOriginal] == DATE and ExifTags.IFD.Interop not in camera


@pytest.mark.parametrize("wanted", ["exif", "xmp", "all"])
@for_all
def test_no_viewer_turns_the_output_again(made: dict[str, Made], source: str, suffix: str, wanted: str) -> None:
    """Who obeys the orientation, in EXIF or in XMP, sees the picture upright, as who does not."""
    image = decode(output_of(made, wanted, source, suffix))

    seen = ImageOps.exif_transpose(image)
    assert seen.size == image.size == (20, 30)
    assert seen.tobytes() == image.tobytes()
    assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1


@for_all
def test_xmp_is_kept_with_the_picture_upright(made: dict[str, Made], source: str, suffix: str) -> None:
    """The packet is the source's byte for byte, but for the orientation; EXIF and its place are not kept with it."""
    data = output_of(made, "xmp", source, suffix)
    image = decode(data)

    assert xmp_of(image) == UPRIGHT_XMP
    assert b"Maker" not in data and not image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    assert b"SECRET" not in data


@for_all
def test_the_profile_is_that_of_the_pixels(made: dict[str, Made], source: str, suffix: str) -> None:
    """The pixels were converted: the profile that is embedded is that of sRGB, never the source's old one."""
    data, plain = output_of(made, "icc", source, suffix), output_of(made, "strip", source, suffix)
    image = decode(data)
    profile = image.info["icc_profile"]

    assert image.tobytes() == decode(plain).tobytes()
    assert b"s\0R\0G\0B" in profile and SWAPPED[150 : 150 + BESIDE] not in data
    assert profile[24:36] == bytes(12)
    assert not image.getexif().get(ExifTags.Base.Make) and xmp_of(image) is None


@for_all
def test_everything_can_be_kept_together(made: dict[str, Made], source: str, suffix: str) -> None:
    """EXIF, XMP and the profile do not push each other out."""
    image = decode(output_of(made, "all", source, suffix))

    assert image.getexif()[ExifTags.Base.Make] == "Maker"
    assert image.getexif().get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] == LATITUDE
    assert xmp_of(image) == UPRIGHT_XMP
    assert b"s\0R\0G\0B" in image.info["icc_profile"]


@for_all
def test_the_pixels_are_the_same_whatever_is_kept(made: dict[str, Made], source: str, suffix: str) -> None:
    """Metadata stands beside the picture and does not touch it."""
    plain = decode(output_of(made, "strip", source, suffix))

    assert decode(output_of(made, "all", source, suffix)).tobytes() == plain.tobytes()


@pytest.mark.parametrize(("compression", "metadata"), [
    ("none", "exif gps"), ("none", "xmp"), ("none", "exif xmp gps"), ("none", "icc exif xmp gps"),
    ("lzw", "xmp"), ("deflate", "icc xmp"), ("jpeg", "icc xmp"),
])  # fmt: skip
def test_every_compression_of_tiff_keeps_metadata(tmp_path: Path, compression: str, metadata: str) -> None:
    """How its pixels are packed does not decide what a TIFF can say beside them."""
    (tmp_path / "source").write_bytes(sources()["JPEG"])
    wanted = frozenset(metadata.split())
    file = io.BytesIO()
    kept = read_metadata(tmp_path / "source", wanted)  # type: ignore[arg-type]
    SAVERS[".tiff"](UPRIGHT, file, kept, compression=compression, metadata=wanted)
    image = decode(file.getvalue())

    if "exif" in wanted:
        assert image.getexif()[ExifTags.Base.Make] == "Maker"
        assert image.getexif().get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] == LATITUDE
    assert xmp_of(image) == (UPRIGHT_XMP if "xmp" in wanted else None)
    assert ("icc_profile" in image.info) == ("icc" in wanted)


# -- packets of other kinds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packet", "upright"),
    [
        (b'a tiff:Orientation="8" b', b'a tiff:Orientation="1" b'),
        (b"a tiff:Orientation='3' b", b"a tiff:Orientation='1' b"),
        (b'tiff:Orientation = "6"', b'tiff:Orientation = "1"'),
        (b"<tiff:Orientation>6</tiff:Orientation>", b"<tiff:Orientation>1</tiff:Orientation>"),
        (b"<tiff:Orientation>\n 6\n</tiff:Orientation>", b"<tiff:Orientation>\n 1\n</tiff:Orientation>"),
        (b'tiff:Orientation="6" tiff:Orientation="7"', b'tiff:Orientation="1" tiff:Orientation="1"'),
        (b"no orientation, \xff\0 not even text", b"no orientation, \xff\0 not even text"),
        (b'xmp:Rating="6"', b'xmp:Rating="6"'),
    ],
)
@pytest.mark.parametrize("name", ["JPEG", "WEBP", "AVIF", "TIFF"])
def test_the_orientation_of_a_packet(tmp_path: Path, name: str, packet: bytes, upright: bytes) -> None:
    """Attribute or element, in either quotes: XMP says 1 afterwards, and every other byte is the source's."""
    exif = Image.Exif()
    exif[XMP_TAG] = packet
    beside = {"exif": exif} if name == "TIFF" else {"xmp": packet}
    (tmp_path / "source").write_bytes(encode(STORED, name, **beside))

    assert read_metadata(tmp_path / "source", frozenset(["xmp"])) == {"xmp": upright}


def test_a_turn_that_only_xmp_knows_of_is_not_made_twice(tmp_path: Path) -> None:
    """Where the orientation stands in XMP alone, the picture is upright once and its packet says so."""
    yaml = yaml_of(stage_yaml("a", ".png", "{metadata: [exif, xmp]}"))
    made = make_all(tmp_path, yaml, {"a.webp": encode(STORED, "WEBP", xmp=XMP, lossless=True)})
    image = decode(made.of("a/a.png"))

    assert image.size == (20, 30) and ImageOps.exif_transpose(image).size == (20, 30)
    assert xmp_of(image) == UPRIGHT_XMP


@pytest.mark.parametrize("kind", [2, 3, 4, 5, 7, 12])
def test_a_packet_of_an_odd_type_harms_nothing(tmp_path: Path, kind: int) -> None:
    """XMP in a TIFF is bytes; whatever else stands under its number is not taken for a length."""
    # A TIFF of one grey pixel by hand: the tags in order, those that fit into four bytes in place.
    packet = (XMP_TAG, kind, 1, 2_000_000_000)
    tags = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (271, 2, 4, 0x00414141)]
    tags += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, 1), (279, 4, 1, 1), packet]
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    (tmp_path / "source").write_bytes(b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + body + bytes(4) + b"\x80" * 9)

    kept = read_metadata(tmp_path / "source", frozenset(["exif", "xmp"]))

    assert len(kept.get("xmp", b"")) < 100


# -- EXIF that is broken, odd or too large -----------------------------------------------------------------------------


def directory(*entries: tuple[int, int, int, bytes], after: bytes = b"") -> bytes:
    """EXIF of one directory, written by hand: tag, type, count, and four bytes of value or offset."""
    packed = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + bytes(4) + after


def at(offset: int) -> bytes:
    return struct.pack("<I", offset)


MAKE = (271, 2, 4, b"abc\0")
ODD = {
    "nothing": b"Exif\0\0",
    "no tiff": b"Exif\0\0garbage",
    "cut off": directory(MAKE)[:-9],
    "more tags than there are": b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(20),
    "orientation in words": directory(MAKE, (274, 2, 4, b"six\0")),
    "orientation twice": directory(MAKE, (274, 3, 2, b"\x06\0\x06\0")),
    "orientation as a fraction": directory(MAKE, (274, 5, 1, at(38)), after=struct.pack("<II", 6, 0)),
    "a name that is a number": directory((271, 3, 1, b"\5\0\0\0"), (272, 12, 1, at(0))),
    "a name that is no ascii": directory((271, 2, 4, b"\xff\xfe\x80\0")),
    "a type that is none": directory(MAKE, (272, 99, 1, at(0))),
    "type zero": directory(MAKE, (272, 0, 1, at(0))),
    "a fraction by zero": directory(MAKE, (282, 5, 1, at(38)), after=bytes(8)),
    "places in words": directory(MAKE, (34853, 2, 4, b"abc\0")),
    "places that are itself": directory(MAKE, (34853, 4, 1, at(8))),
    "camera that is itself": directory(MAKE, (34665, 4, 1, at(8))),
    "camera beyond the end": directory(MAKE, (34665, 4, 1, at(4_000_000_000))),
    "camera in a negative place": directory(MAKE, (34665, 9, 1, b"\xff\xff\xff\xff")),
    "camera twice": directory(MAKE, (34665, 4, 2, at(8))),
    "camera as a float": directory(MAKE, (34665, 11, 1, struct.pack("<f", 8.0))),
    "both as bytes": directory(MAKE, (34665, 7, 4, at(8)), (34853, 1, 4, at(8))),
    "count of four thousand million": directory(MAKE, (272, 2, 4_294_967_295, at(8))),
    "a packet that is a number": directory(MAKE, (XMP_TAG, 4, 1, at(7))),
}


def kept_exif(folder: Path, exif: bytes) -> dict[str, bytes]:
    """What is kept of the EXIF of a PNG."""
    source = encode(Image.new("RGB", (4, 3)), "PNG")
    (folder / "source").write_bytes(source[:33] + png_chunk(b"eXIf", exif[6:]) + source[33:])
    return read_metadata(folder / "source", frozenset(["exif", "xmp"]))


def written(suffix: str, kept: dict[str, bytes], **options: Any) -> Image.Image:
    """A small picture saved with what was kept, and read again."""
    file = io.BytesIO()
    options |= {"compression": "none"} if suffix == ".tiff" else {}
    SAVERS[suffix](Image.new("RGB", (4, 3)), file, kept, metadata=frozenset(["exif"]), **options)
    return ImageOps.exif_transpose(decode(file.getvalue()))


@pytest.mark.parametrize("suffix", OUTPUTS)
@pytest.mark.parametrize("exif", ODD.values(), ids=ODD)
@pytest.mark.filterwarnings("ignore")
def test_odd_exif_never_fails_a_picture(tmp_path: Path, exif: bytes, suffix: str) -> None:
    """EXIF that breaks its own rules is kept as far as it can be, or left out; the picture is made, upright."""
    assert written(suffix, kept_exif(tmp_path, exif)).size == (4, 3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", OUTPUTS)
def test_exif_with_flipped_bytes_never_fails_a_picture(tmp_path: Path, suffix: str) -> None:
    """Whatever a few wrong bytes make of EXIF, the picture is made."""
    whole = with_thumbnail(exif_of_a_camera().tobytes())
    for seed in range(60):
        chance, exif = random.Random(seed), bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            exif[chance.randrange(6, 400)] = chance.choice([0, 1, 2, 3, 5, 7, 12, 255, chance.randrange(256)])
        assert written(suffix, kept_exif(tmp_path, bytes(exif))).size == (4, 3), seed


def test_what_can_be_read_is_kept_beside_what_cannot(tmp_path: Path) -> None:
    """Broken EXIF costs the EXIF and not the packet beside it."""
    yaml = yaml_of(stage_yaml("a", ".webp", "{metadata: [exif, xmp]}"))
    made = make_all(tmp_path, yaml, {"a.jpg": encode(STORED, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05", xmp=XMP)})
    image = decode(made.of("a/a.webp"))

    assert xmp_of(image) == UPRIGHT_XMP


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_huge_exif_is_written_or_left_out_with_a_note(tmp_path: Path, suffix: str) -> None:
    """EXIF beyond the 64 KB of a JPEG's segment goes into the formats that can hold it; a JPEG is made without it."""
    exif = exif_of_a_camera()
    exif[ExifTags.Base.ImageDescription] = "x" * 70_000
    made = make_all(tmp_path, yaml_of(stage_yaml("a", suffix, "{metadata: [exif]}")), {
        "a.png": encode(STORED, "PNG", exif=exif),
    })  # fmt: skip

    if suffix == ".jpg":
        assert "its EXIF is too long for a JPEG: left out" in made.failures
        assert not decode(made.of("a/a.jpg")).getexif()
    else:
        assert len(decode(made.of(f"a/a{suffix}")).getexif()[ExifTags.Base.ImageDescription]) == 70_000


def test_the_layers_of_a_photoshop_file_are_no_exif(tmp_path: Path) -> None:
    """A TIFF's tag 37724 holds all the layers, unflattened and of the old size: megabytes that nobody asked for."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info.tagtype[37724] = 7
    info[37724], info[ExifTags.Base.Make] = b"SECRET-layer" * 6000, "Maker"
    made = make_all(tmp_path, yaml_of(stage_yaml("a", ".jpg", "{metadata: [exif]}")), {
        "a.tif": encode(UPRIGHT, "TIFF", tiffinfo=info),
    })  # fmt: skip
    data = made.of("a/a.jpg")

    assert decode(data).getexif()[ExifTags.Base.Make] == "Maker" and b"SECRET" not in data


# -- on longer ways ----------------------------------------------------------------------------------------------------

CASCADE = """
inputs: in
stages:
  - name: web
    uses: resize
    with: {width: 30}
    output: {path: 'out/web/{stem}.webp', save: {metadata: [exif, xmp]}}
  - name: thumb
    from: web
    uses: resize
    with: {width: 10}
    output: {path: 'out/thumb/{stem}.jpg', save: {metadata: [exif]}}
  - name: bare
    from: web
    uses: resize
    with: {width: 10}
    output: 'out/bare/{stem}.jpg'
engine: serial
"""


def test_metadata_comes_through_a_cascade(tmp_path: Path) -> None:
    """Each output keeps what it says itself, of the source and not of what is above it; nobody turns it again."""
    made = make_all(tmp_path, CASCADE, {"a.jpg": sources()["JPEG"]})
    web, thumb, bare = (decode(made.of(name)) for name in ("web/a.webp", "thumb/a.jpg", "bare/a.jpg"))

    assert web.getexif()[271] == thumb.getexif()[271] == "Maker" and 271 not in bare.getexif()
    assert xmp_of(web) == UPRIGHT_XMP and xmp_of(thumb) is None
    assert not thumb.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    for image in (web, thumb, bare):
        assert image.width < image.height and ImageOps.exif_transpose(image).size == image.size


IMAGE_STAGES = '''
from pathlib import Path
from PIL import Image, ImageOps

def poster(text: str) -> Image.Image:
    """Make a picture of a text."""
    return Image.new("RGB", (20, 30), "green")

def soft(image: Image.Image) -> Image.Image:
    """Do nothing to a picture."""
    return image

def opened(path: Path) -> Image.Image:
    """Give on the file as Pillow opens it."""
    return Image.open(path)
'''


@pytest.mark.parametrize("uses", ["soft", "opened"])
@pytest.mark.parametrize("suffix", OUTPUTS)
def test_metadata_comes_through_a_stage_over_images(tmp_path: Path, uses: str, suffix: str) -> None:
    """What the source says is kept beside what any stage made of it, upright."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "images.py").write_text(IMAGE_STAGES)
    yaml = yaml_of(stage_yaml("a", suffix, "{metadata: [icc, exif, xmp]}", uses=f"./stages/images.py:{uses}"))
    image = decode(make_all(tmp_path, yaml, {"a.jpg": sources()["JPEG"]}).of(f"a/a{suffix}"))

    assert image.size == UPRIGHT.size and ImageOps.exif_transpose(image).size == UPRIGHT.size
    assert image.getexif()[ExifTags.Base.Make] == "Maker" and xmp_of(image) == UPRIGHT_XMP
    assert SWAPPED[150 : 150 + BESIDE] not in image.info["icc_profile"]


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_a_source_that_is_no_picture_has_nothing_to_keep(tmp_path: Path, suffix: str) -> None:
    """A picture made of a text is saved with the profile of its pixels and nothing else."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "images.py").write_text(IMAGE_STAGES)
    yaml = yaml_of(stage_yaml("a", suffix, "{metadata: [icc, exif, xmp]}", uses="./stages/images.py:poster"))
    image = decode(make_all(tmp_path, yaml, {"a.txt": b"hello"}).of(f"a/a{suffix}"))

    assert image.size == (20, 30) and b"s\0R\0G\0B" in image.info["icc_profile"]
    assert not image.getexif().get(ExifTags.Base.Make) and xmp_of(image) is None


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    """That the source cannot be read any more is no reason to write an output without its metadata."""
    with pytest.raises(FileNotFoundError):
        read_metadata(tmp_path / "gone.jpg", frozenset(["exif"]))


def test_every_process_writes_the_same_bytes(tmp_path: Path) -> None:
    """No clock and no order of a set shows in what is kept: other runs, in other processes, make the same files."""
    (tmp_path / "source.jpg").write_bytes(sources()["JPEG"])
    program = (
        "import sys, io, hashlib\n"
        "from pathlib import Path\n"
        "from PIL import Image\n"
        "from pipeline.images.encode import SAVERS\n"
        "from pipeline.images.metadata import read_metadata\n"
        "wanted = frozenset(['icc', 'exif', 'xmp'])\n"
        "kept = read_metadata(Path(sys.argv[1]), wanted)\n"
        "for suffix in ('.jpg', '.png', '.webp', '.avif'):\n"
        "    file = io.BytesIO()\n"
        "    SAVERS[suffix](Image.new('RGB', (9, 9)), file, kept, metadata=wanted)\n"
        "    print(hashlib.sha256(file.getvalue()).hexdigest())\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program, tmp_path / "source.jpg"],
            env=os.environ | {"PYTHONHASHSEED": seed}, cwd=Path(__file__).parents[3],
            check=True, capture_output=True, text=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip

    assert len(said) == 1


# -- what may be said --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("save", "wrong", "says"),
    [
        ("{metadata: [exiff]}", "[exiff", "did you mean 'exif'?"),
        ("{metadata: [icc, exif, xpm]}", "[icc", "did you mean 'xmp'?"),
        ("{metadata: []}", "[]", "option 'metadata'"),
        ("{metadata: keep}", "keep", "option 'metadata'"),
        ("{metadata: exif}", "exif", "option 'metadata'"),
        ("{metadata: true}", "true", "option 'metadata'"),
        ("{metadata: 3}", "3", "option 'metadata'"),
        ("{metadata: null}", "null", "option 'metadata'"),
        ("{metadata: {exif: true}}", "{exif", "option 'metadata'"),
        ("{metadata: [strip]}", "[strip", "option 'metadata'"),
        ("{metadata: [[exif]]}", "[[exif", "option 'metadata'"),
        ("{metadata: [1]}", "[1", "option 'metadata'"),
        ("{metadata: [null]}", "[null", "option 'metadata'"),
        ("{metdata: strip}", "metdata", "no option 'metdata'; did you mean 'metadata'?"),
    ],
)
def test_what_is_misspelt_is_refused_at_its_place(tmp_path: Path, save: str, wrong: str, says: str) -> None:
    """Metadata is `strip` or a list of what there is; all else is an error at its line and column."""
    line = f"  - {{name: a, uses: resize, with: {{width: 9}}, output: {{path: 'o/{{stem}}.png', save: {save}}}}}"
    project = Project(tmp_path, f"inputs: in\nstages:\n{line}\n")
    with pytest.raises(ConfigError) as refused:
        project.plan()

    first = str(refused.value).splitlines()[0]
    assert f"pipeline.yaml:3:{line.rindex(wrong) + 1}: " in first and says in first


@pytest.mark.parametrize("metadata", ["[icc]", "[xmp, exif]", "[exif, exif]", "strip"])
def test_what_may_be_said(tmp_path: Path, metadata: str) -> None:
    """Order and repetition are nobody's business."""
    yaml = yaml_of(stage_yaml("a", ".webp", f"{{metadata: {metadata}}}"))

    assert make_all(tmp_path, yaml, {"a.jpg": sources()["JPEG"]}).outputs


def test_gif_has_no_metadata(tmp_path: Path) -> None:
    """Nobody reads metadata in a GIF: the option is refused, not ignored."""
    with pytest.raises(ConfigError, match="no option 'metadata'"):
        make_all(tmp_path, yaml_of(stage_yaml("a", ".gif", "{metadata: [exif]}")), {})


def test_changing_what_is_kept_redoes_that_output_only(tmp_path: Path) -> None:
    """Metadata is part of how one output is saved, and of nothing else's recipe; the order of its list is not."""
    project = Project(tmp_path, CASCADE)
    project.write("in/a.jpg", sources()["JPEG"])
    project.run()

    project.edit("pipeline.yaml", "[exif, xmp]", "[xmp, exif]")
    assert {action for action, _ in project.plan().values()} == {"up-to-date"}
    project.edit("pipeline.yaml", "[xmp, exif]", "[xmp]")
    planned = project.plan()
    assert [name for name, (action, _) in planned.items() if action != "up-to-date"] == ["web a.jpg"]


def test_an_error_of_ours_is_one_of_the_file(tmp_path: Path) -> None:
    """Metadata that a format cannot hold fails the output, not the program: by our own kind of error."""
    with pytest.raises(FileFailure, match="cannot be written as JPEG: XMP data is too long"):
        SAVERS[".jpg"](UPRIGHT, io.BytesIO(), {"xmp": b"x" * 70_000})


def test_what_is_kept_fits_what_was_made(made: dict[str, Made]) -> None:
    """The picture beside the metadata is the right one, upright, in the right colours."""
    red, _, blue = UPRIGHT.resize((20, 30)).split()
    for suffix in OUTPUTS:
        kept_red, _, kept_blue = decode(output_of(made, "strip", "PNG", suffix)).convert("RGB").split()
        assert mean(kept_blue, red) < 40 and mean(kept_red, blue) < 40  # swapped by the profile
