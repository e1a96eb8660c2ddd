"""The command as a process: a Ctrl-C in the middle leaves nothing behind."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.processes import below, kill_tree, wait_until_gone, workers
from tests.e2e.command import TIMEOUT_S, start

pytestmark = pytest.mark.slow


def test_a_ctrl_c_ends_it_and_all_that_it_started(model: Path, labelled: Any, tmp_path: Path) -> None:
    data = labelled.coco(tmp_path, names=tuple(f"{number}.jpg" for number in range(2000)))
    evaluation = start("evaluate", "--data", data, "--split", "train", "--model", model)
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while not workers(evaluation.pid):
            assert evaluation.poll() is None, evaluation.communicate()
            assert time.monotonic() < deadline
        started = below(evaluation.pid)
        os.killpg(evaluation.pid, signal.SIGINT)
        out, err = evaluation.communicate(timeout=TIMEOUT_S)
    finally:
        kill_tree(evaluation.pid)
    assert (evaluation.returncode, out) == (130, ""), err
    assert "Error: stopped by SIGINT" in err
    assert "Traceback" not in err
    assert not wait_until_gone(started, seconds=TIMEOUT_S)
