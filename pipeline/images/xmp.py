"""Prunes XMP packets of what an output makes untrue, and reads the credits in them (ISO 16684-1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from xml.etree import ElementTree

# The usual prefixes, for packets that use one without declaring it.
_PREFIXES = {
    "apdi": "http://ns.apple.com/pixeldatainfo/1.0/", "crs": "http://ns.adobe.com/camera-raw-settings/1.0/",
    "Container": "http://ns.google.com/photos/1.0/container/", "dc": "http://purl.org/dc/elements/1.1/",
    "exif": "http://ns.adobe.com/exif/1.0/", "GAudio": "http://ns.google.com/photos/1.0/audio/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/", "GDepth": "http://ns.google.com/photos/1.0/depthmap/",
    "GImage": "http://ns.google.com/photos/1.0/image/", "GPano": "http://ns.google.com/photos/1.0/panorama/",
    "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/", "HDRGainMap": "http://ns.apple.com/HDRGainMap/1.0/",
    "Item": "http://ns.google.com/photos/1.0/container/item/", "MP": "http://ns.microsoft.com/photo/1.2/",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/", "tiff": "http://ns.adobe.com/tiff/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/", "xmpGImg": "http://ns.adobe.com/xap/1.0/g/img/",
    "xmpNote": "http://ns.adobe.com/xmp/note/", "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
}  # fmt: skip
# What begins the names of schemas of which nothing is true of the output: how a raw was developed and cropped, where in
# the file a film, a depth map or a gain map lies, and the places of faces in the source's pixels.
_OF_THE_SOURCE = (
    *(_PREFIXES[prefix] for prefix in ("crs", "hdrgm", "mwg-rs", "MP", "xmpGImg", "xmpNote")),
    "http://ns.apple.com/", "http://ns.google.com/photos/", "http://ns.adobe.com/hdr-metadata/",
)  # fmt: skip
# Single properties that are not true of it: sizes, layout, colours, previews, the format.
_UNTRUE = {
    _PREFIXES["dc"]: ("format",),
    _PREFIXES["photoshop"]: ("ColorMode", "ICCProfile"),
    _PREFIXES["xmp"]: ("Thumbnails",),
    _PREFIXES["tiff"]: (
        "BitsPerSample", "Compression", "ImageLength", "ImageWidth", "NativeDigest", "PhotometricInterpretation",
        "PlanarConfiguration", "PrimaryChromaticities", "ReferenceBlackWhite", "ResolutionUnit", "SamplesPerPixel",
        "TransferFunction", "WhitePoint", "XResolution", "YCbCrCoefficients", "YCbCrPositioning", "YCbCrSubSampling",
        "YResolution",
    ),
    _PREFIXES["exif"]: (
        "ColorSpace", "ComponentsConfiguration", "CompressedBitsPerPixel", "Gamma", "MakerNote", "NativeDigest",
        "PixelXDimension", "PixelYDimension", "SubjectArea", "SubjectLocation",
    ),
}  # fmt: skip
# Of a panorama, how it is projected stays true, and how many pixels it has does not.
_PANORAMA = _PREFIXES["GPano"]
_POSITION = re.compile(r"gps|(absolute|relative)?(altitude|latitude|longitude)$", re.IGNORECASE)

_TAG = re.compile(r"<(/?)([\w.-]+:[\w.-]+)((?:[^<>\"']|\"[^\"<]*\"|'[^'<]*')*)>")
_ATTRIBUTE = re.compile(r"(\s+)([\w.-]+):([\w.-]+)(\s*=\s*)(\"[^\"]*\"|'[^']*')")
_ORIENTATION = re.compile(r"(:Orientation\s*(?:=\s*[\"']|>\s*))[1-8]")


def pruned(packet: bytes, *, keeps_positions: bool) -> bytes:
    """Return a packet without the properties that are true of the source only; the picture is said to be upright.

    Every other byte stays. Positions, such as exif:GPSLatitude, go as well unless they are asked for.

    Args:
        packet: An XMP packet, well-formed or not.
        keeps_positions: Whether positions on the globe stay.

    Returns:
        The packet; in UTF-8 if it was in UTF-16.
    """
    text = _decoded(packet)
    schemas = _PREFIXES | dict(re.findall(r"xmlns:([\w.-]+)\s*=\s*[\"']([^\"']*)", text))
    kept = "".join(_kept(text, _dropping(schemas, keeps_positions)))
    return _ORIENTATION.sub(r"\g<1>1", kept).encode("utf-8", "surrogateescape")


def _decoded(packet: bytes) -> str:
    if packet[:2] in (b"\xff\xfe", b"\xfe\xff") or b"<\0" in packet[:4] or b"\0<" in packet[:4]:
        order = "utf-16-be" if packet[:2] == b"\xfe\xff" or b"\0<" in packet[:4] else "utf-16-le"
        return packet.decode(order, "replace").removeprefix("\ufeff")
    return packet.decode("utf-8", "surrogateescape")


def _dropping(schemas: Mapping[str, str], keeps_positions: bool) -> Callable[[str, str], bool]:
    """Return a function that tells by its prefix and name whether a property goes."""

    def is_dropped(prefix: str, name: str) -> bool:
        if prefix == "xmlns":
            return _is_of_the_source(schemas.get(name, ""))
        schema = schemas.get(prefix, "")
        if schema == _PANORAMA:
            return name.endswith("Pixels")
        is_untrue = _is_of_the_source(schema) or name in _UNTRUE.get(schema, ())
        return is_untrue or (not keeps_positions and _POSITION.match(name) is not None)

    return is_dropped


def _kept(text: str, is_dropped: Callable[[str, str], bool]) -> Iterator[str]:
    """Yield the pieces of a packet that stay."""

    def kept_attribute(found: re.Match[str]) -> str:
        return "" if is_dropped(found[2], found[3]) else found[0]

    at, within, depth = 0, "", 0
    for tag in _TAG.finditer(text):
        closes, name, attributes = tag.groups()
        has_end = not attributes.endswith("/")
        if within:  # an element that goes, until it ends
            if name == within and has_end:
                depth += -1 if closes else 1
            within = within if depth else ""
        else:
            yield text[at : tag.start()]
            if not is_dropped(*name.split(":", 1)):
                yield f"<{closes}{name}{_ATTRIBUTE.sub(kept_attribute, attributes)}>"
            elif has_end and not closes:
                within, depth = name, 1
        at = tag.end()
    if not within:
        yield text[at:]


def _is_of_the_source(schema: str) -> bool:
    return schema.startswith(_OF_THE_SOURCE) and schema != _PANORAMA


# -- credits -----------------------------------------------------------------------------------------------------------

_RDF, _DC, _RIGHTS = "http://www.w3.org/1999/02/22-rdf-syntax-ns#", _PREFIXES["dc"], _PREFIXES["xmpRights"]
_PHOTOSHOP, _XML = _PREFIXES["photoshop"], "http://www.w3.org/XML/1998/namespace"
_META = "adobe:ns:meta/"
_PLUS, _CC = "http://ns.useplus.org/ldf/xmp/1.0/", "http://creativecommons.org/ns#"
_WRITTEN = {"x": _META, "rdf": _RDF, "dc": _DC, "xmpRights": _RIGHTS, "photoshop": _PHOTOSHOP, "plus": _PLUS, "cc": _CC}
CREATOR, RIGHTS, CREDIT = f"{{{_DC}}}creator", f"{{{_DC}}}rights", f"{{{_PHOTOSHOP}}}Credit"
"""The names of the author, the copyright notice and the credit line, as ElementTree has them."""
_CREDITS = frozenset(
    [CREATOR, RIGHTS, CREDIT, f"{{{_PHOTOSHOP}}}AuthorsPosition", f"{{{_PHOTOSHOP}}}Source"]
    + [f"{{{_RIGHTS}}}{name}" for name in ("Certificate", "Marked", "Owner", "UsageTerms", "WebStatement")]
    + [f"{{{_PLUS}}}{name}" for name in ("CopyrightOwner", "CreditLineRequired", "ImageCreator", "Licensor")]
    + [f"{{{_CC}}}{name}" for name in ("attributionName", "attributionURL", "license", "morePermissions")]
)
Properties = dict[str, ElementTree.Element]
"""Properties by their names, as ElementTree has them."""


def credits_in(packet: bytes) -> Properties:
    """Return the properties of a packet that say who made the picture, and on which terms; none of a broken packet."""
    text = _decoded(packet)
    if "<!" in text.replace("<!--", ""):  # entities, which no packet has
        return {}
    try:
        root = ElementTree.fromstring(re.sub(r"^\s*(<\?xpacket[^>]*\?>)?", "", text))
    except (ElementTree.ParseError, ValueError):
        return {}
    found: Properties = {}
    for description in root.iter(f"{{{_RDF}}}Description"):
        for name, value in description.attrib.items():
            if name in _CREDITS:
                found.setdefault(name, text_property(name, value))
        for element in description:
            if element.tag in _CREDITS:
                found.setdefault(element.tag, element)
    return found


def list_of(name: str, values: list[str], kind: str = "Seq") -> ElementTree.Element:
    """Return a property that is a list of texts; `kind` is rdf's name of the kind of list, Alt for languages."""
    element = ElementTree.Element(name)
    container = ElementTree.SubElement(element, f"{{{_RDF}}}{kind}")
    for value in values:
        item = ElementTree.SubElement(
            container, f"{{{_RDF}}}li", {f"{{{_XML}}}lang": "x-default"} if kind == "Alt" else {}
        )
        item.text = value
    return element


def text_property(name: str, value: str) -> ElementTree.Element:
    """Return a property that is one text."""
    element = ElementTree.Element(name)
    element.text = value
    return element


def texts_of(element: ElementTree.Element) -> list[str]:
    """Return the texts of a property, whether it is a list or one text."""
    items = [item.text or "" for item in element.iter(f"{{{_RDF}}}li")] or [element.text or ""]
    return [text.strip() for text in items if text.strip()]


def packet_of(properties: Properties) -> bytes:
    """Return an XMP packet of these properties, in the order of their names."""
    for prefix, schema in _WRITTEN.items():
        ElementTree.register_namespace(prefix, schema)
    root = ElementTree.Element(f"{{{_META}}}xmpmeta")
    about = {f"{{{_RDF}}}about": ""}
    description = ElementTree.SubElement(
        ElementTree.SubElement(root, f"{{{_RDF}}}RDF"), f"{{{_RDF}}}Description", about
    )
    for name in sorted(properties):
        properties[name].tail = None
        description.append(properties[name])
    body: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=False)
    return b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>' + body + b'<?xpacket end="r"?>'
