"""Decode text files as people's editors and tools write them."""

import codecs


def decode_text(content: bytes) -> str:
    """Return the text of a file: UTF-8, with a byte order mark or without, or UTF-16 with one.

    Raises:
        UnicodeDecodeError: the file has neither encoding.
    """
    is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_utf_16 else "utf-8-sig")
