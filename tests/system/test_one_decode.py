"""Stages that read one picture: it is decoded once for all of them, and none can tell which others are made with it."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.pictures import STORED, encode, mean, paint
from support.program import ROOT, Pipeline, on_terminal
from support.project import Project

from pipeline.images.animation import Animation
from pipeline.images.decode import OpenedPicture, open_picture
from pipeline.notes import collected
from pipeline.types import FitBox
from stages.resize import Resize

SIZES = {"large": "width: 200, height: 200", "middle": "width: 100, height: 100", "small": "width: 25, height: 25"}
MIXED = {
    "large": "width: 200, height: 200",
    "cover": "width: 50, height: 50, fit: cover, position: top",
    "outside": "width: 75, height: 75, fit: outside",
    "contain": "width: 60, height: 90, fit: contain, background: red",
    "fill": "width: 30, height: 80, fit: fill",
    "wide": "width: 120",
    "high": "height: 31, enlarge: true",
    "gap": "width: 60, height: 60, gap: 2",
    "nearest": "width: 90, height: 90, filter: nearest",
}
MINE = '''
"""Stages of a user's own, beside the resizes."""
from PIL import Image
from pipeline import FitBox, Picture

def full(picture: Picture) -> Image.Image:
    image = picture.load()
    image.paste("black", (0, 0, *image.size))
    return image

def tiny(picture: Picture) -> Image.Image:
    return picture.load((5, 5), box=(10, 10, 20, 20))

def thrice(picture: Picture) -> Image.Image:
    picture.load((3, 3))
    picture.load(frames="all").paste("black", (0, 0, 9, 9))
    return picture.load((90, 90), gap=3.0)

def header(picture: Picture) -> Image.Image:
    return Image.new("RGB", (8, 8 * picture.frames), "red")

def load(image: Image.Image) -> Image.Image:
    image.paste("black", (0, 0, *image.size))
    return image

def fail(picture: Picture) -> Image.Image:
    picture.load((2, 2))
    raise ValueError("not this one")

def boxed(picture: Picture) -> Image.Image:
    return picture.load((60, 60))

boxed.fit_box = lambda **options: FitBox(60, 60, "fill")

def landscape(picture: Picture) -> bool:
    picture.load((4, 4))
    return picture.size[0] > 0

def read(data: bytes) -> bytes:
    return data

def same(image: Image.Image) -> Image.Image:
    return image
'''
COUNT = """
import collections, json, os, sys
opened = collections.Counter()
def watch(event, arguments):
    # os.open has no mode: by that the digest of a source is read.
    if event == "open" and arguments[1] is not None and isinstance(arguments[0], (str, bytes, os.PathLike)):
        folder, name = os.path.split(os.fsdecode(arguments[0]))
        if os.path.basename(folder) == "in" and name:  # not the folder itself, which the walk opens
            opened[name] += 1
sys.addaudithook(watch)
from pipeline.cli import main
code = main(["pipeline.yaml", "-q", "--engine", "serial"])
print(json.dumps([code, opened]))
"""


def tree(stages: dict[str, str], parent: str = "inputs", above: str = "") -> str:
    """A pipeline of resizes that read the same; a name with a colon is that of another stage than resize."""
    text = f"inputs: in\nengine: serial\nstages:\n{above}"
    for name, options in stages.items():
        uses = f"beside_them:{name}" if f"\ndef {name}(" in MINE else "resize"
        text += (
            f"  - name: {name}\n    from: {parent}\n    uses: {uses}\n    with: {{{options}}}\n"
            f'    output: "out/{name}/{{name}}.png"\n'
        )
    return text


def photos(folder: Path, stages: dict[str, str], **pictures: bytes) -> Project:
    """A project of resizes, and a photograph unless other pictures are given."""
    project = Project(folder, tree(stages))
    project.write("stages/beside_them.py", MINE)
    for name, data in (pictures or {"photo_jpg": encode(paint(600, 450), "JPEG")}).items():
        project.write(f"in/{name.replace('_', '.')}", data)
    return project


def turned(orientation: int, width: int = 601, height: int = 451) -> bytes:
    """A JPEG that is upright only when turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = paint(width, height)
    stored = image.transpose(how) if (how := STORED[orientation]) is not None else image
    return encode(stored, "JPEG", exif=exif.tobytes())


def moving(name: str, **options: Any) -> bytes:
    """An animation of four frames, or as many pages."""
    frames = [paint(60, 44).rotate(30 * each) for each in range(4)]
    return encode(frames[0], name, save_all=True, append_images=frames[1:], **options)


@cache
def kinds() -> dict[str, bytes]:
    """A picture of every kind that is decoded differently."""
    return {f"turned{each}_jpg": turned(each) for each in STORED} | {
        "progressive_jpg": encode(paint(601, 451), "JPEG", progressive=True),
        "grey_jpg": encode(paint(601, 451, "L"), "JPEG"),
        "cmyk_jpg": encode(paint(601, 451, "CMYK"), "JPEG"),
        "tall_jpg": encode(paint(250, 750), "JPEG"),
        "little_jpg": encode(paint(70, 45), "JPEG"),
        "sliver_jpg": encode(paint(4000, 50), "JPEG"),
        "alpha_png": encode(paint(250, 150, "RGBA"), "PNG"),
        "palette_png": encode(paint(250, 150, "P"), "PNG"),
        "still_gif": encode(paint(250, 150), "GIF"),
        "moving_gif": moving("GIF", duration=40),
        "pages_tif": moving("TIFF"),
        "moving_webp": moving("WEBP", duration=40),
    }


def stale(project: Project) -> dict[str, str]:
    """What a run would make, by stage, and why."""
    return {name.split()[0]: why for name, (action, why) in project.plan().items() if action != "up-to-date"}


# -- decoded once ------------------------------------------------------------------------------------------------------


def opens(project: Project) -> dict[str, int]:
    """How often a run opened each of its sources; a decoder cannot be asked twice, so each decoding opens the file."""
    made = subprocess.run(
        [sys.executable, "-c", COUNT], cwd=project.folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    code, counts = json.loads(made.stdout)
    assert code == 0
    return dict(counts)


@pytest.mark.parametrize("stages", [SIZES, dict(reversed(SIZES.items())), MIXED], ids=["sizes", "reversed", "mixed"])
def test_a_picture_is_opened_once_for_all_its_sizes(tmp_path: Path, stages: dict[str, str]) -> None:
    """Whatever the kind of picture, its turn, and the order of the sizes: one open, and so one decoding."""
    pictures = dict(kinds())
    if stages is MIXED:  # of a sliver, or a very tall one, the largest box is not what needs the most
        del pictures["sliver_jpg"], pictures["tall_jpg"]
    counts = opens(photos(tmp_path, stages, **pictures))

    assert counts == dict.fromkeys((name.replace("_", ".") for name in pictures), 1)


def test_a_header_read_beside_costs_no_decoding(tmp_path: Path) -> None:
    """A filter on the header, and a stage that loads nothing, share the open file."""
    assert opens(photos(tmp_path, {"header": "", **SIZES})) == {"photo.jpg": 1}


def test_a_box_of_a_users_own_counts_with_the_others(tmp_path: Path) -> None:
    """What has a `fit_box` is decoded with the resizes; without one it is decoded for itself."""
    assert opens(photos(tmp_path / "a", {"boxed": "", **SIZES})) == {"photo.jpg": 1}
    assert opens(photos(tmp_path / "b", {"full": "", **SIZES})) == {"photo.jpg": 2}


def test_equal_areas_are_decoded_for_the_one_that_needs_more(tmp_path: Path) -> None:
    """Of an `inside` and a `cover` of one box, `cover` needs more of every picture that is not square."""
    stages = {"inside": "width: 300, height: 300", "cover": "width: 300, height: 300, fit: cover"}

    assert opens(photos(tmp_path, stages, photo_jpg=encode(paint(1400, 900), "JPEG"))) == {"photo.jpg": 1}


def test_every_size_is_made_of_the_decoding_for_the_largest(tmp_path: Path) -> None:
    """The smallest is reduced from the pixels that the largest was decoded to, at half the source's size."""
    project = photos(tmp_path, SIZES)
    project.run()
    with Image.open(tmp_path / "in" / "photo.jpg") as image:
        image.draft(None, (300, 225))
        wanted = image.resize((25, 19), Image.Resampling.LANCZOS)

    with Image.open(tmp_path / "out" / "small" / "photo.jpg.png") as made:
        assert mean(made, wanted) < 0.5


# -- the same bytes, whoever else is made ------------------------------------------------------------------------------


def remove(project: Project, names: tuple[str, ...]) -> None:
    for name in names:
        for file in (project.folder / "out" / name).glob("*.png"):
            file.unlink()


def test_whatever_sizes_are_stale_their_bytes_are_the_same(tmp_path: Path) -> None:
    """Any of three sizes made anew, together or alone, comes out as when all were made; of every kind of picture."""
    project = photos(tmp_path, SIZES, **kinds())
    assert project.run().failed == 0
    whole = project.outputs()
    subsets = [names for count in (1, 2, 3) for names in combinations(SIZES, count)]

    for names in subsets:
        remove(project, names)
        assert project.run().done == len(names) * len(kinds())
        assert project.outputs() == whole, names


def test_whatever_fits_are_stale_their_bytes_are_the_same(tmp_path: Path) -> None:
    """The same for every fit there is, alone and with any others."""
    project = photos(tmp_path, MIXED, **kinds())
    assert project.run().failed == 0
    whole, chance = project.outputs(), random.Random(7)

    for names in [(name,) for name in MIXED] + [tuple(chance.sample(sorted(MIXED), 3)) for _ in range(4)]:
        remove(project, names)
        project.run()
        assert project.outputs() == whole, names


OWN = ["full", "tiny", "thrice", "header", "load", "boxed"]


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("own", [*OWN, "fail"])
def test_a_stage_beside_changes_no_resize(tmp_path: Path, own: str, place: int) -> None:
    """A user's own stage may load in full, a part, several times, nothing, or fail: the resizes are the same."""
    pictures = {name: kinds()[name] for name in ("turned6_jpg", "moving_gif", "pages_tif", "moving_webp")}
    alone = photos(tmp_path / "alone", SIZES, **pictures)
    alone.run()
    stages = list(SIZES.items())
    stages.insert(place, (own, ""))
    project = photos(tmp_path / "beside", dict(stages), **pictures)
    summary = project.run()

    assert summary.failed == (len(pictures) if own == "fail" else 0)
    made = {name: data for name, data in project.outputs().items() if not name.startswith(own)}
    assert made == alone.outputs()
    assert set(stale(project)) == ({"fail"} if own == "fail" else set())


def test_stages_beside_are_themselves_the_same(tmp_path: Path) -> None:
    """What a user's own stage makes does not depend on the sizes beside it, or on how many of them are made."""
    project = photos(tmp_path, dict.fromkeys(OWN, "") | SIZES, **kinds())
    project.run()
    whole = project.outputs()

    for own in OWN:
        remove(project, (own,))
        project.run()
        assert project.outputs() == whole, own
    alone = photos(tmp_path / "alone", dict.fromkeys(("full", "tiny", "thrice"), ""), **kinds())
    alone.run()
    assert alone.outputs().items() <= whole.items()


FILTER = "  - name: landscape\n    uses: beside_them:landscape\n"


def test_a_filter_before_them_changes_nothing(tmp_path: Path) -> None:
    """Below a filter that has looked at the picture, the sizes are what they are without it."""
    project = photos(tmp_path / "a", SIZES, **kinds())
    project.run()
    below = photos(tmp_path / "b", SIZES, **kinds())
    below.write("pipeline.yaml", tree(SIZES, "landscape", FILTER))
    assert below.run().failed == 0

    assert below.outputs() == project.outputs()


def test_bytes_are_decoded_once_as_well(tmp_path: Path) -> None:
    """Sizes of what a stage made as bytes are those of the same file, and any of them is the same alone."""
    project = photos(tmp_path / "a", SIZES, **kinds())
    project.run()
    below = photos(tmp_path / "b", SIZES, **kinds())
    below.write("pipeline.yaml", tree(SIZES, "read", "  - name: read\n    uses: beside_them:read\n"))
    below.run()
    assert below.outputs() == project.outputs()
    remove(below, ("small",))
    below.run()
    assert below.outputs() == project.outputs()


def everything(image: Any) -> Any:
    """All that can be seen of what was loaded."""
    if isinstance(image, Animation):
        return [everything(frame) for frame in image.frames], image.timing
    return image.mode, image.size, image.info, image.tobytes()


LOADS: dict[str, Any] = {
    "resize all": lambda picture: Resize(width=30, height=30, frames="all")(picture),
    "resize first": lambda picture: Resize(width=20, height=30, fit="cover")(picture),
    "full all": lambda picture: picture.load(frames="all"),
    "full": lambda picture: picture.load(),
    "frames": lambda picture: picture.frames,
    "part": lambda picture: picture.load(box=(1, 1, 20, 10)),
}


def outcome(picture: OpenedPicture, load: str, own_colors: bool, least: FitBox | None) -> Any:
    """What a load gives or raises, with its notes."""
    picture.own_colors, picture.least = own_colors, least
    with collected() as notes:
        try:
            made = LOADS[load](picture)
        except Exception as error:
            return type(error), str(error)
    return (made if isinstance(made, int) else everything(made)), list(notes)


@pytest.mark.parametrize("own_colors", [False, True])
@pytest.mark.parametrize("name", ["moving_gif", "moving_webp", "pages_tif", "turned7_jpg", "palette_png"])
def test_no_load_can_be_told_by_the_next(name: str, own_colors: bool) -> None:
    """Pixels, frames, their times, notes and what stands beside the pixels: as of a picture opened for it alone."""
    data = kinds()[name]
    for first in LOADS:
        for second in LOADS:
            picture = open_picture(data)
            for load in (first, second, first):
                alone = outcome(open_picture(data), load, own_colors, FitBox(50, 50))
                assert outcome(picture, load, own_colors, FitBox(50, 50)) == alone, (first, second, load)


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "AVIF"])
def test_frames_in_their_own_colors_keep_their_times(name: str) -> None:
    """A stage that loads every frame in full, in the picture's own colours, gets it as fast as it is."""
    picture = open_picture(moving(name, duration=[40, 60, 80, 100], loop=3))
    wanted = picture.load(frames="all")
    picture.own_colors = True
    made = picture.load(frames="all")

    assert isinstance(made, Animation) and isinstance(wanted, Animation)
    assert made.timing == wanted.timing
    assert [frame.info for frame in made.frames] == [{}] * 4


# -- what cannot be read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["GIF", "TIFF", "WEBP", "PNG", "AVIF"])
def test_a_cut_file_fails_for_all_or_for_none(name: str) -> None:
    """Wherever an animation was cut off, a second load ends as the first one did: never with half of it."""
    data = moving(name)
    for end in range(300, len(data), len(data) // 40):
        try:
            picture = open_picture(data[:end])
        except Exception:  # it fails for all
            continue
        for load in ("resize first", "frames", "resize all"):
            alone = outcome(open_picture(data[:end]), load, False, None)
            assert outcome(picture, load, False, None) == alone, (end, load)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "TIFF"])
def test_a_cut_file_is_made_in_all_sizes_or_in_none(tmp_path: Path, name: str) -> None:
    """Every size of it fails, and with one and the same reason; its neighbour is made."""
    data = encode(paint(600, 450), name) if name in ("JPEG", "PNG") else moving(name)
    cuts = {f"cut{end}_pic": data[:end] for end in range(300, len(data) - 60, len(data) // 12)}
    project = photos(tmp_path, SIZES, good_pic=data, **cuts)
    summary = project.run()
    reasons: dict[bytes, set[str]] = {}
    for outcome, result in summary.failures:
        reasons.setdefault(getattr(outcome, "path", outcome), set()).add(result.text)

    made = [Path(each).name.removesuffix(".png") for each in project.outputs()]
    assert {each: made.count(each) for each in set(made)} == dict.fromkeys(made, 3)
    assert "good.pic" in made and (name in ("GIF", "TIFF") or set(made) == {"good.pic"})
    assert all(len(each) == 1 for each in reasons.values())
    assert summary.failed == 3 * (len(cuts) + 1) - len(made)


# -- the recipe --------------------------------------------------------------------------------------------------------


def same_as_from_scratch(project: Project) -> bool:
    """Whether a new clone of the project would make the same."""
    clone = Project(project.folder / "clone", (project.folder / "pipeline.yaml").read_text())
    clone.write("stages/beside_them.py", MINE)
    for file in (project.folder / "in").iterdir():
        clone.write(f"in/{file.name}", file.read_bytes())
    clone.run()
    return clone.outputs() == project.outputs()


@pytest.mark.parametrize("smaller", ["width: 50, height: 50", "width: 9, height: 99, fit: cover", "height: 7"])
@pytest.mark.parametrize("first", [True, False])
def test_a_smaller_size_redoes_nothing(tmp_path: Path, smaller: str, first: bool) -> None:
    """It is made by itself, wherever it is declared, and all is as if it had been there from the start."""
    project = photos(tmp_path, SIZES, **kinds())
    project.run()
    more = {"new": smaller}
    project.write("pipeline.yaml", tree(more | SIZES if first else SIZES | more))

    assert set(stale(project)) == {"new"}
    assert project.run().done == len(kinds())
    assert same_as_from_scratch(project)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ("width: 276, height: 1287, fit: fill", (551, 4216)),
        ("width: 280, gap: 1.5", (839, 1880)),
        ("width: 101, height: 201, fit: outside, gap: 1.5", (1209, 5307)),
    ],
)
def test_the_largest_does_not_see_the_smaller_ones(tmp_path: Path, options: str, size: tuple[int, int]) -> None:
    """Alone or with a smaller one beside it, the largest is decoded alike, though rounding would tempt."""
    stages = {"one": options}
    project = photos(tmp_path, stages, photo_jpg=encode(paint(*size), "JPEG"))
    project.run()
    project.write("pipeline.yaml", tree(stages | {"new": "width: 9, height: 9"}))
    project.run()

    assert same_as_from_scratch(project)


@pytest.mark.parametrize("larger", ["width: 300, height: 300", "width: 200, height: 201, fit: cover", "height: 400"])
def test_a_larger_size_redoes_the_others_and_says_so(tmp_path: Path, pipeline: Pipeline, larger: str) -> None:
    """They are reduced from more pixels then; the plan says that it is the decoding."""
    project = photos(tmp_path, SIZES)
    project.run()
    project.write("pipeline.yaml", tree(SIZES | {"new": larger}))

    why = stale(project)
    assert set(why) == {*SIZES, "new"}
    assert all(why[name].startswith(f"{name}: decoded for ") for name in SIZES)
    assert "small: decoded for " in pipeline("plan", "-v").stdout
    project.run()
    assert same_as_from_scratch(project) and stale(project) == {}


@pytest.mark.parametrize(
    "stages",
    [
        SIZES,
        MIXED,
        {"inside": "width: 80, height: 80", "cover": "width: 80, height: 80, fit: cover"},
        {"wide": "width: 80", "high": "height: 80", "both": "width: 80, height: 300"},
        {"one": "width: 80, height: 80", "two": "width: 80, height: 80, filter: box"},
    ],
    ids=["sizes", "mixed", "equal", "sides", "twins"],
)
def test_names_and_order_redo_nothing(tmp_path: Path, stages: dict[str, str]) -> None:
    """Not in any order of the stages, also where none is larger than the others, nor under other names."""
    project = photos(tmp_path, stages)
    project.run()
    pairs = list(stages.items())
    for turn in range(len(pairs)):
        project.write("pipeline.yaml", tree(dict(reversed(pairs[turn:] + pairs[:turn]))))
        assert stale(project) == {}, turn
    for name in stages:
        project.edit("pipeline.yaml", f"name: {name}\n", f"name: other-{name}\n")
    assert stale(project) == {}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("fit: contain", "fit: contain, filter: box"),
        ("fit: contain", "fit: contain, position: top left"),
        ("fit: contain", "fit: contain, background: red"),
        ("fit: contain", "fit: contain, frames: all"),
        ("fit: contain", "fit: contain, enlarge: true"),
    ],
)
def test_what_needs_no_other_pixels_redoes_the_largest_only(tmp_path: Path, old: str, new: str) -> None:
    """Filter, position, background and frames are its own."""
    project = photos(tmp_path, SIZES | {"large": "width: 200, height: 200, fit: contain"})
    project.run()
    project.edit("pipeline.yaml", old, new)

    assert set(stale(project)) == {"large"}


def test_a_gap_of_the_largest_is_a_larger_box(tmp_path: Path) -> None:
    """More pixels for one are more pixels for all."""
    project = photos(tmp_path, SIZES)
    project.run()
    project.edit("pipeline.yaml", "width: 200", "gap: 2, width: 200")

    assert {name: why.split(" {")[0] for name, why in stale(project).items()} == {
        "large": "large: gap 1.0 -> 2.0",
        "middle": "middle: decoded for",
        "small": "small: decoded for",
    }
    project.run()
    assert same_as_from_scratch(project)


def test_the_largest_gone_redoes_those_that_were_made_of_it(tmp_path: Path) -> None:
    """Without it the next one leads."""
    project = photos(tmp_path, SIZES)
    project.run()
    project.write("pipeline.yaml", tree({name: SIZES[name] for name in ("middle", "small")}))

    assert set(stale(project)) == {"middle", "small"}
    project.run()
    assert {name for name in project.outputs() if "large" not in name} == {
        "middle/photo.jpg.png",
        "small/photo.jpg.png",
    }


@pytest.mark.parametrize("above", ["resize\n    with: {width: 500}", "beside_them:same"])
def test_what_is_in_memory_is_decoded_for_nobody(tmp_path: Path, above: str) -> None:
    """Sizes of what a stage made have nothing to decode: a larger one redoes none, through a filter neither."""
    for parent, between in (("first", ""), ("landscape", "  - name: landscape\n    from: first\n"
                                            "    uses: beside_them:landscape\n")):  # fmt: skip
        first = f"  - name: first\n    uses: {above}\n{between}"
        project = photos(tmp_path / parent, SIZES)
        project.write("pipeline.yaml", tree(SIZES, parent, first))
        project.run()
        project.write("pipeline.yaml", tree(SIZES | {"new": "width: 450"}, parent, first))
        assert set(stale(project)) == {"new"}
        project.run()
        assert same_as_from_scratch(project)


@pytest.mark.parametrize(
    "box", ["FitBox(None, None)", "FitBox(0, 0)", "(100, 100)", "1 / 0"], ids=["empty", "zero", "tuple", "raises"]
)
def test_a_wrong_box_is_the_stages_fault(tmp_path: Path, pipeline: Pipeline, box: str) -> None:
    """A `fit_box` that raises or gives no box is an error of the pipeline's, with its line; not a bug of ours."""
    project = photos(tmp_path, {"boxed": "", **SIZES})
    project.edit("stages/beside_them.py", 'FitBox(60, 60, "fill")', box)
    done = pipeline("check")

    assert done.returncode == 2, done.stderr
    assert "pipeline.yaml:" in done.stderr and "boxed" in done.stderr


# -- warnings ----------------------------------------------------------------------------------------------------------

BELOW = """\
inputs: in
engine: serial
stages:
  - name: first
    uses: resize
    with: {%s}
    output: "out/first/{name}.png"
%s  - name: second
    from: %s
    uses: resize
    with: {%s}
    output: "out/second/{name}.png"
"""
BETWEEN = """\
  - name: landscape
    from: first
    uses: beside_them:landscape
"""
TEXT = "warning: stage 'second' asks for a width of 300, but 'first' gives 100 at most"


def below(above: str, options: str, between: str = "") -> str:
    """A pipeline in which `second` reads what `first` has made, perhaps through another stage."""
    return BELOW % (above, between, "landscape" if between else "first", options)


def shown(line_number: int, column: int) -> str:
    line = "    with: {width: 300}"
    return f"pipeline.yaml:{line_number}:{column}: {TEXT}\n    {line}\n    {' ' * (column - 1)}^"


@pytest.mark.parametrize("between", ["", BETWEEN], ids=["straight", "filter"])
def test_more_than_there_is_gets_a_warning(tmp_path: Path, pipeline: Pipeline, between: str) -> None:
    """`check` and `plan` say on stderr where a size is asked for that never comes, and carry on; `run` too."""
    project = photos(tmp_path, SIZES)
    project.write("pipeline.yaml", below("width: 100, height: 200", "width: 300", between))
    where = shown(14 if between else 11, 19)

    for verb in (["check"], ["plan"], ["plan", "-v"], ["run", "--dry-run"]):
        done = pipeline(*verb)
        assert (done.returncode, done.stderr.rstrip("\n")) == (0, where), verb
        assert "warning" not in done.stdout
    code, screen = on_terminal("python -m pipeline", tmp_path)
    assert code == 0 and TEXT in screen
    assert screen.count("warning") == 1
    logs = [file.read_text() for file in (tmp_path / ".pipeline").rglob("*.log")]
    assert any(where in log for log in logs)
    quiet = pipeline("run")
    assert (quiet.returncode, quiet.stdout) == (0, "")


@pytest.mark.parametrize(
    ("above", "asked", "sides"),
    [
        ("width: 100", "width: 101", ["width"]),
        ("height: 100", "height: 300", ["height"]),
        ("width: 100, height: 100", "width: 300, height: 300", ["width", "height"]),
        ("width: 100, height: 100, fit: cover", "width: 50, height: 101", ["height"]),
        ("width: 100, height: 100, fit: contain", "width: 101, height: 9, fit: fill", ["width"]),
        ("width: 100, height: 100, fit: fill", "height: 101, enlarge: true", ["height"]),
        ("width: 100", "width: 100", []),
        ("width: 100", "height: 300", []),
        ("height: 100", "width: 300", []),
        ("width: 100, height: 100, fit: outside", "width: 300", []),
        ("width: 100, height: 100, gap: 3", "width: 101", ["width"]),
        ("width: 300", "width: 100", []),
    ],
)
def test_what_is_more_than_there_is(
    tmp_path: Path, pipeline: Pipeline, above: str, asked: str, sides: list[str]
) -> None:
    """A side longer than the same side of the box above; never where the two cannot be compared."""
    project = photos(tmp_path, SIZES)
    project.write("pipeline.yaml", below(above, asked))
    done = pipeline("check")

    assert done.returncode == 0
    assert [side for side in ("width", "height") if f"asks for a {side} of" in done.stderr] == sides
    assert done.stderr.count("^") == len(sides)


def test_a_size_from_the_command_line_is_warned_of_by_its_name(tmp_path: Path, pipeline: Pipeline) -> None:
    """Where the file does not say it, the warning names who did."""
    project = photos(tmp_path, SIZES)
    project.write("pipeline.yaml", below("width: 100", "width: 50"))
    done = pipeline("check", "--set", "stages.second.with.width=300")

    assert done.returncode == 0
    assert done.stderr == f"--set stages.second.with.width=300: {TEXT}\n"


def test_a_stage_between_may_make_pictures_larger(tmp_path: Path, pipeline: Pipeline) -> None:
    """What lies below a stage of one's own that makes pictures is not compared with what lies above it."""
    project = photos(tmp_path, SIZES)
    text = below("width: 100", "width: 300", BETWEEN).replace("beside_them:landscape", "beside_them:same")
    project.write("pipeline.yaml", text)

    assert pipeline("check").stderr == ""


def test_pictures_of_a_test_are_what_they_are_named() -> None:
    """The kinds that the tests above rest on: each opens, as what its name says."""
    for name, data in kinds().items():
        with Image.open(io.BytesIO(data)) as image:
            assert getattr(image, "n_frames", 1) == (4 if name.startswith(("moving", "pages")) else 1)
