"""How fast a training goes: its loop against its bare step, and two workers on two cores against one on one.

    python -m tests.benchmarks.training loop DATA 3         DATA: labelled images in Pascal VOC's layout; 3 rounds
    python -m tests.benchmarks.training workers DATA 3

Each round runs all sides, one after the other, on the same cores: the recipe of jobs/bccd.yaml unless --width says another. The bare step
is run twice: as torch runs it, and with memory kept (model.memory) as the loop keeps it. The loop's images/s are those between two of its
steps, so that start-up does not count. On standard error it says what a step took: the first tenth, the median and the last tenth.

Of workers, the bare steps are compared too, without Ray: two that wait for each other, and one. That ratio is the machine's own: what two
cores that must go in step are worth.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from jobs.specs.load import load_settings
from model.example import Examples
from model.memory import keep_freed_memory
from model.package import ModelPackage
from model.package_files import PackageRecord
from model.prepare import Preparation, to_batch
from model.ssd import SSD
from model.step import TrainingStep
from pipeline.cluster.connect import cluster
from pipeline.labelled.dataset import read_clean
from pipeline.labelled.examples import LabelledExamples
from pipeline.labelled.record import class_names
from pipeline.training import driver
from pipeline.training.events import StepDone, TrainingEvent, TrainingProgress
from pipeline.training.settings import TrainSettings
from pipeline.training.start import Start, from_scratch

RECIPE = Path(__file__).parents[2] / "jobs/bccd.yaml"
BATCH_SIZE = 16
NUM_WARM, NUM_MEASURED, NUM_LATER = 62, 124, 124
"""Steps of the recipe: those before the measurement, those that are measured, and those that would follow when it is interrupted."""
NUM_BARE = 60
"""Steps of the bare side, after five."""


class Watched(TrainingProgress):
    """The times at which the steps were reported."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.heard_s: list[float] = []
        seen.append(self)

    def show(self, event: TrainingEvent) -> None:
        if isinstance(event, StepDone):
            self.heard_s.append(time.monotonic())
        if len(self.heard_s) == NUM_WARM + NUM_MEASURED:
            os.kill(os.getpid(), signal.SIGINT)


seen: list[Watched] = []


def settings_of(num_workers: int) -> TrainSettings:
    """The recipe's, but for its length."""
    its_own = {
        "num_steps": NUM_WARM + NUM_MEASURED + NUM_LATER,
        "batch_size": BATCH_SIZE,
        "num_workers": num_workers,
        "checkpoint_every_steps": 10_000,
    }
    return load_settings(TrainSettings, RECIPE, its_own)


def labelled(data: str) -> tuple[Examples, tuple[str, ...]]:
    images = read_clean((data,), "train")
    names = class_names(images)
    return LabelledExamples(images, names), names


def record_of(start: Start, names: tuple[str, ...]) -> PackageRecord:
    return PackageRecord(
        name="benchmark", architecture=start.architecture, class_names=names, preprocessing=start.preprocessing
    )


def bare_images_per_s(data: str, width: float, is_kept: bool, num_workers: int = 1) -> float:
    """The step alone, over and over on one batch, or of several workers on this one's part; freed memory is kept, or not."""
    torch.set_num_threads(len(os.sched_getaffinity(0)) // num_workers)
    if is_kept:
        keep_freed_memory()
    examples, names = labelled(data)
    start, settings, batch_size = from_scratch(width), settings_of(num_workers), BATCH_SIZE // num_workers
    prepare = Preparation(start.architecture.image_size_px, start.preprocessing, settings)
    batch = to_batch([prepare(examples[i], i) for i in range(batch_size)])
    network = SSD(start.architecture, len(names) + 1).to(memory_format=torch.channels_last)
    step_on = TrainingStep(network, record_of(start, names), settings)
    for step in range(NUM_BARE + 5):
        if step == 5:
            started = time.monotonic()
        step_on(step, batch)
    return NUM_BARE * batch_size / (time.monotonic() - started)


def pair_images_per_s(data: str, width: float) -> float:
    """The steps alone of two workers, with freed memory kept: they wait for each other as in a training, without Ray."""
    with (
        tempfile.TemporaryDirectory(prefix="ssd-batch-benchmark-") as folder,
        ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as pool,
    ):
        return sum(pool.map(partial(_one_of_pair, data, width, f"file://{folder}/meeting"), range(2)))


def _one_of_pair(data: str, width: float, meeting: str, rank: int) -> float:
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    return bare_images_per_s(data, width, is_kept=True, num_workers=2)


def loop_images_per_s(data: str, width: float, num_workers: int) -> float:
    """A real training, of a few steps."""
    driver.TrainingProgress = Watched  # type: ignore[attr-defined,misc,assignment]
    examples, names = labelled(data)
    start = from_scratch(width)
    with (
        tempfile.TemporaryDirectory(prefix="ssd-batch-benchmark-") as folder,
        suppress(KeyboardInterrupt, SystemExit),
        cluster("local"),
    ):
        driver.train(
            ModelPackage(record_of(start, names), {}), examples, examples, settings_of(num_workers), f"{folder}/run"
        )
    heard_s = seen[-1].heard_s
    steps_s = [later - earlier for earlier, later in pairwise(heard_s)][NUM_WARM:]
    tenth, *_, last_tenth = statistics.quantiles(steps_s, n=10)
    print(
        f"{num_workers} workers: a step {tenth:.2f} s, {statistics.median(steps_s):.2f} s, {last_tenth:.2f} s",
        file=sys.stderr,
    )
    return NUM_MEASURED * BATCH_SIZE / (heard_s[NUM_WARM + NUM_MEASURED - 1] - heard_s[NUM_WARM - 1])


def in_a_process(side: str, num_cores: int, *arguments: object) -> float:
    """A side's images/s, on the first cores alone; each starts afresh."""
    command = [sys.executable, "-m", "tests.benchmarks.training", side, *map(str, arguments)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, preexec_fn=lambda: os.sched_setaffinity(0, range(num_cores)), check=True
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


@dataclass(frozen=True)
class Side:
    """What is measured, in a process of its own, and on how many of the first cores; number: of workers, for a loop."""

    name: str
    num_cores: int
    number: int = 1

    def __str__(self) -> str:
        return f"{self.name} of {self.number} on {self.num_cores} cores"


def compare(data: str, width: float, pairs: Sequence[tuple[Side, Side]], num_rounds: int) -> None:
    """Print all sides' images/s of each round, and the ratios of each pair's second side to its first.

    Args:
        data: folder.
        width: the network's.
        pairs: sides that stand against each other.
        num_rounds: how often.
    """
    sides = list(dict.fromkeys(side for pair in pairs for side in pair))
    rounds = []
    for _ in range(num_rounds):
        found = {side: in_a_process(side.name, side.num_cores, data, side.number, "--width", width) for side in sides}
        rounds.append([found[second] / found[first] for first, second in pairs])
        print(
            "images/s",
            *(f"{found[side]:.2f}" for side in sides),
            *(f"ratio {some:.3f}" for some in rounds[-1]),
            flush=True,
        )
    for (first, second), ratios in zip(pairs, zip(*rounds, strict=True), strict=True):
        print(
            f"{second} to {first}: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}), width {width}"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("loop", "workers", "bare", "kept", "pair", "one-loop"))
    parser.add_argument("data")
    parser.add_argument("number", type=int, help="rounds; of a side, workers")
    parser.add_argument("--width", type=float, default=0.25)
    options = parser.parse_args()
    data, width = options.data, options.width
    match options.what:
        case "loop":
            loop = Side("one-loop", 2)
            compare(data, width, [(Side("bare", 2), loop), (Side("kept", 2), loop)], options.number)
        case "workers":
            loops, steps = (Side("one-loop", 1), Side("one-loop", 2, 2)), (Side("kept", 1), Side("pair", 2, 2))
            compare(data, width, [steps, loops], options.number)
        case "bare" | "kept":
            print(json.dumps(bare_images_per_s(data, width, options.what == "kept")))
        case "pair":
            print(json.dumps(pair_images_per_s(data, width)))
        case "one-loop":
            print(json.dumps(loop_images_per_s(data, width, options.number)))


if __name__ == "__main__":
    main()
