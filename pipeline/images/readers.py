"""Opens picture files by their content: with our own readers where Pillow's give wrong pixels, else with Pillow's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO

from PIL import Image
from PIL.ImageFile import ImageFile

from pipeline.images.bmp import BmpFile, DibFile, begins_bitmap
from pipeline.images.diagnosis import READABLE
from pipeline.images.icon import MAGIC, open_icon
from pipeline.images.jpeg_2000 import MAGIC as MAGIC_2000
from pipeline.images.jpeg_2000 import Jpeg2000File
from pipeline.images.pcx import PcxFile, begins_pcx
from pipeline.images.plugins import open_image as open_with_plugins
from pipeline.images.png import open_png
from pipeline.images.png_chunks import SIGNATURE
from pipeline.images.psd import MAGIC as PSD_MAGIC
from pipeline.images.psd import PsdFile
from pipeline.images.sgi import MAGIC as SGI_MAGIC
from pipeline.images.sgi import SgiFile
from pipeline.images.tiff import TiffFile, begins_tiff

# What the first box of an AVIF names; the last two may be of an HEIC, too, which its reader finds out.
_AVIF_BRANDS = (b"avif", b"avis", b"mif1", b"msf1")


def _open_avif(file: IO[bytes], filename: str | bytes) -> ImageFile:
    """Open an AVIF; its library, which is large, is loaded with the first."""
    from pipeline.images.avif import open_avif

    return open_avif(file, filename)


# Known to Pillow under names of their own that it tries only where they are asked for: a stage that opens pictures
# itself gets Pillow's readers.
_OURS: dict[str, tuple[Callable[[IO[bytes], str | bytes], ImageFile], Callable[[bytes], bool | str]]] = {
    "FILEMILL-PNG": (open_png, lambda head: head.startswith(SIGNATURE)),
    "FILEMILL-BMP": (BmpFile, lambda head: head.startswith(b"BM")),
    "FILEMILL-DIB": (DibFile, begins_bitmap),
    "FILEMILL-AVIF": (_open_avif, lambda head: head[4:8] == b"ftyp" and head[8:12] in _AVIF_BRANDS),
    "FILEMILL-ICO": (open_icon, lambda head: head.startswith(MAGIC)),
    "FILEMILL-PCX": (PcxFile, begins_pcx),
    "FILEMILL-SGI": (SgiFile, lambda head: head.startswith(SGI_MAGIC)),
    "FILEMILL-PSD": (PsdFile, lambda head: head.startswith(PSD_MAGIC)),
    "FILEMILL-JPEG2000": (Jpeg2000File, lambda head: head.startswith(MAGIC_2000)),
    "FILEMILL-TIFF": (TiffFile, begins_tiff),
}
Image.OPEN.update(_OURS)
# Formats of which ours read all that Pillow's do, and take no text for one that is cut off.
_REPLACED = ("BMP", "DIB", "PCX", "SGI")
_PILLOWS = [name for name in READABLE if name not in _REPLACED]
# The order in which readers are asked; plug-ins are asked before TIFF, since many a camera's raw begins as one.
_TIFF_AT = _PILLOWS.index("TIFF")
_ORDER = (
    *(name for name in _OURS if name != "FILEMILL-TIFF"), *_PILLOWS[:_TIFF_AT], "FILEMILL-TIFF", *_PILLOWS[_TIFF_AT:],
)  # fmt: skip


def open_image(file: Path | bytes) -> Image.Image:
    """Open a picture file without decoding it.

    Raises:
        Unreadable: One of our readers refuses the file.
        UnidentifiedImageError: No reader takes the file.
        Exception: Whatever Pillow's readers raise for a damaged file.
    """
    return open_with_plugins(file, _ORDER)
