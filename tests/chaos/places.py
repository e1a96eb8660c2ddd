"""Where campaigns happen: local disk, a cluster of three Ray nodes on this machine, Ceph behind a proxy that fails."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import botocore.session

from jobs.demo import PACKAGE
from jobs.demo.pictures import draw_picture
from tests.appended_code import appended
from tests.chaos.keys import PassingKeys
from tests.chaos.ray_nodes import RayNodes
from tests.conftest import Ceph, FaultyProxy, ceph_server, faulty_proxy, forget_s3

NUM_IMAGES, NUM_BROKEN = 400, 4
BUCKET = "chaos"
SLOW_DETECTOR = """
import time

detect = Detector.__call__


def detect_slowly(self, images, sizes):
    time.sleep(0.1 * len(images))
    return detect(self, images, sizes)


Detector.__call__ = detect_slowly
"""
SLOWLY = appended({"model.detector": SLOW_DETECTOR})
"""The environment in which a run lasts longer than a second one needs to start, without work for the cores."""


@dataclass(frozen=True)
class Place:
    """Images, and room for tables."""

    images: str
    tables: str
    model: str = str(PACKAGE)
    num_images: int = NUM_IMAGES
    flags: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    nodes: RayNodes | None = None
    store: Ceph | None = None
    proxy: FaultyProxy | None = None
    keys: PassingKeys | None = None

    def heal(self) -> None:
        """Let storage work again."""
        if self.proxy:
            self.proxy.set(slow_down=0, reset=0, lost=0)


Opening = Callable[[Path], AbstractContextManager[Place]]


def pictures() -> dict[str, bytes]:
    """Small ones by name, a few of them cut short."""
    encoded = io.BytesIO()
    draw_picture(0).image.resize((160, 120)).save(encoded, "JPEG")
    whole = encoded.getvalue()
    return {f"{index}.jpg": whole if index >= NUM_BROKEN else whole[:100] for index in range(NUM_IMAGES)}


def _write_pictures(folder: Path) -> str:
    folder.mkdir()
    for name, content in pictures().items():
        (folder / name).write_bytes(content)
    return str(folder)


@contextmanager
def local_disk(folder: Path) -> Iterator[Place]:
    """Processes of this machine, without Ray."""
    yield Place(_write_pictures(folder / "images"), str(folder), environment=SLOWLY)


@contextmanager
def three_nodes(folder: Path) -> Iterator[Place]:
    """A cluster that the runs are guests of."""
    nodes = RayNodes(folder, os.environ | SLOWLY)
    try:
        nodes.add()
        nodes.add()
        # Three detectors are enough work for one machine.
        flags = ("--address", nodes.address, "--num-detectors", "3")
        images = _write_pictures(folder / "images")
        yield Place(images, str(folder), flags=flags, environment=nodes.environment, nodes=nodes)
    finally:
        nodes.stop()


@contextmanager
def faulty_s3(folder: Path) -> Iterator[Place]:
    """Runs go through the proxy; who looks at the table goes straight to the store, by this process's environment."""
    with ceph_server() as store, faulty_proxy(store.variables["AWS_ENDPOINT_URL_S3"]) as proxy:
        os.environ |= store.variables | {"AWS_EC2_METADATA_DISABLED": "true"}
        forget_s3()
        client = botocore.session.get_session().create_client("s3")
        client.create_bucket(Bucket=BUCKET)
        for name, content in pictures().items():
            client.put_object(Bucket=BUCKET, Key=f"images/{name}", Body=content)
        keys = PassingKeys(folder, store)
        environment = SLOWLY | proxy.variables | keys.variables
        yield Place(
            f"s3://{BUCKET}/images",
            f"s3://{BUCKET}/tables",
            environment=environment,
            store=store,
            proxy=proxy,
            keys=keys,
        )
