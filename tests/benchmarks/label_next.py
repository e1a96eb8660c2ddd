"""Measure what `label next` gains: mAP after a training with 50 chosen images more, next to 50 random ones, and none.

`python -m tests.benchmarks.label_next --data BCCD --output FOLDER`: for each seed a model is trained on a few random images. It detects in
all others, from which 50 are chosen, and 50 are drawn. Then three trainings begin with that model: on the few, with the drawn ones, and
with the chosen ones. All take as many steps, and are measured on the split `test`. A step that was finished is not done again.
"""

import argparse
import csv
import json
import random
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

FEW, BUDGET, SEEDS = 40, 50, 3
TRAINING = (
    "--vertical-flip", "--zoom-out-max", "1.4", "--crop-min", "0.6", "--class-weights", "Platelets=3", "--match-iou", "0.4",
    "--batch-size", "16", "--learning-rate", "0.01", "--checkpoint-every-steps", "100",
)  # fmt: skip
ARMS = ("none", "random", "chosen")


def run(*command: object) -> dict[str, object]:
    """Run a command of ours; what its last line says."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs", *map(str, command), "--json"], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def linked(data: Path, folder: Path, few: list[str], more: list[str]) -> Path:
    """A data set of the same images whose split `some` has these."""
    for name in ("Annotations", "JPEGImages"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            (folder / name).symlink_to(data / name)
    splits = folder / "ImageSets/Main"
    splits.mkdir(parents=True, exist_ok=True)
    for split in ("val", "test"):
        shutil.copy(data / f"ImageSets/Main/{split}.txt", splits)
    (splits / "some.txt").write_text("\n".join([*few, *more]) + "\n")
    return folder


def train(data: Path, init: str, output: Path, steps: int, seed: int) -> float:
    """mAP at IoU 0.5 on the split `test`."""
    measured = output.with_suffix(".json")
    if not measured.exists():
        if not (output / "model.json").exists():
            run(
                "train", "--data", data, "--output", output, "--train-split", "some", "--val-split", "val", "--init", init,
                "--num-steps", steps, "--seed", seed, "--name", output.name, *TRAINING,
            )  # fmt: skip
        measured.write_text(json.dumps(run("evaluate", "--model", output, "--data", data, "--split", "test")))
    found: float = json.loads(measured.read_text())["map50"]
    return found


def chosen_ids(folder: Path) -> list[str]:
    """The IDs of the images that `label next` chose."""
    with (folder / "chosen.csv").open() as file:
        return [Path(row["uri"]).stem for row in csv.DictReader(file)]


def one_seed(data: Path, folder: Path, seed: int, steps: int, init: str) -> dict[str, float]:
    """mAP of the first model, and of each arm."""
    everything = (data / "ImageSets/Main/train.txt").read_text().split()
    rng = random.Random(seed)
    few = rng.sample(everything, FEW)
    pool = sorted(set(everything) - set(few))
    found = {"first": train(linked(data, folder / "few", few, []), init, folder / "first", steps, seed)}
    table, tasks, listing = folder / "table", folder / "tasks", folder / "pool.txt"
    if not tasks.exists():
        listing.write_text("\n".join(str(data / f"JPEGImages/{image}.jpg") for image in pool))
        run("infer", "--input", listing, "--table", table, "--model", folder / "first")
        run("label", "next", "--table", table, "--output", tasks, "--budget", BUDGET, "--format", "voc")
    more = {"none": [], "random": rng.sample(pool, BUDGET), "chosen": chosen_ids(tasks)}
    for arm in ARMS:
        of_arm = linked(data, folder / f"data-{arm}", few, more[arm])
        found[arm] = train(of_arm, str(folder / "first"), folder / arm, steps, seed)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="BCCD, in the layout of Pascal VOC")
    parser.add_argument("--output", type=Path, required=True, help="folder for models and tables")
    parser.add_argument("--steps", type=int, default=200, help="steps of each training")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--init", default="jobs/demo/model", help="package that the first model starts from")
    given = parser.parse_args()
    by_seed = []
    for seed in range(given.seeds):
        by_seed.append(one_seed(given.data.resolve(), given.output / str(seed), seed, given.steps, given.init))
        print(json.dumps({"seed": seed} | by_seed[-1]), flush=True)
    gains = {arm: [found[arm] - found["none"] for found in by_seed] for arm in ("random", "chosen")}
    means = {arm: statistics.mean(values) for arm, values in gains.items()}
    print(json.dumps({"gains": gains, "means": means, "ratio": means["chosen"] / means["random"]}))


if __name__ == "__main__":
    main()
