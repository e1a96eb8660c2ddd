"""Images one by one: what is blamed, on whom, and when that ends."""

import threading
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import SsdBatchError
from pipeline.stages.isolate import PROCESS_KILLED, Isolated, NotStartedError, ProcessDiedError, run_alone
from pipeline.stages.rows import numbered
from pipeline.table.schema import SCHEMA


def planned(start: int, stop: int) -> pa.Table:
    names = list("abcdef")[start:stop]
    return pa.table({"uri": names, "etag": [f"{name}-1" for name in names], "num_attempts": [1] * len(names)})


class Dies:
    """Stages that raise."""

    def __init__(self, stage: str, error: Exception) -> None:
        self._stage, self._error = stage, error

    def decode(self, number: int) -> pa.Table:
        return self._raise("decode") or numbered(planned(number, number + 1), number)

    def detect(self, image: pa.Table) -> pa.Table:
        self._raise("detect")
        raise AssertionError

    def _raise(self, stage: str) -> None:
        if stage == self._stage:
            raise self._error


@pytest.mark.parametrize(
    ("stages", "stage", "kind"),
    [
        (Dies("decode", ProcessDiedError("it died")), "fetch", PROCESS_KILLED),
        (Dies("detect", ProcessDiedError("it died")), "detect", PROCESS_KILLED),
        (Dies("decode", ArithmeticError("it died")), "fetch", "ArithmeticError"),
        (Dies("detect", ArithmeticError("it died")), "detect", "ArithmeticError"),
    ],
)
def test_what_happens_is_a_row_with_its_stage(stages: Dies, stage: str, kind: str) -> None:
    """A decoder's death may pass, with more memory: its stage is fetch."""
    (row,) = Isolated(lambda: stages, planned, {"run_id": "r"}, SCHEMA)(2).to_pylist()
    found = {name: value for name, value in row.items() if value is not None and name != "processed_at"}
    assert found == {
        "uri": "c", "etag": "c-1", "run_id": "r", "status": "failed", "num_attempts": 1, ".row": 2,
        "error_stage": stage, "error_type": kind, "error_message": "it died",
    }  # fmt: skip


def test_a_detector_that_cannot_start_is_no_images_fault() -> None:
    stages = Dies("detect", NotStartedError("the detector can't start"))
    isolated = Isolated(lambda: stages, planned, {}, SCHEMA)
    for num_at_once in (1, 2):
        with pytest.raises(NotStartedError, match="the detector can't start"):
            list(run_alone([0], isolated, num_at_once, max_killed=1))


def test_nothing_starts_after_the_end() -> None:
    """A thread may still be at it when a run is stopped; what it had is closed."""
    closed = []
    stages = Dies("decode", ArithmeticError())
    stages.close = lambda: closed.append(True)
    isolated = Isolated(lambda: stages, planned, {}, SCHEMA)
    isolated(0)
    isolated.close()
    assert closed == [True]
    with pytest.raises(SsdBatchError, match="the run has ended"):
        isolated(1)


def killed(is_killed: bool, number: int) -> pa.Table:
    kind = pa.array([PROCESS_KILLED if is_killed else None], pa.string())
    return pa.table({".row": [number], "error_stage": ["fetch"], "error_type": kind, "error_message": ["it died"]})


def test_this_many_killed_processes_end_the_run() -> None:
    results = run_alone(range(6), lambda number: killed(True, number), num_at_once=2, max_killed=2)
    assert len({next(results)[".row"][0].as_py() for _ in range(3)}) == 3  # Those are rows of the table.
    with pytest.raises(SsdBatchError, match=r"3 images killed .* stage fetch \(it died\)"):
        next(results)


@pytest.mark.parametrize("is_started", [True, False])
def test_what_was_killed_beside_others_is_run_again_by_itself(is_started: bool) -> None:
    """As when the system kills all that run, because one of them takes the memory; a detector that is about to start, too."""
    both, lock, running = threading.Barrier(2), threading.Lock(), Counter[int]()

    def run(number: int) -> Any:
        with lock:
            running[number] += 1
            is_first = running[number] == 1
        if is_first:
            both.wait(10)
        if is_first and number == 1 and not is_started:
            raise NotStartedError("the detector can't start")
        return killed(number == 0 or is_first, number)

    results = run_alone([0, 1], run, num_at_once=2, max_killed=1)
    kinds = {result[".row"][0].as_py(): result["error_type"][0].as_py() for result in results}
    assert kinds == {0: PROCESS_KILLED, 1: None}
    assert running == {0: 2, 1: 2}


def test_results_come_as_they_are_there() -> None:
    """One that takes long holds up no other."""
    go_on = threading.Event()

    def run(number: int) -> pa.Table:
        if number == 0:
            go_on.wait()
        return killed(False, number)

    results = run_alone(range(4), run, num_at_once=2, max_killed=1)
    assert {next(results)[".row"][0].as_py() for _ in range(3)} == {1, 2, 3}
    go_on.set()
    assert next(results)[".row"][0].as_py() == 0
