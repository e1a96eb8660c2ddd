"""Remove passwords, tokens and signatures from texts. All texts of logs, records, tables and pages pass through here."""

import re
from typing import Any

_NAME = (
    r"(?:passw(?:or)?d|(?-i:[A-Z0-9]+_PASS\b|PGPASS\b)|(?:db|user|smtp|ftp|mysql|pg|postgres|redis|proxy|http)[_-]?pass(?![a-z_-])|passphrase|pwd|secret|token|signature|sig|credentials?"
    r"|(?:api|access|account|private|secret|shared|master|storage|encryption)[_-]?key)"
)
SECRET_NAME = re.compile(rf"{_NAME}(?![a-z])", re.I)
"""A pattern found in the name of a setting or variable whose value is a secret."""
_VALUE = r"""(b?\\*"|b?\\*')?(?:(?<=")[^"\\]*|(?<=')[^'\\]*|(?!\{)[^\s&,;)'"\]}\\]+)"""
_QUOTED = r"""\\*["']"""

_SECRETS = tuple(
    (re.compile(pattern, re.I), replaced)
    for pattern, replaced in (
        (r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----[^-]*(?:-----END \1-----|$)", r"***"),
        # A password in a URL may have slashes; text that looks like a port is treated as one.
        (r"(://)[^\s/@:'\"<>]*:(?!\d{1,5}(?:[/\s'\"]|$))[^\s'\"<>]*@", r"\1"),
        (r"(https?://)[^\s/@?#'\"<>]+@", r"\1"),
        (rf"""(authorization{_QUOTED}?\s*[:=]\s*{_QUOTED}?(?:[a-z]+\s+)?)[^\s"',;]+""", r"\1***"),
        (r"(\bbearer\s+)[^\s\"',;]+", r"\1***"),
        # name=value, except in the name of a folder; "name": "value" as in JSON; --name value; and name: value, except after words that are
        # common in sentences.
        (rf"(?<![\w/.-])([\w.-]*{_NAME}{_QUOTED}?\s*=\s*){_VALUE}", r"\1\2***"),
        (rf"({_QUOTED}[\w.-]*{_NAME}{_QUOTED}\s*:\s*){_VALUE}", r"\1\2***"),
        (rf"(--[\w-]*{_NAME}\s+){_VALUE}", r"\1\2***"),
        (
            rf"(\b[\w.-]*(?:passw(?:or)?d|passphrase|secret|(?:api|access|account|private)[_-]?key)\s*:\s*){_VALUE}",
            r"\1\2***",
        ),
    )
)
_HTTP_QUERY = re.compile(r"(https?://[^\s?#'\"<>]*)[?#][^\s'\"<>]*", re.I)


def has_secret(text: str) -> bool:
    """Does a text have something that looks like a secret?"""
    return _without_secrets(text) != text


def redacted(text: str) -> str:
    """Return a text that may be written down. HTTP URLs lose their query, because it may have tokens under any name."""
    return _HTTP_QUERY.sub(r"\1", _without_secrets(text))


def redacted_json(value: Any, name: str = "") -> Any:
    """Return a JSON value that may be written down. Its texts are redacted, or replaced by *** under the name of a secret."""
    match value:
        case str():
            return "***" if SECRET_NAME.search(name) else redacted(value)
        case dict():
            return {key: redacted_json(part, key) for key, part in value.items()}
        case list():
            return [redacted_json(part, name) for part in value]
    return value


def _without_secrets(text: str) -> str:
    for pattern, replaced in _SECRETS:
        text = pattern.sub(replaced, text)
    return text
