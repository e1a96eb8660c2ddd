"""The reading of images: exactly the version that was listed, or an error."""

import os
import re
from typing import Any, NamedTuple

import fsspec
import obstore

from pipeline.images.pace import Pace
from pipeline.storage import store
from pipeline.storage.local import local_etag
from pipeline.urls import bucket_and_key, is_local, is_s3

NUM_REQUESTS, NUM_FEWEST_REQUESTS = 64, 4
"""The most and the fewest requests at once per process. 64 requests hide a latency of 40 ms behind one decoding core; 4 remain when storage
says SlowDown."""
PACE = Pace(NUM_REQUESTS, NUM_FEWEST_REQUESTS)

ODD_KEY = re.compile(r"^/|//|(^|/)\.{1,2}(/|$)|[\x00-\x1f\x7f]|/$")
"""The keys that obstore refuses or, worse, reads as the key of another object. They go through s3fs."""


class ChangedError(OSError):
    """The object is no longer the one that was listed."""


class Content(NamedTuple):
    """The bytes that were read, and the number of requests for them that had to be repeated."""

    data: bytes
    num_retries: int = 0


def read_version(uri: str, etag: str, size_bytes: int | None, is_patient: bool = True) -> Content:
    """Return the content of exactly the version that was listed.

    Args:
        uri: the image.
        etag: the version; an empty one accepts any.
        size_bytes: the length that was listed, if any was.
        is_patient: wait for a store that does not answer, for minutes; else a person waits.

    Raises:
        ChangedError: the object is another version now, or its length is not the one listed.
        Exception: any error that the store raises, after its retries.
    """
    if is_local(uri):
        content = Content(_read_local(uri, etag))
    elif is_s3(uri):
        content = _read_s3(uri, etag, is_patient)
    else:
        fs, path = store.filesystem(uri)
        content = Content(bytes(fs.cat_file(path)))
    if size_bytes is not None and len(content.data) != size_bytes:
        raise ChangedError(f"{len(content.data)} bytes were read where {size_bytes} were listed")
    return content


def _read_local(path: str, etag: str) -> bytes:
    with open(path, "rb") as file:
        found = local_etag(os.fstat(file.fileno()))
        if etag and found != etag:
            raise ChangedError(f"the file has changed since it was listed ({etag} then, {found} now)")
        data = file.read()
        if local_etag(os.fstat(file.fileno())) != found:
            raise ChangedError("the file was written to while it was read")
        return data


def _read_s3(uri: str, etag: str, is_patient: bool) -> Content:
    bucket, key = bucket_and_key(uri)
    if ODD_KEY.search(key):
        return Content(_read_odd_key(bucket, key, etag))
    try:
        with PACE.place():
            return _get(bucket, key, etag, is_patient)
    except obstore.exceptions.PreconditionError as error:
        raise ChangedError("the object has changed since it was listed") from error


def _get(bucket: str, key: str, etag: str, is_patient: bool) -> Content:
    """Request an object once in a way that shows whether the store is overloaded. If that fails, retry for as long as it takes."""
    from pipeline.storage import s3  # takes a quarter of a second to import, and local files do not need it

    options: Any = {"if_match": f'"{etag}"'} if etag else {}
    try:
        answer = obstore.get(s3.image_store(bucket, is_patient=False), key, options=options)
        _check_version(etag, answer.meta["e_tag"])
        data = bytes(answer.bytes())
    except obstore.exceptions.GenericError as error:
        if s3.is_slow_down(error):
            PACE.slow_down()
        if not is_patient:
            raise
        answer = obstore.get(s3.image_store(bucket), key, options=options)
        _check_version(etag, answer.meta["e_tag"])
        return Content(bytes(answer.bytes()), num_retries=1)
    PACE.succeed()
    return Content(data)


def _check_version(wanted: str, found: str | None) -> None:
    """Check the version that was returned: a store, or a gateway before it, may not know If-Match."""
    if wanted and found and found.removeprefix("W/").strip('"') != wanted:  # W/: a gateway has changed the encoding
        raise ChangedError(f"the object has changed since it was listed ({wanted} then, {found} now)")


def _read_odd_key(bucket: str, key: str, etag: str) -> bytes:
    from pipeline.storage import (  # take a quarter of a second to import, and local files do not need them
        create_once,
        s3,
    )

    fs = s3.filesystem()

    async def get() -> bytes:
        condition = {"IfMatch": f'"{etag}"'} if etag else {}
        answer = await fs._call_s3("get_object", Bucket=bucket, Key=key, **condition)
        _check_version(etag, answer.get("ETag"))
        async with answer["Body"] as body:
            return bytes(await body.read())

    try:
        return bytes(fsspec.asyn.sync(fs.loop, get))
    except OSError as error:
        if create_once.is_precondition_failed(error):
            raise ChangedError("the object has changed since it was listed") from error
        raise
