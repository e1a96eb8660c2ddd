"""Treat URLs as text: one spelling for each place, and the parts of an S3 URL."""

import os
from string import printable
from urllib.parse import quote


def absolute(url: str) -> str:
    """Return the one spelling of a place: `file://`, `~` and relative paths become absolute paths, s3a and s3n become s3."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return os.path.abspath(os.path.expanduser(url)) + ("/" if url.endswith("/") and url != "/" else "")
    if scheme == "file":
        return absolute("/" + rest.lstrip("/"))
    return f"s3://{rest}" if scheme in ("s3a", "s3n") else url


def is_local(url: str) -> bool:
    """Is this absolute URL a path in this machine's file system?"""
    return "://" not in url


def is_s3(url: str) -> bool:
    """Is this an object of S3, or of a store that speaks S3's protocol?"""
    return url.startswith("s3://")


def bucket_and_key(url: str) -> tuple[str, str]:
    """Return the bucket and the key of an S3 URL. The key keeps any slashes of its own."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


def as_label(url: str) -> str:
    """Return a URL as the value of a metric's label. Ray accepts only ASCII, so other letters are percent-encoded."""
    return quote(url, safe=printable)
