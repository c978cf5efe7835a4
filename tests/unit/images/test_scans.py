"""A progressive JPEG with and without its AC scans, decoded at an eighth of the size: the same pixels, to the bit."""

from __future__ import annotations

import io
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.pictures import encode, paint

from pipeline.images.decode import open_picture
from pipeline.images.scans import without_ac_scans


def eighth(jpeg: bytes) -> Image.Image:
    """What libjpeg makes of it at an eighth."""
    image = Image.open(io.BytesIO(jpeg))
    image.draft(None, (image.width // 8, image.height // 8))
    image.load()
    return image


def noisy(width: int, height: int) -> Image.Image:
    """A picture of blocks that have all their coefficients, beside smooth ones that libjpeg would like to smooth."""
    image = paint(width, height)
    half = (max(1, width // 2), height)
    image.paste(Image.frombytes("RGB", half, random.Random(width).randbytes(3 * half[0] * half[1])))
    return image


@settings(deadline=None, max_examples=60)
@given(
    st.integers(8, 500), st.integers(8, 300), st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]), st.integers(5, 98),
    st.booleans(),
)  # fmt: skip
def test_the_pixels_are_the_same(width: int, height: int, subsampling: str, quality: int, comment: bool) -> None:
    """Whatever the size, the sampling of the chroma, and the quality; in a file that is shorter."""
    options: dict[str, Any] = {"comment": b"said"} if comment else {}
    jpeg = encode(noisy(width, height), "JPEG", progressive=True, subsampling=subsampling, quality=quality, **options)
    shorter = without_ac_scans(jpeg)

    assert shorter and len(shorter) < len(jpeg) + 60
    assert eighth(shorter).tobytes() == eighth(jpeg).tobytes()


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_more_blocks_than_a_run_may_have(subsampling: str) -> None:
    """One run of empty blocks ends after 32,767; a photograph has more."""
    jpeg = encode(noisy(2300, 1700), "JPEG", progressive=True, subsampling=subsampling)
    shorter = without_ac_scans(jpeg)

    assert shorter and len(shorter) < len(jpeg) / 1.5
    assert eighth(shorter).tobytes() == eighth(jpeg).tobytes()


def test_what_follows_the_end_is_left_out() -> None:
    """A camera's preview, or anything else behind the picture."""
    jpeg = encode(noisy(200, 100), "JPEG", progressive=True)

    assert without_ac_scans(jpeg + jpeg) == without_ac_scans(jpeg)


@pytest.mark.parametrize(
    "jpeg",
    [
        pytest.param(lambda: encode(noisy(200, 100), "JPEG"), id="baseline"),
        pytest.param(lambda: encode(noisy(200, 100).convert("L"), "JPEG", progressive=True), id="grey"),
        pytest.param(lambda: encode(noisy(200, 100).convert("CMYK"), "JPEG", progressive=True), id="CMYK"),
        pytest.param(
            lambda: encode(noisy(200, 100), "JPEG", progressive=True, restart_marker_blocks=4), id="restart markers"
        ),
        pytest.param(lambda: encode(noisy(200, 100), "JPEG", progressive=True)[:-2], id="cut off"),
        pytest.param(lambda: encode(noisy(200, 100), "JPEG", progressive=True)[:900], id="cut off early"),
        pytest.param(lambda: encode(noisy(200, 100), "JPEG", progressive=True).replace(b"\x03\x01\x22", b"\x03\x01\x11")
                     .replace(b"\x02\x11\x01", b"\x02\x21\x01"), id="chroma of more than one"),
        pytest.param(lambda: b"\xff\xd8", id="nothing"),
    ],
)  # fmt: skip
def test_what_is_unusual_is_left_alone(jpeg: Any) -> None:
    """The decoder takes it as it is, or says what is wrong with it."""
    assert without_ac_scans(jpeg()) is None


@pytest.mark.parametrize("cut", [0, 2, 3000])
def test_a_picture_is_loaded_as_before(cut: int) -> None:
    """Small and then large, whole or cut off: a picture from its DC alone hides nothing of what the file is."""
    jpeg = encode(noisy(640, 480), "JPEG", progressive=True)
    picture = open_picture(jpeg[: len(jpeg) - cut])
    if cut:
        with pytest.raises(Exception, match="truncated"):
            picture.load((20, 15))
        return
    wanted = open_picture(encode(eighth(jpeg), "PNG")).load((20, 15))

    assert picture.load((20, 15)).tobytes() == wanted.tobytes()
    assert picture.load().tobytes() == Image.open(io.BytesIO(jpeg)).tobytes()
    assert picture.load((20, 15)).tobytes() == wanted.tobytes()
