"""`make chaos`: accidents by a seeded schedule for CHAOS_S seconds; CHAOS_SEED repeats one."""

import itertools
import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.chaos.campaign import Campaign, Fault, say, schedule
from tests.chaos.faults import DRIVERS, LOCAL, STORAGE, WORKERS, kill_driver, kill_node
from tests.chaos.places import Opening, faulty_s3, local_disk, three_nodes

PLACES: tuple[tuple[Opening, tuple[Fault, ...]], ...] = (
    (local_disk, DRIVERS + WORKERS + LOCAL),
    (three_nodes, (kill_node, kill_driver, *WORKERS)),
    (faulty_s3, STORAGE + DRIVERS + WORKERS),
)


def main() -> None:
    seconds, seed = float(os.environ.get("CHAOS_S", 900)), int(os.environ.get("CHAOS_SEED", time.time()))
    deadline = time.monotonic() + seconds
    report: Counter[str] = Counter()
    try:
        for number, (opening, faults) in enumerate(itertools.cycle(PLACES), start=1):
            if time.monotonic() > deadline:
                break
            # The schedule is the seed's and the number's alone, whatever happened before.
            rng = random.Random(f"{seed}/{number}")
            strikes = schedule(rng, faults)
            say(f"campaign {number} on {opening.__name__}, seed {seed}")
            with (
                tempfile.TemporaryDirectory(prefix="chaos-") as folder,
                opening(Path(folder)) as place,
                Campaign(place, rng, report, Path(folder)) as campaign,
            ):
                campaign.play(strikes, deadline)
            say(describe(report))
    finally:
        print(f"seed {seed}: {describe(report)}")


def describe(report: Counter[str]) -> str:
    """What happened, and what is wrong with the tables."""
    return ", ".join(f"{name} {count}" for name, count in sorted(report.items()))


main()
