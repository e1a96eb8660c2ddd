"""A cluster that has no node to work on until an autoscaler, Ray's own, starts some on this machine."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.appended_code import appended
from tests.chaos.processes import kill_tree
from tests.chaos.ray_nodes import RayNodes
from tests.e2e.command import ask, jpeg, start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NUM_IMAGES = 800
SLOW = """
import os, time

decode_at_once = decode_stored


def decode_stored(data, *limits):
    if not os.path.exists(os.environ["HURRY_UP"]):
        time.sleep(0.3)
    return decode_at_once(data, *limits)
"""


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[RayNodes]:
    """A head without cores, and up to three others when there is work for them."""
    environment = appended({"pipeline.images.decode": SLOW}) | {"HURRY_UP": str(tmp_path / "hurry")}
    with TemporaryDirectory(prefix="n") as folder:  # Ray's sockets want a short path
        nodes = RayNodes(Path(folder), os.environ | environment, head_cpus=0, max_grown=3)
        try:
            yield nodes
        finally:
            nodes.stop()


def test_a_pool_of_detectors_grows_and_the_cluster_with_it(nodes: RayNodes, model: Path, tmp_path: Path) -> None:
    pictures, table, content = tmp_path / "pictures", tmp_path / "table", jpeg()
    pictures.mkdir()
    for index in range(NUM_IMAGES):
        (pictures / f"{index}.jpg").write_bytes(content)
    arguments = ("--input", pictures, "--table", table, "--model", model, "--address", nodes.address)
    pool = ("--min-detectors", 1, "--num-detectors", 4, "--node-wait-s", 300, "--commit-interval-s", 1)
    run = start("infer", *arguments, *pool, environment=nodes.environment)
    try:
        while run.poll() is None and nodes.num_registered() < 3:
            time.sleep(1)
        (tmp_path / "hurry").touch()
        _, err = run.communicate()
    finally:
        kill_tree(run.pid)
    assert run.returncode == 0, err
    assert "num_detectors: of 1 the cluster as it is takes 0" in err
    assert "waiting up to 300 s for nodes" in err
    (record,) = ask(table, "SELECT ok, num_nodes >= 3 AS has_grown, num_detectors FROM runs")
    assert (record["ok"], record["has_grown"]) == (NUM_IMAGES, True)
    assert 1 <= record["num_detectors"] <= 4
