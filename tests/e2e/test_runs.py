"""What a run costs: its record, what the next one would take, and the limits of both."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.e2e.command import answer, ask, infer, jpeg, run

pytestmark = pytest.mark.slow

NUM_IMAGES = 40


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(NUM_IMAGES):
        (folder / f"{index}.jpg").write_bytes(jpeg(index))
    return folder


def test_a_runs_record_and_what_the_next_would_take(pictures: Path, model: Path, tmp_path: Path) -> None:
    """A node costs 1 a second."""
    table = tmp_path / "table"
    arguments = ("--input", pictures, "--table", table, "--model", model, "--price-per-node-hour", 3600)
    first = infer(*arguments, "--num-detectors", 2, "--due-at", datetime.now(UTC) - timedelta(hours=1))
    listed = answer("runs", "--table", table)["runs"]
    assert [record["run_id"] for record in listed] == [first["run_id"]]
    told = answer("runs", "show", first["run_id"][:20], "--table", table)
    record = told["run"]
    assert record == listed[0]
    assert record["bytes_read"] == sum(file.stat().st_size for file in pictures.iterdir())
    assert (record["num_detectors"], record["num_nodes"], record["num_retries"]) == (2, 1, 0)
    assert record["lag_s"] > 3600
    for name in ("fetch_s", "decode_s", "detect_s", "commit_s", "stream_s", "stream_images_per_s"):
        assert record[name] > 0, name
    assert 0 < record["detector_busy_share"] <= 1
    assert record["start_up_s"] < record["start_up_s"] + record["stream_s"] <= record["cost"] <= record["wall_s"]
    assert record["cost_per_thousand"] == pytest.approx(record["cost"] / NUM_IMAGES * 1000)
    code, out, err = run("runs", "show", first["run_id"], "--table", table)
    assert code == 0, err
    assert f"bottleneck: {told['bottleneck']['stage']}" in out
    (view,) = ask(table, "SELECT * FROM images LIMIT 1")
    assert not view.keys() & {"fetch_s", "detect_s", "detector"}, "no part of the table"

    (pictures / "new.jpg").write_bytes(jpeg(99))
    planned = infer(*arguments, "--num-detectors", 4, "--dry-run")
    assert (planned["planned"], planned["planned_bytes"]) == (1, (pictures / "new.jpg").stat().st_size)
    assert planned["measured"]["run_id"] == first["run_id"]
    assert planned["measured"]["images_per_s"] == pytest.approx(record["stream_images_per_s"] / 2)
    assert [estimate["num_detectors"] for estimate in planned["estimates"]] == [1, 2, 4]
    expected = planned["estimates"][1]
    hours = (record["start_up_s"] + 1 / record["stream_images_per_s"]) / 3600
    assert expected == {"num_detectors": 2, "hours": pytest.approx(hours), "cost": pytest.approx(3600 * hours)}
    code, out, _ = run("infer", *arguments, "--dry-run")
    assert (code, f"as fast as run {first['run_id']}" in out) == (0, True)

    code, _, err = run("infer", *arguments, "--max-cost", 0.001)
    assert (code, "max_cost: 1 images would cost" in err) == (2, True), err
    assert infer(*arguments, "--max-cost", 1000)["ok"] == 1
    assert [record["outcome"] for record in answer("runs", "--table", table, "--limit", 1)["runs"]] == ["done"]


def test_a_run_that_gets_too_dear_stops_and_keeps_what_it_has(pictures: Path, model: Path, tmp_path: Path) -> None:
    """No run has been measured, so that nobody can tell before. At the first results it costs more than it may."""
    table = tmp_path / "table"
    arguments = ("--input", pictures, "--table", table, "--model", model, "--price-per-node-hour", 3600)
    code, out, err = run("infer", *arguments, "--max-cost", 0.001, "--commit-interval-s", 0.1)
    assert (code, out) == (3, ""), err  # a scheduler does not try again: it would cost as much again
    assert "Error: max_cost: the run has cost" in err
    (committed,) = ask(table, "SELECT count(*) AS n FROM images")
    assert 0 < committed["n"] < NUM_IMAGES
    (record,) = ask(table, "SELECT outcome, error LIKE 'max_cost: %' AS says_why, cost > 0.001 AS is_dear FROM runs")
    assert record == {"outcome": "failed", "says_why": True, "is_dear": True}
    (listed,) = answer("runs", "--table", table)["runs"]
    for command in (("runs", "show", listed["run_id"]), ("report", "--out", tmp_path / "report.html")):
        code, _, err = run(*command, "--table", table)
        assert code == 0, err
    assert infer(*arguments)["ok"] == NUM_IMAGES - committed["n"]


def test_runs_of_no_table(tmp_path: Path) -> None:
    code, _, err = run("runs", "--table", tmp_path / "nothing")
    assert (code, "no table is there" in err) == (2, True)
    code, _, err = run("runs")
    assert (code, "give --table" in err) == (2, True)
    code, _, err = run("runs", "show", "r1")
    assert (code, "Missing option '--table'" in err) == (2, True)
