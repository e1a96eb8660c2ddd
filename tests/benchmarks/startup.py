"""Measure a hundred photographs from the shell to the end, next to a plain loop: `make bench startup`.

A first round fills the file cache and reads memory, which would slow what is timed; its times do not count.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from jobs.demo import PACKAGE
from tests.benchmarks.sides import ADDRESSES, LOOK_INTERVAL_S, Took, draw, infer, measure, report, sides_of, spread

SIDES = ("plain", *ADDRESSES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of photographs; pictures of the demo unless given")
    parser.add_argument("--num-images", type=int, default=100, help="pictures to draw")
    parser.add_argument("--model", type=Path, default=PACKAGE, help="model package")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds")
    parser.add_argument("--sides", type=sides_of(*SIDES), default=SIDES, help=f"some of {','.join(SIDES)}")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON on the last line too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        images = options.images or draw(folder / "images", options.num_images)
        took: dict[str, list[Took]] = {side: [] for side in options.sides}
        peaks_gib: dict[str, float] = {}
        for number in range(options.rounds + 1):
            for side, times in took.items():
                output = folder / f"{side}-{number}"
                plain = [sys.executable, "-m", "tests.benchmarks.plain_loop", images, options.model, output]
                command = plain if side == "plain" else infer(images, output, options.model, side)
                if number == 0:
                    peaks_gib[side] = measure(command, LOOK_INTERVAL_S).peak_bytes / 2**30
                else:
                    times.append(measure(command))
        figures: dict[str, object] = {"num_images": len(list(images.iterdir()))}
    lines = []
    for side, times in took.items():
        seconds, cpu_s = [time.seconds for time in times], [time.cpu_s for time in times]
        ratios = [one.seconds / plain.seconds for one, plain in zip(times, took.get("plain", ()), strict=False)]
        figures[side] = {"seconds": seconds, "ratio_to_plain": ratios, "cpu_s": cpu_s, "peak_gib": peaks_gib[side]}
        of_plain = f"; {spread(ratios)} of the plain loop" if ratios else ""
        lines.append(
            f"{side:6} {spread(seconds)} s{of_plain}; CPU {spread(cpu_s, 1)} s; {peaks_gib[side]:.2f} GiB at most"
        )
    report(lines, figures, options.json)


if __name__ == "__main__":
    main()
