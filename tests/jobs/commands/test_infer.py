from dataclasses import asdict

from jobs.commands.infer import describe
from pipeline.inference.backfill import BackfillSummary
from pipeline.inference.summary import DryRunSummary, Summary

DONE = Summary("r1", "t", "m", 3, 0, 1, 2, 1, 1, 1.0, 2.0)
WOULD = DryRunSummary(**asdict(DONE), planned_bytes=20, measured=None, estimates=[])


def test_a_backfill_has_a_line_per_day():
    text = describe(BackfillSummary(**asdict(DONE), days={"2026-01-01": DONE}))
    assert text.splitlines()[0] == "2026-01-01: 2 planned, 1 ok, 1 failed, 1 done before"
    assert "run r1: 1 ok" in text


def test_a_dry_run_of_days_says_of_each_what_it_would_take():
    text = describe(BackfillSummary(**asdict(DONE), days={"2026-01-01": WOULD, "2026-01-02": WOULD}))
    assert [line[:44] for line in text.splitlines()] == [
        f"2026-01-0{day}: a run would do 2 images, 20 byte" for day in (1, 2)
    ]
