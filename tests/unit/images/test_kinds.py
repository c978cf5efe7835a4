"""Kinds of pictures that are not read are called by their names, with bits, mode, compression or maker."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest
from support.pictures import encode, paint

from pipeline.errors import Unreadable
from pipeline.images.decode import open_picture
from pipeline.images.diagnosis import unreadable_if_damaged


def said_of(file: bytes | Path) -> str:
    with pytest.raises(Unreadable) as refused:
        picture = open_picture(file)
        try:
            picture.load()
        finally:
            picture.close()
    return refused.value.text


def psd(mode: int, bits: int, channels: int, *, width: int = 4, height: int = 2) -> bytes:
    """A PSD of zeros, uncompressed."""
    head = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", channels, height, width, bits, mode)
    palette = struct.pack(">I", 768) + bytes(768) if mode == 2 else bytes(4)
    return head + palette + bytes(8) + b"\0\0" + bytes(channels * height * ((width * bits + 7) // 8))


def jpeg(marker: int, *, bits: int = 8, channels: int = 3) -> bytes:
    """A real JPEG whose frame header says something else."""
    data = bytearray(encode(paint(16, 16), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4], data[at + 9] = marker, bits, channels
    return bytes(data)


def codestream(channels: int, bits: int) -> bytes:
    """The head of a bare JPEG 2000."""
    siz = struct.pack(">HH8IH", 38 + 3 * channels, 0, 16, 16, 0, 0, 16, 16, 0, 0, channels)
    return b"\xff\x4f\xff\x51" + siz + bytes([bits - 1, 1, 1]) * channels + b"\xff\xd9"


def tiff(**tags: int | str) -> bytes:
    """A grey TIFF of 2x2 with tags named `t254` and so on."""
    values: dict[int, int | str] = {256: 2, 257: 2, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 2, 279: 4}
    values |= {int(name[1:]): value for name, value in tags.items()}
    body, entries = bytes(4), b""
    start = 8 + len(body)
    texts = b""
    at = start + 2 + 12 * len(values) + 4
    for tag, value in sorted(values.items()):
        if isinstance(value, str):
            text = value.encode() + b"\0" * max(1, 5 - len(value))
            entries += struct.pack("<HHII", tag, 2, len(text), at + len(texts))
            texts += text
        else:
            entries += struct.pack("<HHII", tag, 4, 1, value)
    return b"II*\0" + struct.pack("<I", start) + body + struct.pack("<H", len(values)) + entries + bytes(4) + texts


KINDS: dict[str, tuple[str, bytes]] = {
    "EXR": ("OpenEXR is not read", b"v/1\x01\2\0\0\0channels\0" + bytes(60)),
    "HDR": ("Radiance HDR is not read", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 2 +X 2\n" + bytes(16)),
    "WBMP": ("WBMP is not read", b"\0\0\x0a\x03" + bytes(6)),
    "WBMP, wide": ("WBMP is not read", b"\0\0\x81\x0a\x03" + bytes(3 * 18)),
    "JPEG XR": ("JPEG XR is not read", b"II\xbc\1" + bytes(60)),
    "JPEG-LS": ("JPEG-LS is not read", b"\xff\xd8\xff\xf7\0\x0b\x08" + bytes(60)),
    "PSB": ("PSB, a large PSD, is not read", b"8BPS\0\2" + bytes(60)),
    "DDS": ("DDS is not read", b"DDS " + struct.pack("<I", 124) + bytes(130)),
    "PAM": ("PAM is not read", b"P7\nWIDTH 2\nHEIGHT 2\nDEPTH 4\nMAXVAL 255\nENDHDR\n" + bytes(16)),
    "DICOM": ("DICOM is not read", bytes(128) + b"DICM" + bytes(60)),
    "CR2": ("CR2, a raw of Canon cameras, is not read", b"II*\0\x10\0\0\0CR\2\0" + bytes(100)),
    "RAF": ("RAF, a raw of Fujifilm cameras, is not read", b"FUJIFILMCCD-RAW 0201" + bytes(50)),
    "X3F": ("X3F, a raw of Sigma cameras, is not read", b"FOVb" + bytes(60)),
    "NEF": (
        "a camera's raw (NIKON CORPORATION D70); its first page is only a preview",
        tiff(t254=1, t330=8, t271="NIKON CORPORATION", t272="D70"),
    ),
    "ARW": ("a camera's raw (SONY); its first page is only a preview", tiff(t254=1, t330=8, t271="SONY")),
    "DNG": ("DNG, a camera's raw (Apple iPhone)", tiff(t50706=0x0401, t271="Apple", t272="Apple iPhone")),
    "PEF": ("a camera's raw (PENTAX)", tiff(t262=32803, t271="PENTAX")),
    "JPEG of 12 bits": ("JPEG with 12 bits a channel: ", jpeg(0xC1, bits=12)),
    "JPEG, lossless of 16 bits": ("JPEG with 16 bits a channel, lossless: ", jpeg(0xC3, bits=16)),
    "JPEG, hierarchical": ("JPEG, hierarchical: ", jpeg(0xC5)),
    "JPEG, lossless and arithmetic": ("JPEG, lossless with arithmetic coding: ", jpeg(0xCB)),
    "JPEG of 2 channels": ("JPEG with 2 channels: ", jpeg(0xC0, channels=2)),
    "JPEG 2000 of 5 channels": ("JPEG 2000 with 5 channels: ", codestream(5, 8)),
    "JPEG 2000 of 24 bits": ("JPEG 2000 with 24 bits a channel: ", codestream(3, 24)),
    "PSD, bitmap": ("PSD, bitmap, with 1 bits a channel, is not read", psd(0, 1, 1)),
    "PSD, multichannel": ("PSD, multichannel, with 8 bits a channel, is not read", psd(7, 8, 3)),
    "PSD, RGB of 16 bits": ("PSD, RGB, with 16 bits a channel", psd(3, 16, 3)),
    "PSD, grey of 32 bits": ("PSD, grey, with 32 bits a channel", psd(1, 32, 1)),
    "PSD, CMYK of 16 bits": ("PSD, CMYK, with 16 bits a channel", psd(4, 16, 4)),
    "BMP of an unknown head": (
        "BMP with a header of 77 bytes",
        b"BM" + bytes(12) + struct.pack("<I", 77) + bytes(90),
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_is_not_read_is_called_by_its_name(name: str, tmp_path: Path) -> None:
    """The sentence begins with "unsupported", and goes on with the format and what it is."""
    says, data = KINDS[name]
    assert said_of(data).startswith(f"unsupported: {says}")
    (tmp_path / "a").write_bytes(data)
    assert said_of(tmp_path / "a") == said_of(data)


@pytest.mark.parametrize(("mode", "channels"), [(1, 1), (2, 1), (3, 3), (3, 4), (4, 4), (8, 1), (9, 3)])
def test_a_psd_of_eight_bits_is_read(mode: int, channels: int) -> None:
    """Grey, indexed, RGB with and without alpha, CMYK, duotone and Lab."""
    assert open_picture(psd(mode, 8, channels)).load().size == (4, 2)


@pytest.mark.parametrize("data", [b"\0\0\x0a\x03" + bytes(7), b"\0\0\0\x03", b"\0\0\x80", b"\0\0", bytes(9)])
def test_zeros_are_no_wbmp(data: bytes) -> None:
    """A WBMP has no telling bytes, so that its length must be right."""
    assert said_of(data) == "not a picture"


# -- whose error it is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOENT, errno.EACCES, errno.ETIMEDOUT, errno.EMFILE])
def test_an_error_of_the_disk_is_not_the_pictures(number: int) -> None:
    """What the system says of a disk, a server or a missing file is passed on as it is."""
    with pytest.raises(OSError) as raised, unreadable_if_damaged():
        raise OSError(number, "as the system says")
    assert raised.value.errno == number


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(-2), "damaged picture: its decoder failed with code -2"),
        (OSError(-2, "codec error"), "damaged picture: [Errno -2] codec error"),
        (OSError(errno.EINVAL, "Invalid argument"), "damaged picture: "),
        (OSError(errno.EOVERFLOW, "Value too large"), "damaged picture: "),
        (OSError(99_999, "of a library's own"), "damaged picture: "),
        (OSError("image file is truncated"), "truncated picture: image file is truncated"),
        (EOFError("no more"), "truncated picture: no more"),
        (KeyError(17), "damaged picture: its reader does not know the value 17"),
        (SyntaxError(KeyError((3, 4))), "damaged picture: its reader does not know the value (3, 4)"),
        (ValueError(b"a token of text"), "damaged picture: a token of text"),
        (ValueError("two\nlines"), "damaged picture: two lines"),
        (ValueError(), "damaged picture: its reader failed with ValueError"),
        (NotImplementedError("of 5 bits"), "unsupported: of 5 bits"),
    ],
    ids=repr,
)  # fmt: skip
def test_an_error_of_a_decoder_is_the_pictures(error: Exception, says: str) -> None:
    """Whatever number it carries; what the decoder said follows, on one line."""
    with pytest.raises(Unreadable) as refused, unreadable_if_damaged():
        raise error
    assert refused.value.text.startswith(says)


def test_a_seek_to_nowhere_is_the_pictures(tmp_path: Path) -> None:
    """A directory of a TIFF beyond what the system can seek to is damage, from a path as from bytes."""
    data = b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**63 - 1) + bytes(20)
    (tmp_path / "a.tif").write_bytes(data)
    for file in (data, tmp_path / "a.tif"):
        assert said_of(file).startswith(("damaged picture", "truncated picture"))
