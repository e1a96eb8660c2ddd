"""Trainings on a cluster of this machine: of one worker and of two, measured, and failing."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray.data import DataContext
from ray.train.v2.torch.torch_trainer import TorchTrainer

from jobs.demo.train import DrawnExamples
from model.config import Architecture, Preprocessing
from model.package import ModelPackage
from model.package_files import PackageRecord
from pipeline.dataset import read_clean
from pipeline.errors import SettingError, SsdBatchError
from pipeline.examples import LabelledExamples
from pipeline.train_loop import new_network
from pipeline.training import Trained, check_batch_norm, train
from pipeline.training_progress import Begun
from pipeline.training_settings import ClusterTraining

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


def trained(url: Path, **settings: Any) -> Trained:
    start = ModelPackage(RECORD, {})
    changed = SETTINGS.model_copy(update=settings)
    return train(start, DrawnExamples(0, 8), DrawnExamples(100, 3), changed, str(url))


def test_two_workers_end_where_one_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """But for the noise of bfloat16: the weights have moved much further than they lie apart."""
    start = new_network(ModelPackage(RECORD, {}), SETTINGS.seed).state_dict()
    one, two = (trained(tmp_path / str(count), num_workers=count).weights for count in (1, 2))
    moved = torch.cat([(one[name] - start[name]).flatten() for name in start]).norm()
    apart = torch.cat([(one[name] - two[name]).flatten() for name in start]).norm()
    assert apart < 0.05 * moved
    told = capsys.readouterr().err
    assert "the training begins: 1 workers, cpu" in told
    assert "the training begins: 2 workers, cpu" in told
    assert told.count("step 4 of 4 · pass 2 · localization ") == 2


def test_checkpoints_are_measured_and_the_best_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A finished run that is started again has nothing left to do, and gives the same."""
    first = trained(tmp_path / "run", num_workers=2, validate_every_steps=1, keep_checkpoints=1)
    told = capsys.readouterr().err
    assert [f"step {step}: map50 0." in told for step in range(1, 5)] == [True] * 4
    assert 1 <= len(list((tmp_path / "run").glob("checkpoint_*/state.pt"))) <= 2  # the best, and the last

    again = trained(tmp_path / "run", num_workers=1, validate_every_steps=1, keep_checkpoints=1)
    assert "the training resumes after step 4 of 4" in capsys.readouterr().err
    assert all(torch.equal(first.weights[name], again.weights[name]) for name in first.weights)
    assert first.history == again.history
    assert (
        [told.step for told in first.history.stepped] == [told.step for told in first.history.measured] == [1, 2, 3, 4]
    )
    assert first.history.begun == [Begun(0, 2, "cpu", False)]


def test_an_image_that_can_not_be_read_ends_it_in_one_line(
    labelled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a run in this process, which allows lost blocks: Ray Train hands that on to its workers."""
    monkeypatch.setattr(DataContext.get_current(), "max_errored_blocks", 5)
    labelled.voc(tmp_path / "voc", a=labelled.thing("circle", 1, 1, 9, 9), b=labelled.thing("ring", 1, 1, 9, 9))
    examples = LabelledExamples(read_clean([str(tmp_path / "voc")], "train"), RECORD.class_names)
    (tmp_path / "voc/JPEGImages/b.jpg").write_bytes(b"\xff\xd8")
    settings = SETTINGS.model_copy(update={"max_failures": 0})
    with pytest.raises(
        SsdBatchError, match=r"^the training failed: .*b\.jpg: .*; what was checkpointed stays$"
    ) as found:
        train(ModelPackage(RECORD, {}), examples, examples, settings, str(tmp_path / "run"))
    assert "\n" not in str(found.value)


def test_a_training_whose_workers_error_ray_lost_is_started_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which comes as a result without error, without checkpoint, and without what `learn` returns."""
    fit, results = TorchTrainer.fit, [SimpleNamespace(return_value=None)]
    monkeypatch.setattr(TorchTrainer, "fit", lambda trainer: results.pop() if results else fit(trainer))
    assert len(trained(tmp_path / "run").history.stepped) == 4
    assert "step 4 of 4" in capsys.readouterr().err


def test_batch_norm_needs_two_images_a_pass() -> None:
    """Five images of two workers: two and three; in two passes each, one and one, and two and one."""
    settings = SETTINGS.model_copy(update={"batch_size": 5})
    check_batch_norm(settings, 2)
    check_batch_norm(settings.model_copy(update={"batch_size": 8, "grad_accumulation": 2}), 2)
    with pytest.raises(SettingError, match="batch_size 5 leaves a worker of 2 with a forward pass of one image"):
        check_batch_norm(settings.model_copy(update={"grad_accumulation": 2}), 2)
    with pytest.raises(SettingError, match="batch_size 5 leaves a worker of 3"):
        check_batch_norm(settings, 3)
