"""Jobs that the workers run in the tests of the pool: the source path says how they behave, at which stage."""

from __future__ import annotations

import ctypes
import multiprocessing.connection
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.allowance import MoreMemoryNeeded, allowance
from pipeline.engines import slots
from pipeline.messages import Job, Outcome, Result, Source, StageInfo, Target

# decode -> web -> thumb
#        -> print
STAGES = (
    StageInfo("decode", None),
    StageInfo("web", 0),
    StageInfo("thumb", 1),
    StageInfo("print", 0),
)
INDEX = {stage.name: index for index, stage in enumerate(STAGES)}

loaded: list[bytes] = []


def job(name: str, *stages: str) -> Job:
    """A job whose name is ACTION, or ACTION@STAGE; the rest after a blank only makes it one of its kind."""
    path = os.fsencode(name)
    return Job(Source(path, 0, 0), tuple(Target(stage, path + b"." + stage.encode()) for stage in stages or ("web",)))


def start(blueprint: bytes) -> None:
    """The initializer: does what the blueprint says."""
    loaded.append(blueprint)
    words = blueprint.decode().split()
    if words and words[0] == "kept":
        loaded.append(str(subprocess.Popen(["sleep", "1000"]).pid).encode())
    elif words and words[0] == "once" and not os.path.exists(words[1]):
        Path(words[1]).touch()
        os._exit(7)
    elif words and words[0] != "once":
        ACTIONS[words[0]](*words[1:])


def work(job: Job, enter: Callable[[int], None]) -> Outcome:
    """Go through the stages from the root; the action happens in its stage, or in each of them."""
    words, _, where = os.fsdecode(job.source.path).partition("@")
    action, *args = words.split()
    where = where.split()[0] if where else ""
    results: list[Result] = []
    for target in job.targets:
        enter(INDEX[target.stage])
        text = ""
        try:
            if where in ("", target.stage):
                text = ACTIONS[action](*args) or ""
        except (Exception, MoreMemoryNeeded) as error:
            kind = "memory" if isinstance(error, (MemoryError, MoreMemoryNeeded)) else "error"
            results.append(Result(target.stage, target.path, "failed", str(error), kind))  # type: ignore[arg-type]
        else:
            results.append(Result(target.stage, target.path, "done", str(text)))
        enter(-1)
    return Outcome(job.source, tuple(results))


def outside(job: Job, enter: Callable[[int], None]) -> Outcome:
    """A `work` that dies with no stage in hand."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def noop(job: Job, enter: Callable[[int], None]) -> Outcome:
    """The cheapest work there is."""
    enter(1)
    target = job.targets[0]
    results = (Result(target.stage, target.path, "done"),)
    enter(-1)
    return Outcome(job.source, results)


def _segv(*_: str) -> None:
    ctypes.string_at(0)


def _fail(*_: str) -> None:
    raise ValueError("bad file")


def _interrupt(*_: str) -> None:
    raise KeyboardInterrupt


def _memory_error(*_: str) -> None:
    raise MemoryError("no room")


def _grow(megabytes: str, seconds: str = "0", *_: str) -> str:
    loaded.append(b"x" * (int(megabytes) << 20))
    time.sleep(float(seconds))
    return str(os.getpid())


def _claim(file: str, megabytes: str, *_: str) -> None:
    """Note that the job was begun, claim memory, and note that it was granted."""
    _count(file)
    allowance.claim(int(megabytes) * 1_000_000)
    _count(file)


def _claim_unheard(file: str, megabytes: str, *_: str) -> str:
    """Claim memory, and make something else if it cannot be had."""
    try:
        _claim(file, megabytes)
    except BaseException:
        return "poor"
    return "rich"


def _grow_and_die(folder: str, *_: str) -> None:
    """Hold 150 MB, and die when a file named for this process says that it was noticed."""
    _grow("150")
    _wait_for(Path(folder) / str(os.getpid()))
    os.kill(os.getpid(), signal.SIGKILL)


def _hold(folder: str, *_: str) -> None:
    """Say that a job is in hand, and end it when the file `go` is there."""
    Path(folder, f"held-{os.getpid()}-{time.monotonic_ns()}").touch()
    _wait_for(Path(folder) / "go")


def _wait_for(file: Path) -> None:
    while not file.exists():
        time.sleep(0.005)


def _break_pool(*_: str) -> None:
    """Have this worker die in the pool's own code, when it sends its answer."""
    multiprocessing.connection.Connection._send_bytes = lambda *_: os._exit(9)


def _garble(mark: str, *_: str) -> None:
    """Begin a long message on the pipe of the answers, once, which swallows all answers that follow."""
    if not os.path.exists(mark):
        Path(mark).touch()
        slot = slots.current()
        assert slot
        os.write(slot.pipes[1], struct.pack("!i", 1 << 30))


def _segv_with_child(pid_file: str, *_: str) -> None:
    """Die, and leave a child that holds whatever a fork inherits."""
    child = os.fork()
    if child == 0:
        time.sleep(1000)
        os._exit(0)
    Path(pid_file).write_text(str(child))
    ctypes.string_at(0)


def _segv_without_text(folder: str, *_: str) -> None:
    """Die, after a folder has taken the place of the file with what was printed."""
    for number in range(6):
        capture = Path(folder, f"slot-{number}.txt")
        capture.unlink(missing_ok=True)
        capture.mkdir(exist_ok=True)
    ctypes.string_at(0)


def _spin(*_: str) -> None:
    """Hold the interpreter's lock in C code for ever: no thread of this process can run."""
    (10**9 * 10**9) ** (10**8)


def _child(seconds: str, pid_file: str = "", *_: str) -> None:
    """Wait for a program."""
    program = subprocess.Popen(["sleep", seconds])
    if pid_file:
        Path(f"{pid_file}.new").write_text(f"{os.getpid()} {program.pid}")
        os.rename(f"{pid_file}.new", pid_file)
    program.wait()


def _leave_behind(*_: str) -> str:
    """Leave a program that is an orphan, in a session of its own, and that will write to our stdout."""
    inner = "['sh', '-c', 'sleep 0.5; echo late; sleep 1000']"
    script = f"import subprocess; print(subprocess.Popen({inner}, start_new_session=True, stdout=2).pid)"
    found = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True, text=True)
    return found.stdout.strip()


def _say(text: str, *_: str) -> str:
    print(f"said {text}")
    print(f"complained {text}", file=sys.stderr)
    subprocess.run(["echo", f"echoed {text}"], check=True)
    return text


def _say_and_die(*_: str) -> None:
    print("last words", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


def _flood(megabytes: str, *_: str) -> None:
    print("the beginning")
    for _ in range(int(megabytes)):
        print("x" * (1 << 20))
        while os.fstat(1).st_size > 1 << 20:  # until the parent has cut it down
            time.sleep(0.005)
    print("the end")


def _once(path: str, then: str, *args: str) -> str:
    """Do `then` only the first time."""
    if not os.path.exists(path):
        Path(path).touch()
        ACTIONS[then](*args)
    return "second time"


def _count(path: str, *_: str) -> None:
    """Note that the job was run."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")


def _environment(*_: str) -> str:
    return " ".join(os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"))


def _file_behind(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return ""


ACTIONS: dict[str, Callable[..., str | None]] = {
    "ok": lambda *_: None,
    "pid": lambda *_: str(os.getpid()),
    "hold": _hold,
    "nap": lambda seconds, *_: time.sleep(float(seconds)) or str(os.getpid()),
    "sleep": lambda seconds, *_: time.sleep(float(seconds)),
    "segv": _segv,
    "kill": lambda *_: os.kill(os.getpid(), signal.SIGKILL),
    "_exit": lambda code="3", *_: os._exit(int(code)),
    "exit": lambda *_: sys.exit("enough"),
    "interrupt": _interrupt,
    "fail": _fail,
    "memory": _memory_error,
    "grow": _grow,
    "claim": _claim,
    "claim_unheard": _claim_unheard,
    "grow_and_die": _grow_and_die,
    "spin": _spin,
    "break_pool": _break_pool,
    "garble": _garble,
    "close_all": lambda *_: os.closerange(0, 1000),
    "segv_with_child": _segv_with_child,
    "segv_without_text": _segv_without_text,
    "child": _child,
    "leave": _leave_behind,
    "say": _say,
    "die": _say_and_die,
    "flood": _flood,
    "once": _once,
    "count": _count,
    "environment": _environment,
    "import": lambda name, *_: __import__(name) and None,
    "loaded": lambda *_: " ".join(map(bytes.decode, loaded)),
    "stdin": lambda *_: str(len(sys.stdin.read()) + len(os.read(0, 10))),
    "fds": lambda *_: " ".join(map(_file_behind, os.listdir("/proc/self/fd"))),
}
