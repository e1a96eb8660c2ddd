"""How fast a training goes: its loop against its bare step, and two workers on two cores against one on one.

    python -m tests.benchmarks.training loop DATA 3         DATA: labelled images in Pascal VOC's layout; 3 rounds
    python -m tests.benchmarks.training workers DATA 3

Each round runs all sides, one after the other, on the same cores: the recipe of jobs/bccd.yaml unless --width says another. The bare step
is run twice: as torch runs it, and with memory kept (model.memory) as the loop keeps it. The loop's images/s are those between two of its
steps, so that start-up does not count. On standard error it says what a step took: the first tenth, the median and the last tenth. Where
these are far apart, others use the cores: two workers then wait for the slower of two.
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
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import torch

from jobs.settings import TrainSettings
from jobs.spec import load_settings
from jobs.train import Start, from_scratch
from model.example import Examples
from model.memory import keep_freed_memory
from model.package import ModelPackage, PackageRecord
from model.ssd import SSD
from model.train import Preparation, TrainingStep, pad_targets
from pipeline import training
from pipeline.cluster import cluster
from pipeline.dataset import read_clean
from pipeline.examples import LabelledExamples
from pipeline.labelled import class_names
from pipeline.training_progress import Begun, Measured, Stepped, TrainingProgress

RECIPE = Path(__file__).parents[2] / "jobs/bccd.yaml"
BATCH_SIZE = 16
NUM_WARM, NUM_MEASURED, NUM_LATER = 62, 124, 124
"""Steps of the recipe. With feed.SEGMENT_BYTES, 62 are prepared at once: measured is the preparing of two such segments and the learning
from as many; then the training is interrupted."""
NUM_BARE = 60
"""Steps of the bare side, after five."""


class Watched(TrainingProgress):
    """When each step was heard of."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.heard_s: list[float] = []
        seen.append(self)

    def show(self, told: Begun | Stepped | Measured) -> None:
        if isinstance(told, Stepped):
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


def bare_images_per_s(data: str, width: float, is_kept: bool) -> float:
    """The step alone, over and over on one batch, with a thread a core; freed memory is kept, or not."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if is_kept:
        keep_freed_memory()
    examples, names = labelled(data)
    start, settings = from_scratch(width), settings_of(1)
    prepare = Preparation(start.architecture.image_size_px, start.preprocessing, settings)
    images, boxes, labels = zip(*(prepare(examples[i], i) for i in range(BATCH_SIZE)), strict=True)
    batch = torch.stack(images).contiguous(memory_format=torch.channels_last), pad_targets([*boxes], [*labels])
    network = SSD(start.architecture, len(names) + 1).to(memory_format=torch.channels_last)
    step_on = TrainingStep(network, record_of(start, names), settings)
    for step in range(NUM_BARE + 5):
        if step == 5:
            started = time.monotonic()
        step_on(step, *batch)
    return NUM_BARE * BATCH_SIZE / (time.monotonic() - started)


def loop_images_per_s(data: str, width: float, num_workers: int) -> float:
    """A real training, of a few steps."""
    training.TrainingProgress = Watched
    examples, names = labelled(data)
    start = from_scratch(width)
    with (
        tempfile.TemporaryDirectory(prefix="ssd-batch-benchmark-") as folder,
        suppress(KeyboardInterrupt, SystemExit),
        cluster("local"),
    ):
        training.train(
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


def compare(data: str, width: float, sides: Sequence[tuple[str, int, int]], num_rounds: int) -> None:
    """Print all sides' images/s of each round, and the last side's as ratios to the others'.

    Args:
        data: folder.
        width: the network's.
        sides: name, cores and workers of each.
        num_rounds: how often.
    """
    rounds = []
    for _ in range(num_rounds):
        *others, last = (in_a_process(name, cores, data, workers, "--width", width) for name, cores, workers in sides)
        rounds.append([last / other for other in others])
        print("images/s", *(f"{some:.2f}" for some in (*others, last)), *(f"ratio {ratio:.3f}" for ratio in rounds[-1]))
    for (name, cores, workers), ratios in zip(sides[:-1], zip(*rounds, strict=True), strict=True):
        print(
            f"{sides[-1][0]} to {name} of {workers} on {cores}: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}), "
            f"width {width}"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("loop", "workers", "bare-side", "kept-side", "loop-side"))
    parser.add_argument("data")
    parser.add_argument("number", type=int, help="rounds; of a side, workers")
    parser.add_argument("--width", type=float, default=0.25)
    options = parser.parse_args()
    match options.what:
        case "loop":
            sides = (("bare-side", 2, 1), ("kept-side", 2, 1), ("loop-side", 2, 1))
            compare(options.data, options.width, sides, options.number)
        case "workers":
            compare(options.data, options.width, (("loop-side", 1, 1), ("loop-side", 2, 2)), options.number)
        case "bare-side" | "kept-side":
            print(json.dumps(bare_images_per_s(options.data, options.width, options.what == "kept-side")))
        case "loop-side":
            print(json.dumps(loop_images_per_s(options.data, options.width, options.number)))


if __name__ == "__main__":
    main()
