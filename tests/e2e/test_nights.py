"""Night after night: a range of days."""

import json
import os
from datetime import UTC, datetime

import pytest

from tests.e2e.command import ask, infer, jpeg, run

pytestmark = pytest.mark.slow


def test_a_range_of_days(model, tmp_path):
    """Three days, one of them without images; started again; a day's new image; then the wrong ranges."""
    pictures, table = tmp_path / "pictures", tmp_path / "table"
    pictures.mkdir()
    for day, name in ((1, "a"), (1, "b"), (3, "c"), (4, "too late")):
        (pictures / f"{name}.jpg").write_bytes(jpeg(day))
        time_s = datetime(2026, 1, day, 23, 59, 59, tzinfo=UTC).timestamp()
        os.utime(pictures / f"{name}.jpg", (time_s, time_s))
    arguments = ("--input", pictures, "--table", table, "--model", model)
    dates = ("--dates", "2026-01-01/2026-01-03")

    def counts(summary: dict) -> list[int]:
        return [summary[name] for name in ("listed", "already_done", "planned", "ok")]

    first = infer(*arguments, *dates)
    assert counts(first) == [3, 0, 3, 3]
    days = {day: counts(of_day) for day, of_day in first["days"].items()}
    assert days == {"2026-01-01": [2, 0, 2, 2], "2026-01-02": [0, 0, 0, 0], "2026-01-03": [1, 0, 1, 1]}
    sql = "SELECT run_date, count(*) AS n, count(DISTINCT run_id) AS runs FROM images GROUP BY ALL ORDER BY ALL"
    expected = [{"run_date": "2026-01-01", "n": 2, "runs": 1}, {"run_date": "2026-01-03", "n": 1, "runs": 1}]
    assert ask(table, sql) == expected

    again = infer(*arguments, *dates)
    assert counts(again) == [3, 3, 0, 0]
    (pictures / "a.jpg").rename(pictures / "moved.jpg")  # with its time
    code, out, err = run("infer", *arguments, *dates)
    assert (code, out.splitlines()[0]) == (0, "2026-01-01: 1 planned, 1 ok, 0 failed, 1 done before"), err
    runs = ask(
        table, "SELECT run_date, planned, settings FROM runs WHERE outcome = 'done' AND planned > 0 ORDER BY 1, 2"
    )
    assert [(row["run_date"], row["planned"]) for row in runs] == [
        ("2026-01-01", 1),
        ("2026-01-01", 2),
        ("2026-01-03", 1),
    ]
    assert json.loads(runs[0]["settings"])["input"] == [str(pictures)]
    for wrong, message in (
        ("2026-01-03/2026-01-01", "give 2026-01-01/2026-01-03"),
        ("January", "as 2026-01-01/2026-01-31"),
        ("2026-02-30", "as 2026-01-01/2026-01-31"),
    ):
        code, _, err = run("infer", *arguments, "--dates", wrong)
        assert (code, message in err) == (2, True), err
    code, _, err = run("infer", *arguments, *dates, "--since", "2026-01-01")
    assert (code, "without them" in err) == (2, True)
