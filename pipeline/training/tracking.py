"""What a training tells, written where other trainings can be compared with it: TensorBoard, MLflow."""

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import SettingError, reason
from pipeline.redaction import redacted
from pipeline.storage import store
from pipeline.training.events import Evaluated, Speed, Started, StepDone, TrainingEvent
from pipeline.training.history import TrainingHistory
from pipeline.training.settings import ClusterTraining
from pipeline.urls import absolute, is_local

SEND_INTERVAL_S = 20
MAX_METRICS_A_REQUEST = 500
"""MLflow takes a thousand."""
RUN_ID_FILE = "mlflow_run_id"
"""In the run's folder: it goes on in the same run of MLflow, and begins another when it begins anew."""
EXPERIMENT = "ssd-batch"
"""MLflow's, unless MLFLOW_EXPERIMENT_NAME names another."""


class Tracker(Protocol):
    """Hears what a training tells, and what its model's figures are."""

    def __call__(self, event: TrainingEvent) -> None:
        """What the first worker event."""

    def finish(self, metrics: dict[str, Any]) -> None:
        """The figures of the package."""

    def close(self, error: BaseException | None) -> None:
        """Nothing more comes; why, where it is not the end."""


@contextmanager
def tracked(settings: ClusterTraining, name: str, url: str, known: dict[str, Any]) -> Iterator[list[Tracker]]:
    """The trackers that the settings ask for, until the model is measured.

    Args:
        settings: of the training.
        name: of the training.
        url: its folder.
        known: settings to write down, without secrets.

    Raises:
        SettingError: a package for one is not installed, or one can't be reached.
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
    """A tracker that may fail: that is told once, and the training goes on without it.

    Args:
        name: of its setting.
        tracker: itself.
        errors: how it fails.
    """

    def __init__(self, name: str, tracker: Tracker, errors: tuple[type[Exception], ...]) -> None:
        self._name, self._tracker, self._errors = name, tracker, errors
        self._has_failed = False

    def __call__(self, event: TrainingEvent) -> None:
        """As the tracker."""
        if not self._has_failed:
            self._try(lambda: self._tracker(event))

    def finish(self, metrics: dict[str, Any]) -> None:
        """As the tracker."""
        if not self._has_failed:
            self._try(lambda: self._tracker.finish(metrics))

    def close(self, error: BaseException | None) -> None:
        """As the tracker; one that has failed has things to put away, too."""
        self._try(lambda: self._tracker.close(error))

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except self._errors as error:
            if not self._has_failed:
                print(f"{self._name}: {reason(error)}; the training goes on without it", file=sys.stderr)
            self._has_failed = True


def scalars(event: StepDone | Evaluated, images_per_s: float | None) -> dict[str, float]:
    """What is event, number by number."""
    if isinstance(event, Evaluated):
        return {"held_out/map": event.map, "held_out/map50": event.map50}
    found = {
        "loss/localization": event.localization,
        "loss/classification": event.classification,
        "learning_rate": event.learning_rate,
    }
    return found | ({"images_per_s": images_per_s} if images_per_s else {})


class TensorBoard:
    """Event files in a folder; by URL, they are written beside and copied there now and then.

    Args:
        url: of the folder.
        batch_size: images a step.
    """

    def __init__(self, url: str, batch_size: int) -> None:
        self._url = absolute(url).rstrip("/")
        self._beside = None if is_local(self._url) else tempfile.TemporaryDirectory(prefix="ssd-batch-")
        self._speed = Speed(batch_size)
        self._writer: Any = None
        self._copied_s = time.monotonic()
        try:
            store.write(f"{self._url}/.probe", b"probe")
            store.delete(f"{self._url}/.probe")
        except OSError as error:
            raise SettingError(f"tensorboard {url!r} can't be written: {reason(error)}") from error

    def __call__(self, event: TrainingEvent) -> None:
        """Each step; what a stopped run had written of steps that come again is hidden by its own later file."""
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
        """Curves are all it has."""

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
        uri: the server's.
        settings: of the training.
        name: of the run.
        url: the training's folder.
        known: settings to write down.
    """

    def __init__(self, uri: str, settings: ClusterTraining, name: str, url: str, known: dict[str, Any]) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # its own default waits for many minutes
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
        """As many steps as a history has points."""
        images_per_s = self._speed(event)
        if isinstance(event, Started):
            self._take_up()
        elif isinstance(event, Evaluated) or event.step % self._stride == 0 or event.step == self._num_steps:
            self._log(scalars(event, images_per_s), event.step)

    def _take_up(self) -> None:
        """The run that this training has already, with what it holds; else a new one."""
        if self._run_id:
            return
        try:
            self._run_id = store.read(self._file).decode()
            held = self._client.get_run(self._run_id).data.metrics
        except (FileNotFoundError, self.errors[0]):  # it is another server's
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
        """Send soon; steps that are there already, of before a crash, are not doubled."""
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
        """The package's figures, a class each where they are by class."""
        flat = {name: value for name, value in metrics.items() if isinstance(value, (int, float))}
        for name in ("per_class", "per_class_map"):
            flat |= {re.sub(r"[^\w\-. /]", "_", f"{name}/{label}"): value for label, value in metrics[name].items()}
        self._log({f"final/{name}": value for name, value in flat.items() if value is not None}, self._num_steps)

    def close(self, error: BaseException | None) -> None:
        """Send what is left, and say how it ended."""
        status = "FINISHED" if error is None else "FAILED" if isinstance(error, Exception) else "KILLED"
        if self._run_id:
            self._send()
            self._client.set_terminated(self._run_id, status)
