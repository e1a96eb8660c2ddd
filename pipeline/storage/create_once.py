"""Create an object of S3 that does not exist yet: if two writers do so, one of them fails.

Nothing else keeps a table's commits apart.
"""

import uuid
from contextlib import suppress

from botocore.exceptions import BotoCoreError, ClientError

from pipeline.errors import SettingError, reason
from pipeline.storage.s3 import filesystem

CONDITION_FAILED = ("412", "PreconditionFailed", "ConditionalRequestConflict")
"""The error codes for a request's If-Match or If-None-Match. The last one means that another request is still in progress."""


def create(bucket: str, key: str, data: bytes) -> None:
    """Create an object that does not exist yet.

    Raises:
        FileExistsError: the object exists, or another writer is just creating it.
    """
    try:
        filesystem().call_s3("put_object", Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
    except OSError as error:
        if not is_precondition_failed(error):
            raise
        raise FileExistsError(f"s3://{bucket}/{key} is there already") from error


def check_creates_once(bucket: str, prefix: str) -> None:
    """Check that if two writers create one object, one of them fails. Nothing else keeps a table's commits apart on S3.

    Raises:
        SettingError: the store lets both succeed, or does not know the condition.
    """
    place = (bucket, f"{prefix}/{uuid.uuid4().hex}")
    try:
        with suppress(FileExistsError):  # an answer was lost, and the retry found its own object
            create(*place, b"")
        try:
            create(*place, b"")
        except FileExistsError:
            return
        finally:
            filesystem().call_s3("delete_object", Bucket=place[0], Key=place[1])
    except (OSError, BotoCoreError) as error:
        raise SettingError(f"bucket {bucket!r} can't be written: {reason(error)}") from error
    raise SettingError(f"bucket {bucket!r}: its store does not know If-None-Match, so runs can't be kept apart there")


def is_precondition_failed(error: OSError) -> bool:
    """Is this s3fs's error for a condition (If-Match, If-None-Match) that did not hold?"""
    cause = error.__cause__
    return isinstance(cause, ClientError) and cause.response["Error"]["Code"] in CONDITION_FAILED
