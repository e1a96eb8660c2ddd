"""Which exit code an error has."""

from socket import gaierror
from urllib.error import URLError

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from deltalake.exceptions import DeltaError

from pipeline.errors import (
    NOT_AGAIN,
    HeldError,
    OvertakenError,
    SettingError,
    SsdBatchError,
    TargetMissedError,
    ended_by,
)

URL = "http://store"


def answer(status: int) -> ClientError:
    return ClientError({"Error": {"Code": "X"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "ListObjectsV2")


@pytest.mark.parametrize(
    ("cause", "exit_code"),
    [
        (None, 2),
        (FileNotFoundError("/photos/connection refused"), 2),
        (PermissionError("403"), 2),
        (DeltaError("not a table"), 2),
        (answer(404), 2),
        (answer(403), 2),
        (answer(500), 1),
        (answer(503), 1),
        (answer(429), 1),
        (ConnectionRefusedError(), 1),
        (TimeoutError(), 1),
        (EndpointConnectionError(endpoint_url=URL), 1),
        (ReadTimeoutError(endpoint_url=URL), 1),
        (OSError("Please reduce your request rate: SlowDown"), 1),
        (DeltaError("Generic S3 error: error sending request for url (http://store/)"), 1),
        (URLError(gaierror(-2, "Name or service not known")), 1),
        (OSError("Cannot connect to host store:80 ssl:default [Name or service not known]"), 1),
    ],
)
def test_an_outage_is_no_wrong_setting(cause: BaseException | None, exit_code: int) -> None:
    """Also where another error stands between the two."""
    with pytest.raises(SettingError) as direct:
        raise SettingError("input") from cause
    assert direct.value.exit_code == exit_code
    with pytest.raises(SettingError) as nested:
        raise SettingError("init: input") from direct.value
    assert nested.value.exit_code == exit_code


def test_what_is_not_tried_again() -> None:
    codes = {error("x").exit_code for error in (SettingError, TargetMissedError, HeldError, OvertakenError)}
    assert codes == set(NOT_AGAIN)
    assert SsdBatchError("x").exit_code not in NOT_AGAIN


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (PermissionError(13, "Permission denied"), 2),
        (OSError("Read-only file system (os error 30)"), 2),
        (OSError("Client error with status 403 Forbidden: AccessDenied"), 2),
        (OSError("Client error with status 403 Forbidden: ExpiredToken"), 1),
        (OSError(28, "No space left on device"), 1),
        (OSError("error sending request: connection refused"), 1),
    ],
)
def test_a_store_that_may_not_be_written_is_a_wrong_setting(error: Exception, exit_code: int) -> None:
    found = ended_by("table 't'", error)
    found.__cause__ = error
    assert (found.exit_code, str(found).startswith("table 't': ")) == (exit_code, True)
