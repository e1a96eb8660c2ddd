"""The disagreement of two models: boxes that only one of them has."""

from pipeline.errors import SettingError
from pipeline.sql import literal
from pipeline.table.delta import ResultTable
from pipeline.table.query import rows_of

UNMATCHED = """
    SELECT box.uri, box.label FROM {one} AS box ANTI JOIN {other} AS other ON
        box.uri = other.uri AND box.label = other.label AND 3 *
            greatest(0, least(box.xmax, other.xmax) - greatest(box.xmin, other.xmin)) *
            greatest(0, least(box.ymax, other.ymax) - greatest(box.ymin, other.ymin))
        >= (box.xmax - box.xmin) * (box.ymax - box.ymin) + (other.xmax - other.xmin) * (other.ymax - other.ymin)
"""
"""The SQL of the boxes that have no partner: a box of the same class with an IoU of at least 0.5, as in mAP@0.5.

The IoU is I / (A + B - I) for the intersection I of the areas A and B. It is at least 0.5 where 3 I is at least A + B.
"""


def disagreements(table: ResultTable, chosen: str, against: str, min_score: float) -> dict[tuple[str, str], int]:
    """Count the boxes that only one of two models has, in the images that both have detected in.

    Args:
        table: the table.
        chosen: the digest of the model whose images are chosen.
        against: the digest of the other model, or its beginning.
        min_score: the score from which a box counts.

    Returns:
        The number of such boxes by the image's URI and the name of the class, where there are any.

    Raises:
        SettingError: the table has no results of the other model, or it has several with this beginning.
    """
    beginning = literal(against)
    found = rows_of(table, f"SELECT DISTINCT model_digest FROM images WHERE starts_with(model_digest, {beginning})")
    if len(found) != 1:
        what = "no results of a model" if not found else f"results of {len(found)} models"
        raise SettingError(f"against: {against!r}: table {table.url!r} has {what} whose digest begins so")
    one, other = chosen, str(found[0]["model_digest"])

    def images(digest: str) -> str:
        return f"SELECT uri, etag FROM images WHERE status = 'ok' AND model_digest = {literal(digest)}"

    def boxes(digest: str) -> str:
        of_model = f"model_digest = {literal(digest)} AND score >= {min_score}::FLOAT"
        return f"SELECT uri, label, xmin, ymin, xmax, ymax FROM detections SEMI JOIN shared USING (uri, etag) WHERE {of_model}"

    rows = rows_of(
        table,
        f"""
        WITH shared AS ({images(one)} INTERSECT {images(other)}), one AS ({boxes(one)}), other AS ({boxes(other)})
        SELECT uri, label, count(*)::INTEGER AS num_boxes FROM (
            {UNMATCHED.format(one="one", other="other")} UNION ALL {UNMATCHED.format(one="other", other="one")}
        ) GROUP BY ALL
        """,
    )
    return {(row["uri"], row["label"]): row["num_boxes"] for row in rows}
