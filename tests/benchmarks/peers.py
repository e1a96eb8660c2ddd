"""Measure photographs through the full SSD300, next to what users write with plain torch, Ray Data or Daft.

All have the same weights, in bfloat16; `int8` is ours with the quantized package. The peers are `loader`, `ray` and `daft`, each with a process
per core. Daft needs another pyarrow than we do: --daft-python names the Python of an environment with daft, torch, torchvision and safetensors.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.dataset as ds

from tests.benchmarks.packages import made
from tests.benchmarks.sides import LOOK_INTERVAL_S, Took, infer, measure, pictures, report, sides_of, spread
from tests.benchmarks.steady import stream_images_per_s

OURS = {"ours": "ssd300", "int8": "ssd300-int8"}
"""Our sides, and their packages."""
NAN = float("nan")
PEERS = ("loader", "ray", "daft")


def peer_images_per_s(output: Path) -> float:
    """Return the rate while all detectors of a peer worked: from the last of their first batches to the first of their last ones."""
    done = ds.dataset(output, format="parquet").to_table(columns=["pid", "done_s"])
    batches = done.group_by("pid").aggregate([("done_s", "min"), ("done_s", "max")])
    begun_s, ended_s = pc.max(batches["done_s_min"]).as_py(), pc.min(batches["done_s_max"]).as_py()
    within = pc.and_(pc.greater(done["done_s"], begun_s), pc.less_equal(done["done_s"], ended_s))
    return float(pc.sum(within).as_py() / (ended_s - begun_s)) if ended_s > begun_s else NAN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of photographs; pictures of the demo unless given")
    parser.add_argument("--num-images", type=int, default=100, help="pictures are repeated up to this number")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", type=sides_of(*OURS, *PEERS), default=[*OURS, *PEERS], help="sides to measure")
    parser.add_argument("--daft-python", type=Path, help="Python with daft; without it, daft is left out")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON on the last line too")
    options = parser.parse_args()
    sides = [side for side in options.sides if side != "daft" or options.daft_python]
    took: dict[str, list[Took]] = {side: [] for side in sides}
    steady: dict[str, list[float]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        images = pictures(options.images, folder / "images", options.num_images)
        packages = {package: made(package, folder) for package in OURS.values()}
        for number in range(options.rounds):
            for side in sides:
                output = folder / f"{side}-{number}"
                python = options.daft_python if side == "daft" else sys.executable
                peer = [python, "-m", f"tests.benchmarks.peer_{side}", images, packages["ssd300"], output]
                command = infer(images, output, packages[OURS[side]], "local") if side in OURS else peer
                took[side].append(measure(command, LOOK_INTERVAL_S))
                steady[side].append((stream_images_per_s(output) or NAN) if side in OURS else peer_images_per_s(output))
    whole = {side: [options.num_images / time.seconds for time in times] for side, times in took.items()}
    lines, figures = [], {}
    for side in sides:
        of_fastest = [
            [rate / max(rates[peer][number] for peer in sides if peer in PEERS) for number, rate in enumerate(rates[side])]
            for rates in (whole, steady)
        ]  # fmt: skip
        cpu_s, peak_gib = [time.cpu_s for time in took[side]], max(time.peak_bytes for time in took[side]) / 2**30
        figures[side] = {
            "seconds": [time.seconds for time in took[side]], "images_per_s": whole[side], "of_fastest_peer": of_fastest[0],
            "steady_images_per_s": steady[side], "steady_of_fastest_peer": of_fastest[1], "cpu_s": cpu_s, "peak_gib": peak_gib,
        }  # fmt: skip
        lines.append(
            f"{side:6} {spread(whole[side], 1)} images/s, {spread(of_fastest[0])} of the fastest peer; steady {spread(steady[side], 1)}, "
            f"{spread(of_fastest[1])} of it; CPU {spread(cpu_s, 1)} s; {peak_gib:.2f} GiB at most"
        )
    report(lines, {"num_images": options.num_images, **figures}, options.json)


if __name__ == "__main__":
    main()
