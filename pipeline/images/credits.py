"""Reads who made a picture and on which terms, in EXIF, IPTC and XMP, and writes it as EXIF and XMP."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from PIL import ExifTags, Image, IptcImagePlugin

from pipeline.images import xmp
from pipeline.notes import note

# Datasets of IPTC's second record (IIM 4.2): who made it, whose it is, and whom to name.
_BYLINE, _CREDIT, _NOTICE = (2, 80), (2, 110), (2, 116)


def read_credits(image: Image.Image, packet: bytes) -> dict[str, bytes]:
    """Return the credits of a picture as EXIF and XMP; nothing where it has none.

    Where several say something of the same, XMP counts before IPTC and IPTC before EXIF.

    Args:
        image: An image as Pillow opened it.
        packet: Its XMP packet; empty if it has none.

    Returns:
        The bytes of `exif`, with nothing but the artist and the copyright, and of `xmp`.
    """
    artist, notice = _exif_texts(image)
    bylines, rights, credit = _iptc_texts(image)
    found = xmp.credits_in(packet)
    said = [[xmp.texts_of(found[name]) if name in found else [] for name in (xmp.CREATOR, xmp.RIGHTS)],
            [bylines, [rights]], [[artist], [notice]]]  # fmt: skip
    if any(_differ(texts) for texts in zip(*said, strict=True)):
        note("its EXIF, IPTC and XMP name different credits: the last of these that it has counts")
    if creators := bylines or ([artist] if artist else []):
        found.setdefault(xmp.CREATOR, xmp.list_of(xmp.CREATOR, creators))
    if text := rights or notice:
        found.setdefault(xmp.RIGHTS, xmp.list_of(xmp.RIGHTS, [text], "Alt"))
    if credit:
        found.setdefault(xmp.CREDIT, xmp.text_property(xmp.CREDIT, credit))
    if not found:
        return {}
    exif = Image.Exif()
    for tag, name in ((ExifTags.Base.Artist, xmp.CREATOR), (ExifTags.Base.Copyright, xmp.RIGHTS)):
        if name in found and (texts := xmp.texts_of(found[name])):
            exif[tag] = ("; ".join(texts) if name == xmp.CREATOR else texts[0]).encode()
    return {"xmp": xmp.packet_of(found)} | ({"exif": exif.tobytes()} if exif else {})


def _differ(said: Sequence[Sequence[str]]) -> bool:
    """Return whether some of several say something else than the others, as far as they say anything."""
    return len({text for texts in said if (text := "; ".join(texts))}) > 1


def _exif_texts(image: Image.Image) -> tuple[str, str]:
    """Return the artist and the copyright in EXIF."""
    with suppress(SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        exif = image.getexif()
        return _shown(exif.get(ExifTags.Base.Artist)), _shown(exif.get(ExifTags.Base.Copyright))
    return "", ""


def _shown(value: Any) -> str:
    """Return a text of EXIF, which Pillow reads as Latin-1, as the UTF-8 that most programs write."""
    data = value.encode("latin-1", "replace") if isinstance(value, str) else value if isinstance(value, bytes) else b""
    return _decoded(data.rstrip(b"\0")).replace("\0", "; ").strip()  # the photographer's, and the editor's


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _iptc_texts(image: Image.Image) -> tuple[list[str], str, str]:
    """Return the bylines, the copyright notice and the credit in IPTC's IIM."""
    found: dict[tuple[int, int], Any] = {}
    with suppress(SyntaxError, ValueError, TypeError, KeyError, IndexError, OSError, struct.error):
        found = IptcImagePlugin.getiptcinfo(image) or {}  # type: ignore[arg-type]

    def texts(key: tuple[int, int]) -> list[str]:
        value = found.get(key, [])
        return [
            text for each in (value if isinstance(value, list) else [value]) if (text := _decoded(each).strip("\0 "))
        ]

    return texts(_BYLINE), "; ".join(texts(_NOTICE)), "; ".join(texts(_CREDIT))
