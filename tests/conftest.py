"""Fixtures that tests of several folders share."""

import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import botocore.session
import pytest

STARTUP_S = 60


class S3:
    """An S3 server of its own process. `bucket()` makes a new bucket; `client` is botocore's."""

    def __init__(self, client) -> None:
        self.client = client
        self._numbers = itertools.count(1)

    def bucket(self) -> str:
        name = f"bucket-{next(self._numbers)}"
        self.client.create_bucket(Bucket=name)
        return name

    def put(self, bucket: str, contents: dict[str, bytes]) -> None:
        for key, content in contents.items():
            self.client.put_object(Bucket=bucket, Key=key, Body=content)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: answers(port) or server.poll() is not None)
        assert server.poll() is None, "moto's server did not start"
        with pytest.MonkeyPatch.context() as environment:
            for name in [name for name in os.environ if name.startswith("AWS_")]:
                environment.delenv(name)
            environment.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
            environment.setenv("AWS_ACCESS_KEY_ID", "test")
            environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
            environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
            environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
            yield S3(botocore.session.get_session().create_client("s3"))
    finally:
        server.kill()
        server.wait()


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + STARTUP_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
