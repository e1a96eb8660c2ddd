"""Nights in which most images fail for one reason: they end badly, and count for nothing."""

from pathlib import Path

import pytest

from tests.e2e.command import answer, ask, infer, jpeg, run

pytestmark = pytest.mark.slow


@pytest.fixture
def gone(tmp_path: Path):
    """A manifest of so many images that are not there, as of a share that is not mounted on the nodes."""

    def gone(num_images: int) -> Path:
        manifest = tmp_path / f"{num_images}.csv"
        lines = [f"{tmp_path}/share/{number}.jpg,v1,10" for number in range(num_images)]
        manifest.write_text("\n".join(["uri,etag,size_bytes", *lines]))
        return manifest

    return gone


def test_a_night_in_which_all_fail_alike_is_stopped(gone, model: Path, tmp_path: Path) -> None:
    table = tmp_path / "table"
    arguments = ("--input", gone(30_000), "--table", table, "--model", model, "--commit-interval-s", 1)
    code, out, err = run("infer", *arguments)
    assert (code, out) == (3, ""), err
    assert "Error: max_failed_share: " in err
    assert "of 1,0" in err
    assert "images failed alike, in fetch (FileNotFoundError: " in err
    assert "Traceback" not in err
    (failed,) = ask(table, "SELECT count(*) AS n, min(num_attempts) AS least, max(num_attempts) AS most FROM failures")
    assert 1000 <= failed["n"] < 10_000
    assert failed["least"] == failed["most"] == 0
    (record,) = ask(table, "SELECT outcome, error LIKE 'max_failed_share: %' AS says_why FROM runs")
    assert record == {"outcome": "failed", "says_why": True}
    assert not (table / "_LAST_COMPLETE").exists()
    assert infer(*arguments, "--dry-run")["planned"] == 30_000


def test_a_small_night_in_which_most_fail_is_tried_again_as_if_it_had_not_been(
    gone, model: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table"
    arguments = ("--input", gone(20), "--table", table, "--model", model, "--max-attempts", 1)
    code, out, err = run("infer", *arguments, "--json")
    assert (code, '"failed": 20' in out) == (3, True)
    assert "20 of 20 images failed, more than 0.5 of them; 20 in fetch (FileNotFoundError: " in err
    assert not (table / "_LAST_COMPLETE").exists()

    (tmp_path / "share").mkdir()
    for number in range(20):
        (tmp_path / f"share/{number}.jpg").write_bytes(jpeg(number))
    mended = infer("--input", tmp_path / "share", "--table", table, "--model", model)
    assert mended["ok"] == 20
    assert infer(*arguments, "--max-failed-share", 1)["failed"] == 20
    assert (table / "_LAST_COMPLETE").exists()
    assert answer("infer", *arguments)["planned"] == 0
