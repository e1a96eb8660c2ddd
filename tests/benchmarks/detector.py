"""Measure the full SSD300 in each engine and precision, as a share of what the cores could multiply at most.

A process per core has uint8 images in memory, and gives detections. The peak is a short matrix product in the same type, in the same
processes at once. An engine that is not installed is left out. `own` is int8 with OpenVINO's own postprocessing.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from model.openvino_network import is_installed
from tests.benchmarks.packages import made
from tests.benchmarks.sides import draw, measure, report, spread

TORCH = {"torch": ("ssd300", "auto", "torch")}
OPENVINO = {
    "openvino": ("ssd300", "auto", "openvino"),
    "int8": ("ssd300-int8", "auto", "openvino"),
    "own": ("ssd300-int8", "auto", "own"),
}
SIDES = TORCH | (OPENVINO if is_installed() else {})
"""The sides: package, precision and engine of each."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-images", type=int, default=400, help="images per side and round")
    parser.add_argument("--images", type=Path, help="folder of photographs; pictures of the demo unless given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print all figures as JSON on the last line too")
    options = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        images = options.images or draw(folder / "images", 100)
        packages = {model: made(model, folder) for model, *_ in SIDES.values()}
        for _ in range(options.rounds):
            for side, (model, precision, engine) in SIDES.items():
                command = [
                    sys.executable, "-m", "tests.benchmarks.bare_detector", images, packages[model], options.num_images, precision, engine,
                ]  # fmt: skip
                found[side].append(json.loads(measure(command).out))
    lines, figures = [], {}
    for side, rounds in found.items():
        rates = [one["images_per_s"] for one in rounds]
        of_peak = [one["images_per_s"] / one["peak_images_per_s"] for one in rounds]
        of_torch = [one / other["images_per_s"] for one, other in zip(rates, found["torch"], strict=True)]
        figures[side] = {"rounds": rounds, "of_peak": of_peak, "of_torch": of_torch}
        lines.append(
            f"{side:8} {rounds[0]['engine']:24} {spread(rates, 1)} images/s, {spread(of_peak)} of the peak, {spread(of_torch)} times torch's; "
            f"{rounds[0]['detections_per_image']:.1f} detections per image"
        )
    report(lines, figures, options.json)


if __name__ == "__main__":
    main()
