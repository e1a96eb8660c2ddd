"""A new model against the nightly one, before it is published: as text, and as a page with pictures."""

from html import escape

import numpy as np

from jobs.figures import columns, number
from jobs.page import document, picture, table, write_page
from pipeline.canary import Comparison, Difference, Side, canary
from pipeline.errors import TargetMissedError
from pipeline.redaction import redacted
from pipeline.settings import CanarySettings

NUM_PICTURES = 12
AGAINST, NEW = "#007a33", "#e6194b"
"""Colours of what each model found."""


def compare(settings: CanarySettings) -> Comparison:
    """See `pipeline.canary.canary`. Write a page about it, where one is named.

    Raises:
        SettingError: as there, or the page can't be written.
    """
    if settings.output:  # What can't be written is told before an hour of detecting.
        write_page(settings.output, "This comparison has not ended.", "output")
    comparison = canary(settings)
    if settings.output:
        write_page(settings.output, render(comparison), "output")
    return comparison


def check_agreement(comparison: Comparison, min_agreement: float | None) -> None:
    """Hold a comparison against what it should come to.

    Raises:
        TargetMissedError: the models agree in fewer images, or no image could be compared.
    """
    if min_agreement is not None and (comparison.agreement is None or comparison.agreement < min_agreement):
        raise TargetMissedError(
            f"min_agreement: the models agree in {_share(comparison.agreement)} of the images, not in {min_agreement:.1%}"
        )


def describe_comparison(comparison: Comparison) -> str:
    """Say how two models differ, for people."""
    differing = [f"{image.num_differences:>5,}  {image.uri}" for image in comparison.differing]
    return "\n".join(
        [
            _verdict(comparison),
            columns([_header(comparison), *_figures(comparison)]),
            *(["boxes that only one has, and where:"] if differing else []),
            *differing,
        ]
    )


def render(comparison: Comparison) -> str:
    """The whole page; the images that differ most are read again."""
    figures = [tuple(map(escape, row)) for row in _figures(comparison)]
    pictures = [_picture(image) for image in comparison.differing[:NUM_PICTURES]]
    named = [f"{image.num_differences:,}: {redacted(image.uri)}" for image in comparison.differing]
    return document(
        f"Model {comparison.new.model_name} against {comparison.against.model_name}",
        [
            f"<p>{escape(_verdict(comparison))}</p>",
            table(tuple(map(escape, _header(comparison))), figures),
            f'<h2>What differs most</h2><p class="note">Boxes of the model <b style="color:{AGAINST}">against</b> which it is '
            f'compared, and of the <b style="color:{NEW}">new</b> one.</p>',
            f'<div class="sheet">{"".join(filter(None, pictures))}</div>',
            f"<details><summary>where</summary>{'<br>'.join(map(escape, named))}</details>",
        ],
    )


def _verdict(comparison: Comparison) -> str:
    return (
        f"{comparison.num_compared:,} of {comparison.num_images:,} images compared: the models agree in "
        f"{_share(comparison.agreement)} of them, that is, find the same boxes (IoU above 0.5, same class, score from "
        f"{comparison.score_thresh:g} on)"
    )


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _header(comparison: Comparison) -> tuple[str, str, str]:
    return "", _name(comparison.against), _name(comparison.new)


def _name(side: Side) -> str:
    return f"{side.model_name} {side.model_digest[:8]}"


def _figures(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Name, and the value of each side."""
    old, new = comparison.against, comparison.new
    classes = sorted({*old.per_class, *new.per_class})
    return [
        ("failed images", f"{old.failed:,}", f"{new.failed:,}"),
        ("images/s", number(old.images_per_s, ".1f"), number(new.images_per_s, ".1f")),
        ("mean score", number(old.mean_score, ".3f"), number(new.mean_score, ".3f")),
        ("detections", f"{old.num_detections:,}", f"{new.num_detections:,}"),
        *((name, f"{old.per_class.get(name, 0):,}", f"{new.per_class.get(name, 0):,}") for name in classes),
    ]


def _picture(image: Difference) -> str | None:
    boxes = [_corners(one) for one in (*image.found_against, *image.found)]
    texts = [f"{one['label']} {one['score']:.2f}" for one in (*image.found_against, *image.found)]
    colours = [AGAINST] * len(image.found_against) + [NEW] * len(image.found)
    caption = f"{image.num_differences:,} differences in {redacted(image.uri)}"
    return picture(image.uri, np.array(boxes).reshape(-1, 4), texts, caption, colours)


def _corners(one: dict[str, float]) -> list[float]:
    return [one[side] for side in ("xmin", "ymin", "xmax", "ymax")]
