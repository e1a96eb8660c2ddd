"""The training on the cluster: Ray Train manages the workers and their checkpoints, and Ray Data brings the examples."""

import json
import logging
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import pyarrow.fs
import ray
import ray.train
from ray.train.v2.api.config import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.train.v2.api.result import Result
from ray.train.v2.torch.torch_trainer import TorchTrainer
from torch import Tensor

from model.example import Examples
from model.memory import ONE_ARENA
from model.package import ModelPackage
from model.step import num_parts
from pipeline.cluster.capacity import cluster_cores, num_gpus, wait_for_room
from pipeline.errors import SettingError, SsdBatchError, reason
from pipeline.labelled.examples import UnreadableError
from pipeline.labelled.record import DataError
from pipeline.redaction import redacted_json
from pipeline.storage import store
from pipeline.training.events import TrainingEvent, TrainingProgress, listen
from pipeline.training.feed import PREPARE_CPUS, Feed
from pipeline.training.history import TrainingHistory
from pipeline.training.settings import RESUMABLE, ClusterTraining
from pipeline.training.worker import SCORE, WORKER_CPUS, Task, learn, read_state
from pipeline.urls import absolute, is_local

logger = logging.getLogger(__name__)

SETTINGS_FILE = "settings.json"
OUR_ERROR = re.compile(r"^pipeline\.\S+Error: (.+)$", re.MULTILINE)
"""The pattern of our own error in a traceback; Ray passes on the tracebacks of its tasks as text."""
OF_THE_DATA = re.compile(
    "|".join(rf"^{re.escape(error.__module__)}\.{error.__name__}: " for error in (DataError, UnreadableError)),
    re.MULTILINE,
)
"""The pattern of an error of the data in a traceback: it comes again, however often the training is tried."""


@dataclass(frozen=True)
class Trained:
    """The result of a training."""

    weights: dict[str, Tensor]
    """The network's tensors by name: of the best checkpoint where checkpoints are measured, else of the last step."""
    history: TrainingHistory
    """The history of all steps."""


def train(
    start: ModelPackage,
    examples: Examples,
    held_out: Examples,
    settings: ClusterTraining,
    url: str,
    listeners: Sequence[Callable[[TrainingEvent], None]] = (),
) -> Trained:
    """Train a network on the cluster that this process is in, and show the progress on standard error. A stopped run resumes.

    Args:
        start: the record of the model to train, and the tensors to start from. Tensors that it lacks start at random.
        examples: the labelled images, of any sizes.
        held_out: other labelled images, on which checkpoints are measured.
        settings: the recipe, and how the cluster follows it.
        url: the folder of the run, with its checkpoints; it has passed `check_same_run`, and all nodes must reach it.
        listeners: get the events that the progress shows, in a thread of their own.

    Raises:
        SettingError: the cluster is too small, or lacks a GPU that is required.
        SsdBatchError: workers keep failing, or the loss is not a finite number any more.
    """
    url = absolute(url).rstrip("/")
    wait_for_workers(settings)
    scaling = scaling_config(settings)
    if start.record.architecture.batch_norm:
        check_batch_norm(settings, scaling.max_workers)
    image_size_px = start.record.architecture.image_size_px
    feed = Feed([ray.put(examples)], len(examples), image_size_px, start.record.preprocessing, settings)
    progress = TrainingProgress(settings.num_steps, settings.batch_size, len(examples), sys.stderr)
    with listen([progress.show, *listeners]) as events:
        task = Task(settings, feed, [ray.put(start)], [ray.put(held_out)], url, events)
        trainer = _Trainer(partial(learn, task), scaling_config=scaling, run_config=run_config(url, settings))
        result = _fitted(trainer, settings.max_failures)
    if result.return_value:
        raise SsdBatchError(f"{result.return_value}; a lower learning rate or a longer warm-up may help")
    return what_came_out(result, settings)


def _fitted(trainer: TorchTrainer, max_failures: int) -> Result:
    """Train to the end, and resume from the last checkpoint after each failure.

    Ray Train itself would also try again after errors that can't get better.
    """
    for num_left in reversed(range(max_failures + 1)):
        try:
            # Ray Train 2.60 asks for a worker's error, then whether it still runs. An error in between is lost: the training seems
            # to end well, with None.
            while (result := cast(Result, trainer.fit())).return_value is None:
                continue
            return result
        except KeyboardInterrupt:
            logger.info(
                "the same command, without --restart, goes on from the last checkpoint; fewer --num-steps end it, with a package"
            )
            raise
        except TrainingFailedError as error:
            if not num_left or _is_of_the_data(_failure(error)):
                raise SsdBatchError(f"the training failed: {why(error)}; what was checkpointed stays") from error
            logger.warning("the training failed: %s; it is tried again from its last checkpoint", why(error))
    raise AssertionError("max_failures is 0 or more")


class _Trainer(TorchTrainer):
    def _register_sigint_handler(self, controller: Any) -> None:
        """Install no handler: with Ray's own, a training that was stopped exits with 0."""


def check_same_run(url: str, settings: ClusterTraining, data: dict[str, Any]) -> None:
    """Check that a run resumes with the settings and the data with which it was begun, but for their number.

    The first time, and at a restart, write them down. This needs no cluster.

    Args:
        url: the folder of the run.
        settings: the settings with which the run is asked to resume.
        data: the data that is learned from, and the network that learns it.

    Raises:
        SettingError: settings differ, or the storage can't be written; the message names them.
    """
    url = absolute(url).rstrip("/")
    ours_now = (
        redacted_json(settings.model_dump(mode="json", include=ClusterTraining.model_fields.keys() - RESUMABLE)) | data
    )
    file = f"{url}/{SETTINGS_FILE}"
    try:
        if settings.restart and store.exists(file):  # else it is no run's, and nothing is deleted
            fs, path = store.filesystem(url)
            fs.rm(path, recursive=True)
        if not store.exists(file):
            return store.write(file, json.dumps(ours_now, indent=2).encode())
        before = json.loads(store.read(file))
        is_longer = settings.num_steps > before.get("num_steps", settings.num_steps)
        is_meant = is_longer or "num_steps" in settings.model_fields_set  # a forgotten flag ends no training
        if is_meant and before != ours_now and before | {"num_steps": settings.num_steps} == ours_now:
            logger.info(
                "num_steps: %s instead of %s: the training goes on with that schedule, to that step or its last checkpoint",
                settings.num_steps,
                before["num_steps"],
            )
            return store.write(file, json.dumps(ours_now, indent=2).encode())
    except OSError as error:
        raise SettingError(f"the run's folder {url!r} can't be used: {reason(error)}") from error
    if changed := sorted(name for name in before.keys() | ours_now.keys() if before.get(name) != ours_now.get(name)):
        differences = "; ".join(
            "data: other images or boxes"
            if name == "data"
            else f"{name}: {ours_now.get(name)!r}, not {before.get(name)!r}"
            for name in changed
        )
        raise SettingError(
            f"{differences} as the run in {url!r} was begun with; take that, another name, or --restart to begin anew"
        )


def wait_for_workers(settings: ClusterTraining) -> None:
    """Wait until the cluster has room for the workers that it must have, and for preparing their examples.

    Raises:
        SettingError: there is still no room after `node_wait_s` seconds.
    """
    worker = {"CPU": WORKER_CPUS + PREPARE_CPUS} | ({"GPU": 1} if settings.require_gpu else {})
    wait_for_room(settings, lambda: _lacks_room(settings), [worker] * num_needed(settings))


def num_needed(settings: ClusterTraining) -> int:
    """Return the number of workers that the cluster must have."""
    return settings.min_workers or settings.num_workers or max(1, num_gpus())


def _lacks_room(settings: ClusterTraining) -> str | None:
    needed = num_needed(settings)
    if num_gpus() and needed > num_gpus():
        return f"num_workers: {needed} are more than the cluster's {num_gpus()} GPUs; take fewer"
    if needed * (WORKER_CPUS + PREPARE_CPUS) > cluster_cores():
        return (
            f"num_workers: {needed} are too many for {cluster_cores()} cores: each books {WORKER_CPUS}, and "
            f"{PREPARE_CPUS} for its examples; take fewer, or give Ray more (ray start --num-cpus)"
        )
    return None


def scaling_config(settings: ClusterTraining) -> ScalingConfig:
    """Return how many workers there are, and what each of them books.

    Raises:
        SettingError: some workers would have no example of a batch.
    """
    num_workers = settings.num_workers or max(1, num_gpus())
    if settings.batch_size < num_workers:
        raise SettingError(f"batch_size {settings.batch_size} is less than {num_workers} workers; take a larger batch")
    has_gpus = num_gpus() > 0
    return ScalingConfig(
        num_workers=(settings.min_workers, num_workers) if settings.min_workers else num_workers,
        use_gpu=has_gpus,
        resources_per_worker={"CPU": WORKER_CPUS} | ({"GPU": 1} if has_gpus else {}),
    )


def check_batch_norm(settings: ClusterTraining, num_workers: int) -> None:
    """Check that no forward pass has a single image: the last map is one cell, and one value has no variance.

    Raises:
        SettingError: a forward pass would have a single image.
    """
    smallest_share = settings.batch_size // num_workers
    if smallest_share // num_parts(settings, num_workers) < 2:
        raise SettingError(
            f"batch_size {settings.batch_size} leaves a worker of {num_workers} with a forward pass of one image (grad_accumulation "
            f"{settings.grad_accumulation}), and batch norm needs two; take a larger batch"
        )


def run_config(url: str, settings: ClusterTraining) -> RunConfig:
    """Return where checkpoints are stored, which of them are kept, and the environment of workers: Ray Train has them compute in a thread."""
    parent, _, name = url.rpartition("/")
    return RunConfig(
        name=name,
        **_storage(parent),
        checkpoint_config=CheckpointConfig(
            num_to_keep=settings.keep_checkpoints,
            checkpoint_score_attribute=SCORE if settings.validate_every_steps else None,
        ),
        failure_config=FailureConfig(max_failures=0),  # see `_fitted`
        worker_runtime_env={"env_vars": dict([ONE_ARENA])},
    )


def _storage(url: str) -> dict[str, Any]:
    """Return a folder in the form that Ray Train takes; S3 is reached with our own configuration of it."""
    if is_local(url):
        return {"storage_path": url}
    fs, path = store.filesystem(url)
    handler = pyarrow.fs.FSSpecHandler(fs)
    return {"storage_path": fs._strip_protocol(path), "storage_filesystem": pyarrow.fs.PyFileSystem(handler)}


def what_came_out(result: Result, settings: ClusterTraining) -> Trained:
    """Return the weights of the chosen checkpoint, and the history that the last checkpoint has."""
    assert result.checkpoint is not None  # the last step leaves a checkpoint
    weights = read_state(chosen(result, settings))["weights"]
    return Trained(weights, TrainingHistory.from_state(read_state(result.checkpoint)["history"]))


def chosen(result: Result, settings: ClusterTraining) -> ray.train.Checkpoint:
    """Return the checkpoint that becomes the package."""
    assert result.checkpoint is not None
    measured = [pair for pair in result.best_checkpoints or () if SCORE in pair[1]]
    if not settings.validate_every_steps or not measured:
        return result.checkpoint
    return max(measured, key=lambda pair: pair[1][SCORE])[0]


def why(error: TrainingFailedError) -> str:
    """Return the message of our own error, if a worker's traceback holds one, else the traceback's last line."""
    text = str(_failure(error))
    lines = OUR_ERROR.findall(text) or text.strip().splitlines()
    return reason(Exception(lines[-1] if lines else type(error).__name__))


def _failure(error: TrainingFailedError) -> Exception:
    """Return a worker's error: what it raised itself, or the traceback of a task of its own as an error."""
    failures = getattr(error, "worker_failures", None)
    return next(iter(failures.values())) if failures else error


def _is_of_the_data(failure: Exception) -> bool:
    return isinstance(failure, DataError) or bool(OF_THE_DATA.search(str(failure)))
