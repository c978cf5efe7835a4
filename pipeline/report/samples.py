"""Shows what a run made, from a sample of its outputs: pictures before and after, and what changed in texts.

Whatever cannot be read, is no picture or no text, or would take too long, is left out.
"""

from __future__ import annotations

import base64
import difflib
import io
import math
import os
import random
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.files.file_system import has_no_file, open_regular
from pipeline.records import dataclass
from pipeline.report.statistics import Made
from pipeline.text import as_json

if TYPE_CHECKING:
    from pipeline.images.decode import OpenedPicture

_PICTURES, _TEXTS = 12, 6
# Suffixes of the outputs that are pictures; no other output is opened as one.
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".webp", ".avif", ".png", ".tif", ".tiff", ".gif"})
# Pixels of the longer side of a thumbnail, and the quality of its JPEG or WebP.
_SIDE, _QUALITY = 240, 75
# Bytes of all thumbnails as text, so that the whole page stays below a megabyte.
_ALL_BYTES = 440_000
# CPU seconds before the first picture is open: the libraries are loaded.
_LOADING_S = 0.1
# CPU seconds that a pixel takes at most: a JPEG is decoded at an eighth of its size, any other as a whole.
_REDUCED_S, _WHOLE_S = 5e-9, 4e-8
# Bytes of a text, lines of it that are compared, lines that are shown, and characters of a line.
_TEXT_BYTES, _COMPARED, _SHOWN, _LINE = 256_000, 1000, 60, 300


@dataclass
class Allowance:
    """The seconds that samples may take."""

    until_cpu_s: float
    until: float

    @classmethod
    def of(cls, cpu_s: float) -> Allowance:
        """Return an allowance of so many seconds of the processor from now on, and of four times as many in all."""
        return cls(time.process_time() + cpu_s, time.monotonic() + 4 * cpu_s)

    @property
    def left_s(self) -> float:
        """The CPU seconds that are left."""
        is_over = time.monotonic() > self.until
        return 0.0 if is_over else self.until_cpu_s - time.process_time()


def make_samples(made: Sequence[Made], root: bytes, folder: bytes, seed: str, cpu_s: float) -> dict[str, Any]:
    """Return the members `gallery` and `diffs` of a report.

    Args:
        made: The outputs among which is chosen.
        root: The folder of the sources.
        folder: The folder to which the paths of outputs are shown relative.
        seed: What decides the choice.
        cpu_s: The seconds that this may take.
    """
    allowance, chosen = Allowance.of(cpu_s), sorted(set(made))
    random.Random(seed).shuffle(chosen)
    pictures = [each for each in chosen if is_picture(each.path)]
    texts = [each for each in chosen if not is_picture(each.path) and not is_picture(each.source)]
    diffs = list(islice(_diffs(texts, root, folder, allowance), _TEXTS))
    gallery = list(_gallery(pictures, root, folder, allowance)) if pictures and allowance.left_s > _LOADING_S else []
    return {name: sorted(each, key=_by_name) for name, each in (("gallery", gallery), ("diffs", diffs))}


def _by_name(entry: dict[str, Any]) -> tuple[str, str]:
    return entry["source"], entry["output"]


def is_picture(path: bytes) -> bool:
    """Return whether a path has the suffix of a picture that can be shown."""
    return os.path.splitext(path)[1].lower().decode("utf-8", "replace") in PICTURE_SUFFIXES


def _names(made: Made, folder: bytes) -> dict[str, Any]:
    return {**as_json(made.source), "stage": made.stage, **as_json(os.path.relpath(made.path, folder), "output")}


# -- pictures ----------------------------------------------------------------------------------------------------------


def _gallery(made: Sequence[Made], root: bytes, folder: bytes, allowance: Allowance) -> Iterator[dict[str, Any]]:
    room, count = _ALL_BYTES, 0
    for each in made:
        if count == _PICTURES or allowance.left_s <= 0:
            return
        before = _thumbnail(os.path.join(root, each.source), allowance)
        after = before and _thumbnail(each.path, allowance)
        size = len(before["data"]) + len(after["data"]) if before and after else 0
        if size and size <= room:
            count, room = count + 1, room - size
            yield _names(each, folder) | {"before": before, "after": after}


def _thumbnail(path: bytes, allowance: Allowance) -> dict[str, Any] | None:
    """Return a small form of a picture, with the size of the picture itself; None where that cannot be."""
    from pipeline.images.decode import open_picture

    file = Path(os.fsdecode(path))
    if has_no_file(path):  # whoever opened a FIFO would wait
        return None
    try:
        picture = open_picture(file)
        try:
            if _cost_s(picture) > allowance.left_s:
                return None
            data = _encoded(picture)
        finally:
            picture.close()
        width, height = picture.size
        return {"data": data, "width": width, "height": height, "bytes": file.stat().st_size}
    except Exception:  # a decoder may raise anything, and the page does without this picture
        return None


def _cost_s(picture: OpenedPicture) -> float:
    return math.prod(picture.size) * (_REDUCED_S if picture.format == "JPEG" else _WHOLE_S)


def _encoded(picture: OpenedPicture) -> str:
    """Return a picture as the address of a small JPEG, or of a WebP if it is transparent."""
    from pipeline.images import rounded_side
    from pipeline.images.encode import save_jpeg, save_webp

    width, height = picture.size
    scale = min(1.0, _SIDE / max(width, height))
    image = picture.load((rounded_side(width * scale), rounded_side(height * scale)))
    kind, save = ("webp", save_webp) if image.mode in ("LA", "RGBA") else ("jpeg", save_jpeg)
    file = io.BytesIO()
    save(image, file, quality=_QUALITY)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


# -- texts -------------------------------------------------------------------------------------------------------------


def _diffs(made: Sequence[Made], root: bytes, folder: bytes, allowance: Allowance) -> Iterator[dict[str, Any]]:
    for each in made:
        if allowance.left_s <= 0:
            return
        if max(each.bytes_in, each.bytes_out) > _TEXT_BYTES:
            continue
        before, after = _lines(os.path.join(root, each.source)), _lines(each.path)
        if before is None or after is None or before == after:
            continue
        changed = list(difflib.unified_diff(before[:_COMPARED], after[:_COMPARED], lineterm=""))[2:]
        lines = [[line[0], line[1:][:_LINE]] for line in changed if not line.startswith("@@")]
        is_cut = len(lines) > _SHOWN or max(len(before), len(after)) > _COMPARED
        if lines:
            yield _names(each, folder) | {"lines": lines[:_SHOWN], "is_cut": is_cut}


def _lines(path: bytes) -> list[str] | None:
    """Return the lines of a text in UTF-8; None for any other file."""
    try:
        with open_regular(Path(os.fsdecode(path))) as file:
            data = file.read(_TEXT_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return None if len(data) > _TEXT_BYTES or "\0" in text else text.splitlines()
