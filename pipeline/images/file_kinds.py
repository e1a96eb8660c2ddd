"""The kinds of files that are no pictures we read, recognised by their first bytes, for error messages."""

import re

HEAD_BYTES = 512
"""The number of bytes at a file's beginning that are checked."""
TEXT = frozenset(range(0x20, 0x7F)) | frozenset(b"\t\n\r\f")
"""The bytes of plain text."""
CONVERT = "convert it to JPEG or PNG"

FILE_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (rb".{4}ftyp(heic|heix|hevc|hevx|heim|heis|mif1|msf1|miaf)", "HEIC (a phone's picture)", CONVERT),
    (rb".{4}ftypavi[fs]", "AVIF, of a kind that is not read", CONVERT),
    (rb".{4}ftypcrx ", "a raw camera file (CR3)", CONVERT),
    (rb".{4}ftyp(jp2|jpx|jpm) |\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "JPEG 2000", CONVERT),
    (rb".{4}ftyp(qt|isom|iso\d|mp4\d|M4V|avc1|3gp|dash)", "a video (MP4 or QuickTime)", "extract its frames as JPEG"),
    (rb"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)", "extract its frames as JPEG"),
    (rb"RIFF.{4}AVI ", "a video (AVI)", "extract its frames as JPEG"),
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL", CONVERT),
    (rb"II\xbc\x01", "JPEG XR", CONVERT),
    (rb"8BPS", "a Photoshop file (PSD)", CONVERT),
    (rb"\x00\x00[\x01\x02]\x00[\x01-\xff]\x00", "an icon or cursor (ICO, CUR)", CONVERT),
    (rb"icns", "an icon (ICNS)", CONVERT),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript (EPS)", CONVERT),
    (rb"%PDF-", "a PDF", "export its pages as JPEG or PNG"),
    (rb"gimp xcf", "a GIMP file (XCF)", CONVERT),
    (rb"BPG\xfb", "BPG", CONVERT),
    (rb"P[1-7]\s", "a PNM picture (PBM, PGM, PPM)", CONVERT),
    (rb"#\?(RADIANCE|RGBE)", "a Radiance picture (HDR)", CONVERT),
    (rb"v/1\x01", "OpenEXR", CONVERT),
    (rb"DDS ", "a texture (DDS)", CONVERT),
    (rb"\x80\x2a\x5f\xd7|SDPX|XPDS", "a film scan (Cineon or DPX)", CONVERT),
    (rb"SIMPLE  =", "an astronomer's image (FITS)", CONVERT),
    (rb".{128}DICM", "DICOM", CONVERT),
    (rb"FUJIFILMCCD-RAW|II\x1a\x00\x00\x00HEAPCCDR|IIU\x00|IIRO|MMOR", "a raw camera file", CONVERT),
    (rb"version https://git-lfs\.github\.com", "a Git LFS pointer, not the file itself", "fetch it with git lfs pull"),
    (rb"version https://hawser|/annex/objects/", "a pointer of Git's large files, not the file itself", "fetch the file"),
    (rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!doctype\s+svg[^>]*>\s*)?<svg[\s>]", "a drawing (SVG)", "render it as PNG"),
    (rb"\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)[\s>]", "an HTML page, such as a server's error", "fetch the picture again"),
    (rb"\s*<\?xml", "XML, such as a store's error", "fetch the picture again"),
    (rb"\s*[\[{]\s*[\"\]}\[{]", "JSON, such as a server's error", "fetch the picture again"),
    (rb"PK\x03\x04|PK\x05\x06", "a ZIP archive", "unpack it"),
    (rb"\x1f\x8b", "compressed by gzip", "unpack it"),
    (rb"BZh\d|\xfd7zXZ\x00|\x28\xb5\x2f\xfd|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07", "a compressed file", "unpack it"),
    (rb".{257}ustar", "a tar archive", "unpack it"),
    (rb"PAR1|ARROW1", "a Parquet or Arrow file", "name it as a manifest, or leave it out"),
    (rb"\x00\x05\x16[\x00\x07]\x00\x02\x00\x00", "the shadow file of a Mac (AppleDouble)", "leave it out"),
    (rb"\x00+$", "nothing but zeros", "fetch it again"),
)  # fmt: skip
"""The kinds: a file's beginning as a regular expression, what such a file is, and what to do with it."""


def name_kind(data: bytes) -> str:
    """Return what a file is and what to do with it, or "" if its kind is not known."""
    head = data[:HEAD_BYTES]
    for beginning, name, advice in FILE_KINDS:
        if re.match(beginning, head, re.DOTALL | re.IGNORECASE):
            return f"{name}; {advice}"
    return "text, of no known image format" if head and set(head) <= TEXT else ""
