"""The command where things are odd: names, encodings, permissions, folders, disks. All of it is done, or told in a line or two."""

import functools
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.e2e.command import jpeg, run

pytestmark = pytest.mark.slow

UNEXPECTED = ("Traceback", "this should not happen", "Fatal Python error", 'File "')
MAX_LINES = 12
"""Of standard error: what a run tells of itself, and an error."""


def told(*arguments: object, **environment: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command, which says nothing that only its makers understand."""
    code, out, err = run(*arguments, environment=environment or None)
    assert not [text for text in UNEXPECTED if text in err + out], err
    assert len(err.splitlines()) <= MAX_LINES, err
    return code, out, err


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.jpg").write_bytes(jpeg(number))
    return folder


NAMES = ("ünï 図 😀", "what?", "a#b&c=d", 'quote\'s "x"', "-dash", "~")


def test_odd_names(model: Path, pictures: Path, tmp_path: Path) -> None:
    """Of images, and of the folders above the table."""
    for name in (*NAMES, "new\nline"):
        (pictures / f"{name}.jpg").write_bytes(jpeg(5))
    table = tmp_path.joinpath(*NAMES, "table")
    code, out, err = told("infer", "--input", pictures, "--table", table, "--model", model, "--json")
    assert code == 0, err
    assert (json.loads(out)["ok"], table.is_dir()) == (2 + 7, True)
    for more in (("query", "--format", "json", "SELECT uri FROM images"), ("maintain",), ("runs",)):
        assert told(*more, "--table", table)[0] == 0
    code, _, err = told("infer", "--input", pictures, "--table", tmp_path / "new\nline/table", "--model", model)
    assert (code, "can't be written" in err) == (2, True), err


ASCII = {"PYTHONIOENCODING": "ascii"}
C = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_terminals_that_do_not_have_all_letters(model: Path, pictures: Path, tmp_path: Path) -> None:
    """Nor, in the second, names of files."""
    (pictures / "é.jpg").write_bytes(jpeg(5))
    table = tmp_path / "table"
    assert told("infer", "--input", pictures, "--table", table, "--model", model, **C)[0] == 0
    for environment in (ASCII, C):
        for form in ("table", "csv", "json"):
            sql = "SELECT uri FROM images ORDER BY uri"
            code, out, _ = told("query", "--table", table, sql, "--format", form, **environment)
            assert code == 0
        assert json.loads(out)[2]["uri"] == str(pictures / "é.jpg")
        assert told("runs", "--table", table, **environment)[0] == 0


@pytest.mark.parametrize("address", ["local", "local-ray"])
def test_a_folder_for_temporary_files_with_a_long_path(
    address: str, model: Path, pictures: Path, tmp_path: Path
) -> None:
    """Names of sockets are short: 107 bytes with all that is put behind."""
    folder = tmp_path / ("t" * 100)
    folder.mkdir()
    code, _, err = told(
        "infer", "--input", pictures, "--table", tmp_path / "table", "--model", model, "--address", address, TMPDIR=str(folder),
        RAY_TMPDIR=str(folder),
    )  # fmt: skip
    assert (code, "TMPDIR" in err) == (2, True), err


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip("no disk can be mounted here: a full one was not tried")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk(model: Path, pictures: Path, tmp_path: Path) -> None:
    """Of the table: one line, and exit code 1. With room again the same command does the rest."""
    with small_disk(tmp_path / "disk", "300k") as disk:
        arguments = ("--input", pictures, "--table", disk / "table", "--model", model)
        assert told("infer", *arguments, "--sample", "1")[0] == 0
        filler = disk / "filler"
        with pytest.raises(OSError, match="No space"):
            filler.write_bytes(b"x" * 2**20)
        code, out, err = told("infer", *arguments)
        assert (code, out) == (1, ""), err
        assert "No space left on device" in err
        filler.unlink()
        assert told("infer", *arguments)[0] == 0
        _, out, _ = told("query", "--table", disk / "table", "SELECT count(*) AS n FROM images", "--format", "json")
        assert json.loads(out) == [{"n": 2}]
        _, out, _ = told("query", "--table", disk / "table", "SELECT DISTINCT outcome FROM runs", "--format", "json")
        assert {"outcome": "running"} not in json.loads(out)


def test_a_table_that_may_not_be_written(model: Path, pictures: Path, tmp_path: Path) -> None:
    table = tmp_path / "disk/table"
    arguments = ("infer", "--input", pictures, "--table", table, "--model", model)
    with small_disk(tmp_path / "disk", "4m") as disk:
        assert told(*arguments, "--sample", "1")[0] == 0
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        for command in (
            arguments,
            (*arguments[:4], tmp_path / "disk/new", *arguments[5:]),
            ("maintain", "--table", table),
        ):
            code, out, err = told(*command)
            assert (code, out) == (2, ""), err
            assert "Read-only file system" in err
        assert told("query", "--table", table, "SELECT count(*) FROM images")[0] == 0


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(pictures: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(pictures))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_images_of_a_web_server(server: str, model: Path, tmp_path: Path, pictures: Path) -> None:
    """One, a list, and a folder with a link that leads nowhere; which changes are seen by their time."""
    table = ("--table", tmp_path / "table", "--model", model, "--json")
    code, out, err = told("infer", "--input", f"{server}/0.jpg", *table)
    assert (code, json.loads(out)["ok"]) == (0, 1), err
    (tmp_path / "list.txt").write_text(f"{server}/0.jpg\n{server}/1.jpg\n{server}/gone.jpg\n")
    code, out, err = told("infer", "--input", tmp_path / "list.txt", *table)
    found = json.loads(out)
    assert (code, found["already_done"], found["ok"], found["failed"]) == (0, 1, 1, 1), err
    os.utime(pictures / "0.jpg", (10**9, 10**9))
    code, out, err = told("infer", "--input", f"{server}/0.jpg", *table)
    assert (code, json.loads(out)["ok"]) == (0, 1), err
    (pictures / "gone.jpg").symlink_to("nowhere")
    code, out, err = told("infer", "--input", f"{server}/", *table)
    assert (code, json.loads(out)["already_done"], json.loads(out)["listed"]) == (0, 2, 2), err
    assert "1 links are left out, as they can't be read" in err


def test_odd_inputs(model: Path, pictures: Path, tmp_path: Path) -> None:
    os.utime(pictures / "0.jpg", (-1e9, -1e9))  # before 1970
    (tmp_path / "utf16.csv").write_bytes(f"uri\n{pictures}/1.jpg\n".encode("utf-16"))
    arguments = ("--table", tmp_path / "table", "--model", model, "--json")
    code, out, err = told("infer", "--input", pictures, *arguments)
    assert (code, json.loads(out)["ok"]) == (0, 2), err
    code, out, err = told("infer", "--input", tmp_path / "utf16.csv", *arguments)
    assert (code, json.loads(out)["already_done"]) == (0, 1), err
    for given in ("zip://*.jpg::/tmp/x.zip", "nowhere", "ftp://127.0.0.1:1/x", "abc://x", "", "s3://"):
        code, out, err = told("infer", "--input", given, *arguments)
        assert (code in (1, 2), out) == (True, ""), err
