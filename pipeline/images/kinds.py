"""Names kinds of pictures that are not read: by the bytes with which they begin, and by what their headers say."""

from __future__ import annotations

import functools
import io
import re
import struct
import warnings
from collections.abc import Mapping

from PIL import TiffImagePlugin

# Formats that no reader of ours knows: where in the file which bytes stand.
_FOREIGN = (
    (0, b"%PDF", "PDF"), (0, b"II\xbc", "JPEG XR"), (0, b"\xff\xd8\xff\xf7", "JPEG-LS"),
    (0, b"v/1\x01", "OpenEXR"), (0, b"#?RADIANCE", "Radiance HDR"), (0, b"#?RGBE", "Radiance HDR"),
    (0, b"8BPS\0\2", "PSB, a large PSD,"), (0, b"gimp xcf ", "XCF, a file of GIMP,"), (0, b"AT&TFORM", "DjVu"),
    (0, b"\x8aMNG", "MNG"), (0, b"\x8bJNG", "JNG"), (0, b"BPG\xfb", "BPG"), (0, b"FLIF", "FLIF"),
    (0, b"farbfeld", "farbfeld"), (128, b"DICM", "DICOM"), (0, b"SDPX", "DPX"), (0, b"XPDS", "DPX"),
    (0, b"\x80\x2a\x5f\xd7", "Cineon"), (0, b"\xabKTX ", "KTX, a texture,"),
    (0, b"\x13\xab\xa1\x5c", "ASTC, a texture,"),
    (8, b"ILBM", "IFF ILBM"), (8, b"PBM ", "IFF PBM"), (8, b"ACON", "ANI, an animated cursor,"),
    (0, b"P7\nWIDTH", "PAM"), (0, b"P7 332", "XV thumbnail"),
)  # fmt: skip
# The raw files of cameras: the same, and the makers.
_RAW = (
    (4, b"ftypcrx", "CR3", "Canon"), (8, b"CR\2", "CR2", "Canon"), (6, b"HEAPCCDR", "CRW", "Canon"),
    (0, b"FUJIFILMCCD-RAW", "RAF", "Fujifilm"), (0, b"IIU\0", "RW2", "Panasonic or Leica"),
    (0, b"IIRO", "ORF", "Olympus"), (0, b"IIRS", "ORF", "Olympus"), (0, b"MMOR", "ORF", "Olympus"),
    (0, b"FOVb", "X3F", "Sigma"), (0, b"\0MRM", "MRW", "Minolta"), (8, b"IIII", "IIQ", "Phase One"),
)  # fmt: skip
# The head of a WBMP: two zeros, then width and height, 7 bits a byte (WAP-237, 4.4.1).
_WBMP = re.compile(rb"\0\0([\x80-\xff]{0,3}[\0-\x7f])([\x80-\xff]{0,3}[\0-\x7f])")
# Tags of a TIFF by which a raw is known, and which say who made it (DNG 1.7, TIFF/EP).
_SUBFILE, _PHOTOMETRIC, _MAKE, _MODEL, _SUBIFDS, _DNG_VERSION = 254, 262, 271, 272, 330, 50706
# Pixels as they come from the sensor: behind a colour filter array, or linear.
_OF_SENSORS = (32803, 34892)

# What the start-of-frame markers of a JPEG say (T.81, table B.1), as far as libjpeg does not decode it; lossless is
# read with 8 bits.
_JPEG_KINDS = {
    0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "hierarchical and lossless",
    0xCB: "lossless with arithmetic coding", 0xCD: "hierarchical with arithmetic coding",
    0xCE: "hierarchical with arithmetic coding", 0xCF: "hierarchical and lossless with arithmetic coding",
}  # fmt: skip
_JPEG_LOSSLESS = 0xC3
_PSD_MODES = ("bitmap", "grey", "indexed", "RGB", "CMYK", "mode 5", "mode 6", "multichannel", "duotone", "Lab")
# The modes of PSD that are read, with 8 bits a channel; Pillow takes ink for light in a bitmap, and the first of many
# channels for the picture.
_PSD_READ = (1, 2, 3, 4, 8, 9)


def foreign(head: bytes) -> str | None:
    """Return the name of a format that is not read, by the first bytes of a file; None if they are not known."""
    for offset, telling, name in _FOREIGN:
        if head.startswith(telling, offset):
            return name
    for offset, telling, name, maker in _RAW:
        if head.startswith(telling, offset):
            return f"{name}, a raw of {maker} cameras,"
    return None


def is_wbmp(data: bytes) -> bool:
    """Return whether a file is a WBMP of type 0, which has no telling bytes: its length must be right to the byte."""
    found = _WBMP.match(data)
    if not found:
        return False
    width, height = (functools.reduce(lambda side, byte: side << 7 | byte & 0x7F, part, 0) for part in found.groups())
    return bool(width and height) and found.end() + (width + 7) // 8 * height == len(data)


def raw_in_tiff(tags: Mapping[int, object]) -> str | None:
    """Return what raw of which camera a TIFF is, by the tags of its first page; None if it is none."""
    subfile = tags.get(_SUBFILE, 0)
    is_preview = isinstance(subfile, int) and bool(subfile & 1) and _SUBIFDS in tags
    if not (is_preview or _DNG_VERSION in tags or tags.get(_PHOTOMETRIC) in _OF_SENSORS):
        return None
    kind = "DNG, a camera's raw" if _DNG_VERSION in tags else "a camera's raw"
    names = [name.strip(" \0") for tag in (_MAKE, _MODEL) if isinstance(name := tags.get(tag), str)]
    camera = names[-1] if names and names[-1].startswith(names[0]) else " ".join(names)
    return kind + (f" ({camera})" if camera else "") + ("; its first page is only a preview" if is_preview else "")


def unread_kind(data: bytes, name: str) -> str | None:
    """Return the kind of a picture of a format that is read, if the kind is not; by its header.

    Args:
        data: The file.
        name: Pillow's name of the format.

    Returns:
        What it is, such as "JPEG with 12 bits a channel", or None if kinds like it are read.
    """
    try:
        if name in ("JPEG", "MPO"):
            return _jpeg(data)
        if name == "PSD":
            return _psd(data)
        if name == "JPEG2000":
            return _jpeg2000(data)
        return _tiff(data) if name == "TIFF" else None
    except (struct.error, IndexError, SyntaxError, ValueError, TypeError, KeyError, OSError):  # damaged
        return None


def _jpeg(data: bytes) -> str | None:
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, channels = data[at + 4], data[at + 9]
            if marker in _JPEG_KINDS:
                return f"JPEG, {_JPEG_KINDS[marker]}"
            if bits != 8:
                return f"JPEG with {bits} bits a channel" + (", lossless" if marker == _JPEG_LOSSLESS else "")
            return f"JPEG with {channels} channels" if channels not in (1, 3, 4) else None
        else:
            at += 2 + int(struct.unpack_from(">H", data, at + 2)[0])
    return None


def _tiff(data: bytes) -> str | None:
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if data[2:4] in (b"+\0", b"\0+") else 8])
    with io.BytesIO(data) as file, warnings.catch_warnings(action="ignore"):
        file.seek(tags.next)
        tags.load(file)
        return raw_in_tiff(tags)


def _psd(data: bytes) -> str | None:
    bits, mode = struct.unpack_from(">HH", data, 22)
    if (mode in _PSD_READ and bits == 8) or mode >= len(_PSD_MODES) or bits not in (1, 8, 16, 32):
        return None
    return f"PSD, {_PSD_MODES[mode]}, with {bits} bits a channel"


def _jpeg2000(data: bytes) -> str | None:
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0:
        return None
    (channels,) = struct.unpack_from(">H", data, at + 40)
    bits = {(data[at + 42 + 3 * number] & 0x7F) + 1 for number in range(channels)}
    if channels > 4:
        return f"JPEG 2000 with {channels} channels"
    if max(bits) > 16:
        return f"JPEG 2000 with {max(bits)} bits a channel"
    return None
