"""The care of a table as people do it: the command as a process, beside runs, killed, and on a table of the first version."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import duckdb
import pytest
from deltalake import DeltaTable

from tests.chaos.places import SLOWLY
from tests.e2e.command import answer, jpeg, run, start

pytestmark = pytest.mark.slow

NUM_PICTURES = 400
FIRST_VERSION = Path(__file__).parents[1] / "data/first_version"


def num_rows(table: Path) -> tuple[int, int]:
    """Rows and keys, by DuckDB over the files that the table's log names."""
    files = DeltaTable(str(table)).file_uris()
    sql = "SELECT count(*), count(DISTINCT (uri, etag, model_digest)) FROM read_parquet(?)"
    return duckdb.execute(sql, [files]).fetchall()[0]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, content = tmp_path_factory.mktemp("pictures"), jpeg(1)
    for index in range(NUM_PICTURES):
        (folder / f"{index}.jpg").write_bytes(content)
    return folder


def test_a_run_beside_maintenance_that_is_killed(model: Path, pictures: Path, tmp_path: Path) -> None:
    table = tmp_path / "table"
    arguments = ("--input", pictures, "--table", table, "--model", model, "--commit-interval-s", "0.2")
    job, took_s, num_killed = start("infer", *arguments, "--json", environment=SLOWLY), 0.0, 0
    while job.poll() is None:
        if len(list(table.glob("run_date=*/*.parquet"))) < 3:
            time.sleep(0.05)
            continue
        care, begun_s = start("maintain", "--table", table), time.monotonic()
        if took_s:  # most of it goes to imports
            time.sleep(took_s * (0.6 + 0.05 * (num_killed % 8)))
            os.killpg(care.pid, signal.SIGKILL)
        care.communicate()
        num_killed += care.returncode == -signal.SIGKILL
        took_s = took_s or time.monotonic() - begun_s
    assert num_killed
    out, err = job.communicate()
    assert (job.returncode, json.loads(out)["ok"]) == (0, NUM_PICTURES), err
    assert num_rows(table) == (NUM_PICTURES, NUM_PICTURES)
    done = answer("maintain", "--table", table)
    assert (done["num_files"], num_rows(table)) == (1, (NUM_PICTURES, NUM_PICTURES))
    last = json.loads((table / "_LAST_COMPLETE").read_text())
    assert (last["run_id"], last["listed"], last["ok"]) == (json.loads(out)["run_id"], NUM_PICTURES, NUM_PICTURES)

    again = answer("infer", *arguments)
    assert (again["already_done"], again["planned"]) == (NUM_PICTURES, 0)
    assert json.loads((table / "_LAST_COMPLETE").read_text())["run_id"] == again["run_id"]


def test_people_who_asked_to_be_forgotten(model: Path, pictures: Path, tmp_path: Path) -> None:
    table, inputs = tmp_path / "table", tmp_path / "in"
    inputs.mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        shutil.copy(pictures / "0.jpg", inputs / name)
    arguments = ("--input", inputs, "--table", table, "--model", model)
    answer("infer", *arguments)
    (tmp_path / "list.csv").write_text(f"uri\n{inputs}/a.jpg\n{inputs}/b.jpg\n")
    flags = ("maintain", "--table", table, "--delete-uris", tmp_path / "list.csv", "--erase")
    (inputs / "a.jpg").unlink()
    assert answer(*flags, "--dry-run")["deleted_rows"] == 2
    assert num_rows(table) == (3, 3)
    assert answer(*flags)["deleted_rows"] == 2
    assert answer(*flags)["deleted_rows"] == 0
    assert not [file for file in table.rglob("run_date=*/*.parquet") if b"/a.jpg" in file.read_bytes()]
    assert answer("infer", *arguments)["ok"] == 1  # b.jpg was still there


def test_a_table_of_the_first_version(model: Path, pictures: Path, tmp_path: Path) -> None:
    """One new image; and one that failed before, under the model of today, fails once more."""
    table = shutil.copytree(FIRST_VERSION, tmp_path / "table")
    code, out, err = run("query", "--table", table, "SELECT uri FROM failures ORDER BY 1", "--format", "json")
    assert (code, json.loads(out)) == (0, [{"uri": "/pictures/broken.jpg"}, {"uri": "/pictures/lost.jpg"}]), err
    (tmp_path / "list.csv").write_text(f"uri,etag,size_bytes\n/pictures/lost.jpg,1-10,10\n{pictures}/0.jpg,,\n")
    arguments = ("--input", tmp_path / "list.csv", "--table", table, "--model", model)
    first, second = answer("infer", *arguments), answer("infer", *arguments)
    assert [first[k] for k in ("planned", "ok", "failed")] == [2, 1, 1]
    assert [second[k] for k in ("already_done", "planned", "failed")] == [1, 1, 1]
    done = answer("maintain", "--table", table, "--delete-uri", "/pictures/cat.jpg")
    assert (done["deleted_rows"], num_rows(table)) == (1, (6, 6))
    code, out, _ = run("export", "--table", table, "--output", tmp_path / "flat")
    assert code == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--table", "{tmp}/none"], "no table is there"),
        (["--table", "{tmp}/other"], "other files"),
        (["--table", "{tmp}/t", "--retention-hours", "1"], "retention_hours"),
        (["--table", "{tmp}/t", "--erase"], "erase goes with a deletion"),
        (["--table", "{tmp}/t", "--delete-before", "2999-01-01"], "not in the future"),
        (["--table", "{tmp}/t", "--delete-before", "soon"], "delete_before"),
    ],
)
def test_wrong_settings(flags: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/holiday.jpg").touch()
    code, _, err = run("maintain", *(flag.format(tmp=tmp_path) for flag in flags))
    assert (code, "Traceback" in err) == (2, False)
    assert message in err
