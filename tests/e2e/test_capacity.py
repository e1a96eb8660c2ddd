"""A cluster of several nodes on this machine; GPUs are there in name: Ray counts what it is told of, and detectors take cores."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.appended_code import appended
from tests.chaos.processes import kill_tree
from tests.chaos.ray_nodes import RayNodes
from tests.e2e.command import ask, jpeg, run, start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NO_CUDA = "ray.get_gpu_ids = lambda: []"
TOGETHER = """
import os
import time
from pathlib import Path

detect, met = Detector.__call__, Path({met!r})


def detect_together(self, images, sizes):
    until = time.monotonic() + 120
    if met.exists():
        (met / str(os.getpid())).touch()
        while len(list(met.iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.1)
    return detect(self, images, sizes)


Detector.__call__ = detect_together
"""
NUM_PICTURES = 24


@pytest.fixture
def met(tmp_path: Path) -> Path:
    """Return a folder that a test may make: from then on a detector waits for a second one, which could find nothing left to do."""
    return tmp_path / "met"


@pytest.fixture
def nodes(met: Path) -> Iterator[RayNodes]:
    """A head without cores, and two nodes with two each."""
    accidents = {"pipeline.stages.ray_workers": NO_CUDA, "model.detector": TOGETHER.format(met=str(met))}
    with TemporaryDirectory(prefix="n") as folder:  # Ray's sockets want a short path
        nodes = RayNodes(Path(folder), os.environ | appended(accidents), head_cpus=0)
        try:
            for _ in range(2):
                nodes.add()
            nodes.wait_until_joined()
            yield nodes
        finally:
            nodes.stop()


def wait_for(told: str, run: "subprocess.Popen[str]") -> None:
    assert run.stderr is not None
    assert any(told in line for line in run.stderr)


def test_as_many_detectors_as_fit_do_not_starve_and_a_gpu_is_waited_for(
    nodes: RayNodes, met: Path, model: Path, tmp_path: Path
) -> None:
    """First on cores alone. Afterwards a node has a GPU too: then two detectors share it."""
    pictures, table = tmp_path / "pictures", tmp_path / "table"
    pictures.mkdir()
    for index in range(NUM_PICTURES):
        (pictures / f"{index}.jpg").write_bytes(jpeg(index))
    arguments = ("infer", "--input", pictures, "--table", table, "--model", model, "--address", nodes.address)
    code, _, err = run(*arguments, "--num-detectors", 5, "--node-wait-s", 1, environment=nodes.environment)
    assert (code, "num_detectors: of 5 the cluster as it is takes 4" in err) == (2, True), err
    assert not table.exists()
    code, _, err = run(*arguments, "--num-detectors", 4, environment=nodes.environment)
    assert code == 0, err
    for index in range(NUM_PICTURES):
        (pictures / f"{index}.jpg").write_bytes(jpeg(index + NUM_PICTURES))

    met.mkdir()
    on_gpus = ("--require-gpu", "--detectors-per-gpu", 2, "--node-wait-s", 300)
    waiting = start(*arguments, *on_gpus, environment=nodes.environment)
    try:
        wait_for("waiting up to 300 s for nodes", waiting)
        nodes.add(num_gpus=1)
        with waiting:
            assert waiting.stderr is not None
            err = waiting.stderr.read()
    finally:
        kill_tree(waiting.pid)
    assert waiting.returncode == 0, err
    records = ask(
        table, "SELECT ok, num_nodes, num_detectors BETWEEN 1 AND 4 AS fits, runner FROM runs ORDER BY started_at"
    )
    assert records == [
        {"ok": NUM_PICTURES, "num_nodes": 3, "fits": True, "runner": "ray"},
        {"ok": NUM_PICTURES, "num_nodes": 4, "fits": True, "runner": "ray"},
    ]
    (last,) = ask(table, "SELECT num_detectors FROM runs ORDER BY started_at DESC LIMIT 1")
    assert last == {"num_detectors": 2}
