import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.errors import SettingError
from pipeline.training.driver import check_same_run
from pipeline.training.settings import RESUMABLE, ClusterTraining


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_workers": 9, "batch_size": 8}, "num_workers 9 are more than batch_size 8"),
        ({"min_workers": 2}, "min_workers 2 needs a num_workers of as many or more"),
        ({"min_workers": 3, "num_workers": 2}, "min_workers 3 needs"),
        ({"patience": 2}, "patience counts measurements; give validate_every_steps, too"),
    ],
)
def test_workers_that_can_not_be(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ClusterTraining(**settings)


def test_a_run_goes_on_with_what_it_was_begun_with(tmp_path: Path) -> None:
    url, data = str(tmp_path / "run"), {"data": "digest"}
    begun = ClusterTraining()
    check_same_run(url, begun, data)
    check_same_run(url, begun.model_copy(update={"num_workers": 2, "address": "auto", "max_failures": 9}), data)
    with pytest.raises(
        SettingError, match=r"batch_size: 8, not 16; learning_rate: 0\.1, not 0\.02 as the run in .*--restart"
    ):
        check_same_run(url, begun.model_copy(update={"batch_size": 8, "learning_rate": 0.1}), data)
    with pytest.raises(SettingError, match=r"^data: other images or boxes as the run"):
        check_same_run(url, begun, {"data": "other"})


def test_a_run_may_get_more_steps_or_fewer(tmp_path: Path) -> None:
    """Nothing else may change at once."""
    url, data = str(tmp_path / "run"), {"data": "digest"}
    begun = ClusterTraining(num_steps=10)
    more = begun.model_copy(update={"num_steps": 3000})
    check_same_run(url, begun, data)
    with pytest.raises(SettingError, match="num_steps: 3000, not 10"):
        check_same_run(url, more.model_copy(update={"batch_size": 8}), data)
    check_same_run(url, more, data)
    with pytest.raises(SettingError, match="num_steps: 1500, not 3000"):
        check_same_run(url, ClusterTraining(), data)
    check_same_run(url, begun, data)


def test_a_restart_forgets_the_run(tmp_path: Path) -> None:
    check_same_run(str(tmp_path / "run"), ClusterTraining(), {})
    (tmp_path / "run/checkpoint").write_text("old")
    check_same_run(str(tmp_path / "run"), ClusterTraining(learning_rate=0.1, restart=True), {})
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["settings.json"]
    assert json.loads((tmp_path / "run/settings.json").read_text())["learning_rate"] == 0.1


def test_a_restart_forgets_nothing_but_runs(tmp_path: Path) -> None:
    """Published models, say, may lie where a storage and a name lead by mistake."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/file").write_text("of some kind")
    check_same_run(str(tmp_path / "models"), ClusterTraining(restart=True), {})
    assert (tmp_path / "models/file").exists()


def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match=r"the run's folder .* can't be used"):
        check_same_run(str(tmp_path / "file/run"), ClusterTraining(), {})


def test_what_may_change_are_settings() -> None:
    assert ClusterTraining.model_fields.keys() >= RESUMABLE
