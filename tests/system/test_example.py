"""The whole thing as a newcomer meets it: the example pipeline, exactly as it is committed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image, ImageStat
from support.program import ROOT, Pipeline, on_terminal


def outputs(folder: Path) -> dict[str, bytes]:
    """Every output by its path."""
    found = (path for path in (folder / "data" / "output").rglob("*") if path.is_file() and path.name[0] != ".")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture
def made(example: Path, pipeline: Pipeline) -> Path:
    """The example, run once."""
    done = pipeline("pipeline.yaml")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return example


def test_the_example_makes_every_picture_in_both_sizes(made: Path) -> None:
    """One pass makes a web picture and a thumbnail of each input, in the right format, folder and box."""
    sources = [path for path in (made / "data" / "input").rglob("*") if path.is_file()]
    assert 12 <= len(sources) <= 16
    assert sum(path.stat().st_size for path in sources) < 2_000_000
    expected = set()
    for source in sources:
        below = source.relative_to(made / "data" / "input")
        for size, suffix, name, side in (("web", ".webp", "WEBP", 1600), ("thumb", ".jpg", "JPEG", 200)):
            path = made / "data" / "output" / size / below.with_suffix(suffix)
            expected.add(str(path.relative_to(made)))
            with Image.open(path) as picture:
                assert picture.format == name
                assert max(picture.size) <= side
                assert not picture.getexif()
    assert set(outputs(made)) == expected


def test_a_second_run_changes_nothing(made: Path, pipeline: Pipeline) -> None:
    """What is up to date is left alone, to the inode and the nanosecond, and nothing is said without a terminal."""
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (made / "data" / "output").rglob("*")}
    again = pipeline("pipeline.yaml")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert before == {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in before}


def test_a_terminal_gets_one_line(made: Path) -> None:
    """On a terminal a run that has nothing to do says so, in one line."""
    code, screen = on_terminal("python -m pipeline pipeline.yaml", made)
    assert code == 0
    assert re.fullmatch(r"photos: 24 up to date \(12 files, \d+\.\d s\)", screen)


def test_the_json_summary_adds_up(example: Path, pipeline: Pipeline) -> None:
    """`--json` puts one object on stdout whose counts are outputs, with the sources beside them."""
    first = json.loads(pipeline("pipeline.yaml", "--json").stdout)
    second = json.loads(pipeline("pipeline.yaml", "--json").stdout)
    keys = {"run", "done", "up_to_date", "skipped", "failed", "held", "pruned", "seconds", "exit", "sources"}
    assert set(first) == keys
    assert (first["done"], first["up_to_date"], first["sources"]) == (24, 0, 12)
    assert (second["done"], second["up_to_date"], second["sources"]) == (0, 24, 12)


@pytest.mark.parametrize("context", [pytest.param("fork", marks=pytest.mark.slow), "spawn"])
def test_every_way_of_running_gives_the_same_bytes(made: Path, pipeline: Pipeline, context: str) -> None:
    """Neither the engine nor the start method nor the number of workers shows in an output."""
    by_default = outputs(made)
    pipeline("pipeline.yaml", "--force", "--set", f"pool.context={context}", "-j", "3")
    assert outputs(made) == by_default
    pipeline("pipeline.yaml", "--force", "--engine", "serial")
    assert outputs(made) == by_default


def test_every_output_is_upright(made: Path) -> None:
    """Each sample has its sky above its ground: the upper third is brighter or bluer than the lower, as it was."""
    with Image.open(made / "data/input/summer trip/IMG_2041.JPG") as stored:
        assert stored.getexif()[0x0112] == 6
        assert 0x8825 in stored.getexif(), "the sample has a GPS position to lose"
        expected = stored.convert("RGB").transpose(Image.Transpose.ROTATE_270).resize((90, 120))
    with Image.open(made / "data/output/web/summer trip/IMG_2041.webp") as picture:
        shown = picture.convert("RGB").resize((90, 120))
    difference = [abs(a - b) for a, b in zip(expected.tobytes(), shown.tobytes(), strict=True)]
    assert sum(difference) / len(difference) < 6
    for source in (made / "data" / "input").rglob("*.*"):
        with Image.open(source) as stored, Image.open(_web(made, source)) as picture:
            assert (stored.width > stored.height) == (picture.width > picture.height) or stored.getexif().get(
                0x0112
            ) == 6


def test_colours_are_those_the_profile_means(made: Path) -> None:
    """The sample with a wide-gamut profile is converted, not stripped: its red is redder than the stored numbers."""
    with (
        Image.open(made / "data/input/poppies.jpg") as stored,
        Image.open(made / "data/output/web/poppies.webp") as web,
    ):
        assert stored.info["icc_profile"] and "icc_profile" not in web.info
        stored_red = ImageStat.Stat(stored.convert("RGB").crop((0, 900, 1800, 1200))).mean[0]
        shown_red = ImageStat.Stat(web.convert("RGB").crop((0, 800, 1600, 1066))).mean[0]
    assert shown_red > stored_red + 10


def test_transparency_and_depth_survive(made: Path) -> None:
    """Alpha stays in WebP and lies on white in JPEG; a 16-bit grey keeps its ramp from black to white."""
    with Image.open(made / "data/output/web/summer trip/balloon.webp") as web:
        assert web.mode == "RGBA" and web.getchannel("A").getextrema() == (0, 255)
    with Image.open(made / "data/output/thumb/scans/badge.jpg") as thumb:
        assert min(thumb.getpixel((0, 0))) > 245
    with Image.open(made / "data/output/web/scans/dunes.webp") as dunes:
        low, high = dunes.convert("L").getextrema()
        assert low < 15 and high > 240


def _web(folder: Path, source: Path) -> Path:
    below = source.relative_to(folder / "data" / "input")
    return folder / "data" / "output" / "web" / below.with_suffix(".webp")


def test_the_samples_are_what_their_script_makes(tmp_path: Path) -> None:
    """Nothing in data/input was brought in by hand: the committed script makes the same files."""
    names = {path.name for path in (ROOT / "data" / "input").rglob("*") if path.is_file()}
    script = (ROOT / "data" / "make_samples.py").read_text()
    assert all(name in script or name.partition(".")[0] in script for name in names)
