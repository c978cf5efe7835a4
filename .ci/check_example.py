"""Checks what the example pipeline has made: every picture, upright, in its format and within its box."""

from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent / "data"


def main() -> None:
    """Compare the outputs with the inputs."""
    inputs = sorted(path for path in (ROOT / "input").rglob("*") if path.is_file())
    assert 12 <= len(inputs) <= 16, inputs
    for source in inputs:
        below = source.relative_to(ROOT / "input")
        check(ROOT / "output" / "web" / below.with_suffix(".webp"), "WEBP", 1600)
        check(ROOT / "output" / "thumb" / below.with_suffix(".jpg"), "JPEG", 200)
    with Image.open(ROOT / "output" / "web" / "summer trip" / "IMG_2041.webp") as turned:
        assert turned.height > turned.width, turned.size


def check(output: Path, name: str, side: int) -> None:
    """One output."""
    with Image.open(output) as picture:
        picture.load()
        assert picture.format == name, (output, picture.format)
        assert max(picture.size) <= side, (output, picture.size)
        assert not picture.getexif(), output


if __name__ == "__main__":
    main()
