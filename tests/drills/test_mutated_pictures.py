"""Pictures with bytes changed at random, in every format: none hangs, crashes, takes much memory or a wrong word."""

from __future__ import annotations

import json
import mmap
import os
import random
import resource
import signal
import struct
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.animations import moving, scenes
from support.pictures import SWAPPED, encode, paint

from pipeline.errors import Unreadable
from pipeline.images.animation import Animation
from pipeline.images.decode import open_picture
from pipeline.images.endings import ends_early

# .ci/run tries some of them where the code of pictures has changed, and FULL=1 all.
SOME, ALL = 500, 2_000
# A mutant of these small pictures takes a few milliseconds; one that takes so much longer would take minutes if it were
# large. A process without any answer hangs.
SLOW_S, HANGING_S = 3.0, 30.0
MOST_MEMORY_KB = 400_000
CLASSES = ("not a picture", "unsupported", "truncated picture", "damaged picture", "too large", "empty file")

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "JPEG": ("JPEG", {}), "JPEG, progressive": ("JPEG", {"progressive": True}),
    "JPEG, CMYK": ("JPEG", {"mode": "CMYK"}), "JPEG, ICC and EXIF": ("JPEG", {"icc_profile": SWAPPED, "exif": "6"}),
    "PNG": ("PNG", {}), "PNG, palette": ("PNG", {"mode": "P"}), "PNG, ICC": ("PNG", {"icc_profile": SWAPPED}),
    "PNG, 16 bits": ("PNG", {"mode": "I;16"}), "PNG, alpha": ("PNG", {"mode": "RGBA"}),
    "PNG, 1 bit": ("PNG", {"mode": "1"}), "WebP, alpha": ("WEBP", {"mode": "RGBA"}),
    "WebP": ("WEBP", {}), "WebP, lossless": ("WEBP", {"lossless": True}), "AVIF": ("AVIF", {}),
    "TIFF": ("TIFF", {}), "TIFF, LZW": ("TIFF", {"compression": "tiff_lzw"}),
    "TIFF, deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "TIFF, fax": ("TIFF", {"mode": "1", "compression": "group4"}),
    "TIFF, JPEG": ("TIFF", {"compression": "jpeg"}), "TIFF, 16 bits": ("TIFF", {"mode": "I;16"}),
    "GIF": ("GIF", {}), "BMP": ("BMP", {}), "BMP, palette": ("BMP", {"mode": "P"}), "ICO": ("ICO", {}),
    "JPEG 2000": ("JPEG2000", {}), "JPEG 2000, bare": ("JPEG2000", {"no_jp2": True}), "PPM": ("PPM", {}),
    "TGA, packed": ("TGA", {"compression": "tga_rle"}), "PCX": ("PCX", {}), "QOI": ("QOI", {}), "SGI": ("SGI", {}),
}  # fmt: skip


def still(name: str, *, mode: str = "RGB", exif: str = "", **options: Any) -> bytes:
    noise = Image.frombytes("RGB", (40, 30), random.Random(1).randbytes(40 * 30 * 3))
    image = Image.blend(paint(40, 30), noise, 0.3)
    image = image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode)
    if exif:
        options["exif"] = Image.Exif()
        options["exif"][274] = int(exif)
    return encode(image, name, **options)


def psd() -> bytes:
    rows = 3 * 30
    packed = struct.pack(f">{rows}H", *[41] * rows) + (b"\x27" + bytes(range(40))) * rows
    return b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 30, 40, 8, 3) + bytes(12) + b"\0\1" + packed


SAMPLES: dict[str, tuple[str, Callable[[], bytes]]] = {
    **{
        kind: (name, lambda name=name, options=options: still(name, **options))
        for kind, (name, options) in FORMATS.items()
    },
    **{
        f"{name}, moving": (name, lambda name=name: moving(scenes(clear=True), name))
        for name in ("GIF", "WEBP", "PNG", "AVIF")
    },
    "PSD": ("PSD", psd),
    "PPM as text": ("PPM", lambda: b"P3 40 30 200\n" + b" ".join(b"%d" % (value % 201) for value in range(3600))),
    "PBM as text": ("PPM", lambda: b"P1 40 30\n" + b"01 1" * 600),
    "PGM of 12 bits": ("PPM", lambda: b"P5 40 30 4095\n" + bytes(range(240)) * 10),
    "PFM": ("PPM", lambda: b"Pf\n40 30\n-1.0\n" + struct.pack("<1200f", *[0.5] * 1200)),
}  # type: ignore[misc]
# Those that are known by their first bytes, if they are whole.
UNMISTAKABLE = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "JPEG2000", "PSD", "QOI", "ICO")
_NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 60_000, 10_000)


def mutant(data: bytes, chance: random.Random) -> bytes:
    """Change a file in one to four places, more often in its first 200 bytes than behind."""
    made = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(min(len(made), 200) if chance.random() < 0.6 else len(made))
        length = chance.choice((1, 1, 2, 4, 16, 100))
        change = chance.randrange(8)
        if change == 0:
            made[at] ^= 1 << chance.randrange(8)
        elif change == 1:
            made[at : at + length] = chance.randbytes(len(made[at : at + length]))
        elif change == 2:
            made[at : at + length] = bytes([chance.choice((0, 255))]) * len(made[at : at + length])
        elif change == 3:
            number = chance.choice(_NUMBERS)
            layout = chance.choice((">I", "<I")) if number > 0xFFFF else chance.choice((">H", "<H", ">I", "<I"))
            made[at : at + struct.calcsize(layout)] = struct.pack(layout, number)
        elif change == 4 and len(made) > 60:
            del made[at : at + length]
        elif change == 5:
            made[at:at] = chance.randbytes(length)
        elif change == 6:
            made[at:at] = made[at : at + 60]
        elif change == 7 and len(made) > 60 and chance.random() < 0.5:
            del made[chance.randrange(50, len(made)) :]
    return bytes(made)


def wrong_word(data: bytes, broken: bytes, name: str, said: str) -> str:
    """Return what is wrong with what is said of a mutant; nothing if it may be right."""
    kind, _, rest = said.partition(": ")
    if kind not in CLASSES or not said.isprintable():
        return "no class"
    if kind in ("truncated picture", "damaged picture", "unsupported") and sum(map(str.isalpha, rest)) < 6:
        return "no words"
    if name in UNMISTAKABLE and broken[:32] == data[:32]:
        if kind == "not a picture":
            return "it is one"
        if kind in ("truncated picture", "damaged picture") and ends_early(broken, name) is not (kind[0] == "t"):
            return "truncated and damaged mixed up"
    return ""


def answer(data: bytes) -> str:
    with warnings.catch_warnings(action="error"):
        try:
            picture = open_picture(data)
            try:
                picture.load((20, 15))
                made = picture.load(frames="all")
                assert isinstance(made, Animation) or made.mode in ("L", "LA", "RGB", "RGBA")
            finally:
                picture.close()
        except Unreadable as refused:
            return refused.text
    return "read"


def work(kind: str, count: int, seen: mmap.mmap, problems: Path) -> None:
    """Read so many mutants of a kind in this process; the number of the one in hand is in shared memory."""
    name, make = SAMPLES[kind]
    data = make()
    assert answer(data) == "read"
    found = []
    for seed in range(count):
        seen[:8] = struct.pack("Q", seed)
        broken, begun = mutant(data, random.Random(f"{kind} {seed}")), time.process_time()
        try:
            said = answer(broken)
        except Exception as error:  # whatever is no `Unreadable` is ours to mend
            found.append(f"{seed}: raised {error!r}")
            continue
        if (took_s := time.process_time() - begun) > SLOW_S:
            found.append(f"{seed}: took {took_s:.1f} s, and said {said!r}")
        if said != "read" and (wrong := wrong_word(data, broken, name, said)):
            found.append(f"{seed}: {wrong}: {said!r}")
    if (memory_kb := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) > MOST_MEMORY_KB:
        found.append(f"took {memory_kb} kB")
    problems.write_text(json.dumps(found))


@pytest.mark.slow
@pytest.mark.parametrize("count", [pytest.param(SOME, id="some"), pytest.param(ALL, id="all")])
@pytest.mark.parametrize("kind", SAMPLES)
def test_no_mutant_hangs_crashes_or_is_called_wrongly(kind: str, count: int, tmp_path: Path) -> None:
    """Each is a picture, or has its reason, within the time and the memory of a worker."""
    seen, problems = mmap.mmap(-1, 8), tmp_path / "problems"
    if (child := os.fork()) == 0:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 2)
        try:
            work(kind, count, seen, problems)
        finally:
            os._exit(0)
    last, since = -1, time.monotonic()
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        (seed,) = struct.unpack("Q", seen[:8])
        if seed != last:
            last, since = seed, time.monotonic()
        if time.monotonic() - since > HANGING_S:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail(f"mutant {seed} of {kind} hangs")
        time.sleep(0.05)
    (seed,) = struct.unpack("Q", seen[:8])
    assert ended[1] == 0, f"mutant {seed} of {kind} crashed its process: {os.waitstatus_to_exitcode(ended[1])}"
    found = json.loads(problems.read_text())
    assert not found, f"{len(found)} of {count} mutants: " + "; ".join(found[:12])
