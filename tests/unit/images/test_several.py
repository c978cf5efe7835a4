"""Files of several pictures: which one is taken, the note that says so, and how the stage `frames` takes them all."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pillow_heif
import pytest
from PIL import Image
from support.pictures import encode, mean, mpo, paint, together
from support.program import Pipeline, on_terminal
from support.project import Project

from pipeline.images.decode import as_plain, open_picture
from pipeline.notes import collected

COLORS = ["red", "green", "blue"]


def plain(color: str, width: int = 32, height: int = 24) -> Image.Image:
    return Image.new("RGB", (width, height), color)


IMAGES = [plain(color) for color in COLORS]
SIZED = [plain("red"), plain("green", 48, 16), plain("blue", 16, 40)]


def heic(images: list[Image.Image], main: int = 0) -> bytes:
    pillow_heif.register_heif_opener()
    return together("HEIF", images, quality=95, chroma=444, primary_index=main)


PRIMARY, THUMBNAIL, PANORAMA, DISPARITY, UNDEFINED = 0x030000, 0x010001, 0x020001, 0x020002, 0
ULTRA_HDR = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r hdrgm:Version="1.0"/></x:xmpmeta>'
APPLE = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r HDRGainMap:HDRGainMapVersion="65536"/></x:xmpmeta>'
GAIN_MAP_NOTE = "its HDR gain map is left out"

# A file, the notes on its one picture, the colour of that, and the sizes that the stage `frames` makes of it.
FILES: dict[str, tuple[bytes, list[str], str, int]] = {
    "TIFF": (together("TIFF", SIZED), ["first page only, of 3"], "red", 3),
    "TIFF of one": (encode(SIZED[0], "TIFF"), [], "red", 1),
    "GIF": (together("GIF", IMAGES), ["first frame only, of 3"], "red", 3),
    "PNG": (together("PNG", IMAGES), ["first frame only, of 3"], "red", 3),
    "WebP": (together("WEBP", IMAGES, lossless=True), ["first frame only, of 3"], "red", 3),
    "AVIF": (together("AVIF", IMAGES, quality=95), ["first frame only, of 3"], "red", 3),
    "HEIC": (heic(SIZED), ["main picture only, of 3"], "red", 3),
    "HEIC, the last one is the main one": (heic(SIZED, 2), ["main picture only, of 3"], "blue", 3),
    "HEIC of one": (heic(SIZED[:1]), [], "red", 1),
    "MPO, two eyes": (mpo(IMAGES[:2], [PRIMARY, DISPARITY]), ["first picture only, of 2"], "red", 2),
    "MPO, panorama": (mpo(IMAGES, [PRIMARY, PANORAMA, PANORAMA]), ["first picture only, of 3"], "red", 3),
    "MPO, of one size": (mpo(IMAGES[:2], [PRIMARY, UNDEFINED]), ["first picture only, of 2"], "red", 2),
    "MPO, a preview": (mpo([IMAGES[0], plain("red", 16, 12)], [PRIMARY, THUMBNAIL]), [], "red", 1),
    "MPO, a map": (mpo([IMAGES[0], plain("green", 16, 12)], [PRIMARY, UNDEFINED]), [], "red", 1),
    "JPEG": (encode(IMAGES[0], "JPEG", quality=95), [], "red", 1),
    "JPEG, Ultra HDR": (encode(IMAGES[0], "JPEG", quality=95, xmp=ULTRA_HDR), [GAIN_MAP_NOTE], "red", 1),
    "JPEG, Apple's HDR": (encode(IMAGES[0], "JPEG", quality=95, xmp=APPLE), [GAIN_MAP_NOTE], "red", 1),
}


def is_close(image: Image.Image, color: str) -> bool:
    return mean(image.convert("RGB"), Image.new("RGB", image.size, color)) < 4


@pytest.mark.parametrize("kind", FILES)
def test_which_picture_is_taken_is_noted(kind: str) -> None:
    """The main picture or the first is taken, and the note says of how many; previews and maps are none."""
    data, notes, color, count = FILES[kind]
    picture = open_picture(data)
    for size in (None, (8, 6)):
        with collected() as noted:
            image = picture.load(size)
        assert list(noted) == notes and is_close(image, color)
    assert picture.frames == count


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("after_another", [False, True])
def test_each_picture_can_be_taken(kind: str, after_another: bool) -> None:
    """All come in the file's order, each in its own size and without a note; other readers of the file do not mind."""
    data, _, color, count = FILES[kind]
    picture = open_picture(data)
    if after_another:
        assert is_close(picture.load((4, 3)), color)
    with collected() as noted:
        each = list(picture.load_each())
    assert len(each) == count and not set(noted) - {GAIN_MAP_NOTE}
    for image, wanted, sized in zip(each, COLORS, SIZED, strict=False):
        assert is_close(image, wanted)
        if kind.startswith(("TIFF", "HEIC")):
            assert image.size == sized.size
    assert is_close(picture.load((8, 6)), color)


def test_each_page_is_turned_by_itself() -> None:
    """Orientation is a page's own; what is upright on one page is so on the next."""
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = paint(32, 24).transpose(Image.Transpose.ROTATE_90)
    pages = [paint(32, 24), turned]
    turned.encoderinfo = {"exif": exif}
    each = list(open_picture(together("TIFF", pages)).load_each())
    assert [image.size for image in each] == [(32, 24), (32, 24)]
    assert all(mean(image, paint(32, 24)) < 1 for image in each)


YAML = """
inputs: in
engine: ENGINE
stages:
  - {name: each, uses: frames}
  - {name: small, uses: resize, with: {width: 8}, output: 'out/{name}/{part}.png'}
"""


@pytest.mark.parametrize("engine", ["serial", "pool"])
def test_the_stage_frames_takes_all(engine: str, tmp_path: Path) -> None:
    """Every page, frame and picture becomes an output of its own, numbered, and nothing is noted."""
    project = Project(tmp_path, YAML.replace("ENGINE", engine))
    for kind, (data, _, _, _) in FILES.items():
        project.write(f"in/{kind}", data)
    summary = project.run()
    assert not summary.failures and set(summary.remarks) <= {GAIN_MAP_NOTE}
    wanted = {f"{kind}/{n + 1:04}.png" for kind, (_, _, _, count) in FILES.items() for n in range(count)}
    outputs = project.outputs()
    assert set(outputs) == wanted
    for name, data in outputs.items():
        with Image.open(io.BytesIO(data)) as image:
            assert image.width == 8 and is_close(image, COLORS[int(name[-8:-4]) - 1])


def test_a_damaged_page_fails_by_its_name(tmp_path: Path) -> None:
    """Of a file whose second page is cut off nothing is kept, and the failure says why."""
    noise = Image.effect_noise((64, 64), 90)
    project = Project(tmp_path, YAML.replace("ENGINE", "serial"))
    project.write("in/a.tif", together("TIFF", [noise, noise], compression="tiff_lzw")[:-2000])
    summary = project.run()
    assert summary.done == 0 and [result.stage for _, result in summary.failures] == ["small"]
    assert summary.failures[0][1].text.startswith(("truncated picture", "damaged picture"))


def test_a_note_reaches_everyone_who_reads(tmp_path: Path, pipeline: Pipeline) -> None:
    """The summary counts it, and so does its JSON; `explain`, `try` and the log tell it of the one file."""
    project = Project(
        tmp_path, YAML.replace("ENGINE", "pool").replace("uses: frames", "uses: convert, with: {frames: first}")
    )
    project.edit("pipeline.yaml", "{name}/{part}", "{name}")
    for name in ("a.tif", "b.tif"):
        project.write(f"in/{name}", FILES["TIFF"][0])
    ran = pipeline("--json")
    assert json.loads(ran.stdout)["notes"] == {"first page only": 2}, ran.stderr
    explained = pipeline("explain", "in/a.tif").stdout
    assert "  noted: first page only, of 3\n" in explained
    (output,) = json.loads(pipeline("explain", "--json", "in/a.tif").stdout)["outputs"]
    assert output["recorded"]["reason"] == "first page only, of 3"
    assert "(first page only, of 3)" in pipeline("try", "in/a.tif").stdout
    (log,) = (tmp_path / ".pipeline").rglob("*.log")
    assert log.read_text().count("first page only, of 3") == 2
    code, screen = on_terminal("python -m pipeline --force", tmp_path)
    assert code == 0 and "2 done with a note: first page only" in screen


# -- what a stage opened itself ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind, (*_, count) in FILES.items() if count > 1])
@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("is_decoded", [False, True])
def test_what_a_stage_has_sought_is_saved(kind: str, number: int, is_decoded: bool) -> None:
    """A stage that opens a file by Pillow, goes to a frame, page or picture and returns it has chosen that one."""
    data, notes, _, count = FILES[kind]
    image = Image.open(io.BytesIO(data))
    opened_at, number = image.tell(), min(number, count - 1)
    image.seek(number)
    if is_decoded:
        image.load()
    with collected() as noted:
        made = as_plain(image)

    assert is_close(made, COLORS[number])
    assert made.size == (SIZED[number].size if kind.startswith(("TIFF", "HEIC")) else (32, 24))
    assert list(noted) == (notes if number == opened_at else [])


@pytest.mark.parametrize("kind", [kind for kind, (*_, count) in FILES.items() if count > 1])
@pytest.mark.parametrize("number", range(2))
def test_what_a_stage_has_painted_is_saved(kind: str, number: int) -> None:
    """Neither finding out how many pictures there are, nor composing them anew, undoes what a stage painted on one."""
    image = Image.open(io.BytesIO(FILES[kind][0]))
    image.seek(number)
    image.load()
    image.paste(255 if image.mode == "P" else 0, (0, 0, 8, 8))  # a colour that no palette here has: black, too
    made = as_plain(image).convert("RGB")

    assert made.getpixel((4, 4)) == (0, 0, 0) and made.getpixel((14, 14)) != (0, 0, 0)


def test_the_size_that_a_stage_has_chosen_of_an_icon_is_saved() -> None:
    """Of an icon, Pillow's reader has the largest picture; a stage that sets a size gets that one."""
    image = Image.open(io.BytesIO(encode(paint(48, 48), "ICO", sizes=[(16, 16), (32, 32), (48, 48)])))
    image.size = (16, 16)
    assert as_plain(image).size == (16, 16)
