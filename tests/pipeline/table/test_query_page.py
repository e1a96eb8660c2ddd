"""docs/query.md and its notebook: each example runs, on a table at the place that the page names."""

import re
from datetime import date
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from PIL import Image

from pipeline.table.query import rows_of
from pipeline.table.run_records import RunRecord, recorded

DOCS = Path(__file__).parents[3] / "docs"
EXAMPLES = re.findall(r"```(sql|python)\n(.+?)```", (DOCS / "query.md").read_text(), re.DOTALL)
QUERIES, PROGRAMS = ([text for kind, text in EXAMPLES if kind == wanted] for wanted in ("sql", "python"))
CAT, DOG, SURE_CAT = (1, "cat", 0.75, 1, 2, 30, 20), (2, "dog", 0.6, 5, 6, 17, 28), (1, "cat", 0.95, 0, 0, 40, 30)


@pytest.fixture
def table(tmp_path, new_table, rows, monkeypatch):
    """Two days and two models, a failure, an image without boxes."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    picture, other = str(tmp_path / "a.png"), {"model_name": "other", "model_digest": "m0"}
    table = new_table(
        tmp_path / "tables/photos",
        rows.ok(picture, **rows.boxes(SURE_CAT, DOG)),
        rows.ok(picture, **rows.boxes(CAT), **other),
        rows.ok("/b.png", run_date=date(2026, 1, 3), **rows.boxes(DOG, CAT, CAT)),
        rows.ok("/b.png", run_date=date(2026, 1, 3), **rows.boxes(DOG), **other),
        rows.ok("/empty.png"),
        rows.failed("/broken.png", "decode"),
    )
    with recorded(table, RunRecord(run_id="r1")):
        pass
    return table


def test_there_are_ten_queries_and_five_engines():
    assert (len(QUERIES), len(PROGRAMS)) == (10, 5)


@pytest.mark.parametrize("sql", QUERIES, ids=lambda sql: sql.split("\n")[0])
def test_each_query_has_an_answer(sql, table):
    assert rows_of(table, sql)


def test_two_answers(table):
    (empty,) = rows_of(table, next(sql for sql in QUERIES if "coalesce(max_score" in sql))
    assert empty["uri"] == "/empty.png"
    models = rows_of(table, next(sql for sql in QUERIES if "HAVING" in sql))
    assert [row["found"] for row in models] == [["other: 1", "tiny: 3"], ["other: 1", "tiny: 2"]]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: re.findall(r"^(?:import|from) (\w+)", program)[0])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_each_engine_reads_the_table(program, table, capsys):
    """All but the last count boxes by class, of both models: five cats and three dogs."""
    exec(compile(program, "docs/query.md", "exec"), {})
    printed = capsys.readouterr().out
    if "history()" in program:
        assert printed.split(maxsplit=2)[:2] == ["1", "2"]
        return
    assert "cat" in printed
    assert "dog" in printed
    assert {"4", "3"} <= set(re.findall(r"\b\d+\b", printed))


def test_the_notebook(table):
    """It finds its table, and each cell runs."""
    spec = spec_from_file_location("detections_notebook", DOCS / "detections.py")
    notebook = module_from_spec(spec)
    spec.loader.exec_module(notebook)
    (table_folder := Path("demo-out")).mkdir()
    (table_folder / "table").symlink_to(table.url)
    outputs, found = notebook.app.run()
    assert found["by_class"]["label"].to_pylist() == ["dog", "cat"]
    assert found["by_class"]["boxes"].to_pylist() == [3, 4]
    assert len(found["sizes"]) == 7
    assert [row["uri"] for row in found["crowded"]] == [str(Path("a.png").resolve())]
    assert sum(output is not None for output in outputs) >= 4
