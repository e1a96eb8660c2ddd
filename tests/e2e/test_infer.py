"""The whole job as people run it: the command as a process, the table read by DuckDB alone."""

import csv
import io
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable
from PIL import Image

from jobs.demo import PACKAGE
from jobs.demo.pictures import draw_picture
from model.package import ModelPackage
from pipeline.registry.packages import read_package, write_package
from pipeline.table.commit import Committer
from pipeline.table.delta import ResultTable
from pipeline.table.fence import Fence
from tests.chaos.places import SLOWLY
from tests.e2e.command import TIMEOUT_S, answer, ask, jpeg, run, start

pytestmark = pytest.mark.slow

CONTRACT = {
    "run_id", "table", "model_digest", "listed", "skipped", "already_done", "planned", "ok", "failed", "wall_s",
    "images_per_s",
}  # fmt: skip


DRY_RUN = {"planned_bytes", "measured", "estimates"}


def infer(*arguments: object) -> dict[str, Any]:
    summary = answer("infer", *arguments)
    assert summary.keys() == (CONTRACT | DRY_RUN if "--dry-run" in arguments else CONTRACT)
    return summary


def rows(table: Path) -> list[tuple[object, ...]]:
    """Key and status of each row, by DuckDB over the files that the table's log names."""
    files = DeltaTable(str(table)).file_uris()
    return duckdb.execute("SELECT uri, etag, status FROM read_parquet(?) ORDER BY ALL", [files]).fetchall()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(6):
        (folder / f"{index}.jpg").write_bytes(jpeg(index))
    (folder / "broken.jpg").write_bytes(jpeg(0)[:100])
    (folder / "notes.txt").write_text("no image")
    return folder


def test_only_what_is_new_or_changed_is_detected_again(pictures: Path, model: Path, tmp_path: Path) -> None:
    table = tmp_path / "table"
    arguments = ("--input", pictures, "--table", table, "--model", model)

    first = infer(*arguments)
    assert [first[k] for k in ("listed", "skipped", "already_done", "planned", "ok", "failed")] == [7, 1, 0, 7, 6, 1]
    code, out, _ = run(
        "query", "--table", table, "SELECT uri, error_stage, error_type FROM failures", "--format", "json"
    )
    assert code == 0
    assert json.loads(out) == [
        {"uri": str(pictures / "broken.jpg"), "error_stage": "decode", "error_type": "DecodeError"}
    ]

    code, out, _ = run(
        "query", "--table", table, "SELECT uri, detections FROM images WHERE status = 'failed'", "--format", "csv"
    )
    assert (code, out) == (0, f"uri,detections\n{pictures / 'broken.jpg'},\n")

    again = infer(*arguments)
    assert [again[k] for k in ("listed", "already_done", "planned", "ok", "failed")] == [7, 7, 0, 0, 0]
    sql = "SELECT run_id, outcome, listed, skipped, planned, ok, failed FROM runs ORDER BY started_at"
    code, out, _ = run("query", "--table", table, sql, "--format", "json")
    assert json.loads(out) == [
        {"run_id": first["run_id"], "outcome": "done", "listed": 7, "skipped": 1, "planned": 7, "ok": 6, "failed": 1},
        {"run_id": again["run_id"], "outcome": "done", "listed": 7, "skipped": 1, "planned": 0, "ok": 0, "failed": 0},
    ]
    retried = infer(*arguments, "--retry-failed", "--stage", "decode")
    assert [retried[k] for k in ("listed", "already_done", "planned", "ok", "failed")] == [7, 6, 1, 0, 1]

    (pictures / "new.png").write_bytes(jpeg(9))  # The suffix is wrong; the content decides.
    (pictures / "0.jpg").write_bytes(jpeg(10))
    third = infer(*arguments)
    assert [third[k] for k in ("listed", "already_done", "planned", "ok", "failed")] == [8, 6, 2, 2, 0]
    assert len(rows(table)) == len({key[:2] for key in rows(table)}) == 9  # Both versions of 0.jpg.
    code, out, _ = run("query", "--table", table, "SELECT count(*) AS n FROM images", "--format", "json")
    assert json.loads(out) == [{"n": 8}]


def test_a_run_for_a_date(pictures: Path, model: Path, tmp_path: Path) -> None:
    """Two days' images; a run for one of them, under its date; then more than max_planned."""
    table = tmp_path / "table"
    for index in range(6):
        os.utime(pictures / f"{index}.jpg", (86_400 * (1 + index % 2), 86_400 * (1 + index % 2)))  # 1970-01-02 and 03
    os.utime(pictures / "broken.jpg", (0, 0))
    arguments = ("--input", pictures, "--table", table, "--model", model, "--max-planned", "3")
    nothing = infer(*arguments, "--since", "1969-01-01", "--until", "1969-01-02")
    assert (nothing["listed"], table.exists()) == (0, False)
    code, _, err = run("infer", *arguments)
    assert (code, "7 images are planned, more than 3, as none of them" in err, table.exists()) == (2, True, False)
    day = infer(*arguments, "--since", "1970-01-02", "--until", "1970-01-03T00:00:00+00:00", "--run-date", "1970-01-02")
    assert [day[k] for k in ("listed", "planned", "ok")] == [3, 3, 3]
    assert [path.name for path in table.glob("run_date=*")] == ["run_date=1970-01-02"]
    assert infer(*arguments, "--backfill", "--dry-run")["planned"] == 4


def test_a_dry_run_writes_nothing(pictures: Path, model: Path, tmp_path: Path) -> None:
    table = tmp_path / "table"
    summary = infer("--input", pictures, "--table", table, "--model", model, "--dry-run")
    assert (summary["planned"], summary["ok"]) == (7, 0)
    assert summary["planned_bytes"] == sum(file.stat().st_size for file in pictures.glob("*.jpg"))
    assert (summary["measured"], summary["estimates"]) == (None, [])
    assert not table.exists()


NUM_MANY = 300


@pytest.fixture(scope="module")
def many_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough that a slow run is still at it when its first commits are seen."""
    folder, content = tmp_path_factory.mktemp("many"), jpeg(1)
    for index in range(NUM_MANY):
        (folder / f"{index}.jpg").write_bytes(content)
    return folder


def start_and_wait_for_commits(table: Path, *arguments: object) -> subprocess.Popen[str]:
    """A slow run that has committed rows twice at least."""
    process = start("infer", *arguments, environment=SLOWLY)
    while process.poll() is None and len(list(table.glob("run_date=*/*.parquet"))) < 2:
        time.sleep(0.01)
    return process


def test_a_killed_run_is_finished_by_the_next(model: Path, many_pictures: Path, tmp_path: Path) -> None:
    table = tmp_path / "table"
    arguments = ("--input", many_pictures, "--table", table, "--model", model, "--commit-interval-s", "0.2")
    victim = start_and_wait_for_commits(table, *arguments)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.communicate()
    committed = rows(table)
    assert victim.returncode == -signal.SIGKILL
    assert 0 < len(committed) < NUM_MANY

    summary = infer(*arguments)
    assert summary["already_done"] == len(committed)
    assert summary["planned"] == summary["ok"] == NUM_MANY - len(committed)
    assert len(rows(table)) == len({key[:2] for key in rows(table)}) == NUM_MANY


def test_a_run_that_is_overtaken_stops(model: Path, many_pictures: Path, tmp_path: Path) -> None:
    table = tmp_path / "table"
    arguments = ("--input", many_pictures, "--table", table, "--model", model, "--commit-interval-s", "0.2")
    victim = start_and_wait_for_commits(table, *arguments)
    with Fence(ResultTable(str(table)), "day", 60).held(take_over=True):
        committed = rows(table)
        _, err = victim.communicate(timeout=TIMEOUT_S)
        assert victim.returncode == 5
        assert "was taken over by run day" in err
        assert "Traceback" not in err
    assert rows(table) == committed
    _, out, _ = run("query", "--table", table, "SELECT outcome, planned FROM runs", "--format", "json")
    assert json.loads(out) == [{"outcome": "overtaken", "planned": NUM_MANY}]


def test_a_second_run_beside_a_live_one_is_refused(pictures: Path, model: Path, tmp_path: Path) -> None:
    table = ResultTable(str(tmp_path / "table"))
    table.create()
    arguments = ("--input", pictures, "--table", table.url, "--model", model)
    fence = Fence(table, "night", 1.0)
    with fence.held(), Committer(table, fence, 0.3):
        code, _, err = run("infer", *arguments)
        assert code == 4
        assert f"is held by run night (host {socket.gethostname()}, process {os.getpid()}), which is alive" in err
        assert infer(*arguments, "--dry-run")["planned"] == 7
    assert infer(*arguments)["ok"] == 6


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--input", "{tmp}/nowhere", "--table", "{tmp}/t", "--model", "{model}"], "nowhere"),
        (["--input", "{tmp}/empty", "--table", "{tmp}/t", "--model", "{model}"], "no images"),
        (["--input", "{pictures}", "--table", "{tmp}/t", "--model", "{tmp}/empty"], "model.json"),
        (["--input", "{pictures}", "--table", "{pictures}", "--model", "{model}"], "other files"),
        (["--input", "{pictures}", "--table", "{tmp}/t"], "model: missing; give --model"),
        (["--input", "{pictures}", "--table", "{tmp}/t", "--model", "{model}", "--batch-size", "0"], "batch_size"),
        (["--input", "{pictures}", "--tabel", "{tmp}/t"], "--table"),
    ],
)
def test_a_wrong_setting_stops_before_anything_is_written(
    flags: list[str], message: str, pictures: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = run("infer", *(flag.format(tmp=tmp_path, model=model, pictures=pictures) for flag in flags))
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "t").exists()


@pytest.mark.s3
def test_the_whole_job_on_s3(model: Path, s3: Any) -> None:
    bucket = s3.bucket()
    keys = ["in/a.jpg", "in/deep/b 1.jpg", "in/ü#?%41+[x]*.jpg", "in/odd//key.jpg"]
    s3.put(bucket, {key: jpeg(index) for index, key in enumerate(keys)})
    s3.put(bucket, {"in/broken.jpg": jpeg(0)[:100], "in/notes.txt": b"no image"})
    s3.put(bucket, {f"model/{file.name}": file.read_bytes() for file in model.iterdir()})
    table = f"s3://{bucket}/table"
    arguments = ("--input", f"s3://{bucket}/in", "--table", table, "--model", f"s3://{bucket}/model")

    first = infer(*arguments)
    assert [first[k] for k in ("listed", "skipped", "already_done", "planned", "ok", "failed")] == [5, 1, 0, 5, 4, 1]
    s3.put(bucket, {keys[0]: jpeg(7)})
    second = infer(*arguments)
    assert [second[k] for k in ("listed", "already_done", "planned", "ok", "failed")] == [5, 4, 1, 1, 0]

    code, out, err = run("query", "--table", table, "SELECT uri, status FROM history", "--format", "json")
    assert code == 0, err
    uris = sorted(row["uri"] for row in json.loads(out))
    assert uris == sorted(f"s3://{bucket}/{key}" for key in [*keys, keys[0], "in/broken.jpg"])
    left = s3.client.list_objects_v2(Bucket=bucket, Prefix="table/_ssd_batch/")
    names = {entry["Key"] for entry in left["Contents"]}
    notes = {name for name in names if name.startswith("table/_ssd_batch/versions-")}
    assert names - notes == {f"table/_ssd_batch/runs/{summary['run_id']}.parquet" for summary in (first, second)}
    assert len(notes) == 2

    code, _, err = run("infer", "--input", "s3://no-such-bucket/in", "--table", f"{table}2", "--model", model)
    assert code == 2
    assert "does not exist" in err or "NoSuchBucket" in err


ODD_KEYS = [
    "plain.jpg", "with space.jpg", " space first.jpg", "ünïcödé_图像🦀.jpg", "é.jpg", "e\u0301.jpg", "hash#1.jpg", "ask?x=1.jpg",
    "[bracket].jpg", "star*.jpg", "%41.jpg", "A.jpg", "a%2Fb.jpg", "a/b.jpg", "plus+.jpg", "plus .jpg", "x//y.jpg", "x/y.jpg",
    "./dot.jpg", "dot.jpg", "p/../up.jpg", "up.jpg", "/leading.jpg", "leading.jpg", "trailing.jpg/", "trailing.jpg",
    "tab\t.jpg", "line\nbreak.jpg", 'quote".jpg', "comma,.jpg", "back\\slash.jpg", "semi;colon.jpg",
]  # fmt: skip


@pytest.mark.s3
def test_odd_keys_are_rows_of_their_own_image(model: Path, s3: Any, tmp_path: Path) -> None:
    """Each image has a width of its own, so that another object's pixels would show."""
    keys = {key: 40 + index for index, key in enumerate(ODD_KEYS) if s3.name != "moto" or "\n" not in key}
    bucket, table = s3.bucket(), tmp_path / "table"
    for key, width_px in keys.items():
        encoded = io.BytesIO()
        draw_picture(0).image.resize((width_px, 30)).save(encoded, "JPEG")
        s3.put(bucket, {key: encoded.getvalue()})
    first = infer("--input", f"s3://{bucket}", "--all-files", "--table", table, "--model", model)
    assert (first["listed"], first["ok"]) == (len(keys), len(keys))
    for output in ("json", "csv"):
        sql = "SELECT uri, width_px FROM images"
        code, out, err = run("query", "--table", table, sql, "--format", output)
        assert code == 0, err
        found = json.loads(out) if output == "json" else list(csv.DictReader(io.StringIO(out, newline="")))
        assert {row["uri"]: int(row["width_px"]) for row in found} == {
            f"s3://{bucket}/{key}": width for key, width in keys.items()
        }
    with open(tmp_path / "list.csv", "w", newline="") as manifest:
        csv.writer(manifest).writerows([["uri"], *([f"s3://{bucket}/{key}"] for key in keys)])
    (tmp_path / "list.jsonl").write_text("".join(json.dumps({"uri": f"s3://{bucket}/{key}"}) + "\n" for key in keys))
    for name in ("list.csv", "list.jsonl"):
        again = infer("--input", tmp_path / name, "--table", table, "--model", model)
        assert (again["listed"], again["already_done"]) == (len(keys), len(keys)), name


def test_folders_become_columns(model: Path, tmp_path: Path) -> None:
    table, pictures = tmp_path / "table", tmp_path / "pictures"
    for name in ("camera=7/date=2026-01-31", "camera=12/date=2026-02-01"):
        (pictures / name).mkdir(parents=True)
        (pictures / name / "a.jpg").write_bytes(jpeg(len(name)))
    (pictures / "elsewhere.jpg").write_bytes(jpeg(1))
    arguments = ("--input", pictures, "--table", table, "--model", model)
    code, _, err = run("infer", *arguments, "--path-columns", "camera={camera}/day={day}")
    assert (code, "fits the folders of no image" in err) == (2, True)
    assert not table.exists()
    infer(*arguments)
    code, out, _ = run("query", "--table", table, "SELECT camera, date FROM images ORDER BY camera", "--format", "json")
    assert json.loads(out) == [
        {"camera": 7, "date": "2026-01-31"},
        {"camera": 12, "date": "2026-02-01"},
        {"camera": None, "date": None},
    ]
    (pictures / "new.jpg").write_bytes(jpeg(2))
    assert infer(*arguments, "--path-columns", "none")["ok"] == 1


def test_large_jpegs_decoded_at_a_fraction_have_the_same_boxes(tmp_path: Path) -> None:
    pictures, package = tmp_path / "pictures", read_package(str(PACKAGE))
    pictures.mkdir()
    draw_picture(3).image.resize((3200, 2400)).save(pictures / "large.jpg")
    scaled = package.record.preprocessing.model_copy(update={"jpeg_dct_scaling": True})
    other = ModelPackage(package.record.model_copy(update={"preprocessing": scaled}), package.weights)
    write_package(other, str(tmp_path / "other"))
    found = []
    for model in (PACKAGE, tmp_path / "other"):
        assert infer("--input", pictures, "--table", tmp_path / "table", "--model", model)["ok"] == 1
        boxes = f"SELECT * FROM detections WHERE model_digest = '{read_package(str(model)).digest}' AND score > 0.5"
        found.append(ask(tmp_path / "table", f"{boxes} ORDER BY xmin, ymin"))
    whole, fraction = found
    assert [box["label"] for box in whole] == [box["label"] for box in fraction] != []
    assert [box["score"] for box in whole] != [
        box["score"] for box in fraction
    ]  # the gray levels are not quite the same
    for one, same in zip(whole, fraction, strict=True):
        assert (same["width_px"], same["height_px"]) == (3200, 2400)
        for side in ("xmin", "ymin", "xmax", "ymax"):
            assert same[side] == pytest.approx(one[side], abs=20)


def test_boxes_are_pixels_of_the_upright_original(model: Path, tmp_path: Path) -> None:
    pictures, table = tmp_path / "pictures", tmp_path / "table"
    pictures.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # Turned by 90°: a viewer shows 48×64.
    draw_picture(3).image.resize((64, 48)).save(pictures / "turned.jpg", exif=exif)
    infer("--input", pictures, "--table", table, "--model", model)
    sql = "SELECT width_px, height_px, bool_and(xmax <= width_px AND ymax <= height_px) AS inside FROM detections GROUP BY ALL"
    code, out, _ = run("query", "--table", table, sql, "--format", "json")
    assert (code, json.loads(out)) == (0, [{"width_px": 48, "height_px": 64, "inside": True}])


def test_detections_from_a_least_score_on_are_of_another_digest(model: Path, tmp_path: Path) -> None:
    """They are the same as those of the whole model that score as much, for a number and for each class's best score."""
    folder, table = tmp_path / "pictures", tmp_path / "table"
    folder.mkdir()
    for seed in range(4):
        draw_picture(seed).image.save(folder / f"{seed}.png")
    arguments = ("--input", folder, "--table", table, "--model", PACKAGE)
    digests = [infer(*arguments, *more)["model_digest"] for more in ((), ("--min-score", 0.5), ("--min-score", "best"))]
    assert len(set(digests)) == 3
    best = json.loads((PACKAGE / "model.json").read_text())["metrics"]["best_scores"]
    boxes = "SELECT uri, label, score FROM detections WHERE model_digest = '{}' ORDER BY ALL"
    whole, half, best_ones = ([tuple(row.values()) for row in ask(table, boxes.format(digest))] for digest in digests)
    assert half == [row for row in whole if row[2] > 0.5]
    assert best_ones == [row for row in whole if row[2] >= best[row[1]]]
    assert 0 < len(best_ones) < len(whole)
    assert infer(*arguments, "--min-score", "best")["planned"] == 0
