"""The changes between runs as sentences for people."""

from datetime import date

from pipeline.report.drift import Shift


def describe_shift(shift: Shift) -> str:
    """Return a change as one sentence: the value of the run, that before, since when, and where."""
    now, before = (_value(shift, value) for value in (shift.now, shift.before))
    runs = "run" if shift.num_before == 1 else f"{shift.num_before} runs"
    places = "".join(f"; mostly {column} {place or '(none)'}" for column, place in shift.places)
    return f"{_subject(shift)}: {now}, and {before} in the {runs} before; began on {day(shift.began_on)}{places}"


def _subject(shift: Shift) -> str:
    return {
        "class_share": f"{shift.class_name}: share of boxes",
        "mean_score": f"{shift.class_name}: mean score",
        "boxes_per_image": "boxes per image",
        "failed_share": "images that failed",
    }[shift.quantity]


def _value(shift: Shift, value: float) -> str:
    return f"{value:.1%}" if shift.quantity in ("class_share", "failed_share") else f"{value:.2f}"


def day(value: date) -> str:
    """Return a date as people write it: 24 Nov 2026."""
    return f"{value.day} {value:%b %Y}"
