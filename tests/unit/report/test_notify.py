"""pipeline/report/notify.py: programs and addresses that are told something, and what cannot be told."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.heartbeats import Heartbeats, heartbeats
from support.program import pids_in, wait_until_gone

from pipeline.report import notify
from pipeline.report.notify import Entry, NotTold, expand, new_rid, start_ping, start_program

# Writes what it was given into the file that its argument names.
WITNESS = "import os, sys; open(sys.argv[1], 'w').write(os.environ.get('FILEMILL_EVENT', '') + sys.stdin.read())"
RID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}")


@pytest.fixture
def server() -> Iterator[Heartbeats]:
    with heartbeats() as found:
        yield found


def program(*argv: str) -> Entry:
    return Entry(("failure",), (sys.executable, "-c", *argv))


def test_a_program_is_given_facts_and_a_text(tmp_path: Path) -> None:
    """In its environment, beside that of the run, and on stdin; its arguments are never read by a shell."""
    odd = tmp_path / "a b;c\n$(d)"
    told = start_program(program(WITNESS, str(odd)), {"FILEMILL_EVENT": "failure "}, "zwölf \udcff", str(tmp_path))
    assert told.wait() == "" and odd.read_text() == "failure zwölf \\udcff"


def test_a_program_that_reads_nothing(tmp_path: Path) -> None:
    """Nobody waits for it to read, however much there is."""
    assert start_program(program("pass"), {}, "x" * 1_000_000, str(tmp_path)).wait() == ""


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("/nowhere/tell",), "cannot be started: No such file or directory"),
        ((".",), "cannot be started: Permission denied"),
        ((sys.executable, "-c", "raise SystemExit(3)"), "ended with 3"),
        ((sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"), "was killed by signal 9"),
        (("tell", "${NOT_SET_ANYWHERE}"), "the environment has no NOT_SET_ANYWHERE"),
    ],
)
def test_a_program_that_fails(tmp_path: Path, argv: tuple[str, ...], said: str) -> None:
    assert start_program(Entry(("failure",), argv), {}, "", str(tmp_path)).wait() == said


@pytest.mark.processes
def test_a_program_that_hangs_is_killed_with_what_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its time; and at once if nobody waits for it any more."""
    file = tmp_path / "pids"
    code = f"import os, time\nos.fork()\nopen({str(file)!r}, 'a').write(f'{{os.getpid()}}\\n')\ntime.sleep(600)"
    told = start_program(program(code), {}, "", str(tmp_path))
    pids = pids_in(file, 2)
    told.abandon()
    wait_until_gone(pids)
    assert told.wait() == "was killed by signal 9"
    file.unlink()
    monkeypatch.setattr(notify, "ARGV_LIMIT_S", 2)
    told = start_program(program(code), {}, "", str(tmp_path))
    pids = pids_in(file, 2)
    assert told.wait() == "took longer than 2 s, and was killed"
    wait_until_gone(pids)


def test_the_address_of_each_event(server: Heartbeats) -> None:
    """What is appended comes before a query, and the id of the run after it."""
    rid = new_rid()
    assert RID.fullmatch(rid)
    for url, what in (("/a/", "/start"), ("/a?create=1", "/fail"), ("/a", "")):
        assert start_ping(Entry(ping=server.url + url), what, rid, "wörd").wait() == ""
    assert [(each.path, each.rid, each.body) for each in server.beats] == [
        ("/a/start", rid, "wörd"), ("/a/fail", rid, "wörd"), ("/a", rid, "wörd"),
    ]  # fmt: skip


def test_a_body_has_a_limit(server: Heartbeats) -> None:
    """Ten kB, and no half of a character."""
    assert start_ping(Entry(ping=server.url), "", new_rid(), "€" * 10_000).wait() == ""
    assert server.beats[0].body == "€" * 3_333


def test_an_address_of_the_environment(server: Heartbeats, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the line end that a file of variables leaves behind; it may be no other than one that could be written."""
    entry = Entry(ping="${PING_URL}/x")
    monkeypatch.setenv("PING_URL", f"{server.url}/secret")
    assert start_ping(entry, "/start", new_rid(), "").wait() == "" and server.paths == ["/secret/x/start"]
    for wrong in ("http://hc.example/secret", "secret", "file:///secret", "https://a/secret b"):
        monkeypatch.setenv("PING_URL", wrong)
        said = start_ping(entry, "", new_rid(), "").wait()
        assert "no URL that begins with https://" in said and "secret" not in said
    monkeypatch.delenv("PING_URL")
    assert start_ping(entry, "", new_rid(), "").wait() == "the environment has no PING_URL"


@pytest.mark.parametrize("fault", ["hangs", "drips", "closes"])
def test_a_server_that_does_not_answer(server: Heartbeats, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """It costs its time and no more, and nothing of the address is said."""
    monkeypatch.setattr(notify, "PING_LIMIT_S", 0.5)
    setattr(server, fault, True)
    said = start_ping(Entry(ping=f"{server.url}/secret"), "", new_rid(), "").wait()
    assert "secret" not in said and said.startswith("did not get through: ")


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_that_refuses(server: Heartbeats, status: int) -> None:
    server.status = status
    assert start_ping(Entry(ping=server.url), "", new_rid(), "").wait() == f"was answered with {status}"


def test_nobody_is_there() -> None:
    said = start_ping(Entry(ping="http://127.0.0.1:1/secret"), "", new_rid(), "").wait()
    assert said == "did not get through: Connection refused"


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        (Entry(ping="https://user:secret@hc.example/secret?secret"), "ping https://hc.example"),
        (Entry(ping="${PING_URL}/secret"), "ping ${PING_URL}"),
        (Entry(argv=("/bin/a\n\x1b[0m", "secret")), "argv /bin/a \\x1b[0m"),
    ],
)
def test_the_name_of_an_entry_has_no_secret(entry: Entry, name: str) -> None:
    assert str(entry) == name


def test_expand() -> None:
    """Nothing else is taken for a variable, and what a variable holds is not expanded again."""
    assert expand("${A}-$A-${B}", {"A": "${B}", "B": "2"}) == "${B}-$A-2"
    with pytest.raises(NotTold, match="the environment has no C"):
        expand("${A}${C}", {"A": "1"})
    assert os.environ.get("PATH", "") == expand("${PATH}")


@pytest.mark.parametrize("fault", ["hangs", "drips"])
def test_the_end_waits_little_for_a_start_that_does_not_arrive(
    server: Heartbeats, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """All that the end of a run may take is the time of one ping, also where an answer has no end."""
    monkeypatch.setattr(notify, "PING_LIMIT_S", 3.0)
    setattr(server, fault, True)
    entry = Entry(ping=f"{server.url}/a")
    start = start_ping(entry, "/start", new_rid(), "")
    server.wait_for(1)
    began = time.monotonic()
    end = start_ping(entry, "", new_rid(), "", start)
    assert end.wait() == "did not get through: no answer in time" and server.paths == ["/a/start", "/a"]
    assert time.monotonic() - began < 1.3 * notify.PING_LIMIT_S
    server.has_ended.set()
