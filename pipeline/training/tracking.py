"""The trackers of a training: they write its events where trainings can be compared, to TensorBoard and MLflow."""

import logging
import os
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import SettingError, reason
from pipeline.redaction import redacted
from pipeline.storage import store
from pipeline.training.events import Evaluated, Speed, Started, StepDone, StoppedEarly, TrainingEvent
from pipeline.training.history import TrainingHistory
from pipeline.training.settings import ClusterTraining
from pipeline.urls import absolute, is_local

logger = logging.getLogger(__name__)

SEND_INTERVAL_S = 20
MAX_METRICS_A_REQUEST = 500
"""The maximum number of metrics per request. MLflow takes a thousand."""
RUN_ID_FILE = "mlflow_run_id"
"""The file in the training's folder with the id of its MLflow run.

A resumed training continues in the same MLflow run; a restarted training begins another.
"""
EXPERIMENT = "ssd-batch"
"""The experiment in MLflow, unless MLFLOW_EXPERIMENT_NAME names another."""


class Tracker(Protocol):
    """Gets the events of a training, and the figures of its model."""

    def __call__(self, event: TrainingEvent) -> None:
        """Take an event of the first worker."""

    def finish(self, metrics: dict[str, Any]) -> None:
        """Take the figures of the package."""

    def close(self, error: BaseException | None) -> None:
        """End the tracking; `error` says why, where the training did not come to its end."""


@contextmanager
def tracked(settings: ClusterTraining, name: str, url: str, known: dict[str, Any]) -> Iterator[list[Tracker]]:
    """Yield the trackers that the settings ask for, until the model is measured.

    Args:
        settings: the settings of the training.
        name: the name of the training.
        url: the folder of the training.
        known: the settings to write down, without secrets.

    Raises:
        SettingError: the package for a tracker is not installed, or a tracker can't be reached.
    """
    trackers: list[Tracker] = []
    if settings.tensorboard:
        _check_installed("tensorboard", "tensorboard")
        trackers.append(Guarded("tensorboard", TensorBoard(settings.tensorboard, settings.batch_size), (OSError,)))
    if settings.mlflow:
        _check_installed("mlflow", "mlflow")
        server = MLflow(settings.mlflow, settings, name, url, known)
        trackers.append(Guarded("mlflow", server, server.errors))
    error: BaseException | None = None
    try:
        yield trackers
    except BaseException as raised:
        error = raised
        raise
    finally:
        for tracker in trackers:
            tracker.close(error)


def _check_installed(setting: str, module: str) -> None:
    if find_spec(module) is None:
        raise SettingError(f"{setting}: the package {module} is not installed; pip install 'ssd-batch[{setting}]'")


class Guarded:
    """A tracker that may fail. A failure is printed once, and the training continues without the tracker.

    Args:
        name: the name of the tracker's setting.
        tracker: the tracker itself.
        errors: the exceptions that the tracker raises when it fails.
    """

    def __init__(self, name: str, tracker: Tracker, errors: tuple[type[Exception], ...]) -> None:
        self._name, self._tracker, self._errors = name, tracker, errors
        self._has_failed = False

    def __call__(self, event: TrainingEvent) -> None:
        """Pass an event to the tracker, unless it has failed."""
        if not self._has_failed:
            self._try(lambda: self._tracker(event))

    def finish(self, metrics: dict[str, Any]) -> None:
        """Pass the figures of the package to the tracker, unless it has failed."""
        if not self._has_failed:
            self._try(lambda: self._tracker.finish(metrics))

    def close(self, error: BaseException | None) -> None:
        """Close the tracker, even one that has failed: it also has things to clean up."""
        self._try(lambda: self._tracker.close(error))

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except self._errors as error:
            if not self._has_failed:
                logger.warning("%s: %s; the training continues without it", self._name, reason(error))
            self._has_failed = True


def scalars(event: StepDone | Evaluated | StoppedEarly, images_per_s: float | None) -> dict[str, float]:
    """Return the numbers of an event, by name."""
    if isinstance(event, StoppedEarly):
        return {}
    if isinstance(event, Evaluated):
        return {"held_out/map": event.map, "held_out/map50": event.map50}
    found = {
        "loss/localization": event.localization,
        "loss/classification": event.classification,
        "learning_rate": event.learning_rate,
    }
    return found | ({"images_per_s": images_per_s} if images_per_s else {})


class TensorBoard:
    """Writes event files into a folder. For a remote URL, it writes them on this machine and copies them there from time to time.

    Args:
        url: the path or the URL of the folder.
        batch_size: the number of images per step.
    """

    def __init__(self, url: str, batch_size: int) -> None:
        self._url = absolute(url).rstrip("/")
        self._beside = None if is_local(self._url) else tempfile.TemporaryDirectory(prefix="ssd-batch-")
        self._speed = Speed(batch_size)
        self._writer: Any = None
        self._copied_s = time.monotonic()
        try:
            probe = f"{self._url}/.probe-{uuid.uuid4().hex}"  # a folder that trainings share, to be compared
            store.write(probe, b"probe")
            store.delete(probe)
        except OSError as error:
            raise SettingError(f"tensorboard {url!r} can't be written: {reason(error)}") from error

    def __call__(self, event: TrainingEvent) -> None:
        """Write each step. Steps that a stopped run wrote, and that come again, are hidden by the later file."""
        images_per_s = self._speed(event)
        if isinstance(event, Started):
            self._open(event.step)
            return
        for name, value in scalars(event, images_per_s).items():
            self._writer.add_scalar(name, value, event.step)
        self._writer.flush()
        if time.monotonic() - self._copied_s > SEND_INTERVAL_S:
            self._copy()

    def _open(self, num_done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if self._writer:
            self._writer.close()
        folder = self._beside.name if self._beside else self._url
        self._writer = SummaryWriter(folder, purge_step=num_done + 1)

    def _copy(self) -> None:
        self._copied_s = time.monotonic()
        if self._beside:
            for file in Path(self._beside.name).iterdir():
                store.put(file, f"{self._url}/{file.name}")

    def finish(self, metrics: dict[str, Any]) -> None:
        """Write nothing: TensorBoard gets curves only."""

    def close(self, error: BaseException | None) -> None:
        """Write what is left."""
        try:
            if self._writer:
                self._writer.close()
                self._copy()
        finally:
            if self._beside:
                self._beside.cleanup()


class MLflow:
    """A run of an MLflow server.

    Args:
        uri: the URI of the server.
        settings: the settings of the training.
        name: the name of the run.
        url: the folder of the training.
        known: the settings to write down.
    """

    def __init__(self, uri: str, settings: ClusterTraining, name: str, url: str, known: dict[str, Any]) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # MLflow's own default waits for many minutes
        self.errors: tuple[type[Exception], ...] = (MlflowException, OSError)
        self._name, self._file, self._known = name, f"{absolute(url)}/{RUN_ID_FILE}", known
        self._stride, self._num_steps = TrainingHistory.of(settings.num_steps).stride, settings.num_steps
        self._speed = Speed(settings.batch_size)
        self._run_id = ""
        self._last_steps: dict[str, int] = {}
        self._unsent: list[Any] = []
        self._sent_s = time.monotonic()
        try:
            self._client = MlflowClient(uri)
            self._experiment_id = self._find_experiment()
        except self.errors as error:
            raise SettingError(f"mlflow {redacted(uri)!r} can't be used: {reason(error)}") from error

    def _find_experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id) if found else str(self._client.create_experiment(name))

    def __call__(self, event: TrainingEvent) -> None:
        """Log an event; of the steps, only as many as a history has points."""
        images_per_s = self._speed(event)
        if isinstance(event, Started):
            self._take_up()
        elif isinstance(event, Evaluated) or event.step % self._stride == 0 or event.step == self._num_steps:
            self._log(scalars(event, images_per_s), event.step)

    def _take_up(self) -> None:
        """Resume the MLflow run that this training already has, after the steps that it holds; else begin a new one."""
        if self._run_id:
            return
        try:
            self._run_id = store.read(self._file).decode()
            held = self._client.get_run(self._run_id).data.metrics
        except (FileNotFoundError, self.errors[0]):  # there is no run yet, or it is another server's
            return self._begin()
        self._client.update_run(self._run_id, status="RUNNING")
        for name in held:
            self._last_steps[name] = max(point.step for point in self._client.get_metric_history(self._run_id, name))

    def _begin(self) -> None:
        from mlflow.entities import Param

        self._run_id = self._client.create_run(self._experiment_id, run_name=self._name).info.run_id
        params = [Param(name, str(value)) for name, value in self._known.items()]
        self._client.log_batch(self._run_id, params=params)
        store.write(self._file, self._run_id.encode())

    def _log(self, values: dict[str, float], step: int) -> None:
        """Queue values to be sent soon. Steps that the server already has, from before a crash, are not sent again."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        fresh = {name: value for name, value in values.items() if step > self._last_steps.get(name, -1)}
        self._last_steps |= dict.fromkeys(fresh, step)
        self._unsent += [Metric(name, value, now_ms, step) for name, value in fresh.items()]
        if len(self._unsent) >= MAX_METRICS_A_REQUEST or time.monotonic() - self._sent_s > SEND_INTERVAL_S:
            self._send()

    def _send(self) -> None:
        self._sent_s = time.monotonic()
        if self._unsent:
            self._client.log_batch(self._run_id, metrics=self._unsent)
            self._unsent = []

    def finish(self, metrics: dict[str, Any]) -> None:
        """Log the package's figures, with one metric per class where they are by class."""
        flat = {name: value for name, value in metrics.items() if isinstance(value, (int, float))}
        for name in ("per_class", "per_class_map"):
            flat |= {re.sub(r"[^\w\-. /]", "_", f"{name}/{label}"): value for label, value in metrics[name].items()}
        self._log({f"final/{name}": value for name, value in flat.items() if value is not None}, self._num_steps)

    def close(self, error: BaseException | None) -> None:
        """Send what is left, and record how the training ended."""
        status = "FINISHED" if error is None else "FAILED" if isinstance(error, Exception) else "KILLED"
        if self._run_id:
            self._send()
            self._client.set_terminated(self._run_id, status)
