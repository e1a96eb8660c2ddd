"""The places that a change comes from: values of the columns that a table has from paths."""

from collections.abc import Sequence

from pipeline.report.counts import RunCounts, boxes_from, of_run_ids
from pipeline.report.drift import NUM_BEFORE, Counted, Shift, main_place
from pipeline.sql import identifier, literal
from pipeline.table.delta import ResultTable
from pipeline.table.query import BOX, rows_of
from pipeline.table.schema import SCHEMA

MAX_PLACES = 1000
"""The number of values above which a column is no place: an image's number, for example."""


def find_places(
    table: ResultTable, runs: Sequence[RunCounts], shift: Shift, min_score: float
) -> tuple[tuple[str, str], ...]:
    """Return the columns and values that most of a change comes from.

    Args:
        table: the table of results.
        runs: the runs in which the change was found.
        shift: the change. That of a mean score has no place.
        min_score: the score below which boxes do not count.
    """
    columns = [field.name for field in table.schema if field.name not in SCHEMA.names]
    counted = {column: _count(table, runs, shift, min_score, column) for column in columns}
    found = ((column, main_place(*sides)) for column, sides in counted.items() if sides)
    return tuple((column, place) for column, place in found if place is not None)


def _count(
    table: ResultTable, runs: Sequence[RunCounts], shift: Shift, min_score: float, column: str
) -> tuple[Counted, Counted] | None:
    """Return the part and the whole by place, before the change and since; None where a column or a change has no places."""
    part, whole = _sums(shift, min_score)
    if not part:
        return None
    run_ids = [run.run_id for run in runs]
    start = run_ids.index(shift.began_run)
    compared = run_ids[max(0, start - NUM_BEFORE) :]
    name = identifier(column)
    rows = rows_of(
        table,
        f"""SELECT run_id >= {literal(shift.began_run)} AS is_now, coalesce({name}::VARCHAR, '') AS place, sum({part})::DOUBLE AS part,
                sum({whole})::DOUBLE AS whole
            FROM history WHERE {of_run_ids(compared)} GROUP BY ALL LIMIT {2 * MAX_PLACES + 1}""",
    )
    if len(rows) > 2 * MAX_PLACES:
        return None
    sides: tuple[Counted, Counted] = ({}, {})
    for row in rows:
        sides[row["is_now"]][row["place"]] = (row["part"], row["whole"])
    return sides


def _sums(shift: Shift, min_score: float) -> tuple[str, str]:
    """Return the SQL of what an image adds to the part and to the whole of a quantity."""
    boxes = f"coalesce(len({boxes_from(min_score)}), 0)"
    if shift.quantity == "failed_share":
        return "(status = 'failed')::INTEGER", "1"
    if shift.quantity == "boxes_per_image":
        return boxes, "(status = 'ok')::INTEGER"
    if shift.quantity == "class_share":
        of_class = f"{BOX}.score >= {min_score}::FLOAT AND {BOX}.label = {literal(shift.class_name or '')}"
        return f"coalesce(len(list_filter(detections, lambda {BOX}: {of_class})), 0)", boxes
    return "", ""
