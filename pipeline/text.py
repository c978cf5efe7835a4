"""Text for people: functions that show names and reasons, count them, and put them into JSON."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable
from contextlib import suppress


def shown(path: bytes) -> str:
    """Return a path as one line of text, with bytes that are not UTF-8 and unprintable characters escaped."""
    return _escaped(path.decode("utf-8", "backslashreplace"))


def one_line(text: str, most: int = 500) -> str:
    """Return a text that we did not write as one printable line of at most `most` characters."""
    line = _escaped(" ".join(text[: 4 * most].split()))
    return line if len(line) <= most else f"{line[: most - 3]}..."


# What stands for the middle of a long text.
LEFT_OUT = "\n[... {} bytes left out ...]\n"


def shortened(text: str, most: int = 64 * 1024) -> str:
    """Return a text with its middle left out if it is longer than `most`; one that was shortened before stays."""
    if len(text) <= most + len(LEFT_OUT) + 20:
        return text
    half = most // 2
    return f"{text[:half]}{LEFT_OUT.format(len(text) - 2 * half)}{text[-half:]}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as `1 file` or `2,000 files`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_bytes(size_bytes: float) -> str:
    """Return a size in its largest decimal unit, such as `512 bytes` or `2.1 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "bytes" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:,.1f} TB"


def format_duration(seconds: float) -> str:
    """Return a time in a unit that suits it, such as `1.5 s`, `41 min` or `3.2 h`."""
    if seconds < 1:
        return "less than a second"
    unit_s, name = unit_of_time(seconds)
    return f"{seconds / unit_s:.{1 if seconds < 10 * unit_s else 0}f} {name}"


def format_seconds(seconds: float) -> str:
    """Return a time that may well be short, such as `4 µs` or `250 ms`; a longer one as `format_duration` does."""
    if seconds >= 0.9995:
        return format_duration(max(1.0, seconds))
    if seconds >= 0.001:
        return f"{seconds * 1e3:.{0 if seconds >= 0.01 else 1}f} ms"
    return f"{seconds * 1e6:.0f} µs" if seconds else "0 s"


def format_pace(rate: float) -> str:
    """Return files a second as text, such as `41 files/s`; for slow ones the time that each takes."""
    if 0 < rate < 1:
        return f"{1 / rate:,.1f} s/file"
    return f"{rate:,.{0 if rate >= 10 else 1}f} files/s"


def unit_of_time(seconds: float) -> tuple[int, str]:
    """Return the seconds and the name of the largest unit of which a time has two; of a shorter one, the second."""
    units = (86_400, "days"), (3600, "h"), (60, "min"), (1, "s")
    return next(unit for unit in units if seconds >= 2 * unit[0] or unit[0] == 1)


DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
"""The units in which people write durations, in seconds, ascending."""
DURATION_NEEDED = "a duration with its unit is needed, such as 500ms, 60s or 5m"


def seconds_of(text: str) -> float | None:
    """Return the seconds of a duration, written as in pipeline.yaml; None for any other text."""
    found = re.fullmatch(rf"([0-9]+(?:\.[0-9]+)?) ?({'|'.join(DURATION_UNITS)})", text, re.ASCII)
    return float(found[1]) * DURATION_UNITS[found[2]] if found else None


def local_time(at: float) -> str:
    """Return a time in seconds since 1970 as local date and time; as its number if its year has no date."""
    try:
        return time.strftime("%F %T", time.localtime(at))
    except (ValueError, OverflowError, OSError):
        return f"{at:.0f} s since 1970"


def width_of(text: str) -> int:
    """Return how many columns of a terminal a printable text takes."""
    return sum(map(_columns_of, text))


def cut_to(text: str, columns: int) -> str:
    """Return a printable text that takes no more columns of a terminal than these, with `...` for what is cut off."""
    if width_of(text) <= columns:
        return text
    kept, left = "", columns - 3
    for each in text:
        left -= _columns_of(each)
        if left < 0:
            break
        kept += each
    return f"{kept}..."[: max(0, columns)]


def cut_inside(text: str, columns: int) -> str:
    """Return a printable text that takes no more columns than these, with `...` for its middle: names end tellingly."""
    if width_of(text) <= columns:
        return text
    kept, left = "", (columns - 3) // 2
    for each in reversed(text):
        left -= _columns_of(each)
        if left < 0:
            break
        kept = each + kept
    return cut_to(text, columns - width_of(kept)) + kept


def _columns_of(character: str) -> int:
    import unicodedata

    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def printable(text: str) -> str:
    """Return a text with unprintable characters but line ends and tabs escaped, so that it cannot act on a terminal."""
    if text.isprintable():
        return text
    return "\n".join(_escaped(line) for line in text.expandtabs().split("\n"))


def indented(text: str) -> str:
    """Return a text that we did not write with each line indented and unprintable characters escaped."""
    return "\n".join(f"    {_escaped(line)}" for line in text.expandtabs().splitlines())


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def as_json(path: bytes, key: str = "source") -> dict[str, str]:
    """Return a path as JSON members: `{key: path}`, and for a path that is not UTF-8 its bytes as `KEY_b64` too."""
    try:
        return {key: path.decode("utf-8")}
    except UnicodeDecodeError:
        import base64

        return {key: path.decode("utf-8", "backslashreplace"), f"{key}_b64": base64.b64encode(path).decode()}


# A reason is counted over many files, so what differs from file to file is cut off: all that follows the first of these
# characters, and every number and quoted word but the name of a stage.
_BEFORE = re.compile(r"[:;,(]")
_PARTICULAR = re.compile(r"""(?<!stage\ )(?<!\w)(?:'[^']*'|"[^"]*")|\d[\w.]*""", re.VERBOSE)

# The next two are here since `config` checks them and `report` uses them, and neither may import the other.
# A variable of the environment, such as ${PING_URL}, in what pipeline.yaml says of telling.
VARIABLE = r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}"
# An address that may be pinged: encrypted, or of this machine itself.
PING_TO = r"(https://[^\s/?#]+|http://(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]+)?)([/?]\S*)?"
NOT_OURS = "exists, not ours"
NO_FILE = "something that is no file stands in its place"


def in_general(text: str) -> str:
    """Return the text of an error or a Skip without the details that differ between files, for counting."""
    head = _BEFORE.split(text, maxsplit=1)[0].strip()
    return _PARTICULAR.sub("...", head or text)


def program() -> str:
    """Return a command that starts the program in any shell of this machine: a short one where PATH leads to it."""
    typed = os.path.abspath(sys.argv[0])
    if os.path.basename(typed) == "filemill":
        return "filemill" if _is_on_path("filemill", typed) else quoted(typed)
    is_short = not sys.executable or _is_on_path("python", sys.executable)
    return f"{'python' if is_short else quoted(sys.executable)} -m pipeline"


def _is_on_path(name: str, file: str) -> bool:
    """Return whether a shell that is told a name starts this very file.

    The folders are compared too: the Pythons of all virtual environments are links to one and the same.
    """
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        found = os.path.join(folder, name)
        if os.path.isfile(found) and os.access(found, os.X_OK):
            with suppress(OSError):
                is_here = os.path.samefile(folder or ".", os.path.dirname(file)) and os.path.samefile(found, file)
                return is_here and os.path.isabs(folder)  # a relative one is another in another folder
            return False
    return False


def quoted(path: str) -> str:
    """Return a path as one word of a shell command; what is not printable in a way that bash and zsh know."""
    if path.isprintable():
        if re.fullmatch(r"[\w@%+=:,./-]+", path, re.ASCII):
            return path
        # As shlex.quote does, which is not imported only to name the program.
        return "'" + path.replace("'", "'\"'\"'") + "'"
    parts = (each if each.isprintable() and each not in "'\\" else _octal(each) for each in path)
    return f"$'{''.join(parts)}'"


def command_for(verb: str, file: str, *options: str) -> str:
    """Return the whole command that has the program do something with a pipeline, so that it can be copied.

    The verb is always named, since a pipeline of any suffix may follow it.
    """
    return " ".join((program(), verb, *([quoted(file)] if file else []), *options))


def _octal(character: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(character))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'X'?` for the known word that is closest to a word; empty if none is close."""
    import difflib

    close = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""
