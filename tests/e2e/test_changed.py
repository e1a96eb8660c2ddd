"""Images that are gone, or others, when they are read: the whole command."""

import os
from pathlib import Path

import pytest

from jobs.demo import PACKAGE
from pipeline.storage.local import local_etag
from tests.e2e.command import ask, infer, jpeg

pytestmark = pytest.mark.slow


def write_picture(path: Path, width_px: int) -> str:
    """A picture as JPEG; its row in a manifest, as it is now."""
    content = jpeg(width_px=width_px)
    path.write_bytes(content)
    return f"{path},{local_etag(os.stat(path))},{len(content)}"


def test_what_was_listed_is_read_or_is_a_failure(tmp_path: Path) -> None:
    """A manifest is the listing; then one file vanishes, and one is written anew."""
    pictures, table = tmp_path / "pictures", tmp_path / "table"
    pictures.mkdir()
    listed = [write_picture(pictures / name, 64) for name in ("same.jpg", "gone.jpg", "changed.jpg")]
    (tmp_path / "listed.csv").write_text("\n".join(["uri,etag,size_bytes", *listed]))
    (pictures / "gone.jpg").unlink()
    write_picture(pictures / "changed.jpg", 80)
    job = ("--table", table, "--model", PACKAGE)

    first = infer(*job, "--input", tmp_path / "listed.csv")
    assert [first[k] for k in ("listed", "ok", "failed")] == [3, 1, 2]
    sql = "SELECT parse_filename(uri) AS name, error_stage, error_type, is_permanent FROM failures ORDER BY name"
    assert ask(table, sql) == [
        {"name": "changed.jpg", "error_stage": "fetch", "error_type": "ChangedError", "is_permanent": False},
        {"name": "gone.jpg", "error_stage": "fetch", "error_type": "FileNotFoundError", "is_permanent": False},
    ]

    second = infer(*job, "--input", pictures)
    assert [second[k] for k in ("listed", "already_done", "planned", "ok")] == [2, 1, 1, 1]
    sql = "SELECT parse_filename(uri) AS name, status, width_px FROM images ORDER BY name"
    assert ask(table, sql) == [
        {"name": "changed.jpg", "status": "ok", "width_px": 80},
        {"name": "gone.jpg", "status": "failed", "width_px": None},
        {"name": "same.jpg", "status": "ok", "width_px": 64},
    ]
