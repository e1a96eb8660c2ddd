"""Measure six usual questions and `runs` by `query`, next to the same questions with the join for the latest versions written out.

The table has a million images with 4.5 million boxes, by a formula. Answers of both sides are compared. CPU seconds are those of
all threads: on a busy machine they say more than the time that passed.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa

from pipeline.table.delta import ResultTable
from pipeline.table.query import IS_PERMANENT, LATEST, VIEWS, query
from pipeline.table.results import connect
from pipeline.table.run_records import RunRecord, recorded
from pipeline.table.schema import SCHEMA
from pipeline.table.versions import FOUND, note_versions
from tests.benchmarks.sides import Took, measure, report, spread

NUM_RUNS, NUM_CLASSES = 30, 20
ROWS = f"""
    SELECT format('s3://photos-of-all-sites/site-{{:03d}}/2026-{{:02d}}/image-{{:09d}}.jpg', i % 50, 1 + i % 12, i) AS uri,
        md5($version || i) AS etag, 20000 + i % 5000 AS size_bytes, TIMESTAMPTZ '2026-01-01' + to_seconds(i) AS last_modified,
        'demo' AS model_name, 'm1' AS model_digest, format('r{{:04d}}', $number) AS run_id,
        DATE '2026-01-01' + $number::INTEGER AS run_date, last_modified + INTERVAL 1 YEAR AS processed_at,
        if(is_bad, 'failed', 'ok') AS status, CASE WHEN is_bad THEN if(i % 3 = 0, 'decode', 'fetch') END AS error_stage,
        CASE WHEN is_bad THEN if(i % 3 = 0, 'DecodeError', 'ReadTimeoutError') END AS error_type,
        if(is_bad, 'image ' || i, NULL) AS error_message, 1 AS num_attempts, 640 AS width_px, 480 AS height_px,
        len(detections) AS num_detections, list_max([box.score FOR box IN detections]) AS max_score, detections
    FROM (
        SELECT i, hash(i) % 100 = 0 AS is_bad, CASE WHEN NOT is_bad THEN [
            {{label_id: (hash(i, b) % {NUM_CLASSES})::INTEGER, label: 'class ' || (hash(i, b) % {NUM_CLASSES}),
                score: (hash(b, i) % 10000) / 10000, xmin: hash(i, b, 1) % 600, ymin: hash(i, b, 2) % 400,
                xmax: 20 + hash(i, b, 1) % 600, ymax: 40 + hash(i, b, 2) % 400}}
            FOR b IN range((hash(i, 0) % 10)::BIGINT)
        ] END AS detections
        FROM range($first, $stop) AS numbers(i)
    )
"""
"""The SQL of the rows of one commit: 4.5 boxes per image, one failure in a hundred."""
QUESTIONS = {
    "images by status": "SELECT status, count(*) FROM images GROUP BY ALL ORDER BY ALL",
    "boxes by class": "SELECT label, count(*) FROM detections WHERE score > 0.5 GROUP BY ALL ORDER BY ALL",
    "crowded images": """SELECT count(*) FROM (
        SELECT uri FROM detections WHERE label = 'class 7' AND score > 0.5 GROUP BY uri HAVING count(*) >= 2
    )""",
    "mean score by day": "SELECT run_date, round(avg(score), 6) FROM detections GROUP BY ALL ORDER BY ALL",
    "failures by cause": "SELECT error_stage, error_type, count(*) FROM failures GROUP BY ALL ORDER BY ALL",
    "newest images": "SELECT uri, processed_at, max_score FROM images ORDER BY processed_at DESC, uri LIMIT 20",
    "runs": "SELECT run_id, outcome, images_per_s FROM runs ORDER BY run_id DESC LIMIT 20",
}


def make(url: Path, num_images: int, num_commits: int, percent_changed: int) -> ResultTable:
    """Write the table, as that many runs would. Of some images it has two versions."""
    table = ResultTable(str(url))
    table.create()
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")

        def append(version: str, number: int, first: int, stop: int) -> None:
            parameters = {"version": version, "number": number, "first": first, "stop": stop}
            rows = db.sql(ROWS, params=parameters).to_arrow_table()
            table.append(rows.select(SCHEMA.names).cast(SCHEMA))
            table.refreshed()

        step = -(-num_images // num_commits)
        for number, first in enumerate(range(0, num_images, step)):
            append("v1", number, first, min(num_images, first + step))
        if num_changed := num_images * percent_changed // 100:
            append("v2", num_commits, 0, num_changed)
    for number in range(NUM_RUNS):
        with recorded(table, RunRecord(run_id=f"r{number:04}", images_per_s=float(number))):
            pass
    note_versions(table)
    return table


def ask(url: str, sql: str) -> pa.Table:
    """Answer by the views of `query`."""
    with query(ResultTable(url), sql) as relation:
        return relation.to_arrow_table()


def ask_with_join(url: str, sql: str) -> pa.Table:
    """Answer by a join over the whole table, for whatever is asked."""
    with connect(ResultTable(url)) as db:
        db.execute(f"CREATE VIEW versions AS {FOUND}")
        for name in ("images", "detections", "failures"):
            select = LATEST if name == "images" else VIEWS[name]
            db.execute(f"CREATE VIEW {name} AS {select.format(path_columns='', is_permanent=IS_PERMANENT)}")
        return db.sql(sql).to_arrow_table()


def timed(answer: Callable[[str, str], pa.Table], url: str, sql: str) -> tuple[pa.Table, float, float]:
    """Return an answer, the seconds that it took, and the CPU seconds of all threads."""
    begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
    found = answer(url, sql)
    return found, time.perf_counter() - begun_s, time.process_time() - begun_cpu_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-images", type=int, default=1_000_000)
    parser.add_argument("--num-commits", type=int, default=20, help="commits, and data files")
    parser.add_argument("--percent-changed", type=int, default=0, help="images of which the table has two versions")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON on the last line too")
    options = parser.parse_args()
    sides = {"query": ask, "join": ask_with_join}
    seconds: dict[str, dict[str, list[float]]] = {name: {side: [] for side in sides} for name in QUESTIONS}
    cpu_s: dict[str, dict[str, list[float]]] = {name: {side: [] for side in sides} for name in QUESTIONS}
    whole: list[Took] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        url = make(Path(folder, "table"), options.num_images, options.num_commits, options.percent_changed).url
        command = [Path(sys.executable).with_name("ssd-batch"), "query", "--table", url, QUESTIONS["images by status"]]
        for number in range(options.rounds + 1):
            for name, sql in QUESTIONS.items():
                found = {}
                for side, answer in sides.items():
                    if name == "runs" and side == "join":
                        continue
                    found[side], took_s, took_cpu_s = timed(answer, url, sql)
                    if number:  # the first round fills caches
                        seconds[name][side].append(took_s)
                        cpu_s[name][side].append(took_cpu_s)
                assert all(table.equals(found["query"]) for table in found.values()), name
            if number:
                whole.append(measure(command))
    lines = []
    for name in QUESTIONS:
        line = f"{name:18} {spread(seconds[name]['query'])} s, CPU {spread(cpu_s[name]['query'])} s"
        if name != "runs":
            ratios = [before / after for before, after in zip(cpu_s[name]["join"], cpu_s[name]["query"], strict=True)]
            line += f"; with the join {spread(seconds[name]['join'])} s, {spread(ratios, 1)} times the CPU"
        lines.append(line)
    lines.append(
        f"the whole command  {spread(took.seconds for took in whole)} s, CPU {spread(took.cpu_s for took in whole)} s"
    )
    figures: dict[str, object] = {
        "num_images": options.num_images, "num_commits": options.num_commits, "percent_changed": options.percent_changed,
        "seconds": seconds, "cpu_s": cpu_s, "command_s": [took.seconds for took in whole],
        "command_cpu_s": [took.cpu_s for took in whole],
    }  # fmt: skip
    report(lines, figures, options.json)


if __name__ == "__main__":
    main()
