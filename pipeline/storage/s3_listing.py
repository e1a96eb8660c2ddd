"""List all objects below a prefix of S3, page by page, many ranges of keys at once.

S3 lists in the order of keys, and only one page after the other. But a listing may start after any text, whether there is such a key
or not. So the rest of a range is cut anywhere, and each part is listed by itself. Whenever parts are done, others are cut again.
A part without keys costs one request, and its neighbour has become narrower, so that cuts soon find where the keys are.
"""

from bisect import bisect_left
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import cache
from itertools import takewhile
from os.path import commonprefix
from typing import Any

from botocore.exceptions import ClientError
from s3fs.errors import translate_boto_error

from pipeline.storage import s3
from pipeline.storage.s3_page import Page, page_of, parse_early

PAGE = 1000
NUM_RANGES = 16
NUM_TRIES = 5
"""The number of requests whose answers may be cut off. botocore repeats all others by itself."""
KEY_BYTES = 1024
"""The longest key of S3, in UTF-8."""


@dataclass(frozen=True)
class Range:
    """The keys of a prefix that come after `after`, up to and including `upto`. If `upto` is None, the range has no end."""

    bucket: str
    prefix: str
    after: str = ""
    upto: str | None = None


def walk(bucket: str, prefix: str) -> Iterator[Page]:
    """Yield each object below a prefix once, in pages, in no set order.

    Raises:
        OSError, botocore.exceptions.BotoCoreError: a request failed.
    """
    characters: set[str] = set()
    with ThreadPoolExecutor(NUM_RANGES, thread_name_prefix="list") as threads:
        whole = Range(bucket, prefix)
        pending: dict[Future[Page], Range] = {threads.submit(_list, whole): whole}
        while pending:
            done = wait(pending, return_when=FIRST_COMPLETED).done
            listed = [(future.result(), pending.pop(future)) for future in done]
            parts = [replace(keys, after=page.keys[-1]) for page, keys in listed if page.is_truncated]
            num_free = NUM_RANGES - len(pending) - len(parts)
            if parts and num_free > 0:
                characters.update(*(key for page, _ in listed for key in page.keys))
                parts[:1] = cut(parts[0], "".join(sorted(filter(str.isprintable, characters))), num_free + 1)
            pending |= {threads.submit(_list, part): part for part in parts}
            yield from (page for page, _ in listed)


@cache
def client() -> Any:
    """Return the client of this process, whose answers hold a `Page` or are botocore's. It works in the threads that ask; s3fs has a single one."""
    # The mode "standard" counts the retries of all threads together: 16 of them gave up after 37 s without a server.
    retries = {"mode": "legacy", "total_max_attempts": 9}
    made = s3.access().client(retries=retries, connect_timeout=5, read_timeout=15, max_pool_connections=NUM_RANGES)
    # A listener of this name precedes botocore's own, which parses each answer to see whether it is an error.
    made.meta.events.register("before-parse.*.ListObjectsV2", parse_early)
    return made


def _list(keys: Range) -> Page:
    """Return the first page of a range. It is truncated if the range has more keys."""
    request = {"Bucket": keys.bucket, "Prefix": keys.prefix, "MaxKeys": PAGE}
    if keys.after:
        request["StartAfter"] = keys.after
    if s3.access().requester_pays:
        request["RequestPayer"] = "requester"
    page = _ask(request)
    while page.token and not page.keys:  # the store has looked at deleted keys alone
        page = _ask(request | {"ContinuationToken": page.token})
    return page.upto(keys.upto)


def _ask(request: dict[str, Any]) -> Page:
    for _ in range(NUM_TRIES):
        try:
            answer = client().list_objects_v2(**request)
        except ClientError as error:
            raise translate_boto_error(error) from error
        if "Page" in answer:
            page: Page = answer["Page"]
            return page
        if "IsTruncated" in answer:  # botocore takes an answer without a body for an empty page
            return page_of(answer)
    raise OSError(f"bucket {request['Bucket']!r}: {NUM_TRIES} answers were cut off, or are no listings")


def cut(keys: Range, characters: str, num_parts: int) -> list[Range]:
    """Return the same keys as up to this many ranges.

    Texts are numbers, whose digits are the characters after what the two ends share. Ends of parts are evenly spread between them.

    Args:
        keys: a range that begins after a key of its prefix.
        characters: the characters of keys so far, in their order.
        num_parts: how many ranges are wanted. There are fewer where the ends are close to each other.
    """
    shared = keys.prefix if keys.upto is None else _shared(keys.after, keys.upto)
    num_digits = max(len(keys.after), len(keys.upto or "")) - len(shared) + 1
    base = len(characters) + 1  # 0 stands behind the end of a text
    low = _number(keys.after[len(shared) :], characters, num_digits)
    high = base**num_digits if keys.upto is None else _number(keys.upto[len(shared) :], characters, num_digits)
    texts = (
        shared + _text(low + (high - low) * part // num_parts, characters, num_digits) for part in range(1, num_parts)
    )
    short = {text[: len(_shared(text, keys.after)) + 2] for text in texts}
    starts = [keys.after, *sorted(text for text in short if _is_within(text, keys))]
    return [replace(keys, after=after, upto=upto) for after, upto in zip(starts, [*starts[1:], keys.upto], strict=True)]


def _is_within(text: str, keys: Range) -> bool:
    """Can a range be cut at a text?"""
    return keys.after < text and (keys.upto is None or text < keys.upto) and len(text.encode()) <= KEY_BYTES


def _shared(one: str, other: str) -> str:
    """Return the text with which both begin."""
    return commonprefix([one, other])  # noqa: RUF071 - any characters, not folders


def _number(text: str, characters: str, num_digits: int) -> int:
    number = 0
    for place in range(num_digits):
        digit = bisect_left(characters, text[place]) + 1 if place < len(text) else 0
        number = number * (len(characters) + 1) + digit
    return number


def _text(number: int, characters: str, num_digits: int) -> str:
    """Return the text of a number, up to its first 0."""
    digits = []
    for _ in range(num_digits):
        number, digit = divmod(number, len(characters) + 1)
        digits.append(digit)
    return "".join(characters[digit - 1] for digit in takewhile(bool, reversed(digits)))
