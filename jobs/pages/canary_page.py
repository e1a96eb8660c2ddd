"""The page that compares a new model with the nightly one, with pictures of the images that differ most."""

from html import escape

import numpy as np

from jobs.pages.document import document, picture, table
from jobs.text.canary import figures, header, verdict
from pipeline.inference.canary import Comparison, Difference
from pipeline.redaction import redacted

NUM_PICTURES = 12
AGAINST, NEW = "#007a33", "#e6194b"
"""The colours of each model's detections."""


def render(comparison: Comparison) -> str:
    """Return the whole page. The images that differ most are read again."""
    rows = [tuple(map(escape, row)) for row in figures(comparison)]
    pictures = [_picture(image) for image in comparison.differing[:NUM_PICTURES]]
    named = [f"{image.num_differences:,}: {redacted(image.uri)}" for image in comparison.differing]
    return document(
        f"Model {comparison.new.model_name} against {comparison.against.model_name}",
        [
            f"<p>{escape(verdict(comparison))}</p>",
            table(tuple(map(escape, header(comparison))), rows),
            f'<h2>What differs most</h2><p class="note">Boxes of the model <b style="color:{AGAINST}">against</b> which it is '
            f'compared, and of the <b style="color:{NEW}">new</b> one.</p>',
            f'<div class="sheet">{"".join(filter(None, pictures))}</div>',
            f"<details><summary>where</summary>{'<br>'.join(map(escape, named))}</details>",
        ],
    )


def _picture(image: Difference) -> str | None:
    boxes = [_corners(detection) for detection in (*image.found_against, *image.found)]
    texts = [f"{detection['label']} {detection['score']:.2f}" for detection in (*image.found_against, *image.found)]
    colours = [AGAINST] * len(image.found_against) + [NEW] * len(image.found)
    caption = f"{image.num_differences:,} differences in {redacted(image.uri)}"
    return picture(image.uri, np.array(boxes).reshape(-1, 4), texts, caption, colours)


def _corners(detection: dict[str, float]) -> list[float]:
    return [detection[side] for side in ("xmin", "ymin", "xmax", "ymax")]
