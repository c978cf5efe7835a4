"""pipeline/images/color.py and `color: keep`: pictures in their own colours, and the same ones brought to sRGB."""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageCms, ImageOps
from support.pictures import (
    LINEAR_GREY,
    SWAPPED,
    cmyk_profile,
    decode,
    encode,
    gamma,
    icc_profile,
    mean,
    paint,
    saved,
    worst,
    xyz,
)  # fmt: skip
from support.project import Project

from pipeline.errors import ConfigError
from pipeline.images.color import in_own_colors, in_srgb, srgb_profile, to_mode
from pipeline.images.decode import as_plain, open_picture
from pipeline.notes import collected
from pipeline.report.summary import Summary

UNUSABLE = "its colour profile cannot be used: read as sRGB"
KEEPING = [".jpg", ".png", ".webp", ".avif", ".tiff"]


# Primaries much wider than sRGB's, those of ProPhoto RGB (ROMM, ISO 22028-2) by D50.
WIDE = icc_profile(
    b"RGB ",
    rXYZ=xyz(0.7977, 0.2880, 0.0), gXYZ=xyz(0.1352, 0.7119, 0.0), bXYZ=xyz(0.0313, 0.0001, 0.8249),
    rTRC=gamma(1.8), gTRC=gamma(1.8), bTRC=gamma(1.8),
)  # fmt: skip


def by_the_profile(image: Image.Image) -> Image.Image:
    """A picture as a program that manages colours shows it: through its profile, on white."""
    profile = image.info.get("icc_profile")
    opaque = image
    if image.mode in ("LA", "RGBA"):
        opaque = Image.new(image.mode[:-1], image.size, "white")
        opaque.paste(image.convert(image.mode[:-1]), (0, 0), image.getchannel("A"))
    if not profile:
        return opaque.convert("RGB")
    srgb = ImageCms.createProfile("sRGB")
    shown = ImageCms.profileToProfile(opaque, ImageCms.ImageCmsProfile(io.BytesIO(profile)), srgb, outputMode="RGB")
    assert shown is not None
    return shown


def soft(mode: str = "RGB") -> Image.Image:
    """A picture of middling colours, which every space here can hold."""
    return Image.blend(paint(60, 40), Image.new("RGB", (60, 40), (128, 128, 128)), 0.6).convert(mode)


def run(folder: Path, yaml: str, **files: bytes) -> tuple[Summary, dict[str, bytes]]:
    """Run a pipeline over pictures to its end."""
    project = Project(folder, yaml)
    for name, data in files.items():
        project.write(f"in/{name}.bin", data)
    summary = project.run()
    assert not summary.failures
    return summary, project.outputs()


def both(suffix: str, *, size: str = "width: 30", save: str = "") -> str:
    """Two stages beside each other: one keeps the colours and one does not."""
    quality = {".jpg": "quality: 97, ", ".webp": "lossless: true, ", ".avif": "quality: 97, "}.get(suffix, "") + save
    return f"""
inputs: in
stages:
  - name: kept
    uses: resize
    with: {{{size}}}
    output: {{path: 'out/kept/{{stem}}{suffix}', save: {{{quality}color: keep}}}}
  - name: srgb
    from: inputs
    uses: resize
    with: {{{size}}}
    output: {{path: 'out/srgb/{{stem}}{suffix}', save: {{{quality}color: srgb}}}}
engine: serial
"""


# -- color: keep, through whole pipelines ------------------------------------------------------------------------------

PALETTE = soft().quantize(64)
SOURCES: dict[str, tuple[bytes, bytes | None]] = {
    "wide RGB in JPEG": (encode(soft(), "JPEG", quality=95, icc_profile=WIDE), WIDE),
    "wide RGB in PNG": (encode(soft(), "PNG", icc_profile=WIDE), WIDE),
    "wide RGB in WebP": (encode(soft(), "WEBP", icc_profile=WIDE), WIDE),
    "wide RGB in AVIF": (encode(soft(), "AVIF", icc_profile=WIDE), WIDE),
    "wide RGB in TIFF": (encode(soft(), "TIFF", icc_profile=WIDE), WIDE),
    "wide RGBA": (encode(soft("RGBA"), "PNG", icc_profile=WIDE), WIDE),
    "swapped": (encode(soft(), "PNG", icc_profile=SWAPPED), SWAPPED),
    "palette": (encode(PALETTE, "PNG", icc_profile=WIDE), WIDE),
    "sRGB": (encode(soft(), "PNG", icc_profile=srgb_profile()), srgb_profile()),
    "grey": (encode(soft("L"), "PNG", icc_profile=LINEAR_GREY), LINEAR_GREY),
    "none": (encode(soft(), "PNG"), None),
    "CMYK": (encode(soft("CMYK"), "TIFF", icc_profile=cmyk_profile()), None),
    "CMYK in JPEG": (encode(soft("CMYK"), "JPEG", quality=95), None),
    "of another mode": (encode(soft(), "PNG", icc_profile=LINEAR_GREY), None),
}


@pytest.mark.parametrize("suffix", KEEPING)
def test_kept_colours_look_like_the_converted_ones(tmp_path: Path, suffix: str) -> None:
    """Whatever the source: shown through the profile it carries, what kept its colours is what was brought to sRGB."""
    files = {name.replace(" ", "_"): data for name, (data, _) in SOURCES.items()}
    _, outputs = run(tmp_path, both(suffix), **files)
    for name in files:
        kept, srgb = (decode(outputs[f"{which}/{name}{suffix}"]) for which in ("kept", "srgb"))
        assert "icc_profile" not in srgb.info, name
        assert mean(by_the_profile(kept), by_the_profile(srgb)) < 5, name


@pytest.mark.parametrize("suffix", KEEPING)
def test_the_profile_of_the_source_is_in_what_keeps_its_colours(tmp_path: Path, suffix: str) -> None:
    """The profile is the source's byte for byte, and the pixels are its own, not converted ones."""
    files = {name.replace(" ", "_"): data for name, (data, _) in SOURCES.items()}
    _, outputs = run(tmp_path, both(suffix), **files)
    for name, (data, profile) in SOURCES.items():
        kept = decode(outputs[f"kept/{name.replace(' ', '_')}{suffix}"])
        if name == "grey" and suffix in (".webp", ".avif"):  # these have no grey: it is sRGB as well
            assert "icc_profile" not in kept.info and kept.mode == "RGB"
            continue
        assert kept.info.get("icc_profile") == profile, name
        if profile is not None:
            own = decode(data).convert("RGB").resize((30, 20), Image.Resampling.LANCZOS)
            assert mean(kept.convert("RGB"), own) < 5, name


def test_the_primaries_are_seen() -> None:
    """The profile of these tests is wide enough for its mistakes to be seen: unconverted, a green is far off."""
    green = Image.new("RGB", (4, 4), (90, 160, 90))
    green.info["icc_profile"] = WIDE

    assert mean(by_the_profile(green), green) > 25


@pytest.mark.parametrize("profile", [
    pytest.param(b"nonsense", id="nonsense"), pytest.param(b"\0" * 400, id="zeros"),
    pytest.param(SWAPPED[:150], id="cut-off"), pytest.param(WIDE[:20], id="only a header"),
    pytest.param(WIDE[:128] + b"\xff" * 300, id="no tags"), pytest.param(icc_profile(b"RGB "), id="without curves"),
])  # fmt: skip
@pytest.mark.parametrize("which", ["kept", "srgb"])
def test_a_broken_profile_is_noted_and_left_behind(tmp_path: Path, profile: bytes, which: str) -> None:
    """A profile that nobody can use is not passed on; the output says so, in the summary and in the log."""
    yaml = both(".png")
    summary, outputs = run(tmp_path, yaml, a=encode(soft(), "PNG", icc_profile=profile))
    image = decode(outputs[f"{which}/a.png"])
    (log,) = (tmp_path / ".pipeline").rglob("*.log")

    assert "icc_profile" not in image.info
    assert f"a.bin ({which}): {UNUSABLE}" in log.read_text()
    assert summary.remarks[UNUSABLE] == 2


def test_of_siblings_every_one_has_the_note(tmp_path: Path) -> None:
    """One decoded picture for all: the second who reads its broken profile says so as the first does."""
    yaml = both(".png").replace("color: srgb", "color: keep").replace("width: 30", "width: 60")
    summary, _ = run(tmp_path, yaml, a=encode(soft(), "PNG", icc_profile=b"nonsense"))

    assert summary.remarks[UNUSABLE] == 2


@pytest.mark.parametrize("background", ["white", "black", "'#c04040'", "'#40c04080'", "gray"])
@pytest.mark.parametrize("name", ["wide RGB in PNG", "wide RGBA", "swapped", "grey", "palette"])
def test_contain_pads_with_the_same_colour(tmp_path: Path, name: str, background: str) -> None:
    """The background is a CSS colour, which is in sRGB: in the source's colours it is still that colour."""
    yaml = both(".png", size=f"width: 40, height: 40, fit: contain, background: {background}")
    _, outputs = run(tmp_path, yaml, a=SOURCES[name][0])
    kept, srgb = (by_the_profile(decode(outputs[f"{which}/a.png"])) for which in ("kept", "srgb"))

    assert kept.size == srgb.size == (40, 40)
    # What is half transparent is mixed with the white behind it in one space and in the other.
    limit = 20 if len(background) > len("'#c04040'") else 6
    assert worst(kept.crop((0, 0, 40, 4)), srgb.crop((0, 0, 40, 4))) <= limit
    assert mean(kept, srgb) < (8 if limit > 6 else 4)


@pytest.mark.parametrize("suffix", KEEPING)
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_the_same_colour(tmp_path: Path, suffix: str, mode: str) -> None:
    """`background` under save is a CSS colour as well, whatever the colours of the picture laid on it."""
    image = soft(mode)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    profile = WIDE if mode == "RGBA" else LINEAR_GREY
    yaml = both(suffix, save="background: '#c04040', ")
    _, outputs = run(tmp_path, yaml, a=encode(image, "PNG", icc_profile=profile))
    kept, srgb = (by_the_profile(decode(outputs[f"{which}/a{suffix}"])) for which in ("kept", "srgb"))

    # Half transparent pixels are mixed in one space and in the other: that much may differ.
    assert worst(kept.crop((0, 0, 30, 1)), srgb.crop((0, 0, 30, 1))) <= 12
    assert mean(kept, srgb) < 8


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("suffix", KEEPING)
def test_the_profile_of_srgb_fits_the_mode(mode: str, suffix: str) -> None:
    """A profile is for the channels the file has: grey takes none for RGB (PNG 3rd ed., 11.3.2.3)."""
    image = decode(saved(paint(9, 9, mode), suffix, metadata=frozenset(["icc"])))
    profile = image.info.get("icc_profile")

    if profile is not None:
        assert profile[16:20] == (b"GRAY" if image.mode == "L" else b"RGB ")
    else:
        assert image.mode == "L"


# -- above and below each other ----------------------------------------------------------------------------------------

CASCADE = """
inputs: in
stages:
  - name: web
    uses: resize
    with: {width: 40}
    output: {path: 'out/web/{stem}.png', save: {color: WEB}}
  - name: thumb
    from: web
    uses: resize
    with: {width: 20}
    output: {path: 'out/thumb/{stem}.png', save: {color: THUMB}}
engine: serial
"""


def cascade(web: str, thumb: str) -> str:
    return CASCADE.replace("WEB", web).replace("THUMB", thumb)


@pytest.mark.parametrize("web", ["srgb", "keep"])
@pytest.mark.parametrize("thumb", ["srgb", "keep"])
@pytest.mark.parametrize("name", ["wide RGB in JPEG", "wide RGBA", "grey", "swapped"])
def test_colours_in_a_cascade(tmp_path: Path, web: str, thumb: str, name: str) -> None:
    """Each output has the colours it says, and the same look as without `keep`; what is lost above cannot be kept."""
    data, profile = SOURCES[name]
    if (web, thumb) == ("srgb", "keep"):
        with pytest.raises(ConfigError, match=r"12:.*'color: keep' finds the picture in sRGB, made by 'web'"):
            run(tmp_path, cascade(web, thumb), a=data)
        return
    _, outputs = run(tmp_path, cascade(web, thumb), a=data)
    (tmp_path / "plain").mkdir()
    _, plain = run(tmp_path / "plain", cascade("srgb", "srgb"), a=data)
    for stage, color in (("web", web), ("thumb", thumb)):
        image = decode(outputs[f"{stage}/a.png"])
        assert image.info.get("icc_profile") == (profile if color == "keep" else None)
        assert mean(by_the_profile(image), by_the_profile(decode(plain[f"{stage}/a.png"]))) < 3


IMAGE_STAGES = '''
from PIL import Image
from pipeline import Picture

def same(image: Image.Image) -> Image.Image:
    """Give on a picture."""
    return image

def whole(picture: Picture) -> Image.Image:
    """Decode a picture."""
    return picture.load()

def moving(picture: Picture) -> Image.Image:
    """Decode a picture with all its frames."""
    return picture.load(frames="all")

def is_wide(image: Image.Image) -> bool:
    """Leave out what is not wider than high."""
    return image.width > image.height

def is_large(picture: Picture) -> bool:
    """Leave out what is tiny."""
    return picture.size[0] > 9
'''


def with_stages(folder: Path) -> None:
    (folder / "stages").mkdir()
    (folder / "stages" / "images.py").write_text(IMAGE_STAGES)


def stages(*lines: str) -> str:
    return "inputs: in\nstages:\n" + "".join(f"  - {{{line}}}\n" for line in lines) + "engine: serial\n"


KEEP = "output: {path: 'out/{stem}.png', save: {color: keep}}"


def test_a_stage_over_images_cannot_keep_colours(tmp_path: Path) -> None:
    """What takes an Image.Image is given sRGB: to say `keep` there is an error, at its place."""
    with_stages(tmp_path)
    line = f"name: a, uses: ./stages/images.py:same, {KEEP}"
    with pytest.raises(ConfigError) as refused:
        run(tmp_path, stages(line))

    column = f"  - {{{line}}}".index("keep}") + 1
    assert f"pipeline.yaml:3:{column}: stage 'a': 'color: keep' cannot be" in str(refused.value)


def test_an_image_stage_below_one_that_keeps_is_in_srgb(tmp_path: Path) -> None:
    """A stage over Image.Image is never shown colours that are not sRGB, whatever is kept above it."""
    with_stages(tmp_path)
    yaml = stages(
        "name: a, uses: resize, with: {width: 60}, output: {path: 'out/a/{stem}.png', save: {color: keep}}",
        "name: b, from: a, uses: ./stages/images.py:same, output: 'out/b/{stem}.png'",
    )
    _, outputs = run(tmp_path, yaml, a=SOURCES["swapped"][0])
    kept, srgb = decode(outputs["a/a.png"]), decode(outputs["b/a.png"])

    assert kept.tobytes() == soft().tobytes() and "icc_profile" not in srgb.info
    assert worst(by_the_profile(kept), srgb) <= 2


def test_an_image_stage_in_between_loses_the_colours(tmp_path: Path) -> None:
    """A stage without an output is asked for colours by what is below it; one over Image.Image has none to give."""
    with_stages(tmp_path)
    yaml = stages("name: a, uses: ./stages/images.py:same", f"name: b, uses: resize, with: {{width: 9}}, {KEEP}")
    with pytest.raises(ConfigError, match=r"stage 'a': 'color: keep' cannot be, since it takes an Image.Image"):
        run(tmp_path, yaml)


def test_a_picture_stage_in_between_keeps_the_colours(tmp_path: Path) -> None:
    """A stage without an output keeps what one below it keeps; its sibling below gets sRGB."""
    with_stages(tmp_path)
    yaml = stages(
        "name: a, uses: ./stages/images.py:whole",
        "name: b, from: a, uses: resize, with: {width: 30}, output: {path: 'out/b/{stem}.png', save: {color: keep}}",
        "name: c, from: a, uses: resize, with: {width: 30}, output: 'out/c/{stem}.png'",
    )
    _, outputs = run(tmp_path, yaml, a=SOURCES["wide RGB in PNG"][0])
    kept, srgb = decode(outputs["b/a.png"]), decode(outputs["c/a.png"])

    assert kept.info["icc_profile"] == WIDE and "icc_profile" not in srgb.info
    assert mean(by_the_profile(kept), srgb) < 3


@pytest.mark.parametrize("uses", ["is_wide", "is_large"])
@pytest.mark.parametrize("above", [True, False])
def test_a_filter_takes_no_colours_away(tmp_path: Path, uses: str, above: bool) -> None:
    """What passes a filter is as it was before it: one that looks at pixels in sRGB loses nobody's colours."""
    with_stages(tmp_path)
    lines = [f"name: f, uses: ./stages/images.py:{uses}", f"name: b, uses: resize, with: {{width: 30}}, {KEEP}"]
    if above:
        lines.insert(0, "name: a, uses: ./stages/images.py:whole")
    _, outputs = run(tmp_path, stages(*lines), a=SOURCES["wide RGB in PNG"][0])

    assert decode(outputs["a.png"]).info["icc_profile"] == WIDE


def test_an_animation_keeps_its_colours_and_its_time(tmp_path: Path) -> None:
    """All frames in the source's own colours, each shown as long as before and played as often."""
    with_stages(tmp_path)
    frames = [soft(), ImageOps.flip(soft()), ImageOps.mirror(soft())]
    options: dict[str, Any] = {"save_all": True, "append_images": frames[1:], "duration": [70, 90, 110], "loop": 3}
    source = encode(frames[0], "WEBP", lossless=True, icc_profile=WIDE, **options)
    bare = encode(frames[0], "WEBP", lossless=True, **options)
    save = "save: {color: keep, lossless: true}"
    for uses in ("./stages/images.py:moving", "resize, with: {width: 60, frames: all}"):
        yaml = stages(f"name: a, uses: {uses}, output: {{path: 'out/{{stem}}.webp', {save}}}")
        folder = tmp_path / uses[:3].strip("./")
        folder.mkdir()
        with_stages(folder)
        _, outputs = run(folder, yaml, a=source, b=bare)
        for name, profile in (("a", WIDE), ("b", None)):
            image = Image.open(io.BytesIO(outputs[f"{name}.webp"]))
            assert (image.n_frames, image.info["loop"]) == (3, 3)  # type: ignore[attr-defined]
            assert image.info.get("icc_profile") == profile
            for number, duration_ms in enumerate((70, 90, 110)):
                image.seek(number)
                image.load()
                assert image.info["duration"] == duration_ms
                assert image.convert("RGB").tobytes() == frames[number].tobytes()


# -- what is redone ----------------------------------------------------------------------------------------------------


def test_the_colours_of_a_parent_count_only_where_they_are_kept(tmp_path: Path) -> None:
    """Changing `color` above redoes what is below; saying outright what is the default redoes nothing."""
    project = Project(tmp_path, cascade("srgb", "srgb").replace(", save: {color: srgb}", "", 1))
    project.write("in/a.png", SOURCES["wide RGB in PNG"][0])
    project.run()

    project.write("pipeline.yaml", cascade("srgb", "srgb"))
    assert {action for action, _ in project.plan().values()} == {"up-to-date"}
    project.write("pipeline.yaml", cascade("keep", "srgb"))
    planned = project.plan()
    assert {name: action for name, (action, _) in planned.items()} == {"web a.png": "make", "thumb a.png": "make"}
    assert "color" in planned["thumb a.png"][1] and re.search("srgb -> keep|keep", planned["web a.png"][1])
    project.run()
    project.write("pipeline.yaml", cascade("srgb", "srgb"))
    assert {action for action, _ in project.plan().values()} == {"make"}


# -- colours.py itself -------------------------------------------------------------------------------------------------


def tagged(mode: str, profile: bytes | None) -> Image.Image:
    image = soft(mode)
    image.info = {"icc_profile": profile} if profile else {}
    return image


@pytest.mark.parametrize("have", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("want", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("profile", [None, WIDE, LINEAR_GREY])
def test_to_mode_keeps_the_look(have: str, want: str, profile: bytes | None) -> None:
    """Between any two modes the picture looks as it did, as far as greys can; its profile is one for its mode."""
    if profile and (profile is WIDE) != have.startswith("RGB"):
        return
    image = tagged(have, profile)
    before = image.tobytes()
    made = to_mode(image, want)

    assert made.mode == want and image.tobytes() == before and image.info.get("icc_profile") == profile
    kept = made.info.get("icc_profile")
    assert kept is None or kept[16:20] == (b"RGB " if want.startswith("RGB") else b"GRAY")
    expected = by_the_profile(image).convert("L").convert("RGB") if want[0] == "L" else by_the_profile(image)
    assert mean(by_the_profile(made), expected) < 4
    if have.endswith("A") and want.endswith("A"):
        assert made.getchannel("A").tobytes() == image.getchannel("A").tobytes()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize(
    "profile", [None, WIDE, SWAPPED, LINEAR_GREY, cmyk_profile(), srgb_profile(), b"", b"x", SWAPPED[:150]]
)
def test_in_own_colors_and_in_srgb(mode: str, profile: bytes | None) -> None:
    """Nothing but a usable profile stays beside the pixels; both look alike; their source is left as it was."""
    image = soft(mode)
    image.info = {"comment": b"x", "duration": 70}
    if profile is not None:
        image.info["icc_profile"] = profile
    before, info = image.tobytes(), dict(image.info)

    own = in_own_colors(image, profile)
    assert image.info == info
    assert set(own.info) <= {"icc_profile"} and own.mode in ("L", "LA", "RGB", "RGBA")
    assert (image.tobytes(), image.info) == (before, info)
    srgb = in_srgb(image)
    assert not srgb.info and srgb.mode == own.mode
    assert (image.tobytes(), image.info) == (before, info)
    assert mean(by_the_profile(own), by_the_profile(srgb)) < 3
    again = in_srgb(own)
    assert not again.info and again.tobytes() == srgb.tobytes()


def test_the_same_picture_can_be_loaded_in_both_ways() -> None:
    """One opened picture serves a stage that keeps the colours and one that does not, in any order, with its notes."""
    for profile in (WIDE, b"nonsense", LINEAR_GREY, None):
        picture = open_picture(encode(soft(), "PNG", icc_profile=profile))
        seen = []
        for own in (True, False, True, False):
            picture.own_colors = own
            with collected() as notes:
                seen.append((picture.load().tobytes(), tuple(notes)))
        assert seen[0] == seen[2] and seen[1] == seen[3], profile


def test_srgb_profile_is_srgb() -> None:
    """It is one that every program can read, changes nothing, and has no date in it."""
    profile = srgb_profile()
    image = tagged("RGB", profile)

    assert profile is srgb_profile() and profile[24:36] == bytes(12)
    assert struct.unpack(">I", profile[:4]) == (len(profile),) and profile[36:40] == b"acsp"
    assert ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).startswith("sRGB")
    assert worst(by_the_profile(image), soft()) <= 1
    assert in_srgb(image).tobytes() == soft().tobytes()


def test_a_name_makes_no_srgb() -> None:
    """A profile whose name begins as sRGB's does, but whose curve is linear, is converted like any other."""
    text = b"sRGB-elle-V2-g10.icc\0"
    linear = icc_profile(
        b"RGB ", desc=struct.pack(">4s4xI", b"desc", len(text)) + text + bytes(78),
        rXYZ=xyz(0.4360, 0.2225, 0.0139), gXYZ=xyz(0.3851, 0.7169, 0.0971), bXYZ=xyz(0.1431, 0.0606, 0.7139),
        rTRC=gamma(1.0), gTRC=gamma(1.0), bTRC=gamma(1.0),
    )  # fmt: skip
    image = Image.new("RGB", (4, 4), (55, 55, 55))
    image.info["icc_profile"] = linear

    assert 120 < in_srgb(image).getpixel((0, 0))[0] < 136


def test_an_image_of_a_stage_keeps_the_profile_it_carries() -> None:
    """As plain as all, in its own colours: a palette and sixteen bits come with the profile they had."""
    palette = PALETTE.copy()
    palette.info = {"icc_profile": WIDE, "transparency": 3, "comment": b"x"}
    plain = as_plain(palette, own_colors=True)

    assert plain.mode == "RGBA" and plain.info == {"icc_profile": WIDE}
    assert as_plain(palette).info == {}
