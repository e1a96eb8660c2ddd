"""Trainings on a cluster of this machine: of one worker and of two, measured, and failing."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray.data import DataContext
from ray.train.v2.torch.torch_trainer import TorchTrainer

from jobs.demo.examples import DrawnExamples
from model.config import Architecture, Preprocessing
from model.package import ModelPackage
from model.package_files import PackageRecord
from pipeline.errors import SettingError, SsdBatchError
from pipeline.labelled.dataset import read_clean
from pipeline.labelled.examples import LabelledExamples
from pipeline.training.driver import Trained, check_batch_norm, train
from pipeline.training.events import Started, StepDone, TrainingEvent
from pipeline.training.settings import ClusterTraining
from pipeline.training.worker import STATE_FILE, new_network
from tests.chaos.processes import below, kill

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.usefixtures("local_cluster"),
]

RECORD = PackageRecord(
    name="tiny",
    architecture=Architecture(width=0.05),  # without batch norm, whose statistics are a worker's own
    class_names=("circle", "square", "triangle", "star", "ring", "cross"),
    preprocessing=Preprocessing(std=(0.229, 0.224, 0.225)),
)
SETTINGS = ClusterTraining(num_steps=4, batch_size=4, warmup_steps=0, learning_rate=0.001, seed=2)


def trained(url: Path, *listeners: Callable[[TrainingEvent], None], **settings: Any) -> Trained:
    start = ModelPackage(RECORD, {})
    changed = SETTINGS.model_copy(update=settings)
    return train(start, DrawnExamples(0, 8), DrawnExamples(100, 3), changed, str(url), listeners)


@pytest.fixture(scope="module")
def one(local_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A training of one worker. First Ray has lost its worker's error, which comes as a result without error, without checkpoint,
    and without what `learn` returns: it is started again."""
    fit, results = TorchTrainer.fit, [SimpleNamespace(return_value=None)]
    with pytest.MonkeyPatch.context() as lost:
        lost.setattr(TorchTrainer, "fit", lambda trainer: results.pop() if results else fit(trainer))
        found = trained(tmp_path_factory.mktemp("one"))
    assert not results
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the folders of runs."""
    return tmp_path_factory.mktemp("runs")


def test_two_workers_end_where_one_does(one: Trained, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """But for the noise of bfloat16: the weights have moved much further than they lie apart. The best checkpoint comes out."""
    start = new_network(ModelPackage(RECORD, {}), SETTINGS.seed).state_dict()
    best = trained(runs / "two", num_workers=2, validate_every_steps=1, keep_checkpoints=1)
    kept = kept_states(runs / "two")
    assert 1 <= len(kept) <= 2  # the best, and the last
    two = max(kept, key=lambda state: state["step"])["network"]
    moved = torch.cat([(one.weights[name] - start[name]).flatten() for name in start]).norm()
    apart = torch.cat([(one.weights[name] - two[name]).flatten() for name in start]).norm()
    assert apart < 0.05 * moved
    told = capsys.readouterr().err
    assert "the training begins: 2 workers, cpu" in told
    assert told.count("step 4 of 4 · pass 2 · localization ") == 1
    assert [f"step {step}: map50 0." in told for step in range(1, 5)] == [True] * 4
    history = best.history
    assert [told.step for told in history.stepped] == [told.step for told in history.measured] == [1, 2, 3, 4]
    assert history.begun == [Started(0, 2, "cpu", False)]
    map50_of = {told.step: told.map50 for told in history.measured}
    best_ones = [state["network"] for state in kept if map50_of[state["step"]] == max(map50_of.values())]
    assert any(all(torch.equal(network[name], best.weights[name]) for name in best.weights) for network in best_ones)


def test_a_worker_that_is_killed_changes_nothing(one: Trained, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At its last step, when the steps before are checkpoints: the weights are those of a training that nobody has struck."""
    killed = []

    def strike(told: TrainingEvent) -> None:
        if isinstance(told, StepDone) and told.step == 4 and not killed:
            killed.extend(pid for pid, name in below(os.getpid()).items() if "ray::RayTrainWorker" in name)
            kill(*killed)

    struck = trained(runs / "struck", strike, checkpoint_every_steps=1)
    told = capsys.readouterr().err
    assert killed
    assert "the training begins: 1 workers, cpu" in told
    assert "the training resumes after step " in told
    assert all(torch.equal(one.weights[name], struck.weights[name]) for name in one.weights)


def kept_states(run: Path) -> list[dict[str, Any]]:
    """What a run's checkpoints hold."""
    return [torch.load(file, weights_only=True) for file in run.glob(f"checkpoint_*/{STATE_FILE}")]


def test_a_training_that_no_longer_gets_better_ends(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At a learning rate of nearly nothing. Started again, it has nothing left to do."""
    settings = {"num_steps": 6, "learning_rate": 1e-12, "validate_every_steps": 1, "num_workers": 2}
    stuck = trained(runs / "stuck", patience=2, **settings)
    assert [told.step for told in stuck.history.stepped] == [1, 2, 3]
    assert "the training ends at step 3: 2 measurements without a better map50" in capsys.readouterr().err
    again = trained(runs / "stuck", patience=2, **settings | {"num_workers": 1})
    assert again.history == stuck.history
    assert "the training ends at step 3: 2 measurements without a better map50" in capsys.readouterr().err
    fewer = trained(runs / "stuck", **settings | {"num_steps": 2, "num_workers": 1})
    assert fewer.history == stuck.history, "what is learned stays learned"


def test_an_image_that_can_not_be_read_ends_it_in_one_line(
    labelled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is tried once, however often failures are forgiven. Also after a run in this process, which allows lost blocks: Ray Train
    hands that on to its workers."""
    fit, fits = TorchTrainer.fit, []
    monkeypatch.setattr(TorchTrainer, "fit", lambda trainer: fits.append(1) or fit(trainer))
    monkeypatch.setattr(DataContext.get_current(), "max_errored_blocks", 5)
    labelled.voc(tmp_path / "voc", a=labelled.thing("circle", 1, 1, 9, 9), b=labelled.thing("ring", 1, 1, 9, 9))
    examples = LabelledExamples(read_clean([str(tmp_path / "voc")], "train"), RECORD.class_names)
    (tmp_path / "voc/JPEGImages/b.jpg").write_bytes(b"\xff\xd8")
    settings = SETTINGS.model_copy(update={"max_failures": 3})
    with pytest.raises(
        SsdBatchError, match=r"^the training failed: .*b\.jpg: .*; what was checkpointed stays$"
    ) as found:
        train(ModelPackage(RECORD, {}), examples, examples, settings, str(tmp_path / "run"))
    assert "\n" not in str(found.value)
    assert len(fits) == 1


def test_batch_norm_needs_two_images_a_pass() -> None:
    """Five images of two workers: two and three; in two passes each, one and one, and two and one."""
    settings = SETTINGS.model_copy(update={"batch_size": 5})
    check_batch_norm(settings, 2)
    check_batch_norm(settings.model_copy(update={"batch_size": 8, "grad_accumulation": 2}), 2)
    with pytest.raises(SettingError, match="batch_size 5 leaves a worker of 2 with a forward pass of one image"):
        check_batch_norm(settings.model_copy(update={"grad_accumulation": 2}), 2)
    with pytest.raises(SettingError, match="batch_size 5 leaves a worker of 3"):
        check_batch_norm(settings, 3)
