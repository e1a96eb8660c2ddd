"""Changes between runs: shares of classes, scores, boxes per image, failures; since when, and where."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.report.counts import ClassCounts, RunCounts

MIN_ERRORS = 5.0
"""The standard errors that a difference must have: several dozen are looked at in each report."""
MIN_RELATIVE, MIN_SCORE_CHANGE = 0.2, 0.05
"""The least change that matters: as a share of the larger value, and of a mean score."""
NUM_BEFORE = 5
"""The number of runs before the change that are compared with."""
MAIN_SHARE = 0.6
"""The part of a change from which one place is named as its cause."""
MIN_IN_BOTH = 0.5
"""The part of the images, or boxes, that must be at places which a column had before the change and has since."""

Quantity = Literal["class_share", "mean_score", "boxes_per_image", "failed_share"]


@dataclass(frozen=True)
class Shift:
    """A change that lasts to the reported run."""

    quantity: Quantity
    class_name: str | None
    """The class, of `class_share` and `mean_score`."""
    now: float
    """The value of the reported run."""
    before: float
    """The mean over the runs before the change, `NUM_BEFORE` at most."""
    num_before: int
    began_run: str
    """The ID of the first run with the change."""
    began_on: date
    errors: float
    """The difference in standard errors."""
    places: tuple[tuple[str, str], ...] = ()
    """The columns from paths and their values that most of the change comes from."""


@dataclass(frozen=True)
class Series:
    """A mean in each of several runs, from the oldest to the reported one."""

    means: NDArray[np.float64]
    """(R,) float64."""
    weights: NDArray[np.float64]
    """(R,) float64, the independent observations behind each mean."""
    variance: float
    """The variance of one observation."""


def find_shifts(runs: Sequence[RunCounts]) -> list[Shift]:
    """Return the changes that last to the last of the runs, the surest first.

    Args:
        runs: the runs of one model, from the oldest to the reported one.
    """
    found = [shift for *what, series, least in _all_series(runs) if (shift := _shift(runs, what, series, least))]
    return sorted(found, key=lambda shift: -shift.errors)


def _all_series(runs: Sequence[RunCounts]) -> Iterator[tuple[Quantity, str | None, Series, float]]:
    """Yield each quantity and class with its values, and the least change that matters in its own unit, or 0.

    Boxes of one image are alike, so an image counts as one observation, however many boxes it has.
    """
    images = np.array([run.num_ok for run in runs], np.float64)
    yield (
        "failed_share",
        None,
        _share([run.num_failed for run in runs], [run.num_ok + run.num_failed for run in runs]),
        0.0,
    )
    yield "boxes_per_image", None, _mean(runs, images), 0.0
    for name in sorted({name for run in runs for name in run.classes}):
        counts = [run.classes.get(name, ClassCounts()) for run in runs]
        num_boxes = [run.num_boxes for run in runs]
        shares = _share([of_class.num_boxes for of_class in counts], num_boxes)
        yield "class_share", name, replace(shares, weights=np.minimum(shares.weights, images)), 0.0
        yield "mean_score", name, _scores(counts, images), MIN_SCORE_CHANGE


def _share(parts: Sequence[int], wholes: Sequence[int]) -> Series:
    part, whole = np.array(parts, np.float64), np.array(wholes, np.float64)
    share = part.sum() / max(whole.sum(), 1)
    return Series(part / np.maximum(whole, 1), whole, max(share * (1 - share), 1 / max(whole.sum(), 1)))


def _mean(runs: Sequence[RunCounts], images: NDArray[np.float64]) -> Series:
    def moment(power: int) -> NDArray[np.float64]:
        sums = [sum(number**power * count for number, count in run.images_by_boxes.items()) for run in runs]
        return np.array(sums, np.float64)

    means = moment(1) / np.maximum(images, 1)
    variance = float(moment(2).sum() / max(images.sum(), 1) - (moment(1).sum() / max(images.sum(), 1)) ** 2)
    return Series(means, images, variance)


def _scores(counts: Sequence[ClassCounts], images: NDArray[np.float64]) -> Series:
    boxes = np.array([of_class.num_boxes for of_class in counts], np.float64)
    sums = np.array([of_class.sum_scores for of_class in counts], np.float64)
    squares = sum(of_class.sum_squares for of_class in counts)
    total = max(boxes.sum(), 1)
    variance = squares / total - (sums.sum() / total) ** 2
    return Series(sums / np.maximum(boxes, 1), np.minimum(boxes, images), float(variance))


def _shift(runs: Sequence[RunCounts], what: Sequence[object], series: Series, least: float) -> Shift | None:
    """Return the change of a series, if it is sure and large enough to matter."""
    has_any = series.weights > 0
    if has_any.sum() < 2 or not has_any[-1]:
        return None
    numbers = np.flatnonzero(has_any)
    kept = Series(series.means[has_any], series.weights[has_any], series.variance)
    start, errors = change_point(kept)
    first = max(0, start - NUM_BEFORE)
    before = float(np.average(kept.means[first:start], weights=kept.weights[first:start]))
    now = float(kept.means[-1])
    if errors < MIN_ERRORS or abs(now - before) < max(least, 0 if least else MIN_RELATIVE * max(now, before)):
        return None
    began = runs[numbers[start]]
    quantity, class_name = what
    return Shift(quantity, class_name, now, before, start - first, began.run_id, began.run_date, errors)  # type: ignore[arg-type]


def change_point(series: Series) -> tuple[int, float]:
    """Return the index at which a series most likely changed, and the difference in standard errors.

    The error of a difference is that of the observations, or that of the runs among themselves if it is larger.
    """
    means, weights, num_runs = series.means, series.weights, len(series.means)
    best = (1, 0.0)
    for start in range(1, num_runs):
        parts = (slice(start), slice(start, num_runs))
        before, after = (np.average(means[part], weights=weights[part]) for part in parts)
        of_observations = series.variance * sum(1 / weights[part].sum() for part in parts)
        residuals = np.concatenate((means[parts[0]] - before, means[parts[1]] - after))
        degrees = num_runs - 2
        of_runs = (residuals**2).sum() / degrees * (1 / start + 1 / (num_runs - start)) if degrees else 0.0
        error = max(of_observations, of_runs, 1e-18) ** 0.5
        if (errors := abs(after - before) / error) > best[1]:
            best = (start, float(errors))
    return best


Counted = dict[str, tuple[float, float]]
"""The part and the whole by place: boxes of a class and all boxes, for example."""


def main_place(before: Counted, now: Counted) -> str | None:
    """Return the place that most of a change of part ÷ whole comes from, if there is one and other places hardly changed.

    Args:
        before: the counts before the change.
        now: the counts since.
    """
    wholes = [max(sum(whole for _, whole in counted.values()), 1) for counted in (before, now)]
    places, of_both = sorted(before.keys() | now.keys()), before.keys() & now.keys()
    in_both = [sum(counted[place][1] for place in of_both) for counted in (before, now)]
    # Otherwise the column is no place, but the date of a night, for example.
    if len(places) < 2 or any(part < MIN_IN_BOTH * whole for part, whole in zip(in_both, wholes, strict=True)):
        return None
    none = (0.0, 0.0)
    changes = {place: now.get(place, none)[0] / wholes[1] - before.get(place, none)[0] / wholes[0] for place in places}
    total = sum(changes.values())
    place = max(places, key=lambda place: changes[place] * np.sign(total))
    return place if abs(total) > 0 and changes[place] / total >= MAIN_SHARE else None
