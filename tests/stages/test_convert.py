"""What convert makes of real pictures: the same picture in another format, and nothing lost that this one can hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import ExifTags, Image
from support.animations import durations, moving, plays, scenes, seen
from support.camera import XMP, exif_of_a_camera
from support.pictures import STORED, SWAPPED, decode, encode, mean, paint, saved, worst
from support.project import Project

from pipeline.images.animation import Animation
from pipeline.images.decode import open_picture
from pipeline.notes import collected
from stages.convert import convert


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("suffix", [".png", ".tiff", ".webp"])
def test_no_pixel_is_lost_from_lossless_to_lossless(mode: str, suffix: str) -> None:
    """A picture in a lossless format has the same pixels in another, its transparency too."""
    source = paint(37, 23, mode)
    if "A" in mode:
        source.putalpha(Image.linear_gradient("L").resize(source.size).point(lambda alpha: max(1, alpha)))
    made = convert(open_picture(encode(source, "PNG")))

    written = decode(saved(made, suffix, **({"lossless": True} if suffix == ".webp" else {})))
    assert worst(written.convert(mode), source) == 0


@pytest.mark.parametrize("orientation", STORED)
def test_it_comes_out_upright(orientation: int) -> None:
    """However the file is turned, what is seen is what is made."""
    exif, upright = Image.Exif(), paint(40, 60)
    exif[ExifTags.Base.Orientation] = orientation
    stored = upright.transpose(how) if (how := STORED[orientation]) is not None else upright
    made = convert(open_picture(encode(stored, "PNG", exif=exif)))

    assert worst(made, upright) == 0


def test_it_comes_out_in_srgb() -> None:
    """A profile is applied, not dropped."""
    source = paint(40, 30)
    made = convert(open_picture(encode(source, "PNG", icc_profile=SWAPPED)))

    assert mean(made, source) > 20


def test_an_animation_goes_on_moving() -> None:
    """Every frame, its time, and how often it plays, from GIF to WebP; or the first frame, where that is asked for."""
    source = moving(scenes(), "GIF", duration=[50, 70, 90, 110], loop=2)
    made = convert(open_picture(source))

    written = saved(made, ".webp", lossless=True)
    assert [worst(one, other) for one, other in zip(seen(written), seen(source), strict=True)] == [0] * 4
    assert (durations(written), plays(written)) == ([50, 70, 90, 110], 3)
    with collected() as notes:
        first = convert(open_picture(source), frames="first")
    assert not isinstance(first, Animation) and list(notes) == ["first frame only, of 4"]


YAML = """
inputs: in
stages:
  - {name: kept, uses: convert, output: {path: "out/kept/{stem}.png", save: {color: keep, metadata: [exif, xmp]}}}
  - {name: plain, from: inputs, uses: convert, output: "out/plain/{stem}.jpg"}
  - {name: moved, from: inputs, uses: convert, output: {path: "out/moved/{stem}.webp", save: {lossless: true}}}
engine: serial
"""


def test_in_a_pipeline(tmp_path: Path) -> None:
    """`color: keep` and `metadata` keep what they keep after resize; what the format cannot hold is said."""
    project, source = Project(tmp_path, YAML), paint(60, 40)
    exif = exif_of_a_camera(orientation=1)
    project.write("in/a.webp", encode(source, "WEBP", lossless=True, icc_profile=SWAPPED, exif=exif, xmp=XMP))
    project.write("in/b.gif", moving(scenes(), "GIF"))
    summary = project.run()
    assert (summary.done, summary.failed) == (6, 0)
    made = {name: decode(data) for name, data in project.outputs().items()}

    kept, plain = made["kept/a.png"], made["plain/a.jpg"]
    assert worst(kept, source) == 0 and kept.info["icc_profile"] == SWAPPED
    assert kept.getexif()[ExifTags.Base.Model] == "Model 1" and b"Title" in kept.info["xmp"]
    assert not plain.getexif() and "icc_profile" not in plain.info and mean(plain, source) > 20
    assert [getattr(made[f"{each}.{suffix}"], "n_frames", 1) for each, suffix in (
        ("kept/b", "png"), ("plain/b", "jpg"), ("moved/b", "webp"))] == [1, 1, 4]  # fmt: skip
