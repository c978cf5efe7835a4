"""The metadata of a camera's picture."""

from __future__ import annotations

from PIL import ExifTags, Image

from support.pictures import paint

UPRIGHT = paint(40, 60)


STORED = UPRIGHT.transpose(Image.Transpose.ROTATE_90)  # what orientation 6 turns upright


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6" dc:title="Title-\xc3\xa9"/></x:xmpmeta>'


LATITUDE = (48.0, 41.0, 3.0)


DATE = "2024:05:06 07:08:09"


def exif_of_a_camera(*, orientation: int = 6) -> Image.Exif:
    """EXIF as a camera writes it, without its thumbnail."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Maker", "Model 1"
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.ImageWidth], exif[ExifTags.Base.ImageLength] = STORED.size
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: LATITUDE}
    camera = exif.get_ifd(ExifTags.IFD.Exif)
    camera[ExifTags.Base.DateTimeOriginal] = DATE
    camera[ExifTags.Base.ExifImageWidth], camera[ExifTags.Base.ExifImageHeight] = STORED.size
    camera[ExifTags.IFD.Interop] = {1: "R98", 4097: STORED.size[0], 4098: STORED.size[1]}
    return exif
