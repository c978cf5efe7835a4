"""Tells by a file's suffix and first bytes whether a stage can take it, as the stage's annotation says.

A suffix of the kind is enough, so that a damaged file fails by its name instead of being passed over. Only a file that
says by neither that it is of the kind is none.
"""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from functools import cache

from pipeline.images.extras import EXTRAS, extra_for
from pipeline.stage.signature import Contract
from pipeline.stage.values import IMAGE, PICTURE, TEXT, Kind

# Bytes of a file's beginning that are looked at.
_HEAD_BYTES = 512

# The suffixes of the formats that `images` reads.
_PICTURES = frozenset(
    b".jpg .jpeg .jpe .jfif .mpo .png .apng .webp .avif .avifs .gif .tif .tiff .bmp .dib .jp2 .j2k .jpc .jpf .jpx .j2c"
    b" .ppm .pgm .pbm .pnm .pfm .tga .icb .vda .vst .ico .cur .pcx .psd .qoi .sgi .bw .rgb .rgba".split()
).union(*(extra.suffixes for extra in EXTRAS))
# Those of cameras' raw files: most begin as a TIFF does, and hold a preview that is not the picture.
_RAW = frozenset(
    b".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl"
    b" .sr2 .srf .srw .x3f".split()
)
# Those of other pictures, of sounds and of films that Python's `mimetypes` knows; it would read the machine's own list.
_OTHERS = frozenset(
    b".3g2 .3gp .3gpp .3gpp2 .aac .adts .aif .aifc .aiff .ass .au .avi .avif .bmp .gif .heic .heif .ico .ief .jpe .jpeg"
    b" .jpg .loas .m1v .mov .movie .mp2 .mp3 .mp4 .mpa .mpe .mpeg .mpg .opus .pbm .pgm .png .pnm .ppm .qt .ra .ras .rgb"
    b" .snd .svg .tif .tiff .wav .webm .xbm .xpm .xwd".split()
)
# Those of copies that programs keep beside a picture, and of downloads that are not whole.
_COPIES = (b"_original", b"~", b".bak", b".orig", b".old", b".thm", b".tmp", b".part", b".crdownload")
# Where in a file which bytes tell that it is one of those formats.
_BEGINNINGS = (
    (0, b"\xff\xd8\xff"), (0, b"\x89PNG"), (8, b"WEBP"), (4, b"ftypavi"), (0, b"GIF8"), (0, b"II*\0"), (0, b"MM\0*"),
    (0, b"II+\0"), (0, b"MM\0+"), (0, b"BM"), (4, b"jP  "), (0, b"\xff\x4f\xff\x51"), (0, b"8BPS"), (0, b"qoif"),
    (0, b"\0\0\1\0"), (0, b"\x01\xda"), (0, b"P1"), (0, b"P2"), (0, b"P3"), (0, b"P4"), (0, b"P5"), (0, b"P6"),
    (0, b"Pf"), (0, b"PF"), (0, b"\x0a\x05\x01"),
)  # fmt: skip


def reading_kind(route: Sequence[Contract]) -> Kind | None:
    """Return the kind in which the stages of a route read a source; None where they take any file.

    A filter that takes any file passes it on, so that the stage after it decides.
    """
    for stage in route:
        if stage.takes in (PICTURE, IMAGE, TEXT):
            return stage.takes
        if not stage.is_filter:
            break
    return None


def can_be(kind: Kind, root: bytes, path: bytes, picture_suffixes: Container[bytes] = ()) -> bool:
    """Return whether a file, given relative to a root that ends in "/", may be of the kind that a stage reads.

    `picture_suffixes` are those that plug-ins of the user's read, in lower case, beside those that are always read.
    A file that cannot be opened may be: whoever reads it says why it cannot.
    """
    suffix = suffix_of(path)
    if is_enough(kind, suffix, picture_suffixes):
        return True
    if kind is not TEXT and (suffix in _RAW or suffix.endswith(_COPIES)):
        return False
    try:
        head = _head(root + path)
    except OSError:
        return True
    if kind is TEXT:
        return b"\0" not in head
    return any(head.startswith(each, at) for at, each in _BEGINNINGS) or extra_for(head) is not None


def is_enough(kind: Kind, suffix: bytes, picture_suffixes: Container[bytes] = ()) -> bool:
    """Return whether any file with a suffix, as `suffix_of` returns it, may be of the kind that a stage reads."""
    return suffix not in _no_texts() if kind is TEXT else suffix in _PICTURES or suffix in picture_suffixes


def suffix_of(path: bytes) -> bytes:
    """Return the suffix of a path in lower case, with its dot; empty where it has none."""
    at = path.rfind(b".") + 1
    return path[at - 1 :].lower() if at and path.find(b"/", at) < 0 else b""


def _head(path: bytes) -> bytes:
    """Return the first bytes of a file. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.read(fd, _HEAD_BYTES)
    finally:
        os.close(fd)


@cache
def _no_texts() -> frozenset[bytes]:
    """Return the suffixes of pictures, sounds and films."""
    return _PICTURES | _RAW | _OTHERS
