"""What pages makes of PDFs: their pages as a viewer shows them, one at a time, and one sentence for what is none."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.program import ROOT
from support.project import Project

from pipeline import Part, Skip
from pipeline.errors import ConfigError, Unreadable
from pipeline.images import Limits, limited_to
from stages.pages import Pages

Picture = Part[Image.Image]


def pdf(*pages: str, form: str = "", **extra: str) -> bytes:
    """A PDF of pages 100 points wide and 50 high, each filled with these drawing commands."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R %s >>" % form.encode()]
    kids = " ".join(f"{3 + 2 * index} 0 R" for index in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} /MediaBox [0 0 100 50] >>".encode())
    for index, commands in enumerate(pages):
        entries = f"/Contents {4 + 2 * index} 0 R {extra.get('page', '')}"
        objects.append(f"<< /Type /Page /Parent 2 0 R {entries} >>".encode())
        objects.append(f"<< /Length {len(commands)} >>\nstream\n{commands}\nendstream".encode())
    objects += [each.encode() for name, each in extra.items() if name.startswith("object")]
    data, places = b"%PDF-1.7\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = f"<< /Size {len(objects) + 1} /Root 1 0 R {extra.get('trailer', '')} >>".encode()
    return data + b"xref\n0 %d\n0000000000 65535 f \n%strailer\n%s\nstartxref\n%d\n%%%%EOF" % (
        len(objects) + 1, table, trailer, len(data),
    )  # fmt: skip


def fill(red: float, green: float, blue: float) -> str:
    """Commands that fill the left half of a page."""
    return f"{red} {green} {blue} rg 0 0 50 50 re f"


RED, GREEN, BLUE = (fill(*colour) for colour in ((1, 0, 0), (0, 1, 0), (0, 0, 1)))


def made(folder: Path, data: bytes, **options: Any) -> list[Picture]:
    (folder / "a.pdf").write_bytes(data)
    return list(Pages(**options)(folder / "a.pdf"))


def test_every_page_is_a_picture_of_its_own_name(tmp_path: Path) -> None:
    """On white, as many pixels as `dpi` says, in the colours that the page has."""
    parts = made(tmp_path, pdf(RED, GREEN, BLUE), dpi=144)
    assert [part.name for part in parts] == ["0001", "0002", "0003"]
    for part, colour in zip(parts, ((255, 0, 0), (0, 255, 0), (0, 0, 255)), strict=True):
        assert (part.value.mode, part.value.size) == ("RGB", (200, 100))
        assert (part.value.getpixel((50, 50)), part.value.getpixel((150, 50))) == (colour, (255, 255, 255))


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"first": 2}, ["0002", "0003"]),
        ({"last": 2}, ["0001", "0002"]),
        ({"first": 2, "last": 2}, ["0002"]),
        ({"first": 3, "last": 9}, ["0003"]),
    ],
)
def test_pages_keep_their_numbers_where_some_are_chosen(tmp_path: Path, options: Any, names: list[str]) -> None:
    """The first and the last that are made may be named."""
    assert [part.name for part in made(tmp_path, pdf(RED, GREEN, BLUE), **options)] == names


def test_a_pdf_with_none_of_these_pages_is_left_out(tmp_path: Path) -> None:
    """It is not the file's fault that it is short."""
    with pytest.raises(Skip, match="no page 4: it has 3"):
        made(tmp_path, pdf(RED, GREEN, BLUE), first=4)


def test_pages_come_as_a_viewer_shows_them(tmp_path: Path) -> None:
    """Turned as the page says, and with what is filled into its forms."""
    [turned] = made(tmp_path, pdf(RED, page="/Rotate 90"), dpi=72)
    assert turned.value.size == (50, 100)
    assert (turned.value.getpixel((25, 25)), turned.value.getpixel((25, 75))) == ((255, 0, 0), (255, 255, 255))
    widget = "<< /Type /Annot /Subtype /Widget /FT /Tx /T (a) /F 4 /Rect [60 10 90 40] /P 3 0 R /AP << /N 6 0 R >> >>"
    look = (
        "<< /Type /XObject /Subtype /Form /BBox [0 0 30 30] /Length 24 >>\nstream\n0 1 0 rg 0 0 30 30 re f \nendstream"
    )
    form = pdf("", form="/AcroForm << /Fields [5 0 R] >>", page="/Annots [5 0 R]", object5=widget, object6=look)
    [filled] = made(tmp_path, form, dpi=72)
    assert filled.value.getpixel((75, 25)) == (0, 255, 0)


def test_one_page_is_in_memory_at_a_time(tmp_path: Path) -> None:
    """Pages are made when they are asked for, and the stage keeps none of them."""
    (tmp_path / "a.pdf").write_bytes(pdf(*[RED] * 500))
    pages = Pages(dpi=720)(tmp_path / "a.pdf")
    before = weakref.ref(next(pages).value)
    for _ in range(3):
        assert before() is None
        before = weakref.ref(next(pages).value)
    pages.close()  # type: ignore[attr-defined]


SECRET = "/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O ({0}) /U ({0}) >> /ID [<00> <00>]".format("x" * 32)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty file"),
        (b"a text", "not a PDF, or a damaged one"),
        (pdf(RED)[:60], "not a PDF, or a damaged one"),
        (pdf(RED, trailer=SECRET), "encrypted PDF: it cannot be read without its password"),
        (pdf(RED, RED).replace(b"/Type /Page /Parent 2 0 R /Contents 6", b"/Type /None /Parnt 2 0 R /Contents 6"),
         "damaged PDF: page 2 of 2 cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said_in_a_sentence(tmp_path: Path, data: bytes, said: str) -> None:
    """An encrypted PDF, a broken one, and what is none."""
    with pytest.raises(Unreadable) as raised:
        made(tmp_path, data)
    assert raised.value.text == said


def test_a_page_that_would_be_too_large_is_refused(tmp_path: Path) -> None:
    """Before its pixels are made, by the limits that hold for all pictures."""
    with limited_to(Limits(max_pixels=1_000_000)), pytest.raises(Unreadable, match="too large: 2000x1000, limit 1 MP"):
        made(tmp_path, pdf(RED), dpi=1440)


YAML = """
inputs: in
stages:
  - {name: page, uses: pages, with: {dpi: 72.0}, output: "out/{stem}/{part}.png"}
  - {name: small, from: page, uses: resize, with: {width: 10}, output: "out/{stem}-{part}.jpg"}
engine: serial
"""


def test_in_a_pipeline(tmp_path: Path) -> None:
    """Every page goes through the stages below, whatever the file's name; a broken file costs only itself."""
    project = Project(tmp_path, YAML)
    for name in (b"a.pdf", b"-\xff \n.pdf"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/in/" + name)).write_bytes(pdf(RED, GREEN))
    project.write("in/bad.pdf", b"%PDF-1.7 and no more")
    summary = project.run()
    assert (summary.done, summary.failed) == (8, 2)
    assert {"a/0001.png", "a/0002.png", "a-0001.jpg", "a-0002.jpg"} <= set(project.outputs())
    assert len(project.outputs()) == 8


def test_pages_that_cannot_be_are_refused(tmp_path: Path) -> None:
    """When the pipeline is loaded."""
    project = Project(tmp_path, YAML.replace("dpi: 72.0", "first: 3, last: 2"))
    with pytest.raises(ConfigError, match="the last page, 2, stands before the first, 3"):
        project.run()


@pytest.fixture
def without_library(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a Python that has all that is installed here but pypdfium2."""
    installed = tmp_path / "site-packages"
    installed.mkdir()
    for each in Path(sysconfig.get_path("purelib")).iterdir():
        if not each.name.startswith("pypdfium2"):
            (installed / each.name).symlink_to(each)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": f"{installed}:{ROOT}"}
        command = [sys.executable, "-S", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


def test_without_its_extra_it_says_what_to_install(
    tmp_path: Path, without_library: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """A pipeline that uses it is refused in one sentence, and so is a call of the stage."""
    Project(tmp_path, YAML)
    for verb in ("check", "run"):
        ran = without_library("-m", "pipeline", verb)
        said = "stage 'page': pages needs pypdfium2: pip install 'filemill[pdf]'"
        assert ran.returncode == 2 and said in ran.stderr, ran.stderr
    called = without_library("-c", "from stages.pages import Pages; Pages()")
    assert called.stderr.endswith("ImportError: pages needs pypdfium2: pip install 'filemill[pdf]'\n")
