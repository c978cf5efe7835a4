"""`try`: one file through the workers' own pass, every step told, and nothing of what a run keeps is touched."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from support.project import contents_below

from pipeline.cli import main

YAML = """
inputs: {root: in, exclude: ["drafts/"]}
stages:
  - name: head
    uses: head
    with: {words: 2}
  - name: loud
    uses: upper
    output: out/{dir}/{name}
  - name: parts
    from: inputs
    uses: split
    output: out/parts/{stem}-{part}.txt
  - name: sent
    from: inputs
    uses: send
    output: none
"""
STAGES = {
    "head": "def head(text: str, *, words: int) -> str:\n    return ' '.join(text.split()[:words])\n",
    "upper": '''
from pathlib import Path
from pipeline import Item, Skip

def deeper(text):
    return text.index("nowhere")

def upper(item: Item[str]) -> str:
    """Shout."""
    text, mark = item.value, "!"
    if text.startswith("skip"):
        raise Skip("not wanted")
    if text.startswith("bad"):
        deeper(text)
    return text.upper() + mark
''',
    "split": """
from collections.abc import Iterator
from pipeline import Part

def split(data: bytes) -> Iterator[bytes]:
    for number, word in enumerate(data.split()):
        yield Part(word, name=f"w{number}")
""",
    "send": """
from pathlib import Path

def send(data: bytes) -> bytes:
    Path("sent").write_bytes(data)
    return data
""",
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project of text stages that has been run once, and is the current folder; temporary ones are beside it."""
    path = list(sys.path)
    folder = tmp_path / "project"
    for name, text in STAGES.items():
        write(folder / "stages" / f"{name}.py", text)
    write(folder / "pipeline.yaml", YAML)
    write(folder / "in" / "sub" / "a.txt", "one two three")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(folder)
    yield folder
    sys.path[:] = path
    for name in [name for name in sys.modules if name.startswith("stages")]:
        del sys.modules[name]


def write(file: Path, text: str) -> None:
    """Write a file, and its folder before it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Try in this process: exit code, stdout with every time as T, and stderr."""
    code = main(["try", *arguments])
    printed, said = capfd.readouterr()
    return code, re.sub(r" *[\d,]+\.\d ms  ", "T ", printed), said


def test_every_step_is_told_with_its_time_and_value(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Conversions, calls, parts and commits, in the order in which they happen, and what was made in the end."""
    code, printed, said = run(capfd, "in/sub/a.txt")
    assert (code, printed.splitlines()) == (0, [
        "sub/a.txt: 13 bytes",
        "T pipeline: built 4 stages",
        "T head: Path -> str, 13 characters",
        "T head: made str, 7 characters",
        "T loud: made str, 8 characters",
        "T loud: wrote a.txt, 8 bytes",
        "T parts: Path -> bytes, 13 bytes",
        "T parts: made part w0: bytes, 3 bytes",
        "T parts: wrote a-w0.txt, 3 bytes",
        "T parts: made part w1: bytes, 3 bytes",
        "T parts: wrote a-w1.txt, 3 bytes",
        "T parts: made part w2: bytes, 5 bytes",
        "T parts: wrote a-w2.txt, 5 bytes",
        "loud: done: out/sub/a.txt, 8 bytes",
        "    ONE TWO!",
        "parts: done: out/parts/a-w0.txt, 3 bytes",
        "parts: done: out/parts/a-w1.txt, 3 bytes",
        "parts: done: out/parts/a-w2.txt, 5 bytes",
    ])  # fmt: skip
    assert "note: stage 'sent' leaves no file, and is not run\n" in said
    assert said.endswith("--keep keeps what was made\n")


def test_nothing_that_a_run_keeps_is_touched(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """No output, no ledger, no lock and no state comes into being or changes; also beside a run at work."""
    before = contents_below(project)
    assert run(capfd, "in/sub/a.txt")[0] == 0
    assert {name for name in contents_below(project) if "__pycache__" not in name} == set(before)
    assert list((project.parent / "temporary").iterdir()) == []
    assert main(["run", "--engine", "serial"]) == 0
    before = contents_below(project)
    assert run(capfd, "in/sub/a.txt", "--set", "stages.head.with.words=1")[0] == 0
    assert contents_below(project) == before


def test_what_was_made_can_be_kept(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`--keep` leaves the outputs, under the paths that they have in the pipeline, and says where."""
    _, printed, _ = run(capfd, "in/sub/a.txt", "--keep", "--set", "stages.head.with.words=1")
    kept = Path(printed.splitlines()[-1].removeprefix("kept: "))
    assert contents_below(kept)["out/sub/a.txt"] == b"ONE!" and (kept / "out" / "parts" / "a-w2.txt").exists()


@pytest.mark.parametrize(
    ("stage", "last"),
    [
        ("head", ["head: done: head/sub/a.txt, 7 bytes", "    one two"]),
        ("loud", ["loud: done: out/sub/a.txt, 8 bytes", "    ONE TWO!"]),
        ("parts", ["parts: done: out/parts/a-w2.txt, 5 bytes"]),
        ("sent", ["sent: done: no file"]),
    ],
)
def test_one_stage_can_be_tried(project: Path, capfd: pytest.CaptureFixture[str], stage: str, last: list[str]) -> None:
    """`--stage` goes as far as it and no further, also to one without an output, or that leaves no file."""
    code, printed, _ = run(capfd, "in/sub/a.txt", "--stage", stage)
    assert code == 0 and printed.splitlines()[-len(last) :] == last
    assert (project / "sent").exists() is (stage == "sent")


def test_a_failure_has_its_whole_traceback(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What a stage raises is told where it happened, with the frames from the stage on; the others are made."""
    write(project / "in" / "b.txt", "bad text")
    code, printed, said = run(capfd, "in/b.txt")
    assert code == 1
    assert "T loud: raised ValueError: substring not found" in printed
    assert "loud: failed: ValueError: substring not found (in stage 'loud')" in printed
    assert "parts: done: out/parts/b-w0.txt" in printed
    assert re.search(r"upper\.py\", line 14, in upper\n.*\n *File .*upper\.py\", line 6, in deeper", said, re.S)
    assert "stage_call.py" not in said and "job.py" not in said


def test_a_file_that_is_left_out(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A Skip is told with its reason, and is no failure."""
    write(project / "in" / "c.txt", "skip this")
    code, printed, _ = run(capfd, "in/c.txt")
    assert code == 0
    assert "T loud: left out not wanted" in printed and "loud: skipped: not wanted" in printed


def test_the_debugger_opens_in_the_stage(project: Path) -> None:
    """`--pdb` stands in the last frame of the stage's own code, however deep below it the exception was raised; what
    the stage printed is on stderr.
    """
    text = (
        "import json\n\ndef upper(text: str) -> str:\n    print('hello')\n    mine = 7\n    return json.loads(text)\n"
    )
    write(project / "stages" / "upper.py", text)
    command = [sys.executable, "-m", "pipeline", "try", "--pdb", "in/sub/a.txt", "--stage", "loud"]
    done = subprocess.run(command, cwd=project, input="p mine + 1\nq\n", capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "upper.py(6)upper()" in done.stdout and "(Pdb) 8\n" in done.stdout
    assert "hello" not in done.stdout and "hello\n" in done.stderr


def test_a_constructor_that_raises_is_traced_back(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A class that cannot be built ends with the sentence that a run would say, and the traceback."""
    text = """
class Upper:
    def __init__(self) -> None:
        raise OSError("no model")
    def __call__(self, text: str) -> str: ...
"""
    write(project / "stages" / "upper.py", text)
    code, _, said = run(capfd, "in/sub/a.txt")
    assert code == 2 and 'upper.py", line 4, in __init__' in said
    assert said.endswith("upper.py:2: the constructor of 'upper' raised OSError: no model\n")


def test_ctrl_c_ends_it(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """KeyboardInterrupt is no failure of the file; nothing is left behind."""
    write(project / "stages" / "upper.py", "def upper(text: str) -> str:\n    raise KeyboardInterrupt\n")
    assert run(capfd, "in/sub/a.txt")[0] == 130
    assert list((project.parent / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    ("file", "note"),
    [
        ("sub/a.txt", ""),
        ("in/drafts/d.txt", "note: a run leaves it out: not among the inputs\n"),
        ("in/.hidden.txt", "note: a run leaves it out: hidden\n"),
        ("else/where.txt", "note: it lies outside the input root "),
    ],
)
def test_any_file_can_be_tried(project: Path, capfd: pytest.CaptureFixture[str], file: str, note: str) -> None:
    """Also by its path below the input root; one that a run would not read, or that lies elsewhere, with a note."""
    if not (project / "in" / file).exists():
        write(project / file, "one two")
    code, printed, said = run(capfd, file, "--stage", "loud")
    assert (code, "loud: done: out/" in printed) == (0, True) and said.startswith(note)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "nowhere: there is no such file\n"),
        (["in/sub"], "in/sub: a folder; name a file in it\n"),
        ([""], "'': an empty path; name a file\n"),
        (["in/sub/a.txt", "--stage", "lound"], "no stage 'lound'; did you mean 'loud'?\n"),
        (
            ["in/sub/a.txt", "--set", "stages.head.match=[b*]", "--set", "stages.parts.match=[b*]"],
            "sub/a.txt: no stage that has an output reads it, by their 'match'\n"
            "  hint: --stage NAME tries one all the same\n",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_tried_is_said(
    project: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    """In one sentence, with nothing run."""
    assert run(capfd, *arguments) == (2, "", says)


def test_what_gathers_is_not_tried(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of one file nothing can be gathered: that is noted, or refused where nothing else was asked for."""
    gathers = "  - {name: list, from: loud, uses: manifest, gather: true, output: out/list.csv}\n"
    (project / "pipeline.yaml").write_text(YAML + gathers)
    code, printed, said = run(capfd, "in/sub/a.txt")
    assert code == 0 and "loud: done" in printed and "note: stage 'list' gathers many files, and is not run\n" in said
    code, _, said = run(capfd, "in/sub/a.txt", "--stage", "list")
    assert (code, said) == (2, "stage 'list' gathers many files, and cannot be tried with one\n")


def test_pictures_are_told_by_mode_and_size(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A picture's format, mode and size between stages; one that is no output is kept as PNG."""
    pixels = "from PIL import Image\ndef grey(image: Image.Image) -> Image.Image:\n    return image.convert('L')\n"
    write(project / "stages" / "grey.py", pixels)
    yaml = "inputs: in\nstages:\n  - {name: small, uses: resize, with: {width: 60}}\n"
    write(project / "pipeline.yaml", yaml + "  - {name: grey, uses: grey, output: 'out/{stem}.jpg'}\n")
    Image.new("RGB", (120, 80)).save(project / "in" / "p.png")
    _, printed, _ = run(capfd, "in/p.png")
    assert [line for line in printed.splitlines() if re.match("T (small|grey): (?!wrote)", line)] == [
        "T small: Path -> Picture PNG 120x80",
        "T small: made Image RGB 60x40",
        "T grey: made Image L 60x40",
    ]
    assert "small: done: small/p.png, " in run(capfd, "in/p.png", "--stage", "small")[1]
