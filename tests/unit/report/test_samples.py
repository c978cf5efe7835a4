"""pipeline/report/samples.py: what a report shows of the outputs themselves."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

from PIL import Image
from support.pictures import encode, paint

from pipeline.images.encode import SAVERS
from pipeline.report.samples import PICTURE_SUFFIXES, make_samples
from pipeline.report.statistics import Made

# CPU seconds that no test needs.
PLENTY_S = 60.0


def made(folder: Path, source: str, output: str, before: bytes, after: bytes) -> Made:
    """Write a source and an output, and return them as a run would have told of them."""
    for name, data in ((f"in/{source}", before), (f"out/{output}", after)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return Made(os.fsencode(source), len(before), "web", os.fsencode(folder / "out" / output), len(after))


def samples(folder: Path, outputs: list[Made], cpu_s: float = PLENTY_S, seed: str = "seed") -> dict[str, Any]:
    return make_samples(outputs, os.fsencode(folder / "in"), os.fsencode(folder), seed, cpu_s)


def decoded(side: dict[str, Any]) -> Image.Image:
    head, _, data = side["data"].partition(",")
    assert head in ("data:image/jpeg;base64", "data:image/webp;base64")
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_picture_is_shown_before_and_after(tmp_path: Path) -> None:
    """Small and upright, with the size of the picture itself."""
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    before = encode(paint(1200, 900), "JPEG", exif=exif)
    after = encode(paint(300, 400).convert("RGBA"), "PNG")
    found = samples(tmp_path, [made(tmp_path, "a.jpg", "a.png", before, after)])
    ((entry,), diffs) = found["gallery"], found["diffs"]
    assert diffs == [] and (entry["source"], entry["stage"], entry["output"]) == ("a.jpg", "web", "out/a.png")
    sides = {side: {key: entry[side][key] for key in ("width", "height", "bytes")} for side in ("before", "after")}
    assert sides["before"] == {"width": 900, "height": 1200, "bytes": len(before)}
    assert sides["after"] == {"width": 300, "height": 400, "bytes": len(after)}
    assert decoded(entry["before"]).size == decoded(entry["after"]).size == (180, 240)
    assert (decoded(entry["before"]).format, decoded(entry["after"]).format) == ("JPEG", "WEBP")


def test_twelve_are_chosen_by_the_seed(tmp_path: Path) -> None:
    """The same seed chooses the same ones, in whatever order they were made; another seed others."""
    outputs = [
        made(tmp_path, f"{number}.png", f"{number}.jpg", encode(paint(9, 9), "PNG"), encode(paint(9, 9), "JPEG"))
        for number in range(60)
    ]
    first, again = samples(tmp_path, outputs), samples(tmp_path, outputs[::-1])
    assert first == again and len(first["gallery"]) == 12
    assert [entry["source"] for entry in first["gallery"]] == sorted(entry["source"] for entry in first["gallery"])
    assert samples(tmp_path, outputs, seed="other") != first


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    """Damaged, empty, gone, of another kind, or a FIFO, at which a reader waits: the others are shown."""
    picture = encode(paint(20, 20), "PNG")
    good = made(tmp_path, "good.png", "good.png", picture, picture)
    bad = [
        made(tmp_path, "torn.png", "torn.png", picture[:60], picture),
        made(tmp_path, "empty.png", "empty.png", picture, b""),
        made(tmp_path, "text.txt", "text.png", b"no picture", picture),
        made(tmp_path, "gone.png", "gone.png", picture, picture),
        made(tmp_path, "html.png", "html.png", b"<script>", picture),
    ]
    (tmp_path / "out/gone.png").unlink()
    for name in ("fifo.png", "fifo.txt"):
        bad.append(made(tmp_path, name, name, picture, b"text"))
        for folder in ("in", "out"):
            (tmp_path / folder / name).unlink()
            os.mkfifo(tmp_path / folder / name)
    assert [entry["source"] for entry in samples(tmp_path, [*bad, good])["gallery"]] == ["good.png"]


def test_a_short_run_shows_no_pictures(tmp_path: Path) -> None:
    """To load the libraries alone takes longer than the seconds that there are; a picture that takes longer is out."""
    picture = encode(paint(64, 64), "PNG")
    large = made(tmp_path, "large.png", "large.png", encode(Image.new("L", (9000, 9000)), "PNG"), picture)
    small = made(tmp_path, "small.png", "small.png", picture, picture)
    assert samples(tmp_path, [large, small], cpu_s=0.02) == {"gallery": [], "diffs": []}
    assert [entry["source"] for entry in samples(tmp_path, [large, small], cpu_s=3.0)["gallery"]] == ["small.png"]


def test_changed_lines_of_texts(tmp_path: Path) -> None:
    """As a diff has them, cut where there are many; what is not UTF-8, too large or the same is left out."""
    many = "\n".join(map(str, range(100))).encode()
    outputs = [
        made(tmp_path, "a.txt", "a.txt", b"one\nzwei\nthree\n", "one\ntwö\nthree\n".encode()),
        made(tmp_path, "many.txt", "many.txt", many, many.replace(b"\n", b"!\n")),
        made(tmp_path, "same.txt", "same.txt", b"same", b"same"),
        made(tmp_path, "bytes.bin", "bytes.bin", b"\xff\xfe", b"text"),
        made(tmp_path, "nul.bin", "nul.bin", b"a\0b", b"text"),
        made(tmp_path, "large.txt", "large.txt", b"x\n" * 200_000, b"text"),
    ]
    first, second = samples(tmp_path, outputs)["diffs"]
    assert first == {
        "source": "a.txt", "stage": "web", "output": "out/a.txt", "is_cut": False,
        "lines": [[" ", "one"], ["-", "zwei"], ["+", "twö"], [" ", "three"]],
    }  # fmt: skip
    assert second["source"] == "many.txt" and second["is_cut"] and len(second["lines"]) == 60


def test_texts_that_take_long_to_compare_are_cut(tmp_path: Path) -> None:
    """Lines that are all alike but for one are what difflib is slowest with."""
    before = b"".join(b"%d\n" % (number % 50) for number in range(60_000))
    output = made(tmp_path, "a.txt", "a.txt", before, before[::-1])
    (entry,) = samples(tmp_path, [output])["diffs"]
    assert entry["is_cut"]


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    source = os.fsdecode(b"\xff\x1b\n.txt")
    (entry,) = samples(tmp_path, [made(tmp_path, source, source, b"a", b"b")])["diffs"]
    assert entry["source"] == "\\xff\x1b\n.txt" and base64.b64decode(entry["source_b64"]) == b"\xff\x1b\n.txt"


def test_every_format_of_outputs_may_be_shown() -> None:
    assert set(SAVERS) == PICTURE_SUFFIXES
