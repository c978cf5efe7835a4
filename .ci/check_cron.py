"""Has Debian's cron run the first line of docs/how-to/cron.md: no mail while all is well, one when a file fails.

All of it is in mount and process namespaces of its own: the machine's crontabs, mails and processes stay as they are,
and whatever was mounted or started is gone when this ends, however it ends.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/how-to/cron.md"
# The line on the page, whose folder is replaced, and whose schedule is made that of every minute.
SCHEDULE, FOLDER = "30 2 * * *", "/srv/photos"
# cron starts a line at the beginning of a minute; the machine may be busy with the tests.
LIMIT_S = 150
NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def main() -> None:
    """Enter the namespaces, or say why not; in them, let cron run the line for two pipelines."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends, too
    if sys.argv[1:2] == ["inside"]:
        check(Path(sys.argv[2]))
    elif why := why_not():
        print(f"the crontab line was not run by cron: {why}")
    else:
        with tempfile.TemporaryDirectory() as folder:
            command = [*NAMESPACES, sys.executable, __file__, "inside", folder]
            subprocess.run(command, check=True, timeout=2 * LIMIT_S)
        print("the crontab line is as it should be")


def why_not() -> str:
    """Return why cron cannot be started apart from the machine's own; empty if it can."""
    if not shutil.which("cron", path=f"/usr/sbin:{os.environ['PATH']}"):
        return "it is not installed"
    if os.getuid() != 0 or subprocess.run([*NAMESPACES, "mount", "--bind", "/run", "/run"]).returncode:
        return "that needs root, and namespaces"
    return ""


def check(folder: Path) -> None:
    """Run the line for a pipeline where all is well, and for one with a file that fails."""
    mails = folder / "mails"
    mails.mkdir()
    well, bad = (make_project(folder / name) for name in ("well", "bad"))
    (bad / "data/input/broken.jpg").write_bytes(b"no picture")
    cron = start_cron(folder, crontab_of(well, bad))
    # Each line has a child of cron's own, which reads what the line prints, mails it, and ends last.
    wait_until(lambda: any(children_of(cron.pid)))
    wait_until(lambda: not any(children_of(cron.pid)))
    assert cron.poll() is None
    sent = [each.read_text() for each in mails.iterdir()]
    assert len(sent) == 1, "\n".join(sent) or "no mail of the file that fails"
    head, _, body = sent[0].partition("\n\n")
    assert "To: you@example.com" in head and str(bad) in head, head
    assert "broken.jpg" in body and "not a picture" in body, body
    assert len(body.encode()) <= 4096 and "Traceback" not in body, body
    pictures = sum(each.is_file() for each in (ROOT / "data/input").rglob("*"))
    for each in (well, bad):
        assert sum(1 for _ in (each / "data/output/web").rglob("*.webp")) == pictures, each


def make_project(folder: Path) -> Path:
    """Copy the example to a folder, with the environment beside it of which the line speaks."""
    folder.mkdir()
    shutil.copy(ROOT / "pipeline.yaml", folder)
    shutil.copytree(ROOT / "data/input", folder / "data/input")
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


def crontab_of(*folders: Path) -> str:
    """Return the crontab of the page, with its first line for each of the folders."""
    (shown, *_) = re.findall(r"^```crontab\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    lines = shown.splitlines()
    (line,) = [each for each in lines if each.startswith(SCHEDULE)]
    settings = [each for each in lines if each != line]
    every_minute = line.replace(SCHEDULE, "* * * * *")
    return "\n".join([*settings, *(every_minute.replace(FOLDER, str(folder)) for folder in folders), ""])


def start_cron(folder: Path, crontab: str) -> subprocess.Popen[bytes]:
    """Start cron over one crontab, with a sendmail that keeps what it is given, each mail in a file."""
    spool, programs, empty = folder / "crontabs", folder / "sbin", folder / "empty"
    for each in (spool, programs, empty):
        each.mkdir()
    (spool / "root").write_text(crontab)
    (spool / "root").chmod(0o600)
    shutil.copy(shutil.which("cron", path="/usr/sbin") or "", programs)
    (programs / "sendmail").write_text(f'#!/bin/sh\ncat > "{folder}/mails/$$"\n')
    (programs / "sendmail").chmod(0o755)
    (folder / "no-lines").touch()
    # In some containers nobody may say who is logged in, for which cron would start nothing.
    pam = Path("/etc/pam.d/cron").read_text().splitlines()
    (folder / "pam").write_text("".join(f"{line}\n" for line in pam if "pam_loginuid" not in line))
    hidden = {
        "/var/spool/cron/crontabs": spool, "/usr/sbin": programs, "/etc/cron.d": empty, "/run": empty,
        "/etc/crontab": folder / "no-lines", "/etc/pam.d/cron": folder / "pam",
    }  # fmt: skip
    for place, instead in hidden.items():
        if os.path.exists(place):
            subprocess.run(["mount", "--bind", instead, place], check=True)
    return subprocess.Popen(["/usr/sbin/cron", "-f", "-L", "0"], stdin=subprocess.DEVNULL)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for an event; fail if it does not come."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "cron did not do it in time"
        time.sleep(0.1)


def children_of(pid: int) -> Iterator[int]:
    """Yield the child processes of a process that have not ended."""
    for each in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = each.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has ended
            continue
        if int(parent) == pid and state != "Z":
            yield int(each.parent.name)


if __name__ == "__main__":
    main()
