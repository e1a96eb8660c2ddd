"""The work of each training worker: its part of each batch, checkpoints, measurements."""

import json
import math
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.util.queue import Queue
from torch import Tensor, distributed

from model.detector import Detector
from model.example import Examples, Truth
from model.memory import keep_freed_memory
from model.metrics import measure
from model.order import share_of
from model.package import ModelPackage
from model.postprocess import Detections
from model.preprocess import resize
from model.ssd import SSD
from model.step import NotFiniteError, TrainingStep, learning_rate, num_parts
from pipeline.machine import local_cores
from pipeline.stages.runner import batch_size_on
from pipeline.storage import store
from pipeline.training.events import Evaluated, Started, StepDone, StoppedEarly, TrainingEvent
from pipeline.training.feed import NUM_READERS, Feed
from pipeline.training.history import TrainingHistory
from pipeline.training.settings import ClusterTraining

STATE_FILE = "state.pt"
WORKER_CPUS = 0.5
"""The share of a core that Ray books for a training worker. On a machine with two cores, two workers leave one core for their
examples."""
SCORE = "map50"
"""The metric by which checkpoints are compared."""


@dataclass(frozen=True)
class Task:
    """A training, as its workers get it."""

    settings: ClusterTraining
    feed: Feed
    start: "list[ray.ObjectRef[ModelPackage]]"
    """The record of the model to train, and the weights to start from. It is in a list, so that the reference is sent, not the package."""
    held_out: "list[ray.ObjectRef[Examples]]"
    """The examples on which checkpoints are measured. The reference is in a list, so that it is sent, not the examples."""
    url: str
    """The folder of the run."""
    events: Queue
    """The queue for the events of the training."""


def learn(task: Task) -> str:
    """Train from the last checkpoint, or from the start, to the end.

    Returns:
        An empty string at the end; else the reason why the training could not continue: the loss is not a finite number any more.
        Another try would end the same way.
    """
    worker = Worker(task)
    first_step = worker.resume()
    return worker.learn_from(first_step)


class Worker:
    """A worker of a training."""

    def __init__(self, task: Task) -> None:
        context = ray.train.get_context()
        self._task, self._settings = task, task.settings
        self._rank: int = context.get_world_rank()
        self._num_workers: int = context.get_world_size()
        self._device = ray.train.torch.get_device()
        keep_freed_memory()
        torch.set_num_threads(max(1, local_cores() // context.get_local_world_size()))
        self._history = TrainingHistory.of(self._settings.num_steps)
        start = ray.get(task.start[0])
        self._record = start.record
        self._step = TrainingStep(
            new_network(start, self._settings.seed).to(self._device),
            self._record,
            self._settings,
        )

    def resume(self) -> int:
        """Load the last registered checkpoint, if there is one, and return the number of steps that are done."""
        checkpoint, num_done = ray.train.get_checkpoint(), 0
        if checkpoint:
            state = read_state(checkpoint)
            num_done = state["step"]
            self._step.load(state)
            self._history = TrainingHistory.from_state(state["history"])
        is_eager = self._settings.compile and not self._step.is_compiled
        self._report(Started(num_done, self._num_workers, self._device.type, is_eager))
        return num_done

    def learn_from(self, first_step: int) -> str:
        """Train all steps that are left. Return an empty string, or the reason why the training could not continue."""
        if first_step >= self._settings.num_steps or self._stops_early(first_step):
            return ""
        share = share_of(self._rank, self._num_workers, self._settings.batch_size)
        feed = self._task.feed
        if self._device.type == "cpu":
            batches = feed.prepared_batches(first_step, share)
        else:
            batches = feed.streamed_batches(first_step, share, self._data_cpus())
        for step, batch in zip(range(first_step, self._settings.num_steps), batches, strict=True):
            try:
                losses = self._step(step, batch)
                rate = learning_rate(step, self._settings)
                self._report(StepDone(step + 1, losses.localization.item(), losses.classification.item(), rate))
                if self._save_if_due(step + 1) and self._stops_early(step + 1):
                    break
            except NotFiniteError as error:
                return f"{error}; its batch is kept in {self._keep_batch(step)}"
        return ""

    def _stops_early(self, num_done: int) -> bool:
        """Return whether the training has been measured `patience` times without getting better, and report it. All workers get the same
        answer."""
        answer = [self._history.is_stuck(self._settings.patience)]
        if self._num_workers > 1:
            distributed.broadcast_object_list(answer)
        if answer[0]:
            self._report(StoppedEarly(num_done, self._settings.patience or 0))
        return answer[0]

    def _data_cpus(self) -> float:
        """Return this worker's part of the cores that no training worker books."""
        num_cpus: float = ray.cluster_resources()["CPU"]  # type: ignore[no-untyped-call]
        return num_cpus / self._num_workers - WORKER_CPUS

    def _save_if_due(self, num_done: int) -> bool:
        """Leave a checkpoint where one is due, measured or not, and return whether it was measured."""
        every = self._settings.validate_every_steps
        is_measured = every is not None and (num_done % every == 0 or num_done == self._settings.num_steps)
        if is_measured or num_done % self._settings.checkpoint_every_steps == 0 or num_done == self._settings.num_steps:
            self._step.check_weights()
            self._save(num_done, self._measure(num_done) if is_measured else {})
        return is_measured

    def _save(self, num_done: int, metrics: dict[str, Any]) -> None:
        """Report the metrics; the first worker also writes a checkpoint, which counts once Ray Train has registered it."""
        metrics = {"step": num_done} | metrics
        if self._rank:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory(prefix="ssd-batch-") as folder:
            state = {"step": num_done, "history": self._history.state()} | self._step.state()
            torch.save(state, f"{folder}/{STATE_FILE}")
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def _measure(self, num_done: int) -> dict[str, Any]:
        """Measure the mAP on the held-out images, with each worker detecting in some of them. Only the first worker gets the result."""
        held_out: Examples = ray.get(self._task.held_out[0])
        detector = Detector(ModelPackage(self._record, self._step.weights), self._device)
        indices = range(self._rank, len(held_out), self._num_workers)
        results_here = detect_in(held_out, indices, detector, self._max_images())
        everyone: list[Any] = [results_here]
        if self._num_workers > 1:
            everyone = [None] * self._num_workers
            distributed.all_gather_object(everyone, results_here)
        if self._rank:
            return {}
        found, truths = zip(*(pair for pairs in everyone for pair in pairs), strict=True)
        summary = measure(found, truths, self._record.class_names).summary()
        metrics = {name: summary[name] or 0.0 for name in ("map", SCORE)}
        self._report(Evaluated(num_done, metrics["map"], metrics[SCORE]))
        return metrics

    def _max_images(self) -> int:
        """Return how many images a pass of a training step has at most: so many fit into the memory."""
        share = math.ceil(self._settings.batch_size / self._num_workers)
        return math.ceil(share / num_parts(self._settings, self._num_workers))

    def _keep_batch(self, step: int) -> str:
        """Write down the batch that the step should have learned, and return the file's URL."""
        url = f"{self._task.url}/not_finite_step_{step}.json"
        if self._rank == 0:
            store.write(url, json.dumps(describe_batch(self._task.feed, step), indent=2).encode())
        return url

    def _report(self, message: TrainingEvent) -> None:
        if self._rank == 0:
            self._history.add(message)
            self._task.events.put(message)


def detect_in(
    examples: Examples, indices: Sequence[int], detector: Detector, max_batch_size: int | None = None
) -> list[tuple[Detections, Truth]]:
    """Return the detections in some examples, as a run would find them, and their annotated objects."""

    def read(index: int) -> tuple[Tensor, tuple[int, int], Truth]:
        example = examples[index]
        return resize(example.image, detector.image_size_px), example.size_px, example.truth

    pairs: list[tuple[Detections, Truth]] = []
    batch_size = batch_size_on(detector.device.type, None)
    batch_size = min(batch_size, max_batch_size or batch_size)
    with ThreadPoolExecutor(NUM_READERS) as readers:
        for start in range(0, len(indices), batch_size):
            images, sizes_px, truths = zip(*readers.map(read, indices[start : start + batch_size]), strict=True)
            found = detector(torch.stack(images), torch.tensor(sizes_px, dtype=torch.float32))
            pairs += zip(found, truths, strict=True)
    return pairs


def new_network(start: ModelPackage, seed: int) -> SSD:
    """Make a network with the weights of `start`. Weights that `start` lacks are random."""
    torch.manual_seed(seed)
    network = SSD(start.record.architecture, len(start.record.class_names) + 1)
    network.load_state_dict(start.weights, strict=False)
    return network.to(memory_format=torch.channels_last)


def read_state(checkpoint: ray.train.Checkpoint) -> dict[str, Any]:
    """Return what a checkpoint holds: the number of steps done, their history, the network and the optimizer. It holds no code."""
    with checkpoint.as_directory() as folder:
        state: dict[str, Any] = torch.load(Path(folder) / STATE_FILE, map_location="cpu", weights_only=True)
    return state


def describe_batch(feed: Feed, step: int) -> dict[str, Any]:
    """Return which images a step takes, with their objects as the augmentation returns them, in shares of the image."""
    batch_size = feed.settings.batch_size
    images = [
        {
            "index": index,
            "uri": example.uri,
            "boxes_xyxy": prepared.boxes_xyxy.tolist(),
            "labels": prepared.labels.tolist(),
        }
        for index, example, prepared in feed.prepared(range(step * batch_size, (step + 1) * batch_size))
    ]
    return {"step": step, "learning_rate": learning_rate(step, feed.settings), "images": images}
