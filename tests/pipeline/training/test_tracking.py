"""What trackers wrote, read back by TensorBoard's and MLflow's own readers."""

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.errors import SettingError
from pipeline.training import tracking
from pipeline.training.events import Evaluated, Started, StepDone, TrainingEvent
from pipeline.training.settings import ClusterTraining
from pipeline.training.tracking import tracked

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SETTINGS = ClusterTraining(num_steps=6)
METRICS = {"map": 0.5, "map_small": None, "per_class": {"a (b)": 0.25}, "per_class_map": {}}


def steps(first: int, last: int) -> list[TrainingEvent]:
    return [StepDone(step, 1 / step, 2.0, 0.01) for step in range(first, last + 1)]


def run(
    folder: Path,
    settings: ClusterTraining,
    *told: TrainingEvent,
    metrics: dict[str, Any] | None = None,
    error: BaseException | None = None,
) -> None:
    with tracked(settings, "blood", str(folder / "run"), {"seed": 3}) as trackers:
        for tracker in trackers:
            for each in told:
                tracker(each)
            if metrics:
                tracker.finish(metrics)
        if error:
            raise error


def read_events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, round(e.value, 4)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_tensorboard_has_each_step_once(tmp_path: Path, scheme: str) -> None:
    """Stopped after step 4, taken up after step 2, and again after step 3: on a disk, and by URL."""
    url = f"{scheme}{tmp_path}/events"
    settings = SETTINGS.model_copy(update={"tensorboard": url})
    run(tmp_path, settings, Started(0, 1, "cpu", False), *steps(1, 4))
    a_worker_died = (*steps(3, 5), Started(3, 1, "cpu", False), *steps(4, 6))
    run(tmp_path, settings, Started(2, 1, "cpu", False), *a_worker_died, Evaluated(6, 0.25, 0.75))
    for name in tracking.store.names(url):
        if scheme:
            (tmp_path / name).write_bytes(tracking.store.read(f"{url}/{name}"))
    found = read_events(tmp_path if scheme else tmp_path / "events")
    assert found["loss/localization"] == [(step, round(1 / step, 4)) for step in range(1, 7)]
    assert [step for step, _ in found["learning_rate"]] == [1, 2, 3, 4, 5, 6]
    assert (found["held_out/map50"], found["held_out/map"]) == ([(6, 0.75)], [(6, 0.25)])
    assert "images_per_s" in found


@pytest.fixture
def mlflow_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder, which stands for a server: the package has none."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return str(tmp_path / "mlruns")


def test_mlflow_goes_on_in_the_same_run(tmp_path: Path, mlflow_store: str) -> None:
    settings = SETTINGS.model_copy(update={"mlflow": mlflow_store})
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, settings, Started(0, 1, "cpu", False), *steps(1, 4), error=KeyboardInterrupt())
    client = MlflowClient(mlflow_store)
    experiment = client.get_experiment_by_name("ssd-batch")
    (stopped,) = client.search_runs([experiment.experiment_id])
    assert stopped.info.status == "KILLED"

    begun = Started(2, 1, "cpu", False)
    a_worker_died = (*steps(3, 5), Started(3, 1, "cpu", False), *steps(4, 6))
    run(tmp_path, settings, begun, *a_worker_died, Evaluated(6, 0.25, 0.75), metrics=METRICS)
    (done,) = client.search_runs([experiment.experiment_id])
    assert (done.info.run_id, done.info.run_name, done.info.status) == (stopped.info.run_id, "blood", "FINISHED")
    assert done.data.params == {"seed": "3"}
    history = client.get_metric_history(done.info.run_id, "loss/localization")
    assert [(point.step, point.value) for point in history] == [(step, 1 / step) for step in range(1, 7)]
    values = done.data.metrics
    assert (values["held_out/map50"], values["final/map"], values["final/per_class/a _b_"]) == (0.75, 0.5, 0.25)

    (tmp_path / "run/mlflow_run_id").unlink()  # as --restart does
    run(tmp_path, settings, Started(0, 1, "cpu", False), *steps(1, 2))
    assert len(client.search_runs([experiment.experiment_id])) == 2


def test_mlflow_that_fails_later_stops_nothing(
    tmp_path: Path, mlflow_store: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = SETTINGS.model_copy(update={"mlflow": mlflow_store})
    with tracked(settings, "blood", str(tmp_path / "run"), {}) as (tracker,):
        (tmp_path / "run").write_text("a file where a folder should be")
        for told in (Started(0, 1, "cpu", False), *steps(1, 3)):
            tracker(told)
    assert caplog.text.count("the training continues without it") == 1


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("tensorboard", "/dev/null/events", r"^tensorboard '/dev/null/events' can't be written: "),
        ("mlflow", "nope://user:secret@host/x", r"^mlflow 'nope://host/x' can't be used: "),
    ],
)
def test_what_can_not_be_reached(tmp_path: Path, setting: str, value: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        run(tmp_path, SETTINGS.model_copy(update={setting: value}))


@pytest.mark.parametrize("setting", ["tensorboard", "mlflow"])
def test_a_package_that_is_not_installed(tmp_path: Path, setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match=rf"{setting}: .* pip install 'ssd-batch\[{setting}\]'"):
        run(tmp_path, SETTINGS.model_copy(update={setting: "x"}))
