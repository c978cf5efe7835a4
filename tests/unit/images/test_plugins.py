"""HEIC and JPEG XL through their extras, and plug-ins that a user registers; what is said where an extra is missing."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pillow_heif
import pillow_jxl  # noqa: F401, which registers its reader
import pytest
from PIL import Image, ImageOps, PngImagePlugin
from support.colors import BT709, BT2020, P3, in_srgb, pq_light, srgb_light, tone_mapped
from support.pictures import SWAPPED, encode, mean, paint, worst
from support.program import ROOT, Pipeline

from pipeline.errors import Unreadable
from pipeline.images import Limits, limited_to
from pipeline.images.decode import open_picture
from pipeline.images.diagnosis import READABLE
from pipeline.images.extras import EXTRAS, extra_for
from pipeline.images.jpeg_xl import size_of
from pipeline.images.plugins import with_plugins
from pipeline.notes import collected

# Stages of a pipeline over pictures, and a plug-in for a format of one's own: XYZ1, width, height, and greys.
YAML = """
inputs: in
engine: ENGINE
stages:
  - {name: small, uses: convert, output: 'out/{name}.png'}
"""
PLUGIN = """
from PIL import Image, ImageFile

class Xyz(ImageFile.ImageFile):
    format, format_description = "XYZ", "made by a test"

    def _open(self):
        head = self.fp.read(6)
        if head[:4] != b"XYZ1":
            raise SyntaxError("no XYZ")
        self._size, self._mode = (head[4], head[5]), "L"
        self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 6, ("L", 0, 1))]

def load():
    Image.register_open("XYZ", Xyz, lambda head: head[:4] == b"XYZ1")
    Image.register_extension("XYZ", ".xyz")
"""
OWN_STAGE = """
from pipeline import Picture

load()

def own(picture: Picture) -> Image.Image:
    return picture.load()
"""
XYZ = b"XYZ1" + bytes([4, 2]) + bytes(range(10, 90, 10))


def heic(*images: Image.Image, **options: Any) -> bytes:
    pillow_heif.register_heif_opener()
    options = {"quality": 95, "chroma": 444} | options
    return encode(images[0], "HEIF", save_all=True, append_images=list(images[1:]), **options)


def jxl(image: Image.Image, **options: Any) -> bytes:
    return encode(image, "JXL", **{"lossless": True} | options)


def without_readers(folder: Path) -> dict[str, str]:
    """What in the environment keeps Python from finding any reader of an extra."""
    folder.mkdir()
    names = [extra.module for extra in EXTRAS]
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({names}))\n")
    return {"PYTHONPATH": f"{folder}:{ROOT}"}


# -- what is read ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_heic_is_read(mode: str) -> None:
    """A HEIC comes as it was painted, within what its compression loses."""
    image = paint(64, 48, mode)
    picture = open_picture(heic(image))
    assert (picture.format, picture.size, picture.frames) == ("HEIF", (64, 48), 1)
    assert mean(picture.load().convert(mode), image) < 2


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
def test_jpeg_xl_is_read_to_the_last_bit(mode: str) -> None:
    """A lossless JPEG XL comes exactly as it was painted; its own sRGB profile changes no pixel."""
    image = paint(30, 20, mode)
    assert worst(open_picture(jxl(image)).load(), image) == 0


# Grey and alpha of three pixels: 0 and 1, 1 and 0, 128/255 and 64/255; by libjxl, since no encoder here takes them.
DEEP_JXL = {
    10: "ff0a000004a04100458b0810100050004b188b15c25957eabac001800060020aa01c6f13",
    16: "ff0a000004e047f00350b4080810100058004b188b15428a2e094617380010000c10d01f4039de26",
    32: "ff0a00000490137200458b0810100070004b188b1542fafc184c000000fefbfd950000007effffcb3e8180801e",
}


@pytest.mark.parametrize("bits", [10, 16])
def test_deep_greys_and_alpha_in_a_jpeg_xl(bits: int) -> None:
    """Each is itself, and no part of another; these are of linear light, of which 128 is 188 in sRGB."""
    image = open_picture(bytes.fromhex(DEEP_JXL[bits])).load()
    assert (image.mode, image.tobytes()) == ("LA", bytes([0, 255, 255, 0, 188, 64]))


def test_greys_and_alpha_of_floats_in_a_jpeg_xl_are_refused() -> None:
    """Their bytes are not taken for values."""
    with pytest.raises(Unreadable, match=r"^unsupported: JPEG XL, grey and alpha of floats$"):
        open_picture(bytes.fromhex(DEEP_JXL[32]))


@pytest.mark.parametrize("numbers", [(1, 3, 6), (3, 13, 6), (0, 0, 6), (1, 13, 3), (255, 255, 255)])
def test_reserved_numbers_of_colours_in_a_heic_are_read_as_srgb(numbers: tuple[int, int, int]) -> None:
    """As in an AVIF, with a note; of each picture in it."""
    data = bytearray(heic(paint(64, 48), paint(32, 32)))
    plain = open_picture(bytes(data)).load()
    at = -1
    while (at := data.find(b"nclx", at + 1)) >= 0:
        struct.pack_into(">HHH", data, at + 4, *numbers)
    with collected() as noted:
        picture = open_picture(bytes(data))
        assert picture.load().tobytes() == plain.tobytes() and len([*picture.load_each()]) == 2
    told = f"its colours cannot be told: read as sRGB, unknown colours {numbers[0]}/{numbers[1]}"
    assert [each for each in noted if "picture" not in each] == [told]
    with pytest.raises(Unreadable):
        open_picture(bytes(data)[: data.index(b"nclx") + 7])


def test_a_profile_in_heic_is_obeyed() -> None:
    """Telephones write Display P3: the profile is converted to sRGB, as in any other format."""
    image = Image.new("RGB", (32, 32), (255, 0, 0))
    for numbers in ({}, {"color_primaries": 9, "transfer_characteristics": 16}):
        with collected() as noted:
            made = open_picture(heic(image, icc_profile=SWAPPED, **numbers)).load()
        red, _, blue = made.getpixel((16, 16))  # type: ignore[misc]
        assert red < 60 and blue > 200 and not list(noted)


NUMBERED: dict[tuple[int, int], tuple[Sequence[float], Callable[[float], float]]] = {
    (1, 13): (BT709, srgb_light), (2, 2): (BT709, srgb_light), (1, 1): (BT709, srgb_light),
    (12, 13): (P3, srgb_light), (9, 14): (BT2020, srgb_light), (1, 8): (BT709, lambda v: v),
    (9, 16): (BT2020, lambda v: tone_mapped(pq_light(v))),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("numbers", NUMBERED)
def test_numbered_colours_of_heic_are_obeyed(numbers: tuple[int, int], mode: str) -> None:
    """Where numbers and no profile say what the colours mean; of each picture in it, by the standards' formulas."""
    primaries, light = NUMBERED[numbers]
    color = (180, 90, 40) if mode == "RGB" else (90,)
    plain, other = Image.new(mode, (16, 16), color if mode == "RGB" else 90), paint(16, 16, mode)
    data = bytearray(heic(plain, other, quality=-1))
    stored = open_picture(bytes(data)).load().getpixel((8, 8))
    at = -1
    while (at := data.find(b"nclx", at + 1)) >= 0:
        struct.pack_into(">HH", data, at + 4, *numbers)
    with collected() as noted:
        picture = open_picture(bytes(data))
        images = [picture.load(), *picture.load_each()]

    stored = stored if isinstance(stored, tuple) else (stored,) * 3
    for image in (*images[:2], picture.load((16, 16))):
        shown = image.convert("RGB").getpixel((8, 8))
        assert max(abs(a - b) for a, b in zip(shown, in_srgb(stored, primaries, light), strict=True)) <= 1
    hdr = ["its colours are HDR: brought to the range of sRGB, PQ"] if numbers[1] == 16 else []
    assert [each for each in noted if "picture" not in each] == hdr and len(images) == 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_once(orientation: int) -> None:
    """A HEIC is turned by its container alone, though EXIF beside it says how the camera was held."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = paint(64, 48)
    upright = stored.copy()
    upright.info["exif"] = exif.tobytes()
    upright = ImageOps.exif_transpose(upright)
    loaded = open_picture(heic(stored, exif=exif.tobytes())).load()
    assert loaded.size == upright.size and mean(loaded, upright) < 2


def test_exif_does_not_turn_a_jpeg_xl() -> None:
    """The codestream of a JPEG XL says how it is turned; EXIF beside it turns nothing (ISO 18181-2, 9.4)."""
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_picture(jxl(paint(30, 20), exif=exif.tobytes())).size == (30, 20)


def test_xmp_does_not_turn_an_avif() -> None:
    """XMP beside an AVIF turns nothing, since its container has turns of its own (ISO 23000-22, 7.3.9)."""
    packet = b'<x:xmpmeta><d tiff:Orientation="6"/></x:xmpmeta>'
    assert open_picture(encode(paint(30, 20), "AVIF", xmp=packet)).size == (30, 20)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(("exif_says", "size"), [(None, (20, 30)), (1, (30, 20)), (6, (20, 30))])
def test_xmp_turns_a_picture_where_exif_says_nothing(name: str, exif_says: int | None, size: tuple[int, int]) -> None:
    """EXIF's word counts before XMP's."""
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    if exif_says:
        exif[0x0112] = exif_says
    packet = b'<x:xmpmeta><d tiff:Orientation="6"/></x:xmpmeta>'
    beside: dict[str, Any] = {"xmp": packet}
    if name == "PNG":
        beside = {"pnginfo": PngImagePlugin.PngInfo()}
        beside["pnginfo"].add_itxt("XML:com.adobe.xmp", packet.decode())
    assert open_picture(encode(paint(30, 20), name, exif=exif.tobytes(), **beside)).size == size


# -- limits and damage -------------------------------------------------------------------------------------------------


def jxl_header(width: int, height: int, *, boxed: bool) -> bytes:
    """The header of a JPEG XL by hand (ISO 18181-1, annex D): not small, both sides in 30 bits, no ratio."""
    bits = 0 | 3 << 1 | (height - 1) << 3 | 0 << 33 | 3 << 36 | (width - 1) << 38
    codestream = b"\xff\x0a" + bits.to_bytes(9, "little") + bytes(9)
    if not boxed:
        return codestream
    box = b"\0\0\0\x0cJXL \r\n\x87\n" + struct.pack(">I4s", 20, b"ftyp") + b"jxl \0\0\0\0jxl "
    return box + struct.pack(">I4s", 8 + 3000, b"Exif") + bytes(3000) + struct.pack(">I4s", 0, b"jxlc") + codestream


@pytest.mark.parametrize("boxed", [False, True])
def test_a_jpeg_xl_is_refused_before_it_is_decoded(boxed: bool) -> None:
    """Its plug-in decodes a JPEG XL on opening: the size in the header is compared with the limits before."""
    data = jxl_header(60_000, 59_999, boxed=boxed)
    assert size_of(data) == (60_000, 59_999)
    with pytest.raises(Unreadable, match=r"^too large: 60000x59999, limit 100 MP; inputs.max_pixels raises it$"):
        open_picture(data)


@pytest.mark.parametrize("size", [(8, 8), (256, 256), (320, 180), (1000, 750), (513, 257), (40, 20), (3000, 2)])
def test_the_size_in_a_jpeg_xl(size: tuple[int, int]) -> None:
    """Sides of a few bits, of many, and ratios of them: the size is what the encoder was given."""
    data = jxl(Image.new("L", size), effort=1)
    assert size_of(data) == size
    assert {size_of(data[:length]) for length in range(len(data))} <= {None, size} | {
        size_of(data[:length]) for length in range(2, 24)
    }


def test_a_large_heic_is_refused_by_its_header() -> None:
    """The limits hold for a HEIC as for all others."""
    with limited_to(Limits(max_pixels=1000)), pytest.raises(Unreadable, match=r"^too large: 64x48, limit"):
        open_picture(heic(paint(64, 48)))


@pytest.mark.parametrize("make", [heic, jxl])
def test_a_cut_file_is_refused(make: Any) -> None:
    """Half a HEIC or JPEG XL is refused with a reason, never read and never an error of another kind."""
    data = make(paint(64, 48))
    for length in range(1, len(data) - 1, max(1, len(data) // 25)):
        with pytest.raises(Unreadable):
            open_picture(data[:length]).load()


def test_what_a_decoder_says_stands_on_one_line() -> None:
    """What libjxl and libheif say of a damaged file is one sentence after its class."""
    for data in (heic(paint(64, 48))[:-3], jxl(paint(64, 48))[:-9]):
        with pytest.raises(Unreadable, match=r"^(truncated|damaged) picture: [^\n]+$"):
            open_picture(data).load()


# -- who is asked ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heif"), (b"\0\0\0\x18ftyphevc\0\0\0\0msf1hevc", "heif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "heif"), (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", None),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1miaf", None), (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", None),
        (b"\xff\x0a\xfa\x7f", "jxl"), (b"\0\0\0\x0cJXL \r\n\x87\n", "jxl"), (b"\xff\xd8\xff\xe0", None), (b"", None),
    ],
)  # fmt: skip
def test_the_extra_of_a_file(head: bytes, name: str | None) -> None:
    """A file is known by its first bytes, whatever its name; an AVIF is no HEIC."""
    extra = extra_for(head)
    assert (extra and extra.name) == name


def test_a_program_that_draws_is_never_started() -> None:
    """Pillow's readers of EPS, PDF and WMF are asked for nothing; a plug-in of others is, before those of TIFF."""
    formats = with_plugins(READABLE)
    assert not {"EPS", "PDF", "WMF", "MPEG", "GRIB", "HDF5", "BUFR"} & set(formats)
    assert set(READABLE) <= set(formats)
    pillow_heif.register_heif_opener()
    formats = with_plugins(READABLE)
    assert formats.index("AVIF") < formats.index("HEIF") < formats.index("TIFF") < formats.index("TGA")


@pytest.mark.parametrize("engine", ["serial", "pool"])
@pytest.mark.parametrize("where", ["initializer", "stage"])
def test_a_plugin_of_ones_own_is_read(engine: str, where: str, tmp_path: Path, pipeline: Pipeline) -> None:
    """What the initializer or a stage's module registers is read in workers, in one process and by `try`."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.xyz").write_bytes(XYZ)
    (tmp_path / "in" / "notes.abc").write_bytes(b"\0\1nothing")
    yaml = YAML.replace("ENGINE", engine)
    if where == "initializer":
        (tmp_path / "models.py").write_text(PLUGIN)
        yaml += "pool: {initializer: 'models:load'}\n"
    else:
        (tmp_path / "stages").mkdir()
        (tmp_path / "stages" / "own.py").write_text(PLUGIN + OWN_STAGE)
        yaml = yaml.replace("uses: convert", "uses: own")
    (tmp_path / "pipeline.yaml").write_text(yaml)

    ran = pipeline("--json")
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert (said["done"], said["kinds_unmatched"]) == (1, {"abc": 1})
    made = Image.open(io.BytesIO((tmp_path / "out" / "a.xyz.png").read_bytes()))
    assert (made.mode, made.size, made.tobytes()) == ("L", (4, 2), XYZ[6:])
    tried = pipeline("try", "in/a.xyz")
    assert tried.returncode == 0 and "XYZ 4x2" in tried.stdout + tried.stderr, tried.stderr


# -- where an extra is missing -----------------------------------------------------------------------------------------

FILES = {"a.heic": heic(paint(32, 24)), "b.HEIF": heic(paint(32, 24)), "c.jxl": jxl(paint(8, 6))}
HEIC_IS_MISSING = "HEIC is read by pillow_heif, which is not installed: pip install 'filemill[heif]'"
JXL_IS_MISSING = "JPEG XL is read by pillow_jxl, which is not installed: pip install 'filemill[jxl]'"


def test_a_missing_extra_is_named(tmp_path: Path, pipeline: Pipeline) -> None:
    """`new`, `check` and each failure name the extra; where it is installed the same line reads all files."""
    (tmp_path / "in").mkdir()
    for name, data in FILES.items():
        (tmp_path / "in" / name).write_bytes(data)
    without = without_readers(tmp_path / "without")

    new = pipeline("new", "--pipeline", "in", **without)
    assert new.returncode == 0 and "3 pictures" in new.stderr, new.stderr
    checked = pipeline("check", **without)
    assert checked.returncode == 0
    for said in (new.stderr, checked.stderr):
        assert f"2 files cannot be read: {HEIC_IS_MISSING}" in said
        assert f"1 file cannot be read: {JXL_IS_MISSING}" in said
    ran = pipeline(**without)
    assert ran.returncode == 1
    assert f"a.heic (web, thumb): unsupported: {HEIC_IS_MISSING}" in ran.stderr
    assert "c.jxl (web, thumb): unsupported: " + JXL_IS_MISSING in ran.stderr

    assert "cannot be read" not in pipeline("check").stderr
    ran = pipeline()
    assert ran.returncode == 0, ran.stderr
    assert len([*(tmp_path / "output").rglob("*.webp")]) >= 3


def test_a_reader_is_loaded_with_the_first_file_that_needs_it(tmp_path: Path) -> None:
    """A folder of JPEGs costs nobody the time and memory of libheif."""
    (tmp_path / "a.jpg").write_bytes(encode(paint(8, 6), "JPEG"))
    (tmp_path / "a.heic").write_bytes(FILES["a.heic"])
    program = (
        "import sys\nfrom pathlib import Path\nfrom pipeline.images import open_picture\n"
        "open_picture(Path('a.jpg')).load()\nassert 'pillow_heif' not in sys.modules\n"
        "open_picture(Path('a.heic')).load()\nassert 'pillow_heif' in sys.modules\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
