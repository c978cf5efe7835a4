"""Pictures that move: which frames come out, how each looks, how long it is shown, and what is said of those left out.

A frame counts as it is seen: laid over what was there before it, as a viewer would.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat
from support.animations import durations, gif, moving, plays, scenes, seen
from support.pictures import encode, paint, png_chunk
from support.program import Pipeline
from support.project import Project

from pipeline.errors import FileFailure, Unreadable
from pipeline.images.animation import Animation, Timing
from pipeline.images.decode import OpenedPicture, open_picture
from pipeline.images.encode import SAVERS
from pipeline.notes import collected
from stages.resize import Resize

MOVING = ("GIF", "WEBP", "PNG", "AVIF")
EXACT: dict[str, dict[str, Any]] = {".webp": {"lossless": True}, ".gif": {}}


def through(data: bytes, suffix: str, **options: Any) -> bytes:
    """Resized with all frames, and saved."""
    made = Resize(**({"width": 30} | options), frames="all")(open_picture(data))
    file = io.BytesIO()
    SAVERS[suffix](made, file, **EXACT.get(suffix, {}))
    return file.getvalue()


def looks_apart(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of two frames, laid on white and on black."""
    assert one.size == other.size
    most = 0.0
    for ground in ("white", "black"):
        laid = [
            Image.alpha_composite(Image.new("RGBA", one.size, ground), each).convert("RGB") for each in (one, other)
        ]
        most = max(most, *ImageStat.Stat(ImageChops.difference(*laid)).mean)
    return most


def resized(frame: Image.Image, *, sharp_alpha: bool, **options: Any) -> Image.Image:
    """What the stage makes of a frame that stands alone."""
    made = Resize(**options)(OpenedPicture(frame.copy(), upright=True)).convert("RGBA")
    if sharp_alpha:
        made.putalpha(made.getchannel("A").point(lambda value: 255 if value >= 128 else 0))
    return made


def assert_moves_alike(source: bytes, made: bytes, suffix: str, **options: Any) -> None:
    """Every frame of what was made is the source's frame at that time, resized."""
    wanted, found = seen(source), seen(made)
    assert len(found) == len(wanted)
    for index, (before, after) in enumerate(zip(wanted, found, strict=True)):
        apart = looks_apart(resized(before, sharp_alpha=suffix == ".gif", **options), after)
        assert apart < 3, f"frame {index} is {apart:.1f} apart"


# -- how it looks ------------------------------------------------------------------------------------------------------

FITS: list[dict[str, Any]] = [
    {"width": 30},
    {"width": 25, "height": 25, "fit": "inside"},
    {"width": 25, "height": 25, "fit": "outside"},
    {"width": 25, "height": 25, "fit": "fill"},
    {"width": 25, "height": 25, "fit": "cover", "position": "left top"},
    {"width": 25, "height": 25, "fit": "cover", "position": "bottom right"},
    {"width": 50, "height": 50, "fit": "contain", "background": "teal"},
    {"width": 50, "height": 50, "fit": "contain", "background": "#00000000", "position": "top"},
    {"width": 90, "enlarge": True},
    {"width": 500},
]


@pytest.mark.parametrize("suffix", EXACT)
@pytest.mark.parametrize("name", MOVING)
@pytest.mark.parametrize("clear", [False, True], ids=["opaque", "clear"])
def test_every_frame_is_the_sources_frame_resized(clear: bool, name: str, suffix: str) -> None:
    """From every format that moves, in every fit, each frame looks as the source's did; none is lost or added."""
    source = moving(scenes(clear=clear), name, **({"disposal": 2} if name == "GIF" else {}))
    assert [frame.getpixel((59, 39))[3] for frame in seen(source)] == [0 if clear else 255] * 4  # type: ignore[index]
    for options in FITS:
        assert_moves_alike(source, through(source, suffix, **options), suffix, **options)


@pytest.mark.parametrize("suffix", EXACT)
@pytest.mark.parametrize("disposal", [0, 1, 2, 3, [1, 2, 3, 2]])
@pytest.mark.parametrize("clear", [False, True], ids=["opaque", "clear"])
def test_every_disposal_of_a_gif(clear: bool, disposal: Any, suffix: str) -> None:
    """Whatever a GIF says becomes of its frames, what is seen stays the same."""
    source = moving(scenes(clear=clear), "GIF", disposal=disposal)

    assert_moves_alike(source, through(source, suffix), suffix, width=30)


@pytest.mark.parametrize("suffix", EXACT)
@pytest.mark.parametrize(
    "disposals", [(0, 0, 0, 0, 0), (1, 1, 1, 1, 1), (0, 2, 2, 0, 1), (1, 3, 3, 1, 1), (1, 2, 3, 3, 2)]
)
@pytest.mark.parametrize("clear", [None, 0], ids=["opaque", "clear"])
def test_frames_that_cover_only_a_part(clear: int | None, disposals: tuple[int, ...], suffix: str) -> None:
    """A frame that covers a part of the canvas comes out whole, with the rest as it was."""
    boxes = [(0, 0, 40, 30), (6, 6, 10, 10), (20, 10, 10, 10), (0, 0, 40, 4), (38, 28, 2, 2)]
    frames = [
        (box, (1, 2, 3, 2, 3)[index], how, clear) for index, (box, how) in enumerate(zip(boxes, disposals, strict=True))
    ]
    source = gif((40, 30), frames)  # type: ignore[arg-type]
    assert len(seen(source)) == 5

    # Box, since what Lanczos adds beside an edge has more colours than a GIF with transparency tells apart.
    options: dict[str, Any] = {"width": 20, "filter": "box"}
    assert_moves_alike(source, through(source, suffix, **options), suffix, **options)


def test_a_first_frame_smaller_than_the_canvas() -> None:
    """What no frame has drawn on yet is transparent, or as the first one left it, in each that follows."""
    source = gif((40, 30), [((10, 10, 8, 8), 1, 2, 0), ((20, 10, 8, 8), 2, 2, 0), ((0, 0, 40, 30), 3, 1, None)])

    for suffix in EXACT:
        assert_moves_alike(source, through(source, suffix, width=20), suffix, width=20)


def test_frames_of_other_modes_are_brought_together() -> None:
    """Grey, coloured and transparent frames in one animation lose neither colour nor transparency."""
    grey, red, hole = Image.new("L", (20, 20), 90), Image.new("RGB", (20, 20), "red"), Image.new("LA", (20, 20), (9, 0))
    timing = Timing((50.0,) * 3, 0)
    for frames, mode in (
        ([grey, red], "RGB"),
        ([grey, hole], "LA"),
        ([red, hole], "RGBA"),
        ([grey, red, hole], "RGBA"),
    ):
        made = Animation(frames, timing)
        assert made.mode == mode and {each.mode for each in made.frames} == {mode}


def test_a_cascade_keeps_all_frames(tmp_path: Path) -> None:
    """Of two resizes after each other, both with all frames, each makes an animation, from GIF over WebP to GIF."""
    project = Project(tmp_path, CASCADE)
    source = moving(scenes(size=(80, 40), clear=True), "GIF", disposal=2, duration=[50, 100, 150, 200], loop=4)
    project.write("in/a.gif", source)

    assert project.run().done == 2

    for name, width in (("a-large.webp", 40), ("a-small.gif", 20)):
        made = project.outputs()[name]
        assert durations(made) == [50, 100, 150, 200] and plays(made) == 5
        assert_moves_alike(source, made, Path(name).suffix, width=width)


CASCADE = """
inputs: in
engine: serial
stages:
  - name: large
    uses: resize
    with: {width: 40, frames: all}
    output: {path: "out/{stem}-large.webp", save: {lossless: true}}
  - name: small
    uses: resize
    from: large
    with: {width: 20, frames: all}
    output: "out/{stem}-small.gif"
"""


# -- how long, and how often -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", EXACT)
@pytest.mark.parametrize("name", MOVING)
@pytest.mark.parametrize("times", [[50, 100, 150, 200], [10, 20, 30, 40], [65_000, 10, 400_000, 70]])
def test_durations_that_every_format_can_say(times: list[int], name: str, suffix: str) -> None:
    """Whole hundredths of a second come out of every format as they went in, however long."""
    assert durations(through(moving(scenes(), name, duration=times), suffix)) == times


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG"])
def test_no_duration_stays_none(name: str) -> None:
    """A frame that says 0, or nothing, is a viewer's to time; it says so still."""
    for suffix in EXACT:
        assert durations(through(moving(scenes(), name, duration=0), suffix)) == [0, 0, 0, 0]


@pytest.mark.parametrize("name", ["WEBP", "PNG", "AVIF"])
def test_milliseconds_survive_in_a_webp(name: str) -> None:
    """A WebP says milliseconds, so none is lost on the way to it."""
    times = [5, 33, 1, 999]
    assert durations(through(moving(scenes(), name, duration=times), ".webp")) == times


@pytest.mark.parametrize(("suffix", "unit_ms"), [(".gif", 10), (".webp", 1)])
@pytest.mark.parametrize("time_ms", [16, 17, 33.33, 42, 100 / 3])
def test_no_output_runs_away(time_ms: float, suffix: str, unit_ms: int) -> None:
    """A GIF counts in hundredths of a second, a WebP in thousandths; what a frame loses is given to the next."""
    made = durations(through(moving(scenes(12, (140, 40)), "PNG", duration=time_ms), suffix, width=70))

    assert abs(sum(made) - 12 * time_ms) <= unit_ms
    assert all(abs(each - time_ms) <= unit_ms for each in made)


@pytest.mark.parametrize("kept", [slice(0, -1), slice(0, -200)])
def test_a_gif_without_its_end_says_so(kept: slice) -> None:
    """It may have lost frames; a byte of its pixels that looks like the mark is none, and what follows the mark is."""
    whole = moving(scenes(), "GIF")
    cut = whole[kept][:-1] + b";"
    for data, is_noted in ((cut, True), (whole, False), (whole + b"\0\0\r\n" * 20, False)):
        with collected() as notes:
            open_picture(data)
        assert [str(each) for each in notes] == ["its end mark is missing: frames may be lost"] * is_noted


@pytest.mark.parametrize("name", ["WEBP", "PNG", "AVIF"])
def test_a_short_frame_does_not_become_a_long_one(name: str) -> None:
    """Half a hundredth of a second is not said as 0, which viewers show for a tenth."""
    assert all(durations(through(moving(scenes(), name, duration=5), ".gif")))


@pytest.mark.parametrize(("loop", "shown"), [(None, 1), (0, 0), (1, 2), (5, 6), (65_534, 65_535)])
def test_repeats_of_a_gif_are_plays_of_a_webp(loop: int | None, shown: int) -> None:
    """A GIF with no loop extension plays once, one that loops n times n + 1 times, and 0 is for ever."""
    source = gif((20, 20), [((0, 0, 20, 20), colour, 1, None) for colour in (1, 2, 3)], loop=loop)

    assert plays(source) == shown
    for suffix in EXACT:
        assert plays(through(source, suffix, width=10)) == shown


@pytest.mark.parametrize("name", ["WEBP", "PNG"])
@pytest.mark.parametrize("shown", [0, 1, 2, 65_535])
def test_plays_of_a_webp_are_repeats_of_a_gif(shown: int, name: str) -> None:
    """What plays once has no loop extension as a GIF, and what plays n times is repeated n - 1 times."""
    for suffix in EXACT:
        assert plays(through(moving(scenes(), name, loop=shown), suffix)) == shown


@pytest.mark.parametrize("suffix", EXACT)
def test_more_plays_than_can_be_said(suffix: str) -> None:
    """Nobody counts to 65,536: where a format cannot say so many plays it says the most it can, and nothing fails."""
    repeated = gif((20, 20), [((0, 0, 20, 20), colour, 1, None) for colour in (1, 2)], loop=65_535)
    for source in (repeated, moving(scenes(), "PNG", loop=70_000)):
        assert plays(through(source, suffix, width=10)) in (0, 65_535, 65_536)


HOUR_MS = 3_600_000


@pytest.mark.parametrize(("name", "suffix", "longest_ms"), [
    ("WEBP", ".gif", 4 * HOUR_MS), ("AVIF", ".gif", 18 * HOUR_MS), ("AVIF", ".webp", 20 * HOUR_MS),
    ("PNG", ".webp", 18 * HOUR_MS),
])  # fmt: skip
def test_a_frame_is_shown_for_as_long_as_it_was(name: str, suffix: str, longest_ms: int) -> None:
    """Where a format has no number for it, the frame is repeated; the others keep their places and durations."""
    frames = scenes()
    made = through(moving(frames, name, duration=[100, longest_ms, 50, 200]), suffix, width=60)
    times, shown = durations(made), seen(made)

    assert sum(times) == longest_ms + 350 and times[0] == 100 and times[-2:] == [50, 200]
    assert len(times) > 4 and min(times[1:-2]) > 300_000
    for frame in shown[1:-2]:
        assert looks_apart(frame, frames[1]) < 8
    assert looks_apart(shown[0], frames[0]) < 8 and looks_apart(shown[-1], frames[3]) < 8


@pytest.mark.parametrize("suffix", EXACT)
@pytest.mark.parametrize("clear", [False, True], ids=["opaque", "clear"])
def test_frames_that_are_alike_are_shown_for_as_long_as_all(suffix: str, clear: bool) -> None:
    """Those of a slide show, of which each is shown for ten minutes, and becomes one for forty in a writer's hands."""
    first, second = scenes(2, clear=clear)
    times = [600_000] * 5 + [70, 600_000]
    made = through(moving([first] * 4 + [second, first, first], "PNG", duration=times), suffix, width=60)
    shown = seen(made)

    assert sum(durations(made)) == sum(times)
    assert looks_apart(shown[0], shown[-1]) < 1 and looks_apart(shown[0], first) < 8
    assert any(looks_apart(frame, second) < 8 for frame in shown)


def test_a_still_show_is_as_long_as_it_was() -> None:
    """Frames that are all alike, which a GIF repeats for as long as they were shown."""
    alike = Animation([Image.new("RGB", (8, 6), "teal")] * 4, Timing((400_000,) * 4, 1))
    file = io.BytesIO()
    SAVERS[".gif"](alike, file)
    assert durations(file.getvalue()) == [533_330, 533_330, 533_340]


@pytest.mark.parametrize("suffix", EXACT)
def test_what_no_format_can_say_is_an_error_of_the_file(suffix: str) -> None:
    """A frame shown for two months is refused in words, and takes no memory."""
    still = Animation([Image.new("RGB", (8, 6), "teal"), Image.new("RGB", (8, 6))], Timing((5e9, 100), 1))
    with pytest.raises(FileFailure, match=r"cannot be written as .*: a frame lasts longer than 100"):
        SAVERS[suffix](still, io.BytesIO())


def test_equal_frames_may_be_merged_but_not_hurried() -> None:
    """A writer may make one frame of two that are equal; then it is shown for as long as both."""
    first, second = scenes(2)
    source = moving([first, second, second, first], "AVIF", duration=[100, 150, 50, 300])
    for suffix in EXACT:
        assert sum(durations(through(source, suffix))) == 600


# -- what does not move ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MOVING)
def test_one_frame_is_a_still(name: str) -> None:
    """An animation of a single frame is a picture like any other, and nothing is noted."""
    source = moving(scenes(1), name)
    with collected() as notes:
        image = open_picture(source).load((30, 20), frames="all")
        assert not isinstance(image, Animation)
        for suffix in SAVERS:
            assert len(seen(through(source, suffix))) == 1
    assert not notes


@pytest.mark.parametrize("suffix", sorted(set(SAVERS) - {".webp", ".gif"}))
def test_an_output_that_cannot_move_is_the_first_frame(suffix: str) -> None:
    """JPEG, PNG, AVIF and TIFF get the first frame, and how many are left out is noted."""
    with collected() as notes:
        made = through(moving(scenes(), "GIF"), suffix)

    assert list(notes) == ["first frame only, of 4"]
    frames = seen(made)
    assert len(frames) == 1 and looks_apart(frames[0], resized(scenes()[0], sharp_alpha=False, width=30)) < 12


def test_pages_are_no_animation() -> None:
    """Of a TIFF with pages the first one is taken, whatever was asked for, and it is noted as a page."""
    for frames in ("first", "all"):
        with collected() as notes:
            image = open_picture(moving(scenes(3), "TIFF")).load(frames=frames)  # type: ignore[arg-type]
        assert not isinstance(image, Animation) and list(notes) == ["first page only, of 3"]


def test_the_still_beside_an_animation_is_no_frame_of_it() -> None:
    """An APNG may hold a picture for programs that know no animation: where it moves, that one is never seen."""
    hidden = Image.new("RGBA", (60, 40), "magenta")
    source = moving([hidden, *scenes(3)], "PNG", default_image=True)

    for suffix in EXACT:
        made = seen(through(source, suffix))
        assert len(made) == 3
        assert looks_apart(made[0], resized(scenes(3)[0], sharp_alpha=False, width=30)) < 3


def test_all_frames_then_the_first_and_again_all() -> None:
    """The same picture may be asked in any order and answers the same."""
    for name in MOVING:
        picture = open_picture(moving(scenes(clear=True), name))
        all_first = picture.load((30, 20), frames="all")
        first = picture.load((30, 20))
        again = picture.load((30, 20), frames="all")
        assert isinstance(all_first, Animation) and isinstance(again, Animation) and not isinstance(first, Animation)
        assert [each.tobytes() for each in all_first.frames] == [each.tobytes() for each in again.frames]
        assert first.tobytes() == all_first.frames[0].convert(first.mode).tobytes()


# -- stages between ----------------------------------------------------------------------------------------------------

BETWEEN = """
inputs: in
engine: serial
stages:
  - name: small
    uses: resize
    with: {width: 30, frames: all}
  - name: between
    uses: between
    output: out/{stem}.SUFFIX
"""
STAMP = """
from PIL import Image
def between(image: Image.Image) -> Image.Image:
    image.paste("red", (0, 0, 10, 10))
    return image
"""
GREY = """
from PIL import Image
def between(image: Image.Image) -> Image.Image:
    return image.convert("L")
"""
PROGRAM = """
import shutil
from pathlib import Path
from pipeline import Item
def between(item: Item[Path]) -> Path:
    return shutil.copyfile(item.value, item.scratch / "copy.png")
"""
OPENS = """
import io
from PIL import Image
def between(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))
"""


def ran_between(folder: Path, stage: str, suffix: str = "webp") -> tuple[bytes, list[str]]:
    """What a stage makes of an animation, and the summary."""
    project = Project(folder, BETWEEN.replace("SUFFIX", suffix))
    project.write("stages/between.py", stage)
    project.write("in/a.gif", moving(scenes(), "GIF"))
    summary = project.run()
    assert summary.done == 1, summary.failures
    return project.outputs()[f"a.{suffix}"], summary.lines()


def test_a_stage_that_paints_never_paints_on_one_frame_of_many(tmp_path: Path) -> None:
    """A stage that takes an image gets the first frame: what it paints in place is on everything it hands back."""
    made, _ = ran_between(tmp_path, STAMP)

    red = resized(Image.new("RGBA", (10, 10), "red"), sharp_alpha=False, width=10)
    for frame in seen(made):
        assert looks_apart(frame.crop((0, 0, 8, 8)), red.crop((0, 0, 8, 8))) < 9


@pytest.mark.parametrize(
    ("stage", "suffix"), [(STAMP, "webp"), (GREY, "webp"), (PROGRAM, "png")], ids=["paints", "converts", "a program's"]
)
def test_a_stage_that_drops_frames_is_noted(stage: str, suffix: str, tmp_path: Path) -> None:
    """Where a stage between is handed only the first frame, the output says so."""
    made, lines = ran_between(tmp_path, stage, suffix)

    assert len(seen(made)) == 1
    assert "1 done with a note: first frame only" in lines


def test_an_animation_that_a_stage_opened_itself_is_noted(tmp_path: Path) -> None:
    """A stage that hands back a file with frames, opened by Pillow, gives its first frame with a note."""
    project = Project(tmp_path, BETWEEN.replace("SUFFIX", "webp").replace("from: small", ""))
    project.edit("pipeline.yaml", "  - name: small\n    uses: resize\n    with: {width: 30, frames: all}\n", "")
    project.write("stages/between.py", OPENS)
    project.write("in/a.gif", moving(scenes(), "GIF"))
    summary = project.run()

    assert len(seen(project.outputs()["a.webp"])) == 1
    assert "1 done with a note: first frame only" in summary.lines()


@pytest.mark.parametrize("wanted", ["Picture", "Image.Image"])
def test_a_filter_lets_all_frames_by(wanted: str, tmp_path: Path) -> None:
    """A filter gives on what it was given, all frames of it, whether or not others read the same value."""
    project = Project(tmp_path, FILTERED)
    project.write(
        "stages/wide.py",
        f"from PIL import Image\nfrom pipeline import Picture\n"
        f"def wide(picture: {wanted}) -> bool:\n    return picture.size[0] > 5\n",
    )
    project.write("in/a.gif", moving(scenes(), "GIF"))

    assert project.run().done == 3
    assert {name: len(seen(data)) for name, data in project.outputs().items()} == {
        "a-alone.gif": 4, "a-below.gif": 4, "a-beside.gif": 4,
    }  # fmt: skip


FILTERED = """
inputs: in
engine: serial
stages:
  - name: small
    uses: resize
    with: {width: 40, frames: all}
    output: "out/{stem}-alone.gif"
  - name: filter
    uses: wide
    from: small
  - name: below
    uses: resize
    from: filter
    with: {width: 20, frames: all}
    output: "out/{stem}-below.gif"
  - name: beside
    uses: resize
    from: small
    with: {width: 10, frames: all}
    output: "out/{stem}-beside.gif"
"""


# -- the whole program -------------------------------------------------------------------------------------------------

WHOLE = """
inputs: in
engine: ENGINE
stages:
  - name: gif
    uses: resize
    with: {width: 30, frames: all}
    output: "out/{stem}.gif"
  - name: webp
    uses: resize
    from: inputs
    with: {width: 30, frames: all}
    output: {path: "out/{stem}.webp", save: {lossless: true}}
  - name: jpg
    uses: resize
    from: inputs
    with: {width: 30, frames: all}
    output: "out/{stem}.jpg"
  - name: first
    uses: resize
    from: inputs
    with: {width: 20}
    output: "out/{stem}-first.webp"
"""


@pytest.mark.parametrize("engine", ["serial", "pool"])
def test_the_program_says_what_it_left_out(engine: str, tmp_path: Path, pipeline: Pipeline) -> None:
    """`python -m pipeline` makes each animation in each format; what is left out is logged and counted."""
    (tmp_path / "in").mkdir()
    sources = {f"{name.lower()}.x": moving(scenes(clear=True), name) for name in MOVING}
    for name, data in sources.items():
        (tmp_path / "in" / name).write_bytes(data)
    (tmp_path / "in" / "pages.x").write_bytes(moving(scenes(3), "TIFF"))
    (tmp_path / "in" / "bad.x").write_bytes(moving(scenes(), "GIF")[:40])
    (tmp_path / "pipeline.yaml").write_text(WHOLE.replace("ENGINE", engine))

    ended = pipeline("pipeline.yaml")

    assert ended.returncode == 1 and not ended.stdout
    # Of each of the four: the JPEG and the one that asks for the first; of the pages: all four outputs.
    lines = ended.stderr.splitlines()
    assert "8 done with a note: first frame only" in lines and "4 done with a note: first page only" in lines
    log = "".join(file.read_text() for file in tmp_path.rglob("*.log"))
    assert "first frame only, of 4" in log and "first page only, of 3" in log
    for name, data in sources.items():
        stem = name.removesuffix(".x")
        for suffix in EXACT:
            assert_moves_alike(data, (tmp_path / "out" / f"{stem}{suffix}").read_bytes(), suffix, width=30)
        for still in (".jpg", "-first.webp"):
            assert len(seen((tmp_path / "out" / f"{stem}{still}").read_bytes())) == 1


# -- damage ------------------------------------------------------------------------------------------------------------


def frames_or_reason(data: bytes) -> int | str:
    """How many frames come out, or why none does."""
    try:
        image = open_picture(data).load((30, 20), frames="all")
    except Unreadable as refused:
        return str(refused)
    return len(image.frames) if isinstance(image, Animation) else 1


@pytest.mark.parametrize("name", ["WEBP", "PNG", "AVIF"])
def test_a_cut_animation_is_refused_or_whole(name: str) -> None:
    """Cut anywhere, an animation comes with all its frames or not at all."""
    data = moving(scenes(clear=True), name)
    for length in range(1, len(data), 7):
        assert frames_or_reason(data[:length]) == 4 or isinstance(frames_or_reason(data[:length]), str)


def test_a_cut_gif_is_refused_or_noted() -> None:
    """Cut inside a frame a GIF is refused; cut between two, where it ends as a GIF may, at least something is said."""
    data = moving(scenes(clear=True), "GIF")
    silent = []
    for length in range(1, len(data) - 1):
        with collected() as notes:
            frames = frames_or_reason(data[:length])
        if isinstance(frames, int) and frames < 4 and not notes:
            silent.append(length)
    assert silent == [], f"{len(silent)} of {len(data)} cuts give fewer frames without a word"


def test_a_gif_without_its_end_mark_is_whole() -> None:
    """Many a GIF lacks its last byte; nothing of its frames is gone."""
    data = gif((20, 20), [((0, 0, 20, 20), colour, 1, None) for colour in (1, 2, 3)], end=b"")
    assert frames_or_reason(data) == 3
    assert frames_or_reason(data + b";" + b"rubbish after the end") == 3


@pytest.mark.parametrize("kept", [9, 12, 17])
def test_siblings_agree_on_a_damaged_animation(kept: int, tmp_path: Path) -> None:
    """What one stage finds damaged, the next finds as damaged: no sibling gets the frames before the damage."""
    project = Project(tmp_path, WHOLE.replace("ENGINE", "serial"))
    data = moving(scenes(), "GIF")
    # Within the header of the last frame, after which Pillow's reader goes on as if the file ended there.
    project.write("in/a.gif", data[: data.rindex(b"\x21\xf9\x04") + kept])

    summary = project.run()

    failed = {result.stage: result.text for _, result in summary.failures}
    assert {"gif", "webp", "jpg"} <= failed.keys(), f"made: {sorted(project.outputs())}"
    assert len(set(failed.values())) == 1


def test_a_damaged_frame_fails_the_animation_and_not_the_first_frame() -> None:
    """Who asks for the first frame of an APNG gets it; who asks for all gets none if a later one is broken."""
    data = bytearray(moving(scenes(), "PNG"))
    at = data.rindex(b"fdAT")
    data[at + 12 : at + 30] = bytes(18)

    assert open_picture(bytes(data)).load((30, 20)).size == (30, 20)
    with pytest.raises(Unreadable, match=r"^(truncated|damaged) picture"):
        open_picture(bytes(data)).load((30, 20), frames="all")


def test_a_frame_that_overflows_the_canvas_is_cut_to_it() -> None:
    """Pillow grows the canvas for a frame that stands over; every frame made has one size all the same."""
    source = gif((20, 20), [((0, 0, 20, 20), 1, 1, None), ((0, 0, 50, 50), 2, 1, None), ((0, 0, 5, 5), 3, 1, None)])

    image = open_picture(source).load((10, 10), frames="all")
    assert isinstance(image, Animation) and {each.size for each in image.frames} == {(10, 10)}
    assert frames_or_reason(through(source, ".gif", width=10)) == 3


def test_an_apng_that_promises_more_frames_than_it_has() -> None:
    """A number of frames that is not true is damage, said so, and no hang."""
    frames = moving(scenes(), "PNG")
    at = frames.index(b"acTL") - 4
    for count in (5, 4000, 2**31):
        chunk = png_chunk(b"acTL", struct.pack(">II", count, 0))
        data = frames[:at] + chunk + frames[at + len(chunk) :]
        reason = frames_or_reason(data)
        assert isinstance(reason, str) and reason.startswith(("truncated", "damaged", "too large"))


def test_an_apng_with_no_frames_is_a_picture() -> None:
    """An animation of none is the still picture that it is beside."""
    whole = encode(paint(20, 10), "PNG")
    data = whole[:33] + png_chunk(b"acTL", struct.pack(">II", 0, 0)) + whole[33:]
    assert frames_or_reason(data) == 1
