"""Measure the way of the data alone: whole jobs whose detector returns at once, next to a bare loop that reads, decodes and resizes.

The detector loads its model and detects in its first batch; each later batch of the same size gets the same detections. The bare loop
(`bare_decode`) has a thread for each core. Whole jobs are compared from the shell to the end, and by their processor time; steady rates
leave out start-up on both sides.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from jobs.demo import PACKAGE
from tests.appended_code import appended
from tests.benchmarks.sides import ADDRESSES, Took, infer, measure, pictures, report, sides_of, spread
from tests.benchmarks.steady import stream_images_per_s

AT_ONCE = """
detect_really, found = Detector.__call__, {}


def detect_at_once(self, images, sizes_px):
    if len(images) not in found:
        found[len(images)] = detect_really(self, images, sizes_px)
    return found[len(images)]


Detector.__call__ = detect_at_once
"""
STAND_IN = {"model.detector": AT_ONCE, "model.engine": "MIN_IMAGES_OF_OPENVINO = 10**12"}
"""The code at the ends of modules. OpenVINO's start is no part of the way of the data."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of photographs; pictures of the demo unless given")
    parser.add_argument("--num-images", type=int, default=20_000, help="pictures are repeated up to this number")
    parser.add_argument("--model", type=Path, default=PACKAGE, help="model package, which is loaded")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", type=sides_of(*ADDRESSES), default=[*ADDRESSES], help="runners to measure")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON on the last line too")
    options = parser.parse_args()
    took: dict[str, list[Took]] = {side: [] for side in ("bare", *options.sides)}
    steady: dict[str, list[float]] = {side: [] for side in took}
    environment = [f"{name}={value}" for name, value in appended(STAND_IN).items()]
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        images = pictures(options.images, folder / "images", options.num_images)
        for number in range(options.rounds):
            took["bare"].append(measure([sys.executable, "-m", "tests.benchmarks.bare_decode", images]))
            steady["bare"].append(float(took["bare"][-1].out))
            for side in options.sides:
                table = folder / f"{side}-{number}"
                took[side].append(measure(["env", *environment, *infer(images, table, options.model, side)]))
                steady[side].append(stream_images_per_s(table) or 0.0)
    figures: dict[str, object] = {"num_images": options.num_images}
    lines = []
    for side in took:
        rates = {
            "whole": [options.num_images / one.seconds for one in took[side]],
            "steady": steady[side],
            "cpu_ms_per_image": [1000 * one.cpu_s / options.num_images for one in took[side]],
        }
        of_bare = {
            "whole": [bare.seconds / one.seconds for bare, one in zip(took["bare"], took[side], strict=True)],
            "steady": [one / bare for bare, one in zip(steady["bare"], steady[side], strict=True)],
            "cpu": [bare.cpu_s / one.cpu_s for bare, one in zip(took["bare"], took[side], strict=True)],
        }
        figures[side] = rates | {f"{name}_of_bare": ratios for name, ratios in of_bare.items()}
        lines.append(
            f"{side:6} whole {spread(rates['whole'], 0)} images/s, steady {spread(rates['steady'], 0)}, "
            f"CPU {spread(rates['cpu_ms_per_image'])} ms per image"
        )
        if side != "bare":
            lines.append("       of bare: " + "; ".join(f"{name} {spread(ratios)}" for name, ratios in of_bare.items()))
    report(lines, figures, options.json)


if __name__ == "__main__":
    main()
