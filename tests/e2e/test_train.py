"""A training's processes and nodes are killed: it goes on, and ends with the same weights."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from jobs.demo.pictures import draw_picture
from tests.chaos.processes import below, kill_tree, wait_until_gone
from tests.chaos.ray_nodes import RayNodes
from tests.e2e import command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # a busy machine starts Ray in a minute

DEADLINE_S = 200


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

    def __init__(self, data: Path, output: Path, *more: object, environment: dict[str, str] | None = None) -> None:
        self.output = output
        arguments = (
            "--data", data, "--output", output, "--name", "run", "--width", 0.05, "--batch-size", 2, "--num-steps", 40,
            "--checkpoint-every-steps", 5, "--json", *more,
        )  # fmt: skip
        self.process = command.start("train", *arguments, environment=environment)

    @property
    def num_registered(self) -> int:
        """Checkpoints that Ray Train would resume from."""
        try:
            snapshot = json.loads((self.output / "_runs/run/checkpoint_manager_snapshot.json").read_text())
        except (OSError, json.JSONDecodeError):
            return 0
        return len(snapshot["checkpoint_results"])

    def wait_for_checkpoint(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while self.num_registered < 2:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, out, err


@pytest.fixture(scope="module")
def start(data: Path) -> Iterator[Callable[..., Training]]:
    started: list[Training] = []

    def start(output: Path, *more: object, environment: dict[str, str] | None = None) -> Training:
        started.append(Training(data, output, *more, environment=environment))
        return started[-1]

    yield start
    for training in started:
        if training.process.poll() is None:
            os.killpg(training.process.pid, signal.SIGKILL)
            training.process.wait()


def assert_done(training: Training) -> str:
    """What it told, on standard error; on standard output stands one JSON object."""
    code, out, err = training.end()
    assert code == 0, err
    assert json.loads(out)["num_images"] == 2
    assert "step 40 of 40 · " in err
    return err


@pytest.fixture(scope="module")
def undisturbed(start: Callable[..., Training], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    training = start(tmp_path_factory.mktemp("undisturbed"))
    assert "the training begins: 1 workers" in assert_done(training)
    return (training.output / "model.safetensors").read_bytes()


def test_the_driver_is_killed(start: Callable[..., Training], tmp_path: Path, undisturbed: bytes) -> None:
    first = start(tmp_path)
    first.wait_for_checkpoint()
    first.process.kill()
    first.end()
    assert not (tmp_path / "model.json").exists()

    other = start(tmp_path, "--learning-rate", 0.5)
    code, _, err = other.end()
    assert (code, "learning_rate: 0.5, not 0.02 as the run in" in err) == (2, True), err

    told = assert_done(start(tmp_path))
    assert "the training resumes after step " in told
    assert (tmp_path / "model.safetensors").read_bytes() == undisturbed


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_it(
    number: signal.Signals, exit_code: int, start: Callable[..., Training], tmp_path: Path, undisturbed: bytes
) -> None:
    """With a code that no scheduler takes for success; the same command goes on."""
    first = start(tmp_path)
    first.wait_for_checkpoint()
    started = below(first.process.pid)
    os.kill(first.process.pid, number)
    code, out, err = first.end()
    assert (code, out) == (exit_code, ""), err
    assert f"Error: stopped by {number.name}" in err
    assert "Traceback" not in err
    assert not wait_until_gone(started, seconds=60)
    assert "the training resumes after step " in assert_done(start(tmp_path))
    assert (tmp_path / "model.safetensors").read_bytes() == undisturbed


def test_a_worker_is_killed(start: Callable[..., Training], tmp_path: Path, undisturbed: bytes) -> None:
    """The command itself goes on."""
    training = start(tmp_path)
    training.wait_for_checkpoint()
    os.kill(*training_workers(training.process.pid), signal.SIGKILL)
    told = assert_done(training)
    assert "the training resumes after step " in told
    assert (tmp_path / "model.safetensors").read_bytes() == undisturbed


def test_all_is_killed(start: Callable[..., Training], tmp_path: Path, undisturbed: bytes) -> None:
    """Driver, Ray and all its workers at once."""
    first = start(tmp_path)
    first.wait_for_checkpoint()
    kill_tree(first.process.pid)
    first.end()
    assert "the training resumes after step " in assert_done(start(tmp_path))
    assert (tmp_path / "model.safetensors").read_bytes() == undisturbed


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


def test_a_node_is_killed(start: Callable[..., Training], tmp_path: Path, nodes: RayNodes) -> None:
    """With a worker of two on it: the command goes on, with what is left and what joins."""
    together = ("--num-workers", 2, "--batch-size", 4, "--address", nodes.address)
    alone = start(tmp_path / "alone", *together, environment=nodes.environment)
    assert "the training begins: 2 workers" in assert_done(alone)

    struck = start(tmp_path / "struck", *together, environment=nodes.environment)
    struck.wait_for_checkpoint()
    nodes.kill(next(node for node in nodes.nodes if training_workers(node.pid)))
    nodes.add()
    assert "the training resumes after step " in assert_done(struck)
    expected, found = (load_file(training.output / "model.safetensors") for training in (alone, struck))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=0.02, rtol=0.05)


def test_one_of_two_workers_is_killed(start: Callable[..., Training], tmp_path: Path) -> None:
    training = start(tmp_path, "--num-workers", 2, "--batch-size", 4)
    training.wait_for_checkpoint()
    os.kill(training_workers(training.process.pid)[1], signal.SIGKILL)
    assert "the training resumes after step " in assert_done(training)


def training_workers(pid: int) -> list[int]:
    """Ray Train's workers below a driver or a node."""
    return [worker for worker, name in below(pid).items() if "ray::RayTrainWorker" in name]
