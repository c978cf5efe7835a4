"""Opens picture files by their content: with our own readers where Pillow's give wrong pixels, else with Pillow's."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from pipeline.images.bmp import HEADERS_BYTES, BmpFile, DibFile
from pipeline.images.diagnosis import READABLE
from pipeline.images.icon import MAGIC, open_icon
from pipeline.images.png import SIGNATURE, open_png

# Known to Pillow under names of their own that it tries only where they are asked for: a stage that opens pictures
# itself gets Pillow's readers.
_OURS = {
    "FILEMILL-PNG": (open_png, lambda head: head.startswith(SIGNATURE)),
    "FILEMILL-BMP": (BmpFile, lambda head: head.startswith(b"BM")),
    "FILEMILL-DIB": (DibFile, lambda head: int.from_bytes(head[:4], "little") in HEADERS_BYTES),
    "FILEMILL-ICO": (open_icon, lambda head: head.startswith(MAGIC)),
}
Image.OPEN.update(_OURS)


def open_image(file: Path | bytes) -> Image.Image:
    """Open a picture file without decoding it.

    Raises:
        Unreadable: One of our readers refuses the file.
        UnidentifiedImageError: No reader takes the file.
        Exception: Whatever Pillow's readers raise for a damaged file.
    """
    return Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=(*_OURS, *READABLE))
