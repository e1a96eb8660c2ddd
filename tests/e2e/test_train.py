"""A training's driver and nodes are killed, and it is stopped: it goes on."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from PIL import Image

from jobs.demo.pictures import draw_picture
from model.memory import ONE_ARENA
from pipeline.storage import store
from tests.chaos.processes import below, wait_until_gone
from tests.chaos.ray_nodes import RayNodes
from tests.e2e import command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # a busy machine starts Ray in a minute

DEADLINE_S = 400
RESUMED = "the training resumes after step "


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, labelled) -> Path:
    """Eight drawn pictures to learn from and two held out, in VOC's layout."""
    root = tmp_path_factory.mktemp("data")
    for split, seeds in (("train", range(8)), ("val", range(8, 10))):
        pictures = {f"p{seed}": draw_picture(seed) for seed in seeds}
        objects = {
            name: "".join(
                labelled.thing(f"class {label}", *box) for label, box in zip(p.labels, p.boxes_xyxy, strict=True)
            )
            for name, p in pictures.items()
        }
        sides = {name: p.image.size for name, p in pictures.items()}
        labelled.voc(root, split=split, size_px=(640, 480), **objects)
        for name, picture in pictures.items():
            framed = Image.new("RGB", (640, 480))
            framed.paste(picture.image)
            framed.save(root / f"JPEGImages/{name}.jpg")
            assert sides[name] <= (640, 480)
    return root


class Training:
    """The command as a process group of its own."""

    def __init__(
        self, data: object, output: object, num_steps: int, *more: object, environment: dict[str, str] | None = None
    ) -> None:
        self._output, self._num_steps = str(output), num_steps
        self._snapshot = self._registered()
        arguments = (
            "--data", data, "--output", output, "--name", "run", "--width", 0.05, "--batch-size", 2,
            "--num-steps", num_steps, "--checkpoint-every-steps", 5, "--json", *more,
        )  # fmt: skip
        self.process = command.start("train", *arguments, environment=environment)

    @property
    def pid(self) -> int:
        return self.process.pid

    def _registered(self) -> bytes:
        """What Ray Train would resume from."""
        file = f"{self._output}/_runs/run/checkpoint_manager_snapshot.json"
        return store.read(file) if store.exists(file) else b""

    def wait_for_checkpoint(self) -> None:
        """Until there is one more than at the start, or at the last call."""
        deadline = time.monotonic() + DEADLINE_S
        while (snapshot := self._registered()) == self._snapshot:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        self._snapshot = snapshot

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, out, err

    def finish(self) -> str:
        """What it told, on standard error; on standard output stands one JSON object."""
        code, out, err = self.end()
        assert code == 0, err
        assert json.loads(out)["num_images"] == 2
        assert f"step {self._num_steps} of {self._num_steps} · " in err
        return err


@pytest.fixture
def start() -> Iterator[Callable[..., Training]]:
    started: list[Training] = []

    def start(*arguments: object, **more: Any) -> Training:
        started.append(Training(*arguments, **more))
        return started[-1]

    yield start
    for training in started:
        if training.process.poll() is None:
            os.killpg(training.pid, signal.SIGKILL)
            training.process.communicate()


@pytest.mark.s3
def test_a_driver_that_is_killed_on_s3(
    start: Callable[..., Training], data: Path, upload: Callable[[Path], str]
) -> None:
    """What it has started ends with it; the next command goes on from its checkpoints."""
    url = upload(data)
    first = start(url, f"{url}/model", 25)
    first.wait_for_checkpoint()
    orphans = training_workers(first.pid)
    first.process.kill()
    assert "the training begins: 1 workers" in first.end()[2]
    assert orphans
    assert not wait_until_gone(orphans, seconds=DEADLINE_S)
    assert not store.exists(f"{url}/model/model.json")

    assert RESUMED in start(url, f"{url}/model", 25).finish()
    assert store.exists(f"{url}/model/model.json")


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    """A head without cores, and two nodes."""
    with TemporaryDirectory(prefix="n") as folder:  # Ray's sockets want a short path
        nodes = RayNodes(Path(folder), os.environ | {"PYTHONPATH": str(Path.cwd())}, head_cpus=0)
        nodes.add()
        nodes.add()
        nodes.wait_until_joined()
        yield nodes
        nodes.stop()


def test_a_node_is_killed(start: Callable[..., Training], data: Path, tmp_path: Path, nodes: RayNodes) -> None:
    """With a worker of two on it: the command goes on, with what is left and what joins, until it is stopped."""
    arguments = ("--num-workers", 2, "--batch-size", 4, "--address", nodes.address)
    struck = start(data, tmp_path / "struck", 100, *arguments, environment=nodes.environment)
    struck.wait_for_checkpoint()
    nodes.kill(next(node for node in nodes.nodes if training_workers(node.pid)))
    nodes.add()
    for _ in range(2):  # one may have been under way
        struck.wait_for_checkpoint()
    workers = {pid: name for node in nodes.nodes for pid, name in training_workers(node.pid).items()}
    environments = [Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in workers]
    os.kill(struck.pid, signal.SIGTERM)
    code, out, err = struck.end()
    assert (code, out) == (143, ""), err  # a code that no scheduler takes for success
    assert "the training begins: 2 workers" in err
    assert RESUMED in err
    assert "Error: stopped by SIGTERM" in err
    assert "Traceback" not in err
    assert workers
    assert all("=".join(ONE_ARENA).encode() in variables for variables in environments)
    assert not wait_until_gone(workers, seconds=DEADLINE_S)


def training_workers(pid: int) -> dict[int, str]:
    """Ray Train's workers below a driver or a node."""
    return {worker: name for worker, name in below(pid).items() if "ray::RayTrainWorker" in name}
