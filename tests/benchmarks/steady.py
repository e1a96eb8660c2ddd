"""Measure many pictures through both runners, next to the bare detector on the same cores: `make bench steady`."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from jobs.demo import PACKAGE
from tests.benchmarks.packages import MAKERS, made
from tests.benchmarks.sides import ADDRESSES, infer, measure, pictures, report, sides_of, spread

BARE_IMAGES = 20_000
"""The most images of the bare detector, whose rate doesn't change with more."""
MEMORY_EVERY_S = 5.0
"""Rarely enough that reading takes about 1 % of two cores for `local`, 2 % for `ray`."""


def stream_images_per_s(table: Path) -> float | None:
    """Read the rate from the first results to the last ones from the run's record. A run whose results all come at once has none."""
    command = [str(Path(sys.executable).with_name("ssd-batch")), "runs", "--table", str(table), "--json"]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    rate: float | None = json.loads(told)["runs"][0]["stream_images_per_s"]
    return rate


def main(model: str | Path = PACKAGE) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of photographs; pictures of the demo unless given")
    parser.add_argument("--num-images", type=int, default=2000, help="pictures are repeated up to this number")
    parser.add_argument("--model", default=model, help=f"model package, or one of {', '.join(MAKERS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", type=sides_of(*ADDRESSES), default=[*ADDRESSES], help="runners to measure")
    parser.add_argument("--memory-every-s", type=float, help="print the memory of the process tree this often")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON on the last line too")
    options = parser.parse_args()
    whole: dict[str, list[float]] = {side: [] for side in options.sides}
    steady: dict[str, list[float]] = {side: [] for side in whole}
    peaks: dict[str, int] = dict.fromkeys(whole, 0)
    bare: list[float] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        images = pictures(options.images, folder / "images", options.num_images)
        model = made(options.model, folder)
        for number in range(options.rounds):
            num_bare = min(options.num_images, BARE_IMAGES)
            alone = [sys.executable, "-m", "tests.benchmarks.bare_detector", images, model, num_bare]
            bare.append(float(json.loads(measure(alone).out)["images_per_s"]))
            for side in whole:
                table = folder / f"{side}-{number}"
                took = measure(infer(images, table, model, side), MEMORY_EVERY_S, options.memory_every_s)
                whole[side].append(options.num_images / took.seconds)
                rate = stream_images_per_s(table)
                if rate is None:
                    sys.exit("all results came at once, so that there is no steady rate: take more --num-images")
                steady[side].append(rate)
                peaks[side] = max(peaks[side], took.peak_bytes)
    figures: dict[str, object] = {
        "num_images": options.num_images,
        "model": str(options.model),
        "bare_images_per_s": bare,
    }
    lines = [f"bare   {spread(bare, 1)} images/s"]
    for side in whole:
        of_bare = [[one / rate for one, rate in zip(rates[side], bare, strict=True)] for rates in (whole, steady)]
        peak_gib = peaks[side] / 2**30
        figures[side] = {
            "images_per_s": whole[side], "steady_images_per_s": steady[side], "of_bare": of_bare[0],
            "steady_of_bare": of_bare[1], "peak_gib": peak_gib,
        }  # fmt: skip
        lines.append(
            f"{side:6} {spread(whole[side], 1)} images/s, {spread(of_bare[0])} of bare; steady {spread(steady[side], 1)}, "
            f"{spread(of_bare[1])} of bare; {peak_gib:.2f} GiB at most"
        )
    report(lines, figures, options.json)


if __name__ == "__main__":
    main()
