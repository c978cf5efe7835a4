"""What an output keeps of its source beside the pixels: density, credits, and of EXIF and XMP what stays true."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pillow_heif
import pillow_jxl  # noqa: F401, which registers its reader
import pytest
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin
from support.camera import LATITUDE, STORED, exif_of_a_camera
from support.pictures import decode, encode, paint
from support.project import Project
from support.tiffs import tiff

from pipeline.errors import ConfigError
from pipeline.images import xmp
from pipeline.images.decode import open_picture
from pipeline.images.density import density_of
from pipeline.images.encode import SAVERS
from pipeline.images.metadata import XMP_TAG, read_metadata
from pipeline.notes import collected

OUTPUTS = [".jpg", ".png", ".webp", ".avif", ".tiff"]
RDF = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"'
    ' xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:cr="%s" %s>%s'
    "</rdf:Description></rdf:RDF></x:xmpmeta>"
)
RAW_SETTINGS = "http://ns.adobe.com/camera-raw-settings/1.0/"


def packet(attributes: str = "", elements: str = "", cr: str = RAW_SETTINGS) -> bytes:
    return (RDF % (cr, attributes, elements)).encode()


def saved_as(suffix: str, kept: dict[str, Any], metadata: str = "exif xmp", **options: Any) -> bytes:
    """A small picture saved with what was kept."""
    file = io.BytesIO()
    wanted: Any = frozenset(metadata.split()) if metadata else "strip"
    SAVERS[suffix](Image.new("RGB", (9, 6), "red"), file, kept, metadata=wanted, **options)
    return file.getvalue()


def xmp_in(image: Image.Image) -> bytes:
    found = image.tag_v2.get(XMP_TAG) if image.format == "TIFF" else image.info.get("xmp")
    return bytes(found or b"")


# -- density -----------------------------------------------------------------------------------------------------------


def exif_density(across: float, down: float, unit: int | None) -> bytes:
    exif = Image.Exif()
    exif[282], exif[283] = across, down
    if unit is not None:
        exif[296] = unit
    return exif.tobytes()


def tiff_density(**tags: Any) -> bytes:
    return encode(paint(8, 6), "TIFF", **tags)


def jfif(unit: int, across: int, down: int, exif: bytes = b"") -> bytes:
    """A JPEG with a JFIF header by hand (JFIF 1.02)."""
    data = bytearray(encode(paint(8, 6), "JPEG", **({"exif": exif} if exif else {})))
    assert data[6:11] == b"JFIF\0"
    data[13:18] = struct.pack(">BHH", unit, across, down)
    return bytes(data)


# What a file states, and the pixels an inch that it means.
DENSITIES: dict[str, tuple[bytes, tuple[float, float] | None]] = {
    "JFIF, an inch": (jfif(1, 300, 300), (300, 300)),
    "JFIF, a centimetre": (jfif(2, 100, 50), (254, 127)),
    "JFIF, shape only": (jfif(0, 2, 1), None),
    "JFIF, none, and EXIF": (jfif(0, 1, 1, exif_density(240, 240, 2)), (240, 240)),
    "JFIF before EXIF": (jfif(1, 300, 300, exif_density(72, 72, 2)), (300, 300)),
    "JFIF of nothing": (jfif(1, 0, 0), None),
    "EXIF, a centimetre": (jfif(0, 1, 1, exif_density(100, 100, 3)), (254, 254)),
    "EXIF without unit": (jfif(0, 1, 1, exif_density(200, 100, None)), (200, 100)),
    "EXIF, shape only": (jfif(0, 1, 1, exif_density(2, 1, 1)), None),
    "PNG": (encode(paint(8, 6), "PNG", dpi=(300, 150)), (300, 150)),
    "PNG of none": (encode(paint(8, 6), "PNG"), None),
    "TIFF, an inch": (tiff_density(dpi=(600, 300)), (600, 300)),
    "TIFF, a centimetre": (tiff_density(resolution_unit=3, x_resolution=100.0, y_resolution=100.0), (254, 254)),
    "TIFF, shape only": (tiff_density(resolution_unit=1, x_resolution=2.0, y_resolution=1.0), None),
    "TIFF of none": (tiff_density(), None),
    "BMP": (encode(paint(8, 6), "BMP", dpi=(150, 150)), (150, 150)),
    "WebP by EXIF": (encode(paint(8, 6), "WEBP", exif=exif_density(180, 180, 2)), (180, 180)),
    "AVIF by EXIF": (encode(paint(8, 6), "AVIF", exif=exif_density(180, 180, 2)), (180, 180)),
    "GIF": (encode(paint(8, 6), "GIF"), None),
}


@pytest.mark.parametrize("kind", DENSITIES)
def test_the_density_that_a_file_states(kind: str) -> None:
    """The pixels an inch are those of the standard of each format, whatever the unit; a mere shape is none."""
    data, expected = DENSITIES[kind]
    found = density_of(Image.open(io.BytesIO(data)))
    assert found == (pytest.approx(expected, abs=0.02) if expected else None)


def exif_turned(orientation: int, *density: float) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    if density:
        exif[282], exif[283] = density
    return exif.tobytes()


def tiff_turned(orientation: int) -> bytes:
    return tiff([[[7]] * 8] * 6, more={274: ("H", [orientation]), 282: ("f", [300.0]), 283: ("f", [150.0])})


# By the orientation: a file that states 300 pixels an inch across and 150 down, of the stored picture.
TURNED: dict[str, Callable[[int], bytes]] = {
    "JFIF": lambda orientation: jfif(1, 300, 150, exif_turned(orientation)),
    "EXIF": lambda orientation: jfif(0, 1, 1, exif_turned(orientation, 300.0, 150.0)),
    "PNG": lambda orientation: encode(paint(8, 6), "PNG", dpi=(300, 150), exif=exif_turned(orientation)),
    "TIFF": tiff_turned,
    "WebP": lambda orientation: encode(paint(8, 6), "WEBP", exif=exif_turned(orientation, 300.0, 150.0)),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", TURNED)
@pytest.mark.parametrize("is_open", [False, True])
def test_the_density_is_turned_with_the_picture(orientation: int, kind: str, is_open: bool, tmp_path: Path) -> None:
    """Of a scan with twice as many pixels across as down, turned by a quarter, the output has twice as many down."""
    file = tmp_path / "a"
    file.write_bytes(TURNED[kind](orientation))
    if is_open:
        open_picture(file).close()
    kept = read_metadata(file, "strip")

    assert kept["dpi"] == pytest.approx((150, 300) if orientation > 4 else (300, 150), abs=0.02)
    assert decode(saved_as(".png", kept, "")).info["dpi"] == pytest.approx(kept["dpi"], abs=0.02)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff"])
def test_the_density_is_kept_in_every_format_that_has_one(suffix: str, tmp_path: Path) -> None:
    """A scan of 300 dpi stays one, without EXIF and without a word in the pipeline; what states none gets none."""
    stage = f"{{name: a, uses: resize, with: {{width: 4}}, output: 'out/{{name}}{suffix}'}}"
    project = Project(tmp_path, f"inputs: in\nengine: serial\nstages:\n  - {stage}\n")
    for name, (data, _) in DENSITIES.items():
        project.write(f"in/{name}", data)
    assert project.run().failed == 0
    for name, (_, expected) in DENSITIES.items():
        found = density_of(decode(project.outputs()[f"{name}{suffix}"]))
        assert found == (pytest.approx(expected, abs=0.6) if expected else None), name


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_kept_exif_agrees_with_the_density(suffix: str, tmp_path: Path) -> None:
    """Where JFIF and EXIF say different things, the output says one of them in both places."""
    file = tmp_path / "a.jpg"
    file.write_bytes(jfif(1, 300, 300, exif_density(72, 72, 2)))
    kept = read_metadata(file, frozenset(["exif"]))
    options = {"compression": "none"} if suffix == ".tiff" else {}
    exif = decode(saved_as(suffix, kept, "exif", **options)).getexif()
    assert (exif[282], exif[283], exif[296]) == (300, 300, 2)


# -- credits -----------------------------------------------------------------------------------------------------------


def iim(*datasets: tuple[int, int, bytes]) -> bytes:
    """IPTC's datasets by hand (IIM 4.2, 1.5)."""
    return b"".join(struct.pack(">BBBH", 0x1C, record, number, len(data)) + data for record, number, data in datasets)


def with_iptc(jpeg: bytes, datasets: bytes) -> bytes:
    """A JPEG with IPTC in Photoshop's segment (APP13, resource 0x0404)."""
    resource = b"8BIM" + struct.pack(">H", 0x0404) + b"\0\0" + struct.pack(">I", len(datasets)) + datasets
    body = b"Photoshop 3.0\0" + resource + b"\0" * (len(datasets) % 2)
    return jpeg[:2] + b"\xff\xed" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


IPTC = iim((1, 90, b"\x1b%G"), (2, 5, b"SECRET-title"), (2, 80, b"Ann"), (2, 80, "Zoë".encode()),
           (2, 90, b"SECRET-city"), (2, 110, b"Agency"), (2, 116, "© 2024 Ann".encode()))  # fmt: skip
CREDITED = packet(
    'xmp:CreatorTool="SECRET-tool" exif:GPSLatitude="48,41N"',
    "<dc:creator><rdf:Seq><rdf:li>Ann</rdf:li></rdf:Seq></dc:creator>"
    '<dc:rights><rdf:Alt><rdf:li xml:lang="x-default">© Ann</rdf:li></rdf:Alt></dc:rights>'
    "<dc:description>SECRET-text</dc:description>"
    '<xmpRights:WebStatement xmlns:xmpRights="http://ns.adobe.com/xap/1.0/rights/">https://example.com/l</xmpRights:WebStatement>'
    '<photoshop:Credit xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/">Agency</photoshop:Credit>'
    '<plus:Licensor xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/"><rdf:Seq><rdf:li rdf:parseType="Resource">'
    "<plus:LicensorURL>https://example.com/buy</plus:LicensorURL></rdf:li></rdf:Seq></plus:Licensor>",
)


def camera_exif(**texts: str) -> bytes:
    exif = exif_of_a_camera()
    exif[ExifTags.Base.Software] = "SECRET-software"
    for name, text in texts.items():
        exif[ExifTags.Base[name]] = text.encode()
    return exif.tobytes()


def credited() -> dict[str, bytes]:
    pillow_heif.register_heif_opener()
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info.tagtype[33723], info[33723] = 7, IPTC
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", CREDITED.decode())
    exif = camera_exif(Artist="Ann", Copyright="© Ann")
    return {
        "EXIF": encode(STORED, "JPEG", exif=exif),
        "EXIF in WebP": encode(STORED, "WEBP", exif=exif),
        "EXIF in HEIC": encode(STORED, "HEIF", exif=exif),
        "EXIF in JPEG XL": encode(STORED, "JXL", exif=exif),
        "IPTC": with_iptc(encode(STORED, "JPEG", exif=camera_exif()), IPTC),
        "IPTC in TIFF": encode(STORED, "TIFF", tiffinfo=info),
        "XMP": encode(STORED, "JPEG", exif=camera_exif(), xmp=CREDITED),
        "XMP in PNG": encode(STORED, "PNG", pnginfo=text, exif=camera_exif()),
        "all": with_iptc(encode(STORED, "JPEG", exif=exif, xmp=CREDITED), IPTC),
    }


CREDITS = credited()


@pytest.mark.parametrize("suffix", OUTPUTS)
@pytest.mark.parametrize("kind", CREDITS)
def test_credits_are_kept_and_nothing_else(kind: str, suffix: str, tmp_path: Path) -> None:
    """Who made it and whose it is are said in EXIF and XMP, wherever the source says it; no camera, text or place."""
    (tmp_path / "source").write_bytes(CREDITS[kind])
    data = saved_as(suffix, read_metadata(tmp_path / "source", frozenset(["copyright"])), "copyright")
    image = decode(data)
    exif, said = image.getexif(), xmp.credits_in(xmp_in(image))

    assert "Ann" in xmp.texts_of(said[xmp.CREATOR]) and "Ann" in xmp.texts_of(said[xmp.RIGHTS])[0]
    for tag in (ExifTags.Base.Artist, ExifTags.Base.Copyright):
        assert b"Ann" in exif[tag].encode("latin-1")
    assert "©" in exif[ExifTags.Base.Copyright].encode("latin-1").decode()
    if "IPTC" in kind:
        assert xmp.texts_of(said[xmp.CREATOR]) == ["Ann", "Zoë"] and xmp.texts_of(said[xmp.CREDIT]) == ["Agency"]
    if "XMP" in kind or kind == "all":
        assert b"https://example.com/l" in data and b"https://example.com/buy" in data and b"Agency" in data
    for secret in (b"SECRET", b"Maker", b"Model", b"2024:05", b"GPS"):
        assert secret not in data
    assert not exif.get_ifd(ExifTags.IFD.GPSInfo) and not exif.get_ifd(ExifTags.IFD.Exif)


@pytest.mark.parametrize(("artist", "notice", "iptc", "is_noted"), [
    ("Ann", "© Ann", b"", False), ("Ann", "", b"", False), ("Bob", "© Ann", b"", True), ("Ann", "© Bob", b"", True),
    ("", "", IPTC, True), ("Ann", "© Ann", iim((2, 80, b"Ann"), (2, 116, "© Ann".encode())), False),
])  # fmt: skip
def test_credits_that_differ_are_noted(artist: str, notice: str, iptc: bytes, is_noted: bool, tmp_path: Path) -> None:
    """XMP's are kept, and nobody else's name is lost without a word."""
    said = {"Artist": artist, "Copyright": notice}
    exif = camera_exif(**{name: text for name, text in said.items() if text})
    (tmp_path / "source").write_bytes(with_iptc(encode(STORED, "JPEG", exif=exif, xmp=CREDITED), iptc))
    with collected() as notes:
        read_metadata(tmp_path / "source", frozenset(["copyright"]))
    assert any("different credits" in str(each) for each in notes) == is_noted


def test_a_picture_without_credits_keeps_nothing(tmp_path: Path) -> None:
    """There is no empty packet where nobody is named; a broken packet, or one with entities, costs the packet only."""
    entities = b'<!DOCTYPE x [<!ENTITY a "aaaa">]>' + CREDITED
    for number, beside in enumerate(({"exif": camera_exif()}, {"xmp": b"<x:xmpmeta"}, {"xmp": entities})):
        file = tmp_path / str(number)
        file.write_bytes(encode(STORED, "JPEG", **beside))
        assert read_metadata(file, frozenset(["copyright"])) == {}


# -- what is true of the source only -----------------------------------------------------------------------------------

UNTRUE = {
    "size": 'exif:PixelXDimension="4000" tiff:ImageWidth="4000"',
    "layout": 'tiff:Compression="1" tiff:XResolution="72/1" exif:ColorSpace="65535"',
    "format": 'dc:format="image/x-adobe-dng"',
    "crop settings": 'cr:CropTop="0.1" cr:HasCrop="True"',
    "motion photo": 'xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" GCamera:MotionPhoto="1"',
    "gain map": 'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"',
    "Apple's gain map": 'xmlns:HDRGainMap="http://ns.apple.com/HDRGainMap/1.0/" HDRGainMap:HDRGainMapVersion="65536"',
    "more elsewhere": 'xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="C0FFEE"',
    "panorama": 'xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" GPano:FullPanoWidthPixels="9000"',
}
UNTRUE_ELEMENTS = {
    "preview": "<xmp:Thumbnails><rdf:Alt><rdf:li>SECRET</rdf:li></rdf:Alt></xmp:Thumbnails>",
    "crop settings": "<cr:ToneCurve><rdf:Seq><rdf:li>0, 0</rdf:li></rdf:Seq></cr:ToneCurve><cr:CropTop>1</cr:CropTop>",
    "nested": "<cr:Look><cr:Look>SECRET</cr:Look></cr:Look>",
    "empty": "<tiff:ImageLength/>",
    "parts of the file": '<C:Directory xmlns:C="http://ns.google.com/photos/1.0/container/"><rdf:Seq/></C:Directory>',
    "faces": '<r:Regions xmlns:r="http://www.metadataworkinggroup.com/schemas/regions/">SECRET</r:Regions>',
}
TRUE = "xmp:Rating=\"5\" dc:title='a > b'"


@pytest.mark.parametrize("kind", UNTRUE)
def test_a_property_that_is_untrue_goes(kind: str) -> None:
    """Of the packet nothing but that property goes, whatever prefix its schema has, and what is true stays as it is."""
    kept = xmp.pruned(packet(f"{TRUE} {UNTRUE[kind]}"), keeps_positions=True).decode()
    assert TRUE in kept
    for each in UNTRUE[kind].split():
        assert each not in kept or "panorama" in each
    assert xmp.pruned(packet(TRUE, "<dc:source>s</dc:source>", cr="x:"), keeps_positions=False) == packet(
        TRUE, "<dc:source>s</dc:source>", cr="x:"
    )


@pytest.mark.parametrize("kind", UNTRUE_ELEMENTS)
def test_an_element_that_is_untrue_goes(kind: str) -> None:
    """An element goes with all that is in it; its neighbours stay byte for byte."""
    before, after = "<dc:title>one</dc:title>", "<xmp:Label>two</xmp:Label>"
    kept = xmp.pruned(packet("", before + UNTRUE_ELEMENTS[kind] + after), keeps_positions=True)
    assert kept == packet("", before + after).replace(f' xmlns:cr="{RAW_SETTINGS}"'.encode(), b"")


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("position", [
    'exif:GPSLatitude="48,41.0N"', "<exif:GPSLongitude>9,1E</exif:GPSLongitude>", 'drone-dji:GpsLatitude="48.1"',
    "<drone-dji:RelativeAltitude>+10</drone-dji:RelativeAltitude>", "<exif:GPSVersionID/>",
])  # fmt: skip
def test_positions_in_xmp_go_unless_asked_for(position: str, keeps: bool) -> None:
    """A place is not published by accident."""
    given = packet("", position) if position.startswith("<") else packet(position)
    assert (position.encode() in xmp.pruned(given, keeps_positions=keeps)) is keeps


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_a_packet_in_utf_16_is_pruned_too(order: str) -> None:
    """Its bytes are others, what it says is the same; it is written as UTF-8, the only one that JPEG and PNG allow."""
    given = packet('exif:GPSLatitude="1" xmp:Rating="5"')
    for mark in ("", "\ufeff"):
        kept = xmp.pruned((mark + given.decode()).encode(order), keeps_positions=False)
        assert kept == xmp.pruned(given, keeps_positions=False) and b"Rating" in kept


def test_a_hostile_packet_takes_no_time() -> None:
    """A megabyte of tags that never end, or quotes that never close, is read once from end to end."""
    for piece in ("<exif:GPSLatitude>", "<a:b c='", "<a:b ", "<exif:GPSLatitude ", 'exif:GPSLatitude="1" '):
        xmp.pruned((piece * 60_000).encode(), keeps_positions=False)
        xmp.pruned(packet("", piece * 60_000), keeps_positions=False)


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_the_untrue_parts_of_exif_go(suffix: str, tmp_path: Path) -> None:
    """A maker's notes, places in the source's pixels, raw settings and padding go; positions stay where asked for."""
    exif = exif_of_a_camera()
    exif[50721], exif[33421], exif[ExifTags.Base.Artist] = "SECRET", b"SECRET", b"Zo\xc3\xab"
    camera = exif.get_ifd(ExifTags.IFD.Exif)
    camera[ExifTags.Base.MakerNote], camera[37396], camera[59932] = b"SECRET-notes", (1, 2, 3), b"\0" * 2060
    camera[ExifTags.Base.LensModel] = "f/2"
    (tmp_path / "a").write_bytes(encode(STORED, "JPEG", exif=exif.tobytes()))
    for gps in (False, True):
        kept = read_metadata(tmp_path / "a", frozenset(["exif", "gps"] if gps else ["exif"]))
        data = saved_as(suffix, kept, "exif", **({"compression": "none"} if suffix == ".tiff" else {}))
        found = decode(data).getexif()
        assert b"SECRET" not in data and found[ExifTags.Base.Make] == "Maker"
        assert found[ExifTags.Base.Artist].encode("latin-1") == b"Zo\xc3\xab"
        assert found.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.LensModel] == "f/2"
        assert not {ExifTags.Base.MakerNote, 37396, 59932} & set(found.get_ifd(ExifTags.IFD.Exif))
        places = found.get_ifd(ExifTags.IFD.GPSInfo)
        assert (places.get(ExifTags.GPS.GPSLatitude) == LATITUDE) is gps


@pytest.mark.parametrize("metadata", ["[gps]", "[gps, icc]", "[copyright, gps]"])
def test_positions_alone_are_refused(metadata: str, tmp_path: Path) -> None:
    """'gps' says what stays of EXIF and XMP: without them it is a mistake, named with its line."""
    yaml = "inputs: in\nstages:\n  - {name: a, uses: convert, output: {path: 'o/{stem}.jpg', save: {metadata: WHAT}}}\n"
    with pytest.raises(ConfigError, match="'gps' adds the positions to 'exif' or 'xmp'"):
        Project(tmp_path, yaml.replace("WHAT", metadata)).plan()


def test_the_density_is_read_where_the_file_is_opened(tmp_path: Path) -> None:
    """A file that a stage has opened is not opened again for each of its outputs; one that has changed is."""
    from pipeline.images import density

    file = tmp_path / "a.jpg"
    file.write_bytes(jfif(1, 300, 300))
    open_picture(file).close()
    assert density.remembered(file) == (True, (300, 300))
    file.write_bytes(jfif(1, 72, 72) + b"\0")
    assert density.remembered(file) == (False, None)
    assert read_metadata(file, "strip") == {"dpi": (72, 72)}
