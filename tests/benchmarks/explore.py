"""Measure the explorer on a table of a formula: how soon its first page is there, how long filters take over HTTP, and its memory.

A page and its counts are asked one after the other, as `ssd-batch explore` answers them to one browser. Pictures are left out: the table's are nowhere.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.benchmarks.sides import Watch, report, spread
from tests.benchmarks.views import make

FIRST_PAGE = ("", "api/table", "api/images", "api/counts")
"""What a browser loads at first, but for scripts and pictures."""
MEMORY_EVERY_S = 1.0
SORTS = ("newest", "name", "best", "least_certain", "most_boxes", "fewest_boxes")
FILTERS: tuple[Mapping[str, object], ...] = (
    *({"sort": sort} for sort in SORTS),
    *({"sort": sort, "min_score": 0.3} for sort in SORTS),
    *({"sort": sort, "label": "class 7"} for sort in SORTS),
    {"label": ["class 1", "class 2", "class 3"], "sort": "best"}, {"min_score": 0.9}, {"min_score": 0.0},
    {"min_score": 0.2, "max_score": 0.4, "sort": "least_certain"}, {"min_size": 0.2}, {"max_size": 0.05, "sort": "best"},
    {"first_date": "2026-01-05", "last_date": "2026-01-09"}, {"run": "r0003", "sort": "best"}, {"status": "failed"},
    {"min_boxes": 5}, {"max_boxes": 0}, {"text": "image-000012345"}, {"text": "site-007/2026-0"}, {"text": ".jpg"},
    {"text": "99", "label": "class 7", "min_score": 0.4, "sort": "best"}, {"offset": 300_000}, {"offset": 300_000, "sort": "best"},
)  # fmt: skip


@contextmanager
def explorer(table: str, cache: Path) -> Iterator[tuple[str, Watch]]:
    """Start the command, and yield its address and a look at its memory."""
    command = [
        Path(sys.executable).with_name("ssd-batch"), "explore", "--table", table, "--cache", cache, "--port", "0", "--json",
    ]  # fmt: skip
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
        watch = Watch(process.pid, MEMORY_EVERY_S, None)
        try:
            assert process.stdout
            yield json.loads(process.stdout.readline())["url"], watch
        finally:
            process.terminate()
            process.wait()
            watch.stop()


def ask(address: str) -> float:
    """Load an address, and return the seconds that it took."""
    begun_s = time.perf_counter()
    with urlopen(address) as answer:
        answer.read()
    return time.perf_counter() - begun_s


def first_page_s(table: str, cache: Path) -> float:
    """Return the seconds from the command to its first page."""
    begun_s = time.perf_counter()
    with explorer(table, cache) as (url, _):
        for path in FIRST_PAGE:
            ask(url + path)
        return time.perf_counter() - begun_s


def p95(values: list[float]) -> float:
    """Return the value that 19 of 20 values do not pass."""
    return sorted(values)[-(-len(values) * 19 // 20) - 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-images", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds, after one")
    parser.add_argument("--table", type=Path, help="folder of the table; made there if there is none")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON on the last line too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        table = options.table or Path(name, "table")
        if not table.exists():
            make(table, options.num_images, num_commits=20, percent_changed=0)
        caches = [Path(name, f"cache-{number}") for number in range(options.rounds)]
        built = [first_page_s(str(table), cache) for cache in caches]
        found = [first_page_s(str(table), cache) for cache in caches]
        seconds: dict[str, list[list[float]]] = {kind: [[] for _ in FILTERS] for kind in ("images", "counts")}
        with explorer(str(table), caches[0]) as (url, watch):
            for number in range(options.rounds + 1):
                for chosen, *times in zip(FILTERS, *seconds.values(), strict=True):
                    for kind, took in zip(seconds, times, strict=True):
                        asked = chosen if kind == "images" else {key: chosen[key] for key in chosen if key != "offset"}
                        one_s = ask(f"{url}api/{kind}?{urlencode(asked, doseq=True)}")
                        if number:
                            took.append(one_s)
            time.sleep(2 * MEMORY_EVERY_S)
            peak_mib = watch.peak_bytes / 2**20
    lines = [f"first page  {spread(built)} s, with a copy {spread(found)} s"]
    for kind, times in seconds.items():
        all_s = [one for took in times for one in took]
        slowest = max(range(len(FILTERS)), key=lambda index: sum(times[index]))
        lines.append(
            f"{kind:11} {spread(all_s, 3)} s, p95 {p95(all_s):.3f} s; the slowest: {urlencode(FILTERS[slowest], doseq=True)}"
        )
    lines.append(f"memory      {peak_mib:,.0f} MiB at most")
    figures: dict[str, object] = {
        "num_images": options.num_images, "built_s": built, "found_s": found, "peak_mib": peak_mib,
        "filters": [{"filter": chosen} | {kind: times[index] for kind, times in seconds.items()} for index, chosen in enumerate(FILTERS)],
    }  # fmt: skip
    report(lines, figures, options.json)


if __name__ == "__main__":
    main()
