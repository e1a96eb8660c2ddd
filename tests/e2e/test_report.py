"""Reports on runs, as pages that need nothing else."""

import json
import re
from pathlib import Path

import pytest

from jobs.pages.report_page import page_url
from pipeline.errors import SettingError
from tests.e2e.command import answer, jpeg, run

pytestmark = pytest.mark.slow


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(6):
        (folder / f"{index}.jpg").write_bytes(jpeg(index))
    (folder / "<b>broken.jpg").write_bytes(jpeg(0)[:100])
    return folder


def check_page(page: str) -> None:
    """It is one file: no script, and nothing that is loaded from elsewhere."""
    assert page.startswith("<!DOCTYPE html>")
    assert page.rstrip().endswith("</html>")
    assert "<script" not in page
    assert "<b>broken" not in page
    assert len(page) < 3_000_000
    linked = re.findall(r"""(?:src|href)=["']([^"'#][^"']{0,9})""", page)
    assert {link for link in linked if not link.startswith("data:")} == set()


def test_each_run_leaves_a_report_and_one_can_be_asked_for(pictures: Path, model: Path, tmp_path: Path) -> None:
    table, reports = tmp_path / "table", tmp_path / "reports"
    arguments = ("--input", pictures, "--table", table, "--model", model, "--report", f"{reports}/")
    first = answer("infer", *arguments)
    page = (reports / f"{first['run_id']}.html").read_text()
    check_page(page)
    assert "There is no earlier run of this model" in page
    assert page.count("<img src=") >= 12
    assert "DecodeError" in page
    assert page.count('class="gone"') == 1

    (pictures / "6.jpg").write_bytes(jpeg(6))
    (pictures / "0.jpg").unlink()
    second = answer("infer", *arguments)
    assert {path.stem for path in reports.iterdir()} == {first["run_id"], second["run_id"]}

    told = answer(
        "report", "--table", table, "--run", first["run_id"], "--min-score", "0.3", "--out", tmp_path / "again.html"
    )
    assert told == {"out": str(tmp_path / "again.html"), "run_id": first["run_id"], "changes": []}
    again = (tmp_path / "again.html").read_text()
    check_page(again)
    assert "No such file" in again  # 0.jpg, in its grey tile
    code, out, _ = run("report", "--table", table, "--out", "-")
    assert code == 0
    check_page(out)
    assert second["run_id"] in out
    assert "There is no earlier run" not in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["report", "--table", "{tmp}/none"], 2, "no table is there"),
        (["report", "--table", "{tmp}/none", "--out", "{tmp}/file/page.html"], 2, "out .* can't be written"),
        (["report", "--table", "{tmp}/none", "--out", "-", "--json"], 2, "give one of them"),
        (
            ["infer", "--report", "{tmp}/file/page.html", "--input", "{tmp}", "--model", "m", "--table", "{tmp}/t"],
            2,
            "report .* can't be written",
        ),
    ],
)
def test_what_is_refused_before_any_work(arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found, out, err = run(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert (found, out) == (code, "")
    assert re.search(message, err), err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_id_that_anyone_wrote_into_a_table_is_no_path(tmp_path: Path) -> None:
    assert page_url(f"{tmp_path}/", "20260101T000000Z-0123abcd") == f"{tmp_path}/20260101T000000Z-0123abcd.html"
    with pytest.raises(SettingError, match="is no name of a file"):
        page_url(f"{tmp_path}/", "../../x")


def test_a_report_that_cannot_be_written_does_not_fail_the_run(
    pictures: Path, model: Path, tmp_path: Path, monkeypatch
) -> None:
    from jobs.pages import report_page
    from pipeline.errors import SettingError

    def render(report: object) -> str:
        raise SettingError("report: the disk is full")

    monkeypatch.setattr(report_page, "render", render)
    code, out, err = run(
        "infer",
        "--input",
        pictures,
        "--table",
        tmp_path / "table",
        "--model",
        model,
        "--report",
        f"{tmp_path}/",
        "--json",
    )
    assert (code, json.loads(out)["ok"]) == (0, 6)
    assert "the run is done, but not its report: report: the disk is full" in err
