"""How large a picture may be: bombs of every format, frames counted together, and limits set in pipeline.yaml."""

from __future__ import annotations

import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.animations import gif, moving, scenes
from support.pictures import bomb_bmp, bomb_jpeg, bomb_png, decode, encode, paint
from support.program import Pipeline
from support.project import Project

from pipeline.config.load import load_config
from pipeline.errors import Unreadable
from pipeline.images import Limits, limited_to
from pipeline.images.decode import open_picture

# -- bombs, format by format -------------------------------------------------------------------------------------------


def patched(name: str, at: int, layout: str, *values: int) -> bytes:
    """A real file of 16x16 whose header says another size."""
    data = bytearray(encode(paint(16, 16), name))
    struct.pack_into(layout, data, at, *values)
    return bytes(data)


def bomb_tiff(width: int, height: int) -> bytes:
    data = bytearray(encode(paint(16, 16), "TIFF"))
    (directory,) = struct.unpack_from("<I", data, 4)
    for entry in range(struct.unpack_from("<H", data, directory)[0]):
        at = directory + 2 + 12 * entry
        side = {256: width, 257: height}.get(struct.unpack_from("<H", data, at)[0])
        if side:
            struct.pack_into("<HII", data, at + 2, 4, 1, side)
    return bytes(data)


def bomb_jpeg2000(width: int, height: int) -> bytes:
    data = bytearray(encode(paint(16, 16), "JPEG2000"))
    struct.pack_into(">II", data, data.index(b"ihdr") + 4, height, width)
    struct.pack_into(">II", data, data.index(b"\xff\x4f\xff\x51") + 8, width, height)
    return bytes(data)


def bomb_avif(width: int, height: int) -> bytes:
    data = bytearray(encode(paint(16, 16), "AVIF"))
    struct.pack_into(">II", data, data.index(b"ispe") + 8, width, height)
    return bytes(data)


def bomb_gif(width: int, height: int) -> bytes:
    return patched("GIF", 6, "<HH", width, height)


BOMBS: dict[str, Callable[[int, int], bytes]] = {
    "PNG": bomb_png,
    "JPEG": bomb_jpeg,
    "GIF": bomb_gif,
    "TIFF": bomb_tiff,
    "BMP": bomb_bmp,
    "JPEG2000": bomb_jpeg2000,
    "PPM": lambda width, height: b"P6 %d %d 255\n" % (width, height),
    "QOI": lambda width, height: patched("QOI", 4, ">II", width, height),
    "SGI": lambda width, height: patched("SGI", 6, ">HH", width, height),
    "TGA": lambda width, height: patched("TGA", 12, "<HH", width, height),
    "PCX": lambda width, height: patched("PCX", 4, "<HHHH", 0, 0, width - 1, height - 1),
    "PSD": lambda width, height: b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, height, width, 8, 3) + bytes(99),
}
# Those whose headers have room for a side of more than 16 bits.
LONG = ("PNG", "TIFF", "BMP", "JPEG2000", "PPM", "QOI", "PSD")


@pytest.mark.parametrize("name", BOMBS)
def test_sixty_thousand_squared_is_refused_by_every_reader(name: str) -> None:
    """A bomb is refused from its header, in words that name its size, whatever its format."""
    with pytest.raises(Unreadable, match=r"^too large: 60000x60000, limit 100 MP; inputs.max_pixels raises it$"):
        open_picture(BOMBS[name](60_000, 60_000))


@pytest.mark.parametrize("name", LONG)
def test_a_side_of_84_million_is_refused(name: str) -> None:
    """One pixel by 84 million is within the pixels and over the side."""
    for size in ((1, 84_000_000), (84_000_000, 1)):
        with pytest.raises(Unreadable, match=r"^too large: .*, limit 65500 pixels a side; inputs.max_side raises it$"):
            open_picture(BOMBS[name](*size))


@pytest.mark.parametrize("size", [(12_000, 12_000), (60_000, 60_000), (32_000, 32_000), (1, 84_000_000)])
def test_an_avif_bomb(size: tuple[int, int]) -> None:
    """An AVIF is refused from its header too; above what its decoder bears, the decoder is the one to refuse."""
    with pytest.raises(Unreadable, match=r"^(too large|damaged|truncated)"):
        open_picture(bomb_avif(*size)).load()


def test_a_webp_that_says_more_than_it_has() -> None:
    """A WebP's canvas can be called huge; its decoder refuses before it takes the memory."""
    data = bytearray(moving(scenes(2), "WEBP"))
    at = data.index(b"VP8X") + 12
    data[at : at + 6] = (2**24 - 1).to_bytes(3, "little") * 2
    with pytest.raises(Unreadable):
        open_picture(bytes(data)).load(frames="all")


def test_a_bomb_costs_no_memory() -> None:
    """What is refused from its header was never decoded, nor its memory asked for."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for bomb in BOMBS.values():
        for size in ((60_000, 60_000), (12_000, 12_000)):
            with pytest.raises(Unreadable, match=r"^too large"):
                open_picture(bomb(*size))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_a_picture_that_lies_about_its_size_in_one_of_two_places() -> None:
    """A JPEG 2000 says its size twice; if only the inner one is a bomb it is one all the same, at no cost."""
    data = bytearray(encode(paint(16, 16), "JPEG2000"))
    struct.pack_into(">II", data, data.index(b"\xff\x4f\xff\x51") + 8, 60_000, 60_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Unreadable, match=r"^too large: 60000x60000, limit 100 MP; inputs.max_pixels raises it$"):
        open_picture(bytes(data)).load()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


# -- frames ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "AVIF"])
def test_frames_count_together_where_all_are_asked_for(name: str) -> None:
    """Six frames of 100x100 are 60,000 pixels; the first alone is 10,000, times what its decoder takes more memory.

    The limit itself is allowed.
    """
    data, alone = moving(scenes(6, (100, 100)), name), {"WEBP": 50_000, "AVIF": 25_000}.get(name, 20_000)
    with limited_to(Limits(60_000)):
        assert len(open_picture(data).load(frames="all").frames) == 6  # type: ignore[attr-defined]
    with limited_to(Limits(59_999)):
        with pytest.raises(
            Unreadable, match=r"^too large: 100x100 in 6 frames, limit 0\.059999 MP; inputs.max_pixels raises it$"
        ):
            open_picture(data).load((10, 10), frames="all")
        assert open_picture(data).load().size == (100, 100)
    with limited_to(Limits(alone)):
        assert open_picture(data).load().size == (100, 100)
    with limited_to(Limits(alone - 1)), pytest.raises(Unreadable, match=r"^too large: 100x100, limit"):
        open_picture(data)


def test_a_later_frame_may_not_be_the_bomb() -> None:
    """A GIF of 4x4 whose second frame says 13000x13000 is as much of a bomb as if the first did."""
    data = gif((4, 4), [((0, 0, 4, 4), colour, 1, None) for colour in (1, 2)])
    at = data.rindex(b",")
    bomb = data[: at + 1] + struct.pack("<HHHH", 0, 0, 13_000, 13_000) + data[at + 9 :]
    with pytest.raises(Unreadable, match=r"^too large"):
        open_picture(bomb).load(frames="all")


# -- limits of one's own -----------------------------------------------------------------------------------------------


def test_raised_limits_hold_for_all_of_a_picture() -> None:
    """Above Pillow's own limit of 179 MP, a picture that is allowed can also be cut."""
    with limited_to(Limits(200_000_000)):
        picture = open_picture(b"P5 14000 13000 255\n" + bytes(14_000 * 13_000))
        assert picture.load(box=(0, 0, 14_000, 12_900)).size == (14_000, 12_900)


YAML = """\
inputs:
  root: in
  LIMIT
engine: ENGINE
stages:
  - name: small
    uses: resize
    with: {width: 32, frames: FRAMES}
    output: "out/{stem}.webp"
"""


def yaml(limit: str, engine: str = "serial", frames: str = "first") -> str:
    return YAML.replace("LIMIT", limit).replace("ENGINE", engine).replace("FRAMES", frames)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("max_pixels: 200MP", Limits(200_000_000)),
        ('max_pixels: "200 MP"', Limits(200_000_000)),
        ("max_pixels: 0.5MP", Limits(500_000)),
        ("max_pixels: 1.5GP", Limits(1_500_000_000)),
        ("max_pixels: 50000000", Limits(50_000_000)),
        ("max_pixels: 1", Limits(1)),
        ("max_side: 100", Limits(100_000_000, 100)),
        ("max_side: 1000000", Limits(100_000_000, 1_000_000)),
        ("exclude: [nothing]", Limits(100_000_000, 65_500)),
    ],
)
def test_limits_as_they_are_written(written: str, meant: Limits, tmp_path: Path) -> None:
    """A number of pixels is counted or has its unit; what is not said is 100 MP and 65,500 a side."""
    project = Project(tmp_path, yaml(written))
    assert load_config(project.folder / "pipeline.yaml").inputs.limits == meant


@pytest.mark.parametrize(
    "written",
    [
        *(f"max_pixels: {value}" for value in (
            "0", "-1", "1.5", "true", "[]", "{}", "null", "MP", '"200"', "200mp", "200 megapixels", "-5MP", "1e3MP",
            "200MB", "0MP", "0.0000001MP", ".nan", "²MP",
        )),
        *(f"max_side: {value}" for value in ("0", "-1", "1.5", "true", "10MP", '"100"', "[]")),
        "max_pixel: 100",
    ],
)  # fmt: skip
def test_bad_limits_are_refused_in_their_place(written: str, tmp_path: Path, pipeline: Pipeline) -> None:
    """What can be no limit, and what would refuse every picture, is an error with its line and column."""
    Project(tmp_path, yaml(written)).write("in/a.png", encode(paint(8, 8), "PNG"))
    ended = pipeline("check", "pipeline.yaml")

    assert ended.returncode == 2
    column = 3 if written.startswith("max_pixel:") else 5 + len(written.split(":")[0])
    assert f"pipeline.yaml:3:{column}: " in ended.stderr and written.split(":")[0] in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("engine", ["serial", "pool"])
def test_limits_reach_the_workers_and_raising_them_redoes_only_what_failed(
    engine: str, tmp_path: Path, pipeline: Pipeline
) -> None:
    """A picture of 110 MP is refused by default, alone; with the limit raised it is made, and nothing else again."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "small.png").write_bytes(encode(paint(64, 48), "PNG"))
    (tmp_path / "in" / "large.pgm").write_bytes(b"P5 11000 10000 255\n" + bytes(110_000_000))
    (tmp_path / "in" / "long.pgm").write_bytes(b"P5 70000 1 255\n" + bytes(70_000))
    config = tmp_path / "pipeline.yaml"

    config.write_text(yaml("exclude: []", engine))
    first = pipeline("pipeline.yaml", "--json")
    assert first.returncode == 1 and '"done": 1' in first.stdout
    assert "large.pgm (small): too large: 11000x10000, limit 100 MP" in first.stderr
    assert "long.pgm (small): too large: 70000x1, limit 65500 pixels a side" in first.stderr
    before = (tmp_path / "out" / "small.webp").stat()

    config.write_text(yaml("max_pixels: 120MP", engine))
    second = pipeline("pipeline.yaml", "--json")
    assert second.returncode == 1 and '"done": 1' in second.stdout and '"up_to_date": 1' in second.stdout
    assert decode((tmp_path / "out" / "large.webp").read_bytes()).size == (32, 29)

    config.write_text(yaml("max_side: 70000", engine))
    third = pipeline("pipeline.yaml", "--json")
    assert third.returncode == 0 and '"done": 1' in third.stdout and '"up_to_date": 2' in third.stdout

    config.write_text(yaml("max_side: 10", engine))
    assert '"up_to_date": 3' in pipeline("pipeline.yaml", "--json").stdout
    after = (tmp_path / "out" / "small.webp").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_many_frames_are_refused_by_the_program(tmp_path: Path) -> None:
    """With `frames: all` a file over the limit by its frames fails with that reason; its first frame would not."""
    for frames, done in (("first", 1), ("all", 0)):
        project = Project(tmp_path, yaml("max_pixels: 5000", frames=frames).replace("{stem}", f"{frames}-{{stem}}"))
        project.write("in/a.gif", moving(scenes(3), "GIF"))
        summary = project.run()
        assert summary.done == done
    assert summary.failures[0][1].text == "too large: 60x40 in 3 frames, limit 0.005 MP; inputs.max_pixels raises it"
    assert dict(summary.reasons) == {"too large": 1}


def test_no_stage_may_pad_to_a_bomb(tmp_path: Path) -> None:
    """What a stage is asked to make is held to the same limits as what it reads."""
    options = "{width: 60000, height: 60000, fit: contain}"
    project = Project(tmp_path, yaml("exclude: []").replace("{width: 32, frames: first}", options))
    project.write("in/a.png", encode(paint(8, 8), "PNG"))

    assert project.run().failures[0][1].text == "too large: 60000x60000, limit 100 MP; inputs.max_pixels raises it"


def test_limits_end_with_their_block() -> None:
    """Limits hold inside their block, also after an error in it, and nowhere else."""
    data: Any = encode(paint(8, 8), "PNG")
    with pytest.raises(Unreadable), limited_to(Limits(10)):
        open_picture(data)
    assert open_picture(data).size == (8, 8)
