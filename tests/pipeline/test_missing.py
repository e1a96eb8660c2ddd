import logging
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from pipeline.errors import SsdBatchError
from pipeline.missing import PROCESS_KILLED, Alone, Returned, run_alone
from pipeline.table import SCHEMA


def planned(*names: str) -> pa.Table:
    return pa.table({"uri": names, "etag": [f"{name}-1" for name in names], "num_attempts": [1] * len(names)})


def test_the_planned_rows_that_did_not_come_back_are_found(tmp_path: Path) -> None:
    pq.write_table(planned(*"abcdef"), tmp_path / "work.parquet", row_group_size=2)
    returned = Returned()
    assert [row["uri"][0].as_py() for row in returned.missing(str(tmp_path / "work.parquet"))] == list("abcdef")
    returned.add(planned("e", "b"))
    returned.add(planned("a", "f"))
    rows = list(returned.missing(str(tmp_path / "work.parquet")))
    assert len(returned) == 4
    assert rows == [planned("c"), planned("d")]


def test_another_version_of_an_image_is_another_key(tmp_path: Path) -> None:
    pq.write_table(planned("a"), tmp_path / "work.parquet")
    returned = Returned()
    returned.add(pa.table({"uri": ["a"], "etag": ["a-2"]}))
    assert list(returned.missing(str(tmp_path / "work.parquet"))) == [planned("a")]


def test_so_many_killed_processes_end_the_run() -> None:
    def all_die(row: pa.Table) -> pa.Table:
        died = {"error_stage": ["fetch"], "error_type": [PROCESS_KILLED], "error_message": ["it died"]}
        return pa.table({"uri": row["uri"], **died})

    results = run_alone([planned(name) for name in "abcdef"], all_die, num_at_once=2, max_killed=2)
    assert [next(results)["uri"][0].as_py() for _ in range(3)] == ["a", "b", "c"]  # Those are rows of the table.
    with pytest.raises(SsdBatchError, match=r"3 images killed .* stage fetch \(it died\)"):
        next(results)


def test_what_was_killed_beside_others_is_run_again_by_itself() -> None:
    """As when Ray kills all that run, because one of them takes the memory."""
    both, lock, running = threading.Barrier(2), threading.Lock(), Counter[str]()

    def run(row: pa.Table) -> pa.Table:
        name = row["uri"][0].as_py()
        with lock:
            running[name] += 1
            is_first = running[name] == 1
        if is_first:
            both.wait(10)
        died = name == "culprit" or is_first
        return pa.table({"uri": row["uri"], "error_type": pa.array([PROCESS_KILLED if died else None], pa.string())})

    results = run_alone([planned("culprit"), planned("good")], run, num_at_once=2, max_killed=1)
    assert [result["error_type"][0].as_py() for result in results] == [PROCESS_KILLED, None]
    assert running == {"culprit": 2, "good": 2}


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    options = {"include_dashboard": False, "logging_level": logging.ERROR, "log_to_driver": False}
    ray.init(address="local", num_cpus=2, **options)
    yield
    ray.shutdown()


def alone(decode: Any) -> Alone:
    detector = {"package_files": [ray.put({})], "batch_size": 1, "constants": {"run_id": "r"}, "schema": SCHEMA}
    return Alone(decode, {"num_cpus": 0.5}, detector, {"num_cpus": 0.5})


@pytest.mark.slow
def test_an_error_of_ours_is_a_row_with_its_own_type(local_ray: None) -> None:
    def fails(row: pa.Table) -> pa.Table:
        raise ArithmeticError("our mistake")

    (row,) = alone(fails)(planned("a")).to_pylist()
    found = {
        name: row[name] for name in ("uri", "etag", "run_id", "status", "error_stage", "error_type", "error_message")
    }
    assert found == {
        "uri": "a", "etag": "a-1", "run_id": "r", "status": "failed",
        "error_stage": "fetch", "error_type": "ArithmeticError", "error_message": "our mistake",
    }  # fmt: skip


@pytest.mark.slow
def test_a_detector_that_cannot_start_is_no_images_fault(local_ray: None) -> None:
    with pytest.raises(SsdBatchError, match="the detector can't start"):
        alone(lambda row: row)(planned("a"))
