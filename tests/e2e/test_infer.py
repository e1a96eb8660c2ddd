"""The whole job as people run it: the command as a process, the table read by DuckDB alone."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest
import torch
from deltalake import DeltaTable
from PIL import Image

from jobs.demo.pictures import draw_picture
from model.config import Architecture, Thresholds
from model.package import ModelPackage, PackageRecord
from model.ssd import SSD

pytestmark = pytest.mark.slow

CONTRACT = {
    "run_id", "table", "model_digest", "listed", "skipped", "already_done", "planned", "ok", "failed", "wall_s",
    "images_per_s",
}  # fmt: skip


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "jobs", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def run(*arguments: object) -> tuple[int, str, str]:
    process = start(*arguments)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def infer(*arguments: object) -> dict[str, object]:
    code, out, err = run("infer", *arguments, "--json")
    assert code == 0, err
    summary = json.loads(out)  # Nothing else is on standard output.
    assert summary.keys() == CONTRACT
    return summary


def rows(table: Path) -> list[tuple[object, ...]]:
    """Key and status of each row, by DuckDB over the files that the table's log names."""
    files = DeltaTable(str(table)).file_uris()
    return duckdb.execute("SELECT uri, etag, status FROM read_parquet(?) ORDER BY ALL", [files]).fetchall()


def jpeg(seed: int) -> bytes:
    encoded = io.BytesIO()
    draw_picture(seed).image.resize((64, 48)).save(encoded, "JPEG")
    return encoded.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package small enough that only the pipeline takes time; it finds something in any picture."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    record = PackageRecord(
        name="tiny",
        architecture=Architecture(width=0.05),
        class_names=("a", "b"),
        thresholds=Thresholds(score_thresh=0.3, detections_per_img=5),
    )
    package = ModelPackage(record, SSD(record.architecture, 3).state_dict())
    for name, content in package.to_files().items():
        (folder / name).write_bytes(content)
    return folder


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

    (pictures / "new.png").write_bytes(jpeg(9))  # The suffix is wrong; the content decides.
    (pictures / "0.jpg").write_bytes(jpeg(10))
    third = infer(*arguments)
    assert [third[k] for k in ("listed", "already_done", "planned", "ok", "failed")] == [8, 6, 2, 2, 0]
    assert len(rows(table)) == len({key[:2] for key in rows(table)}) == 9  # Both versions of 0.jpg.


def test_a_dry_run_writes_nothing(pictures: Path, model: Path, tmp_path: Path) -> None:
    table = tmp_path / "table"
    summary = infer("--input", pictures, "--table", table, "--model", model, "--dry-run")
    assert (summary["planned"], summary["ok"]) == (7, 0)
    assert not table.exists()


def test_a_killed_run_is_finished_by_the_next(model: Path, tmp_path: Path) -> None:
    pictures, table = tmp_path / "pictures", tmp_path / "table"
    pictures.mkdir()
    content = jpeg(1)
    for index in range(1500):
        (pictures / f"{index}.jpg").write_bytes(content)
    arguments = ("--input", pictures, "--table", table, "--model", model, "--commit-interval-s", "0.2")

    victim = start("infer", *arguments)
    second_commit = table / "_delta_log" / f"{2:020}.json"
    while not second_commit.exists() and victim.poll() is None:
        time.sleep(0.01)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.communicate()
    committed = rows(table)
    assert victim.returncode == -signal.SIGKILL
    assert 0 < len(committed) < 1500

    summary = infer(*arguments)
    assert summary["already_done"] == len(committed)
    assert summary["planned"] == summary["ok"] == 1500 - len(committed)
    assert len(rows(table)) == len({key[:2] for key in rows(table)}) == 1500


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

    code, out, err = run("query", "--table", table, "SELECT uri, status FROM images", "--format", "json")
    assert code == 0, err
    uris = sorted(row["uri"] for row in json.loads(out))
    assert uris == sorted(f"s3://{bucket}/{key}" for key in [*keys, keys[0], "in/broken.jpg"])
    left = s3.client.list_objects_v2(Bucket=bucket, Prefix="table/_ssd_batch/")
    assert left["KeyCount"] == 0, "the plan of a run is taken away at its end"

    code, _, err = run("infer", "--input", "s3://no-such-bucket/in", "--table", f"{table}2", "--model", model)
    assert code == 2
    assert "does not exist" in err or "NoSuchBucket" in err


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
