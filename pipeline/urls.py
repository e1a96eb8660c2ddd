"""URLs as text: one spelling for each place, and the parts of an S3 URL."""

import os
from string import printable
from urllib.parse import quote


def absolute(url: str) -> str:
    """One spelling a place: `file://`, `~` and relative paths become absolute paths, s3a is s3."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return os.path.abspath(os.path.expanduser(url)) + ("/" if url.endswith("/") and url != "/" else "")
    if scheme == "file":
        return absolute("/" + rest.lstrip("/"))
    return f"s3://{rest}" if scheme in ("s3a", "s3n") else url


def is_local(url: str) -> bool:
    """Is this a path of this machine's file system? Takes an absolute URL."""
    return "://" not in url


def is_s3(url: str) -> bool:
    """Is this an object of S3, or of a store that speaks it?"""
    return url.startswith("s3://")


def bucket_and_key(url: str) -> tuple[str, str]:
    """The two parts of an S3 URL; the key keeps any slashes of its own."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


def as_label(url: str) -> str:
    """Return a URL as the value of a metric's label: Ray takes ASCII alone, so other letters are percent-encoded."""
    return quote(url, safe=printable)
