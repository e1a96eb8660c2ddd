"""Fixtures that tests of several folders share."""

import itertools
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import botocore.session
import pytest
from PIL import Image
from s3fs import S3FileSystem

from pipeline.storage import s3_listing
from pipeline.storage.s3 import access, data_filesystem, filesystem, image_store

STARTUP_S = 240
CEPH = Path(__file__).parents[1] / "infra/dev/ceph.sh"
S3FAULT = Path(__file__).parents[1] / "infra/dev/s3fault.sh"


class S3:
    """An S3 server of its own process. `bucket()` makes a new bucket; `client` is botocore's; `forget()` as below."""

    def __init__(self, name: str, client) -> None:
        self.name = name
        self.client = client
        self.forget = forget_s3
        self._numbers = itertools.count(1)

    def bucket(self) -> str:
        name = f"bucket-{next(self._numbers)}"
        self.client.create_bucket(Bucket=name)
        return name

    def put(self, bucket: str, contents: dict[str, bytes]) -> None:
        for key, content in contents.items():
            self.client.put_object(Bucket=bucket, Key=key, Body=content)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--s3", action="append", choices=["moto", "ceph"], help="S3 server that tests run against; moto unless given"
    )
    parser.addoption(
        "--prometheus", type=Path, help="Folder of prometheus and promtool: infra/dev/prometheus.sh install"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "s3" in metafunc.fixturenames:
        metafunc.parametrize("s3", metafunc.config.getoption("--s3") or ["moto"], indirect=True, scope="session")


@pytest.fixture(scope="session")
def s3(request: pytest.FixtureRequest) -> Iterator[S3]:
    server = {"moto": moto, "ceph": ceph}[request.param]
    with server() as reached_by, pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            environment.delenv(name)
        for name, value in (reached_by | {"AWS_EC2_METADATA_DISABLED": "true"}).items():
            environment.setenv(name, value)
        forget_s3()
        yield S3(request.param, botocore.session.get_session().create_client("s3"))
        forget_s3()


def forget_s3() -> None:
    """Let the next use of S3 look at the environment anew."""
    for cached in (access, filesystem, data_filesystem, image_store, s3_listing.client):
        cached.cache_clear()
    S3FileSystem.clear_instance_cache()


def free_port() -> int:
    """Nobody listens there now, and no connection that goes out takes it: those have ports from 32768 on, Ray's workers below 20000."""
    while True:
        port = secrets.choice(range(20_000, 32_768))
        if not answers(port):
            return port


@contextmanager
def moto() -> Iterator[dict[str, str]]:
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: answers(port) or server.poll() is not None)
        assert server.poll() is None, "moto's server did not start"
        yield {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.kill()
        server.wait()


class Ceph:
    """A gateway with its store; `variables` reach it. It can be killed, and started again."""

    def __init__(self, folder: str) -> None:
        self._environment = os.environ | {"PORT": str(free_port()), "DATA_DIR": folder}
        self.variables: dict[str, str] = {}

    def start(self) -> None:
        self.variables = _exported(self._tell("start"))

    def kill(self) -> None:
        self._tell("kill")

    def stop(self) -> None:
        self._tell("stop")

    def add_key(self, access_key: str, secret_key: str) -> None:
        self._tell("add_key", access_key, secret_key)

    def remove_key(self, access_key: str) -> None:
        self._tell("remove_key", access_key)

    def _tell(self, *arguments: str) -> str:
        return subprocess.run(
            [CEPH, *arguments], env=self._environment, stdout=subprocess.PIPE, text=True, check=True
        ).stdout


@contextmanager
def ceph_server() -> Iterator[Ceph]:
    with tempfile.TemporaryDirectory(prefix="ceph-") as folder:
        server = Ceph(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextmanager
def ceph() -> Iterator[dict[str, str]]:
    with ceph_server() as server:
        yield server.variables


class FaultyProxy:
    """In front of an S3 server; it fails as often as it is told.

    Args:
        endpoint: the server's URL.
        folder: for what it keeps.
    """

    def __init__(self, endpoint: str, folder: str) -> None:
        self._environment = os.environ | {
            "PORT": str(free_port()), "UPSTREAM": endpoint.removeprefix("http://"), "DATA_DIR": folder,
        }  # fmt: skip
        self.variables = _exported(self._tell("start"))

    def set(self, **percents: int) -> None:
        """Let so many percent of requests be answered `slow_down`, get a `reset`, or have their answer `lost`."""
        for fault, percent in percents.items():
            self._tell("set", fault, str(percent))

    def num_requests(self) -> int:
        """Since the start."""
        return int(self._tell("requests"))

    def stop(self) -> None:
        self._tell("stop")

    def _tell(self, *arguments: str) -> str:
        return subprocess.run(
            [S3FAULT, *arguments], env=self._environment, stdout=subprocess.PIPE, text=True, check=True
        ).stdout


@contextmanager
def faulty_proxy(endpoint: str) -> Iterator[FaultyProxy]:
    with tempfile.TemporaryDirectory(prefix="s3fault-") as folder:
        proxy = FaultyProxy(endpoint, folder)
        try:
            yield proxy
        finally:
            proxy.stop()


def _exported(lines: str) -> dict[str, str]:
    """The variables that a script of `infra/dev` prints."""
    return dict(line.removeprefix("export ").split("=", 1) for line in lines.splitlines())


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until(condition: Callable[[], bool], timeout_s: float = STARTUP_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
SIZE_PX = (20, 10)


class LabelledData:
    """Tiny data sets, of red images of 20×10 pixels."""

    @staticmethod
    def thing(name: str, *corners: object, difficult: bool = False) -> str:
        """An object of a VOC annotation."""
        flag = "<difficult>1</difficult>" if difficult else ""
        return f"<object><name>{name}</name>{flag}{BOX.format(*corners)}</object>"

    @staticmethod
    def voc(root: Path, split: str = "train", size_px: tuple[int, int] = SIZE_PX, **annotations: str) -> Path:
        """A split in VOC's layout: image names and the XML inside their annotations."""
        for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        size = "<size><width>{}</width><height>{}</height></size>".format(*size_px)
        for name, content in annotations.items():
            (root / f"Annotations/{name}.xml").write_text(f"<annotation>{size}{content}</annotation>")
            red(root / f"JPEGImages/{name}.jpg")
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(annotations) + "\n\n")
        return root

    @staticmethod
    def coco(
        root: Path,
        *objects: dict[str, object],
        split: str = "train",
        names: tuple[str, ...] = ("a.jpg",),
        place: str = "",
    ) -> Path:
        """A split in COCO's layout: image i + 1 has the i-th file name; categories are 3, cat, and 7, dog."""
        images = []
        for number, name in enumerate(names, start=1):
            images.append({"id": number, "file_name": name, "width": SIZE_PX[0], "height": SIZE_PX[1], "license": 1})
            red(root / (place or split) / name)
        annotations = [{"id": number} | entry for number, entry in enumerate(objects, start=1)]
        categories = [{"id": 3, "name": "cat", "supercategory": "animal"}, {"id": 7, "name": "dog"}]
        content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
        (root / "annotations").mkdir(parents=True, exist_ok=True)
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
        return root


def red(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE_PX, (255, 0, 0)).save(path)


@pytest.fixture(scope="session", name="free_port")
def free_port_fixture() -> Callable[[], int]:
    return free_port


@pytest.fixture(scope="session")
def labelled() -> LabelledData:
    return LabelledData()


@pytest.fixture
def upload(s3: S3) -> Callable[[Path], str]:
    """Put a folder's files into a new bucket: the URL of the folder there."""

    def upload(folder: Path) -> str:
        bucket = s3.bucket()
        files = [file for file in folder.rglob("*") if file.is_file()]
        s3.put(bucket, {f"data/{file.relative_to(folder)}": file.read_bytes() for file in files})
        return f"s3://{bucket}/data"

    return upload


@pytest.fixture(scope="module")
def local_cluster() -> Iterator[None]:
    """Ray on this machine, for the tests of a file: what they call uses it instead of starting its own."""
    from pipeline.cluster.connect import cluster

    with cluster("local"):
        yield
