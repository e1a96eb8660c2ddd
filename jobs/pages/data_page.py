"""The page of `data check`, as one HTML file with pictures and without a network."""

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from jobs.pages.chart import histogram
from jobs.pages.document import document, picture, table
from model.config import Architecture
from pipeline.labelled.box_sizes import MATCH_IOU, QUANTILES
from pipeline.labelled.check import DataReport, SplitReport
from pipeline.labelled.findings import FINDING_TEXTS, Finding, Mark

NUM_PICTURES, NUM_NAMED = 6, 50
"""The number of pictures, and the number of named images, per finding."""
NUM_BINS = 20


def render(report: DataReport, data: Sequence[str], architecture: Architecture) -> str:
    """Return the whole page. A few pictures of each finding are read again."""
    verdict = (
        ("sound", "Nothing here would spoil a training.")
        if report.is_sound
        else ("error", "The errors below would spoil a training.")
    )
    return document(
        "Data check",
        [
            f"<p>{escape(', '.join(data))}</p>",
            f'<p class="{verdict[0]}"><b>{verdict[1]}</b></p>',
            _overview(report.findings),
            *(_finding(finding, number) for number, finding in enumerate(report.findings)),
            _classes(report.splits),
            _sizes(report.splits, architecture),
        ],
    )


def _overview(findings: Sequence[Finding]) -> str:
    rows = [
        (f'<a href="#f{number}" class="{f.level}">{f.level}: {escape(FINDING_TEXTS[f.kind][1])}</a>', escape(f.split), f"{f.count:,}")
        for number, f in enumerate(findings)
    ]  # fmt: skip
    return table(("finding", "split", "how many"), rows) if rows else "<p>No findings.</p>"


def _finding(finding: Finding, number: int) -> str:
    level, title = FINDING_TEXTS[finding.kind]
    shown = [figure for mark in finding.marks[:NUM_PICTURES] if (figure := _picture(mark))]
    named = [": ".join(filter(None, (mark.uri, mark.why))) for mark in finding.marks[:NUM_NAMED]]
    more = f"<br>… of {len(finding.marks):,}" if len(finding.marks) > NUM_NAMED else ""
    return (
        f'<h2 id="f{number}" class="{level}">{escape(finding.split)}: {escape(title)}: {finding.count:,}</h2>'
        f'<div class="sheet">{"".join(shown)}</div>'
        f"<details{'' if shown else ' open'}><summary>where</summary>{'<br>'.join(map(escape, named))}{more}</details>"
    )


def _picture(mark: Mark) -> str | None:
    """Return a figure; None where the image can't be shown."""
    if not mark.uri:
        return None
    caption = ": ".join(filter(None, (mark.uri.rpartition("/")[2], mark.why)))
    return picture(mark.uri, mark.boxes_xyxy, mark.texts, caption)


def _classes(splits: dict[str, SplitReport]) -> str:
    names = sorted({name for split in splits.values() for name in split.class_counts})
    rows = [(escape(name), *(f"{split.class_counts.get(name, 0):,}" for split in splits.values())) for name in names]
    rows += [("<b>objects</b>", *(f"{split.num_objects:,}" for split in splits.values()))]
    rows += [("<b>images</b>", *(f"{split.num_images:,}" for split in splits.values()))]
    return "<h2>Objects of each class</h2>" + table(("", *map(escape, splits)), rows)


def _sizes(splits: dict[str, SplitReport], architecture: Architecture) -> str:
    """Return a table of quantiles and a histogram of the best overlaps, for each split."""
    parts = [
        f"<h2>Objects at the network's input</h2><p>{escape(architecture.kind)}: sides in pixels of its "
        f"{architecture.image_size_px}×{architecture.image_size_px}; overlap (IoU) with the default box that fits best.</p>"
    ]
    rows = {"shorter side": "shorter_side_px", "longer side": "longer_side_px", "best overlap": "best_overlap"}
    for name, split in splits.items():
        if not split.sizes["num_objects"]:
            continue
        cells = [(label, *(f"{split.sizes[key][quantile]:g}" for quantile in QUANTILES)) for label, key in rows.items()]
        share = split.sizes["share_below_half"]
        parts.append(
            table((escape(name), *QUANTILES), cells)
            + f"<p>Without a default box that overlaps them by {MATCH_IOU}: {share:.1%} of the objects.</p>"
            + f"<p><b>{escape(split.advice(architecture))}</b></p>"
            + "".join(f"<p>train takes {escape(str(choice))}</p>" for choice in split.choices)
            + _histogram(split.overlaps)
        )
    return "".join(parts)


def _histogram(overlaps: NDArray[np.float64]) -> str:
    """Return a histogram from 0 to 1 whose bins below half are red."""
    counts, edges = np.histogram(overlaps, bins=NUM_BINS, range=(0, 1))
    return histogram(
        "Best overlaps", counts.tolist(), edges.tolist(), "overlap (IoU)", "objects", red_below=MATCH_IOU - 1e-9
    )
