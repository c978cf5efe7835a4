"""Modes and colours of pictures: conversion to 8 bits a channel, and ICC profiles to and from sRGB.

A picture in its own colours carries their profile in `info["icc_profile"]`, and nothing else there.
"""

from __future__ import annotations

import io
import itertools
from functools import lru_cache
from typing import Any

from PIL import Image, ImageChops, ImageCms, ImageColor

from pipeline.notes import note

# What a broken profile makes lcms and Pillow raise.
_UNUSABLE = (ImageCms.PyCMSError, OSError, ValueError, TypeError)
# Rows of a deep picture that are scaled at a time, since it takes four times the memory meanwhile.
_DEEP_BAND = 256


def _opaque(mode: str) -> str:
    return {"LA": "L", "RGBA": "RGB"}.get(mode, mode)


def to_plain(image: Image.Image) -> Image.Image:
    """Decode an image and convert it to L, LA, RGB, RGBA or CMYK, which resample well, without visible loss."""
    image.load()
    mode = image.mode
    if mode in ("LA", "RGBA", "CMYK"):
        return image
    if mode.startswith("I") or mode == "F":
        return _to_eight_bits(image)
    if mode == "LAB":
        return _from_lab(image)
    plain = "L" if mode in ("1", "L", "La") else "RGB"
    if mode in ("PA", "La", "RGBa") or _has_transparent_color(image):
        return image.convert(plain + "A")
    return image if mode == plain else image.convert(plain)


def _has_transparent_color(image: Image.Image) -> bool:
    """Return whether one colour of an image is transparent, as in a GIF, or its palette has alpha."""
    if image.mode == "P" and image.palette is not None and image.palette.mode == "RGBA":
        return True
    return image.mode in ("1", "L", "RGB", "P") and "transparency" in image.info


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale greys of 16 bits, or floats, to 8 bits by the range of their type; `convert("L")` would clip them."""
    if image.mode == "F":
        # White is 1 in a file, and 255 where a stage converted a picture with Pillow.
        return floats_to_eight_bits(image, *(guessed_range(0, 1) if image.format else (0, 255)))
    transparent = image.info.get("transparency")
    grey = Image.new("LA" if isinstance(transparent, int) else "L", image.size)
    for top in range(0, image.height, _DEEP_BAND):
        deep = image.crop((0, top, image.width, min(image.height, top + _DEEP_BAND))).convert("I")
        band = deep.point([(value + 128) // 257 for value in range(65_536)], "L")
        if grey.mode == "LA":
            band.putalpha(deep.point([255 * (value != transparent) for value in range(65_536)], "L"))
        grey.paste(band, (0, top))
    return grey


def guessed_range(low: float, high: float) -> tuple[float, float]:
    """Return a range that a file does not state, and note that it was guessed."""
    note("its range of values is not stated", f"{low:g} was taken for black and {high:g} for white")
    return low, high


def floats_to_eight_bits(image: Image.Image, low: float, high: float) -> Image.Image:
    """Scale an image in mode F to mode L: `low` becomes 0 and `high` 255; what is not a number becomes 0 as well."""
    scale = 255 / (high - low)
    # Half a step up, because the conversion rounds down; it clips, too.
    return image.point(lambda value: value * scale + (0.5 - low * scale)).convert("L")


def _from_lab(image: Image.Image) -> Image.Image:
    lab = ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(image, lab, _srgb(), outputMode="RGB")
    assert converted is not None
    return converted


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def to_srgb(image: Image.Image, icc_profile: bytes | None) -> Image.Image:
    """Convert an L, LA, RGB, RGBA or CMYK image to sRGB, keeping greys grey and the alpha as it is."""
    opaque = _opaque(image.mode)
    transform: ImageCms.ImageCmsTransform | list[int] | None = None
    if icc_profile:
        try:
            transform = _levels_in_srgb(icc_profile) if opaque == "L" else _transform_to_srgb(icc_profile, opaque)
        except _UNUSABLE:
            note("its colour profile cannot be used: read as sRGB")
    if transform is None:
        return image.convert("RGB") if image.mode == "CMYK" else image
    if isinstance(transform, list):
        converted = image.getchannel(0).point(transform)
    else:
        # `convert` copies even where there is nothing to do.
        colors = image if image.mode == opaque else image.convert(opaque)
        applied = ImageCms.applyTransform(colors, transform)
        assert applied is not None
        converted = applied
    if image.mode != opaque and opaque != "CMYK":
        converted.putalpha(image.getchannel("A"))
    return converted


# A camera roll has a handful of profiles; building a transform takes longer than applying it to a small picture.
@lru_cache(maxsize=16)
def _transform_to_srgb(icc_profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the transform from an embedded profile; None if it is sRGB. Raises various exceptions if it is broken."""
    transform = ImageCms.buildTransform(io.BytesIO(icc_profile), _srgb(), mode, "RGB")
    return None if _changes_nothing(transform, mode) else transform


@lru_cache(maxsize=16)
def _levels_in_srgb(icc_profile: bytes) -> list[int] | None:
    """Return the sRGB value of each grey; None if it changes none. Raises various exceptions if it is broken.

    Each of the 256 is computed by itself: lcms would compute 33 and go straight between them, which is 16 levels wrong
    in the dark of linear light.
    """
    transform = ImageCms.buildTransform(io.BytesIO(icc_profile), _srgb(), "L", "RGB", flags=ImageCms.Flags.NOOPTIMIZE)
    if _changes_nothing(transform, "L"):
        return None
    ramp = Image.new("L", (256, 1))
    ramp.putdata(range(256))
    levels = ImageCms.applyTransform(ramp, transform)
    assert levels is not None
    return list(levels.convert("L").tobytes())


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Return whether a transform changes no colour by more than 1 of 255; the name of a profile proves nothing."""
    if mode == "CMYK":
        return False
    levels = [value for value in range(0, 256, 15)]
    colors = Image.new(mode, (len(levels), len(levels) ** (len(mode) - 1)))
    colors.putdata(list(itertools.product(levels, repeat=len(mode))) if mode == "RGB" else levels)
    changed = ImageCms.applyTransform(colors, transform)
    assert changed is not None
    extremes = ImageChops.difference(colors.convert("RGB"), changed).getextrema()
    return max(high for _, high in extremes) <= 1  # type: ignore[misc]


# -- pictures in their own colours -------------------------------------------------------------------------------------

# The colour space that a profile is for, in its header (ICC.1:2022, 7.2.6), and the modes of its pictures.
_MODES = {b"RGB ": ("RGB", "RGBA"), b"GRAY": ("L", "LA")}


def in_own_colors(image: Image.Image, icc_profile: bytes | None) -> Image.Image:
    """Return an image in its own colours with their profile in its info, or in sRGB if the profile does not fit it."""
    profile = icc_profile or b""
    fits = image.mode in _MODES.get(profile[16:20], ()) and _is_usable(profile, image.mode)
    kept = image if fits else to_srgb(image, icc_profile)
    info: dict[str | tuple[int, int], Any] = {"icc_profile": profile} if fits else {}
    if kept.info != info:
        kept = kept.copy() if kept is image else kept
        kept.info = info
    return kept


def _is_usable(icc_profile: bytes, mode: str) -> bool:
    try:
        _transform_to_srgb(icc_profile, _opaque(mode))
    except _UNUSABLE:
        return False
    return True


def color_in(image: Image.Image, color: str) -> tuple[int, ...]:
    """Convert a colour to the colour space of an image.

    Args:
        image: An image in mode L, LA, RGB or RGBA, in sRGB or with a profile in `info["icc_profile"]`.
        color: A color as CSS names it: `white`, `#rrggbb`, `#rrggbbaa`, `rgb(1, 2, 3)`, `hsl(...)`.

    Returns:
        Red, green and blue from 0 to 255, and alpha where the colour names one.

    Raises:
        ValueError: There is no such colour.
    """
    red, green, blue, *alpha = ImageColor.getrgb(color)
    pixel = in_colors_of(image, Image.new("RGB", (1, 1), (red, green, blue)))
    return (*pixel.getpixel((0, 0)), *alpha)  # type: ignore[misc]


def in_colors_of(image: Image.Image, other: Image.Image) -> Image.Image:
    """Convert an image to the colour space of another, so that it can be pasted into that.

    The transform is LittleCMS's with perceptual intent (ICC.1:2022), from sRGB to the profile of `image`.

    Args:
        image: An image in mode L, LA, RGB or RGBA, in sRGB or with a profile in `info["icc_profile"]`.
        other: The image to convert, in mode RGB or RGBA and in sRGB.

    Returns:
        The converted image, in mode RGB or RGBA as `other`; `other` itself where `image` is in sRGB.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        return other
    transform = ImageCms.buildTransform(_srgb(), io.BytesIO(profile), "RGB", _opaque(image.mode))
    converted = ImageCms.applyTransform(other.convert("RGB"), transform)
    assert converted is not None
    converted = converted.convert("RGB")
    if other.mode == "RGBA":
        converted.putalpha(other.getchannel("A"))
    return converted


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert an image between the modes L, LA, RGB and RGBA.

    Args:
        image: An image in one of these modes, in sRGB or with a profile in `info["icc_profile"]`.
        mode: The mode to convert to.

    Returns:
        The image in that mode; in sRGB where its profile cannot describe the new mode (a grey profile and RGB). The
        same object if it has the mode already.
    """
    profile = image.info.get("icc_profile")
    if profile and mode not in _MODES.get(profile[16:20], ()):
        image = in_srgb(image)
    return image if image.mode == mode else image.convert(mode)


def in_srgb(image: Image.Image) -> Image.Image:
    """Convert an image to sRGB and empty its `info`.

    Args:
        image: An image in mode L, LA, RGB, RGBA or CMYK, in sRGB or with a profile in `info["icc_profile"]`.

    Returns:
        The image in sRGB, in mode L, LA, RGB or RGBA: greys stay grey, and alpha is kept. The same object if nothing
        changes.
    """
    converted = to_srgb(image, image.info.get("icc_profile"))
    if converted.info:
        converted = converted.copy()
        converted.info = {}
    return converted


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """Return an sRGB profile to embed; its creation date is zeroed, so that its bytes are always the same."""
    whole = bytearray(_srgb().tobytes())
    whole[24:36] = bytes(12)
    return bytes(whole)
