"""What both runners promise: one row for each planned image, whatever dies. Their images are drawn, their accidents real."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.demo import PACKAGE
from jobs.demo.pictures import draw_picture
from model.package_files import RECORD_FILE, WEIGHTS_FILE, PackageError
from pipeline.errors import SettingError, SsdBatchError
from pipeline.machine import local_cores
from pipeline.settings import LOCAL, LOCAL_RAY, DetectionSettings
from pipeline.stages import ray_alone, ray_data
from pipeline.stages import runner as runners
from pipeline.stages.place import place
from pipeline.stages.rows import DECODED
from pipeline.stages.runner import Spread, Stages, cut, results, spread_over, started
from pipeline.stages.timings import METERS
from pipeline.table.schema import SCHEMA
from tests.pipeline.stages.drawn import SIDE_PX, Drawn, indexes

FILES = {name: (PACKAGE / name).read_bytes() for name in (RECORD_FILE, WEIGHTS_FILE)}


def stages(tmp_path: Path, **accidents: Any) -> Stages:
    schema = pa.schema([("index", pa.int64()), *SCHEMA, *METERS])
    return Stages(indexes, Drawn(str(tmp_path), **accidents), DECODED, FILES, 4, {"run_id": "r"}, schema)


@pytest.fixture(scope="module", params=[LOCAL, LOCAL_RAY])
def settings(request: pytest.FixtureRequest) -> Iterator[DetectionSettings]:
    """Of each runner; Ray is started once."""
    settings = DetectionSettings(address=request.param, num_detectors=2)
    with place(settings):
        yield settings


def run(settings: DetectionSettings, stages: Stages, num_rows: int, block_rows: int = 4) -> list[dict[str, Any]]:
    """All rows, by their index. The threads of pools have ended: Python's own end fails where one is just about to end."""
    with started(settings, stages, num_rows) as runner:
        spread = replace(runner.spread(num_rows), block_rows=block_rows)
        rows = [row for table in results(runner, num_rows, stages, spread) for row in table.to_pylist()]
    assert sorted(row["index"] for row in rows) == list(range(num_rows))
    assert [type(thread) for thread in threading.enumerate() if "ExecutorManager" in type(thread).__name__] == []
    return sorted(rows, key=lambda row: row["index"])


def errors(rows: list[dict[str, Any]]) -> dict[int, tuple[str, str]]:
    return {row["index"]: (row["error_stage"], row["error_type"]) for row in rows if row["status"] == "failed"}


slow = pytest.mark.slow
quiet = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@slow
@quiet
def test_each_planned_image_has_one_row(settings: DetectionSettings, tmp_path: Path) -> None:
    rows = run(settings, stages(tmp_path), 30)
    assert errors(rows) == {1: ("decode", "ValueError")}
    good = [row for row in rows if row["status"] == "ok"]
    assert all(row["uri"] == f"image {row['index']}" for row in rows)
    assert {row["num_detections"] for row in good} == {len(rows[0]["detections"])}
    assert rows[0]["max_score"] == max(detection["score"] for detection in rows[0]["detections"])
    assert rows[0]["detections"][0].keys() == {"label_id", "label", "score", "xmin", "ymin", "xmax", "ymax"}
    assert max(detection["xmax"] for detection in rows[0]["detections"]) > SIDE_PX  # of 3000 px
    assert rows[1]["detections"] is rows[1]["num_detections"] is rows[1]["max_score"] is None
    assert sum(row[".batch_share"] for row in good) == pytest.approx(
        8
    )  # 7 blocks of 4, one of 2; one has an image less
    assert len({row[".detector"] for row in good}) in (
        1,
        2,
    )  # on a busy machine one may do all before the other is there
    assert all(row[".detect_s"] > 0 for row in good)


@slow
@quiet
def test_what_kills_its_process_costs_itself_alone(
    settings: DetectionSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of 32 rows, lost twice, in blocks of 32 and of 2. With Ray, up to three other blocks wait in the process that dies."""
    caplog.set_level("INFO")
    rows = run(settings, stages(tmp_path, deadly=(40,), hopeless=(9,)), 70, block_rows=32)
    killed = ("fetch", "ProcessKilled")
    assert errors(rows) == {1: ("decode", "ValueError"), 9: ("fetch", "ArithmeticError"), 40: killed}
    (num_alone,) = re.findall(r"running (\d+) alone", caplog.text)
    assert int(num_alone) in (4, 6, 8, 10)


@slow
@quiet
@pytest.mark.parametrize("settings", [LOCAL_RAY], indirect=True)
def test_blocks_whose_pixels_are_sent_are_bounded_in_bytes(
    settings: DetectionSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(settings, stages(tmp_path), 10_000_000) as runner:
        assert runner.spread(10_000_000).block_rows == 1024
        assert list(runner.run([], Spread(4, 4, 1, 1))) == []
        monkeypatch.setattr(ray_data, "num_gpus", lambda: 1)
        assert runner.spread(10_000_000).block_rows == 248  # 64 MiB of 300 × 300 × 3


@slow
@quiet
def test_what_dies_beside_others_is_tried_with_nothing_beside_it(settings: DetectionSettings, tmp_path: Path) -> None:
    """As where memory is short: two that do not fit together."""
    assert errors(run(settings, stages(tmp_path, fragile=(2, 3)), 4, block_rows=1)) == {1: ("decode", "ValueError")}


@slow
@quiet
@pytest.mark.parametrize("settings", [LOCAL_RAY], indirect=True)
def test_where_everything_dies_the_run_ends(
    settings: DetectionSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runners, "MIN_LOST_BLOCKS", 1)
    with pytest.raises(
        SsdBatchError, match=r"2 images killed the process that held them alone, the last .* stage fetch"
    ):
        run(settings, stages(tmp_path, deadly=tuple(range(8))), 8)
    assert "the pass over all images stopped" in caplog.text


@slow
@quiet
@pytest.mark.parametrize("settings", [LOCAL_RAY], indirect=True)
def test_where_nodes_are_gone_images_that_run_alone_are_not_waited_for_without_end(
    settings: DetectionSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only GPU, say, which is there in name alone."""
    monkeypatch.setattr(ray_alone, "ALONE_WAIT_S", 1.0)
    with started(settings.model_copy(update={"node_wait_s": 0.0}), stages(tmp_path), 1) as runner:
        for module in (ray_data, ray_alone):
            monkeypatch.setattr(module, "num_gpus", lambda: 1)
        monkeypatch.setattr(ray_data, "num_detectors_that_fit", lambda settings: 2)
        assert runner.num_alone(Spread(4, 4, 1, 1)) == 1, (
            "two detectors share the GPU, and images that run alone do not"
        )
        monkeypatch.setattr(ray_data, "num_detectors_that_fit", lambda settings: 0)
        assert runner.num_alone(Spread(4, 4, 1, 1)) == 1
        assert list(runner.run([(0, 1)], Spread(4, 4, 1, 1))) == []
        alone = runner.one_at_a_time()
        with pytest.raises(SsdBatchError, match="did not come back within 1 s: of 1 nodes none has room for it"):
            alone.detect(pa.table({}))
        alone.close()


@slow
@quiet
def test_a_package_that_no_network_is_made_of(settings: DetectionSettings, tmp_path: Path) -> None:
    record = FILES[RECORD_FILE].replace(b'"width": 0', b'"width": 1')
    broken = replace(stages(tmp_path), package_files=FILES | {RECORD_FILE: record})
    with pytest.raises(PackageError, match="the weights do not fit the architecture"), started(settings, broken, 10):
        raise AssertionError


@slow
@quiet
def test_settings_that_a_runner_has_no_room_for(settings: DetectionSettings, tmp_path: Path) -> None:
    many = settings.model_copy(update={"num_detectors": 1000, "node_wait_s": 0.0})
    with pytest.raises(SettingError, match=r"num_detectors: (of )?1000"), started(many, stages(tmp_path), 10):
        raise AssertionError
    gpu = settings.model_copy(update={"require_gpu": True, "node_wait_s": 0.0})
    with pytest.raises(SettingError, match="require_gpu: "), started(gpu, stages(tmp_path), 10):
        raise AssertionError


def test_the_cores_of_this_machine() -> None:
    assert 1 <= local_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("num_images", "num_detectors", "block_rows"),
    [(1, 1, 1), (3, 2, 1), (100, 2, 12), (1000, 2, 64), (32_768, 2, 64), (40_000, 2, 78), (10_000_000, 2, 1024)],
)
def test_how_a_run_is_cut(num_images: int, num_detectors: int, block_rows: int) -> None:
    spread = spread_over(2, None, num_images)
    assert (spread.num_detectors, spread.min_detectors) == (num_detectors, num_detectors)
    assert spread.block_rows == block_rows
    assert spread_over(2, None, num_images, max_block_rows=50).block_rows == min(block_rows, 50)


@pytest.mark.parametrize(("num_images", "max_lost"), [(1000, 32), (320_000, 32), (100_000_000, 10_000)])
def test_how_many_blocks_may_be_lost(num_images: int, max_lost: int) -> None:
    """As many of a large run as there are images to a block that is lost, however large its blocks are."""
    assert spread_over(2, None, num_images).max_lost == max_lost


def test_ranges_are_cut_each_by_itself() -> None:
    assert cut([(0, 5), (7, 9), (9, 10)], 2) == [(0, 2), (2, 4), (4, 5), (7, 9), (9, 10)]


def test_how_many_start() -> None:
    assert spread_over(8, 3, 1000).min_detectors == 3
    assert spread_over(8, 3, 2).min_detectors == 2


@slow
def test_processes_that_work_on_images_do_not_import_the_table() -> None:
    program = (
        "import sys, pipeline.stages.preload; print([name for name in ('deltalake', 'duckdb') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


@slow
def test_a_run_on_processes_of_this_machine_imports_neither_ray_nor_torch_here(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pipeline.inference.run import infer\nfrom pipeline.inference.settings import InferSettings\n"
        "if __name__ == '__main__':\n"
        f"    infer(InferSettings(input=(sys.argv[1],), table=sys.argv[2], model={str(PACKAGE)!r}))\n"
        "    print([name for name in ('ray', 'torch') if name in sys.modules])\n"
    )
    (tmp_path / "program.py").write_text(program)
    (tmp_path / "in").mkdir()
    draw_picture(0).image.save(tmp_path / "in/a.jpg")
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "in"), str(tmp_path / "table")]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    assert subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip() == "[]"
