"""What a run does while it holds its table, and does not while it doesn't. In this process, so that parts can be replaced."""

import time
from pathlib import Path

import pytest
from deltalake import DeltaTable

from pipeline.errors import HeldError
from pipeline.inference import run as run_module
from pipeline.inference.run import infer
from pipeline.inference.settings import InferSettings
from pipeline.table.delta import ResultTable
from pipeline.table.fence import Fence
from tests.e2e.command import jpeg

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(model: Path, tmp_path: Path) -> InferSettings:
    for number in range(3):
        path = tmp_path / f"pictures/camera={number}/a.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes(jpeg(number))
    places = {"input": (str(tmp_path / "pictures"),), "table": str(tmp_path / "table"), "model": str(model)}
    return InferSettings(**places, commit_interval_s=0.2)


def test_who_does_not_hold_the_table_adds_no_columns(settings: InferSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that the holder is about to append would lack them."""

    def lose(*arguments: object) -> None:
        raise HeldError("another run was faster")

    with monkeypatch.context() as race:
        race.setattr(Fence, "hold", lose)
        with pytest.raises(HeldError):
            infer(settings)
    assert "camera" not in ResultTable(settings.table).schema.names
    assert infer(settings).ok == 3
    assert "camera" in ResultTable(settings.table).schema.names


def test_the_hold_is_kept_while_all_is_counted(settings: InferSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    tally, versions = run_module.tally, []

    def slow(*arguments):
        versions.append(DeltaTable(settings.table).version())
        while DeltaTable(settings.table).version() < versions[0] + 3:
            time.sleep(0.05)
        return tally(*arguments)

    monkeypatch.setattr(run_module, "tally", slow)
    assert infer(settings).ok == 3
    assert len(versions) == 1
