"""Changes the format of pictures, and nothing else."""

from __future__ import annotations

from typing import Literal

from PIL import Image

from pipeline import Picture

# Bumped when the same options give other pixels, so that the outputs are redone.
RECIPE = 1


def convert(picture: Picture, *, frames: Literal["all", "first"] = "all") -> Image.Image:
    """Changes the format of a picture, to the one that the output's suffix names.

    The picture goes through whole and upright, with 8 bits a channel, and in sRGB unless the output says `color: keep`.
    What else of it is kept, and how it is compressed, is said under `output.save`.

    `frames` says what becomes of a GIF, WebP, PNG or AVIF that moves: with `all` an output in GIF or WebP moves as
    well, and all frames together must be within `inputs.max_pixels`; with `first` no other is read.
    """
    return picture.load(frames=frames)
