"""The stage command with real programs: what they are given, what becomes of what they make, and how they end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.pictures import decode, encode, mean, paint
from support.program import Pipeline, is_running, wait_until, wait_until_gone
from support.project import Project, contents_below

from pipeline import Item
from pipeline.errors import ConfigError, FileFailure
from stages.command import Command

ODD_NAMES = [b"-rf.jpg", b"two\nlines.jpg", b"\xff\xfe.jpg", b"'\"$(touch x);*?.jpg", b"%03d [0]:.jpg", b" a .jpg"]


def needs(program: str) -> pytest.MarkDecorator:
    """For tests that run a program which is not on every machine; .ci/run installs them."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def item(folder: Path, data: bytes = b"data", name: str = "source.txt") -> Item[Path]:
    """A source of this name, and a scratch folder."""
    (folder / "scratch").mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    return Item(folder / name, name, folder / "scratch")


def shell(script: str, **options: Any) -> Command:
    """The stage with a shell as its program, which has the source as $1, and the target as $2."""
    return Command(argv=("sh", "-c", script, "-", "{source}", "{target}"), **options)


# -- programs that people have -----------------------------------------------------------------------------------------

YAML = """
inputs: in
stages:
  - name: made
    uses: command
    with: {WITH}
    output: out/{dir}/{stem}SUFFIX
engine: serial
"""


def project_with(folder: Path, options: str, suffix: str, **files: bytes) -> Project:
    """A pipeline of one command."""
    project = Project(folder, YAML.replace("{WITH}", options).replace("SUFFIX", suffix))
    for name, data in files.items():
        project.write(f"in/{name.replace('_', '.')}", data)
    return project


@needs("cwebp")
def test_cwebp_makes_webp_of_files_of_any_name(tmp_path: Path) -> None:
    """No name is taken for an option, an end of line, or a shell's; each output is the picture that its source is."""
    options = '{argv: [cwebp, -quiet, -q, "90", "{source}", -o, "{target}"], suffix: .webp}'
    project, source = project_with(tmp_path, options, ".webp"), paint(60, 40)
    for name in ODD_NAMES:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/in/" + name)).write_bytes(encode(source, "JPEG", quality=95))
    summary = project.run()
    assert (summary.done, summary.failed) == (len(ODD_NAMES), 0)
    made = {os.fsencode(name): decode(data) for name, data in project.outputs().items()}
    assert sorted(made) == sorted(name.replace(b".jpg", b".webp") for name in ODD_NAMES)
    assert {each.format for each in made.values()} == {"WEBP"}
    assert all(mean(each, source) < 10 for each in made.values())
    assert sorted(os.listdir(os.fsencode(tmp_path / "in"))) == sorted(ODD_NAMES)
    assert not list((tmp_path / ".pipeline").rglob("target*"))


@needs("jpegtran")
def test_jpegtran_turns_without_loss(tmp_path: Path) -> None:
    """Turned twice by half, by two stages one after the other, a JPEG has every pixel it had."""
    source = encode(paint(64, 48), "JPEG", quality=70)
    half = 'uses: command, with: {argv: [jpegtran, -rotate, "180", -perfect, -outfile, "{target}", "{source}"]}'
    project = Project(tmp_path, f"""
inputs: in
stages:
  - {{name: half, {half}}}
  - {{name: whole, from: half, {half}, output: out/}}
engine: serial
""")  # fmt: skip
    project.write("in/a.jpg", source)
    assert project.run().done == 1
    made = project.outputs()["a.jpg"]
    assert made != b"" and decode(made).tobytes() == decode(source).tobytes()


@needs("ffmpeg")
def test_ffmpeg_takes_a_picture_from_a_video_and_makes_music(tmp_path: Path) -> None:
    """A poster frame that goes on as a picture into a stage of ours, and sound in another format."""
    quiet = ["ffmpeg", "-nostdin", "-loglevel", "error"]
    project = Project(tmp_path, """
inputs: in
stages:
  - name: poster
    match: ["*.avi"]
    uses: command
    with: {argv: [ffmpeg, -nostdin, -loglevel, error, -i, "{source}", -frames:v, "1", "{target}"], suffix: .png}
  - {name: small, uses: resize, with: {width: 32}, output: "out/{stem}.jpg"}
  - name: sound
    match: ["*.wav"]
    uses: command
    with: {argv: [ffmpeg, -nostdin, -i, "{source}", "{target}"], suffix: .flac}
    output: out/{stem}.flac
engine: serial
""")  # fmt: skip
    for source, file in (("testsrc=duration=1:size=64x48:rate=5", "a.avi"), ("sine=duration=0.2", "-b.wav")):
        subprocess.run([*quiet, "-f", "lavfi", "-i", source, f"{tmp_path}/in/{file}"], check=True)
    project.write("in/bad.wav", b"RIFF no sound at all")
    summary = project.run()
    assert (summary.done, summary.failed) == (2, 1)
    assert decode(project.outputs()["a.jpg"]).size == (32, 24)
    assert project.outputs()["-b.flac"][:4] == b"fLaC"
    text = summary.failures[0][1].text
    assert text.startswith("ffmpeg failed (exit code ") and "Invalid data found" in text


# -- what a program is given -------------------------------------------------------------------------------------------

TELL = f"""#!{sys.executable}
import json, os, sys
told = {{"argv": sys.argv[1:], "stdin": sys.stdin.read(), "mood": os.environ.get("MOOD"), "folder": os.listdir(".")}}
open("stray", "w").close()
open(sys.argv[1], "w").write(json.dumps(told))
"""


def test_a_program_is_given_its_words_as_they_are(tmp_path: Path) -> None:
    """No shell looks at them, braces are braces, stdin is empty, the variables are set, and its folder is its own."""
    script = tmp_path / "tell.py"
    script.write_text(TELL)
    script.chmod(0o755)
    words = ("$HOME;", "*", "{{a}}", "a b", "'\"\\", "", "--in={source}:x")
    given = item(tmp_path)
    made = Command(
        argv=("{tell}", "{target}", *words), suffix=".json", env={"MOOD": "good {x}"}, files={"tell": script}
    )(given)
    told = json.loads(made.read_text())
    assert told["argv"][1:] == ["$HOME;", "*", "{a}", "a b", "'\"\\", "", f"--in={given.value}:x"]
    assert (told["stdin"], told["mood"], told["folder"]) == ("", "good {x}", [])
    assert os.path.isabs(told["argv"][0]) and told["argv"][0].endswith(".json")
    assert [each.name for each in given.scratch.iterdir()] == [made.name]


def test_paths_are_absolute_where_the_stage_was_given_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no name can begin with a dash, when the stage is called by itself."""
    item(tmp_path, name="-n")
    monkeypatch.chdir(tmp_path)
    made = Command(argv=("cp", "{source}", "{target}"))(Item(Path("-n"), "-n", Path("scratch")))
    assert made.read_bytes() == b"data"


def test_without_a_target_it_works_on_a_copy(tmp_path: Path) -> None:
    """The copy is the result, and the source is not touched: not its bytes, its time, its mode."""
    given = item(tmp_path)
    given.value.chmod(0o444)
    os.utime(given.value, (1, 1))
    stage = Command(argv=("sh", "-c", 'echo more >> "$1"', "-", "{source}"))
    one, other = stage(given), stage(given)
    assert one != other and one.read_bytes() == other.read_bytes() == b"datamore\n"
    assert given.value.read_bytes() == b"data" and given.value.stat().st_mtime == 1
    assert given.value.stat().st_mode & 0o777 == 0o444 and one.suffix == ".txt"


def test_a_file_of_its_own_counts_as_part_of_the_recipe(tmp_path: Path) -> None:
    """Another script under the old name makes the outputs stale."""
    options = '{argv: [sh, "{s}", "{source}", "{target}"], suffix: .txt, files: {s: s.sh}}'
    project = project_with(tmp_path, options, ".txt", a_txt=b"a")
    project.write("s.sh", 'tr a b < "$1" > "$2"')
    assert project.run().done == 1 and project.outputs() == {"a.txt": b"b"}
    project.write("s.sh", 'tr a c < "$1" > "$2"')
    assert project.run().done == 1 and project.outputs() == {"a.txt": b"c"}
    assert project.run().up_to_date == 1


# -- how it ends -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo one >&2; echo two >&2; exit 3", "sh failed (exit code 3): one / two"),
        ("exit 1", "sh failed (exit code 1)"),
        ("printf '1%%\\r2%%\\r\\nlast' >&2; exit 1", "sh failed (exit code 1): 1% / 2% / last"),
        ("echo bad >&2; kill -SEGV $$", "sh was killed (SIGSEGV): bad"),
        ("kill -40 $$", "sh was killed (signal 40)"),
        ("printf '\\377\\n' >&2; exit 1", "sh failed (exit code 1): \\xff"),
        ("exit 0", "sh ended well (exit code 0), but made no {target}"),
        ('mkdir "$2"', "sh ended well (exit code 0), but made a folder and no file"),
    ],
)
def test_a_program_that_ends_badly_says_why(tmp_path: Path, script: str, said: str) -> None:
    """With its exit code or signal, and the end of what it said on stderr."""
    with pytest.raises(FileFailure) as raised:
        shell(script)(item(tmp_path))
    assert raised.value.text == said
    assert list((tmp_path / "scratch").iterdir()) == []


def in_place(script: str, **options: Any) -> Command:
    """The stage with a shell that changes $1, in a folder in which nothing else is."""
    return Command(argv=("sh", "-c", script, "-", "{source}"), **options)


@pytest.mark.parametrize(
    ("script", "suffix", "result"),
    [
        ("true", None, ("t.txt", b"data")),  # nothing to do, as of a picture that is as small as can be
        ("touch new.log; echo more >> $1", None, ("t.txt", b"datamore\n")),  # as exiftool, which leaves a backup
        ("cp -p $1 new; echo more >> new; mv new $1", ".txt", ("t.txt", b"datamore\n")),
        ("gzip -nk $1; mv $1.gz ${{1%.txt}}.gz", ".gz", ("t.gz", None)),
        ("gzip -n $1", ".gz", ("t.gz", None)),
        ("mkdir deep; cp $1 deep/made.pdf; touch .hidden", ".PDF", ("t.pdf", b"data")),
        ("cp $1 made.jpeg", ".jpg", ("t.jpeg", b"data")),
    ],
)
def test_what_is_made_beside_the_copy_is_the_result(
    tmp_path: Path, script: str, suffix: str | None, result: tuple[str, bytes | None]
) -> None:
    """Unless the copy itself was changed, or nothing else was made, and it has the suffix that is wanted."""
    given = item(tmp_path)
    made = in_place(script, suffix=suffix)(given)
    assert made.suffix == Path(result[0]).suffix and given.value.read_bytes() == b"data"
    data = made.read_bytes()
    assert data == result[1] if result[1] is not None else data[:2] == b"\x1f\x8b"
    assert [each.name for each in given.scratch.iterdir()] == [made.name]


@pytest.mark.parametrize(
    ("script", "suffix", "said"),
    [
        ("true", ".gz", "made no '.gz', and the file that it was to change is a '.txt'"),
        ("echo more >> $1", ".gz", "made no '.gz', and the file that it was to change is a '.txt'"),
        ("gzip -k $1", None, "made 'target.txt.gz', which does not end with '.txt'"),
        ("gzip -k $1", ".bz2", "made 'target.txt.gz', which does not end with '.bz2'"),
        ("touch a.ts b.ts c.m3u8", ".m3u8", "made 3 files where one belongs: 'a.ts', 'b.ts', 'c.m3u8'"),
        ("touch 1 2 3 4 5 6 7", None, "made 7 files where one belongs: '1', '2', '3', '4', '5' and 2 more"),
        ("rm $1", None, "the file that it was to change is gone"),
    ],
)
def test_a_copy_is_never_published_as_what_it_is_not(
    tmp_path: Path, script: str, suffix: str | None, said: str
) -> None:
    """What was found instead is named."""
    with pytest.raises(FileFailure) as raised:
        in_place(script, suffix=suffix)(item(tmp_path))
    assert raised.value.text == f"sh ended well (exit code 0), but {said}"
    assert list((tmp_path / "scratch").iterdir()) == [] and (tmp_path / "source.txt").read_bytes() == b"data"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ('cp "$1" "$2/page.txt"', ""),
        ("touch x", "made no file in {folder}"),
        ('touch "$2/list.m3u8" "$2/1.ts"', "made 2 files where one belongs: '1.ts', 'list.m3u8'"),
        ('touch "$2/page.pdf"', "made 'page.pdf', which does not end with '.txt'"),
    ],
)
def test_a_program_may_choose_the_name_of_its_file(tmp_path: Path, script: str, said: str) -> None:
    """It is given an empty folder, and the source itself; what else it leaves where it runs is thrown away."""
    given = item(tmp_path)
    stage = Command(argv=("sh", "-c", f"touch log; {script}", "-", "{source}", "{folder}"))
    if not said:
        assert stage(given).read_bytes() == b"data" and len(list(given.scratch.iterdir())) == 1
        return
    with pytest.raises(FileFailure) as raised:
        stage(given)
    assert raised.value.text == f"sh ended well (exit code 0), but {said}"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ('touch "$2" "${{2%.txt}}0.ts"', "made 2 files where one belongs: 'target.txt', 'target0.ts'"),
        ('cp "$1" "$2-1.png"', "made no {target}; it made 'target.txt-1.png': give it '{folder}' if it chooses"),
    ],
)
def test_what_is_made_beside_the_target_is_not_dropped(tmp_path: Path, script: str, said: str) -> None:
    """A list without what it lists would be no result."""
    with pytest.raises(FileFailure) as raised:
        shell(script)(item(tmp_path))
    assert said in raised.value.text


def test_words_that_are_paths(tmp_path: Path) -> None:
    """What their names have in them is no field."""
    script = tmp_path / "a {target} {x}.sh"
    script.write_text('cp "$1" "$2"')
    Command.check(argv=("sh", script, "{source}", "{folder}/made.txt"), suffix=None, env=None, files=None)
    made = Command(argv=("sh", script, "{source}", "{folder}/made.txt"))(item(tmp_path))
    assert made.read_bytes() == b"data"


def test_only_the_end_of_much_is_kept(tmp_path: Path) -> None:
    """A program may say a hundred megabytes, all in a line even, and nothing waits for it or grows."""
    script = "head -c 100000000 /dev/zero | tr '\\0' 'x' >&2; echo and more >&2; echo last >&2; exit 1"
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        with pytest.raises(FileFailure) as raised:
            shell(script)(item(tmp_path))
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    assert raised.value.text == "sh failed (exit code 1): last"


@pytest.mark.processes
def test_what_it_leaves_behind_neither_holds_us_up_nor_stays(tmp_path: Path) -> None:
    """A child in the background that keeps stderr open is not waited for, and is killed."""
    given, began = item(tmp_path), time.monotonic()
    made = shell('sleep 100 & echo $! > "$2"')(given)
    pid = int(made.read_text())
    assert time.monotonic() - began < 50
    wait_until_gone([pid])


# Where the signal comes while Popen is at work, nobody is left to wait for the program, which the kernel kills.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.processes
def test_it_is_killed_when_we_are_interrupted(tmp_path: Path) -> None:
    """An exception in the midst of it ends the program and its children."""

    class Enough(Exception):
        pass

    def interrupt(number: int, frame: object) -> None:
        raise Enough

    before = signal.signal(signal.SIGUSR1, interrupt)
    pids = tmp_path / "pids"
    timer = threading.Thread(target=lambda: (wait_until(pids.exists), os.kill(os.getpid(), signal.SIGUSR1)))
    timer.start()
    try:
        with pytest.raises(Enough):
            shell(f'sleep 100 & echo "$$ $!" > "{tmp_path}/new"; mv "{tmp_path}/new" "{pids}"; wait')(item(tmp_path))
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    wait_until_gone(map(int, pids.read_text().split()))


SLEEPER = """
inputs: in
stages:
  - name: slow
    uses: command
    with: {argv: [sh, "{script}", "{source}", "{target}"], files: {script: sleep.sh}}
    output: out/
LIMIT
engine: ENGINE
"""


def sleeper(folder: Path, engine: str, limit: str = "") -> Project:
    """A program that starts another one, tells of both, and does not end."""
    project = Project(folder, SLEEPER.replace("LIMIT", limit).replace("ENGINE", engine))
    project.write("sleep.sh", f'sleep 100 & echo "$$ $!" > {folder}/new; mv {folder}/new {folder}/pids; wait')
    project.write("in/a.txt", "a")
    return project


@pytest.mark.processes
def test_a_timeout_kills_the_program_and_its_children(tmp_path: Path, pipeline: Pipeline) -> None:
    """None of them is alive when the run has ended, not even one with a session of its own, and the file has failed."""
    project = sleeper(tmp_path, "pool", "timeout: 2s")
    project.edit("sleep.sh", "sleep 100 &", "setsid sleep 100 &")
    ended = pipeline("pipeline.yaml")
    assert ended.returncode == 1
    assert "a.txt (slow): " in ended.stderr
    wait_until_gone(map(int, (tmp_path / "pids").read_text().split()))
    assert contents_below(tmp_path / "out") == {}


@pytest.mark.processes
@pytest.mark.parametrize("engine", ["pool", "serial"])
def test_a_run_that_is_killed_takes_its_programs_with_it(tmp_path: Path, engine: str) -> None:
    """kill -9 of the parent leaves no program alive, nor what that has started."""
    sleeper(tmp_path, engine)
    run = subprocess.Popen([sys.executable, "-m", "pipeline", "pipeline.yaml"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    wait_until((tmp_path / "pids").exists)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert all(map(is_running, pids))
    run.kill()
    run.wait()
    wait_until_gone(pids)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ('{argv: [cwebpp, "{source}"]}', "there is no program 'cwebpp'; is it installed?"),
        ('{argv: [sh, "{source}"], env: {PATH: /nowhere}}', "there is no program 'sh'; is it installed?"),
        ('{argv: [./a.sh, "{source}"]}', "there is no file './a.sh' beside pipeline.yaml"),
        (
            '{argv: [sh, "{sorce}"]}',
            "no field '{sorce}' in '{sorce}'; there are {source}, {target}, {folder}, and a brace is '{{'",
        ),
        ('{argv: [sh, "{source.name}"]}', "no field '{source.name}'"),
        ('{argv: [sh, "{source!r}"]}', "no field '{source}' in '{source!r}'"),
        ('{argv: [awk, "{print", "{source}"]}', "argv: '{print' has a single brace; a brace is written '{{' or '}}'"),
        ("{argv: [sh]}", "'{source}' is not in it"),
        ('{argv: ["{source}"]}', "it begins with '{source}', which is no program"),
        ('{argv: [sh, "{source}", "{target}", "{folder}"]}', "'{target}' and '{folder}' are both in it"),
        ('{argv: [sh, "{source}", "{target}"], suffix: webp}', "suffix: 'webp' is none; say one such as '.webp'"),
        ('{argv: [sh, "{source}", "{target}"], suffix: ./x}', "suffix: './x' is none"),
        (
            '{argv: [sh, "{source}", "{target}"], suffix: .y}',
            "its output does not end with '.y', which is the 'suffix' of what it makes",
        ),
        ('{argv: [sh, "{source}", "a\\0"]}', "no NUL can be passed"),
        ('{argv: [sh, "{source}"], env: {A=B: x}}', "env: 'A=B' is no name of a variable"),
        ('{argv: [sh, "{source}"], files: {source: x}}', "files: 'source' cannot be a field"),
        ("{argv: [sh, {source}]}", 'in quotes, as in "{source}", it is text'),
        ("{argv: []}", "option 'argv'"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path: Path, options: str, said: str) -> None:
    """When the pipeline is loaded, in one sentence, before any file is blamed."""
    with pytest.raises(ConfigError) as raised:
        project_with(tmp_path, options, ".x").run()
    assert said in raised.value.text


def test_an_output_with_the_sources_suffix_is_no_other_format(tmp_path: Path) -> None:
    """A folder of files that are called as they were, and are something else, is nobody's wish."""
    project = project_with(tmp_path, '{argv: [cp, "{source}", "{target}"], suffix: .y}', ".x")
    project.edit("pipeline.yaml", "out/{dir}/{stem}.x", "out/")
    with pytest.raises(ConfigError, match=r"stage 'made': its output does not end with '\.y'"):
        project.run()


@pytest.mark.parametrize(
    ("options", "output"),
    [
        ('{argv: [cp, "{source}", "{target}"], suffix: .tar.GZ}', "out/{stem}.gz"),
        ('{argv: [cp, "{source}", "{target}"]}', "out/"),
        ('{argv: [cp, "{source}", "{target}"]}', "out/{stem}{suffix}"),
        ('{argv: [touch, "{source}"]}', "out/{stem}{suffix}"),
        ('{argv: [cp, "{source}", "{folder}/b.jpg"], suffix: .jpg}', "out/{stem}.jpg"),
    ],
)
def test_an_output_is_called_what_is_made(tmp_path: Path, options: str, output: str) -> None:
    """It has the target's suffix, or the source's own where the target has that."""
    project = project_with(tmp_path, options, ".x", a_txt=b"a")
    project.edit("pipeline.yaml", "out/{dir}/{stem}.x", '"' + output + '"')
    assert project.run().done == 1


def test_a_script_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    """When the workers start, since only then it is known where it lies."""
    script = tmp_path / "a.sh"
    with pytest.raises(ValueError, match=f"files: there is no s '{script}'"):
        Command(argv=("{s}", "{source}"), files={"s": script})
    script.write_text("no program")
    with pytest.raises(ValueError, match=f"'{script}' cannot be run as a program; make it executable"):
        Command(argv=("{s}", "{source}"), files={"s": script})
    script.chmod(0o755)
    with pytest.raises(FileFailure, match=r"a\.sh cannot be started: Exec format error"):
        Command(argv=("{s}", "{source}"), files={"s": script})(item(tmp_path))


def test_a_word_that_names_a_file_is_that_file(tmp_path: Path) -> None:
    """A script beside pipeline.yaml runs from wherever the program does, and what is in it counts."""
    project = project_with(tmp_path, '{argv: [sh, tools/fix.sh, fix, "{source}", "{target}"], suffix: .txt}', ".txt")
    project.write("tools/fix.sh", 'echo "$1 one" > "$3"\n')
    project.write("fix", "a word without a dot or a slash is no file, although one has its name\n")
    project.write("in/a.txt", "a")
    assert project.run().exit == 0 and project.outputs() == {"a.txt": b"fix one\n"}
    assert project.run().done == 0
    project.write("tools/fix.sh", 'echo "$1 two" > "$3"\n')
    assert project.plan() == {"made a.txt": ("make", "made: contents of tools/fix.sh changed")}
    assert project.run().done == 1 and project.outputs() == {"a.txt": b"fix two\n"}


def test_a_program_beside_the_yaml(tmp_path: Path) -> None:
    """The program itself may be a file there; one that cannot be run says so."""
    project = project_with(tmp_path, '{argv: [./fix.sh, "{source}", "{target}"], suffix: .txt}', ".txt")
    project.write("in/a.txt", "a")
    script = project.write("fix.sh", '#!/bin/sh\ncp "$1" "$2"\n')
    refused = project.run()
    assert refused.exit == 3 and "fix.sh' cannot be run as a program; make it executable" in refused.stopped
    script.chmod(0o755)
    assert project.run(force=True).exit == 0 and project.outputs() == {"a.txt": b"a"}
