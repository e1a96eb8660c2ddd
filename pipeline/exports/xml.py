"""The XML of exports: what it can't hold is left out."""

from xml.etree.ElementTree import Element, indent, tostring


def plain(text: object) -> str:
    """Return a text without control characters and other codes that XML does not have."""
    return "".join(letter for letter in str(text) if letter >= " " and letter not in "\ufffe\uffff")


def as_bytes(node: Element, declaration: bool = False) -> bytes:
    """Return an element as indented UTF-8."""
    indent(node)
    content: bytes = tostring(node, encoding="utf-8", xml_declaration=declaration)
    return content
