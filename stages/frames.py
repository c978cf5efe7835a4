"""Makes a picture of everything in a file that holds several: a fan-out, of which one is in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

from pipeline import Part, Picture

# Bumped when the same options give other pixels, so that the outputs are redone.
RECIPE = 1


def frames(picture: Picture) -> Iterator[Part[Image.Image]]:
    """Makes a picture of every frame of an animation, page of a TIFF, or picture of an HEIC or MPO.

    Frames are as large as the animation and complete; pages and pictures have sizes of their own. Previews and maps of
    depth or light are no pictures. The pages of a PDF are made by `pages`.

    They are named by their numbers, as `{part}` in the output's path: 0001, 0002 and so on.
    """
    for number, image in enumerate(picture.load_each(), 1):
        yield Part(image, name=f"{number:04}")
