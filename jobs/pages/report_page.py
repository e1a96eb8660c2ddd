"""The page on one run: counts, what changed, charts, causes of failures, and pictures with boxes."""

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape

import numpy as np
from numpy.typing import NDArray

from jobs.pages.chart import bar_chart, histogram, run_chart
from jobs.pages.document import document, drawn_picture, figure, table
from jobs.pages.draw import COLOURS
from jobs.text.columns import number
from jobs.text.report import day, describe_shift
from jobs.text.runs import share_of_peak
from pipeline.errors import SettingError, reason
from pipeline.images.decode import DecodeError
from pipeline.images.read import read_version
from pipeline.redaction import redacted
from pipeline.report.counts import RunCounts
from pipeline.report.images import Choice, ImageToShow
from pipeline.report.report import Report
from pipeline.table.find_runs import Record
from pipeline.urls import absolute, is_local

NUM_THREADS = 8
MAX_CLASSES, MAX_COLUMNS = 30, 20
"""The most classes in a chart, and the most bars of a histogram of whole numbers."""
SIDES = ("xmin", "ymin", "xmax", "ymax")
CHOICE_TEXTS: dict[Choice, tuple[str, str]] = {
    "best": ("Best", "The highest scores."),
    "low": ("Least certain", "The images whose best box has the lowest score."),
    "odd": ("Odd", "Unusual numbers of boxes, and rare classes."),
    "random": ("Random", "Picked by a hash of the URI."),
}


def page_url(out: str, run_id: str) -> str:
    """Return the place of the page: in a folder, its name is the run's ID.

    Raises:
        SettingError: the ID, which may be what anyone wrote into a table, is no name of a file.
    """
    is_folder = out.endswith("/") or (is_local(absolute(out)) and os.path.isdir(absolute(out)))
    if not is_folder:
        return out
    if not re.fullmatch(r"[\w-]+", run_id):
        raise SettingError(f"out {out!r}: the run's ID {run_id!r} is no name of a file; give the page's own name")
    return f"{out.rstrip('/')}/{run_id}.html"


def render(report: Report) -> str:
    """Return the whole page. The images on it are read again."""
    record, counts = report.record, report.counts
    return document(
        f"Run of {day(counts.run_date)}",
        [
            f'<p class="note">{escape(record["run_id"])}: {escape(record["outcome"])}. Model {escape(record["model_name"] or "–")}, '
            f"digest {escape((record['model_digest'] or '–')[:12])}. Boxes count from a score of {report.min_score:g} on.</p>",
            f'<p class="error">{escape(record["error"])}</p>' if record["error"] else "",
            _headline(record, counts),
            _changes(report),
            _runs(report),
            *_detections(report),
            _failures(report),
            *_pictures(report),
        ],
    )


def _headline(record: Record, counts: RunCounts) -> str:
    per_image = counts.num_boxes / counts.num_ok if counts.num_ok else None
    values = {
        "images ok": number(record["ok"], ","),
        "failed": number(record["failed"], ","),
        "boxes": f"{counts.num_boxes:,}",
        "boxes per image": number(per_image, ".2f"),
        "images/s": number(record["images_per_s"], ".1f"),
        "seconds": number(record["wall_s"], ",.0f"),
        "share of peak speed": number(share_of_peak(record), ".0%"),
        "detectors busy": number(record["detector_busy_share"], ".0%"),
        "cost": number(record["cost"], ",.2f"),
        "per thousand images": number(record["cost_per_thousand"], ".4f"),
    }
    tiles = (f"<div><b>{value}</b>{name}</div>" for name, value in values.items() if value != "–")
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _changes(report: Report) -> str:
    """Return the changes in words."""
    parts = ["<h2>What changed</h2>"]
    if report.previous_model:
        parts.append(f"<p>The model is another one than in the run before ({escape(report.previous_model[:12])}).</p>")
    if not report.earlier:
        parts.append("<p>There is no earlier run of this model to compare with.</p>")
    elif report.shifts:
        parts.append(f"<ul>{''.join(f'<li>{escape(describe_shift(shift))}</li>' for shift in report.shifts)}</ul>")
    else:
        parts.append("<p>Nothing that is more than the usual differences between runs.</p>")
    return "".join(parts)


def _runs(report: Report) -> str:
    """Return a table and charts of this run and those that it is compared with."""
    runs = [*report.earlier, report.counts]
    header = ("run", "date", "ok", "failed", "boxes per image", "images/s", "cost")
    rows = []
    for run in reversed(runs):
        record = report.records[run.run_id]
        per_image = run.num_boxes / run.num_ok if run.num_ok else None
        rows.append(
            (
                escape(run.run_id), str(run.run_date), f"{run.num_ok:,}", f"{run.num_failed:,}", number(per_image, ".2f"),
                number(record["images_per_s"], ".1f"), number(record["cost"], ",.2f"),
            )
        )  # fmt: skip
    charts = ""
    if len(runs) > 1:
        processed = [run.num_ok + run.num_failed for run in runs]
        panels: list[tuple[str, Sequence[float | None]]] = [
            ("images", processed),
            ("boxes per image", [run.num_boxes / run.num_ok if run.num_ok else None for run in runs]),
            (
                "share of failed images",
                [
                    run.num_failed / all_images if all_images else None
                    for run, all_images in zip(runs, processed, strict=True)
                ],
            ),
        ]
        charts = run_chart("This run and earlier ones", [str(run.run_date) for run in runs], panels)
    return f"<h2>Runs of this model</h2>{table(header, rows)}{charts}"


def _detections(report: Report) -> Iterator[str]:
    """Yield charts of the boxes by class, score, size and image."""
    counts = report.counts
    yield "<h2>Detections</h2>"
    if not counts.num_boxes:
        yield "<p>No boxes.</p>"
        return
    classes = sorted(counts.classes.items(), key=lambda item: (-item[1].num_boxes, item[0]))
    yield "<h3>By class</h3>" + bar_chart(
        "Boxes by class", [(name, of_class.num_boxes) for name, of_class in classes[:MAX_CLASSES]], "boxes"
    )
    if len(classes) > MAX_CLASSES:
        yield f'<p class="note">The {MAX_CLASSES} most frequent of {len(classes):,} classes.</p>'
    scores = np.sum([of_class.score_bins for _, of_class in classes], axis=0)
    yield "<h3>By score</h3>" + _histogram("Boxes by score", scores, "score")
    yield "<h3>By size</h3>" + _histogram("Boxes by size", report.sizes, "square root of the box's share of its image")
    numbers = np.zeros(MAX_COLUMNS + 1, np.int64)
    for num_boxes, num_images in counts.images_by_boxes.items():
        numbers[min(num_boxes, MAX_COLUMNS)] += num_images
    edges = [column - 0.5 for column in range(len(numbers) + 1)]
    label = f"boxes in the image ({MAX_COLUMNS} or more in the last bar)"
    yield "<h3>Images by number of boxes</h3>" + histogram(
        "Images by number of boxes", numbers.tolist(), edges, label, "images"
    )


def _histogram(title: str, counts: NDArray[np.int64], x_label: str) -> str:
    """Return a histogram over 0 to 1."""
    edges = np.linspace(0, 1, len(counts) + 1).tolist()
    return histogram(title, counts.tolist(), edges, x_label, "boxes")


def _failures(report: Report) -> str:
    rows = []
    for cause in report.causes:
        named = "<br>".join(escape(redacted(uri)) for uri in cause.uris)
        what = f"{escape(cause.error_type)}: {escape(redacted(cause.message))}"
        again = "not tried again" if cause.is_permanent else "tried again"
        rows.append((f"{cause.num_images:,}", escape(cause.error_stage), what, again, named))
    if not rows:
        return "<h2>Failures</h2><p>None.</p>"
    hidden = report.num_causes - len(rows)
    more = f'<p class="note">And {hidden:,} more causes.</p>' if hidden else ""
    return f"<h2>Failures</h2>{table(('images', 'stage', 'cause', '', 'such as'), rows, are_numbers=False)}{more}"


def _pictures(report: Report) -> Iterator[str]:
    """Yield a sheet of pictures for each choice, and one of images that failed."""
    failed = [ImageToShow(cause.uris[0], "", None) for cause in report.causes]
    why = {cause.uris[0]: f"{cause.error_type}: {cause.message}" for cause in report.causes}
    chosen = {image.uri: image for images in report.images.values() for image in images}
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        pictures = dict(zip(chosen, threads.map(_picture, chosen.values()), strict=True))
        of_failed = list(threads.map(_picture, failed))
    yield "<h2>Pictures</h2>"
    for choice, (title, text) in CHOICE_TEXTS.items():
        sheet = "".join(pictures[image.uri] for image in report.images.get(choice, []))
        yield f'<h3>{title}</h3><p class="note">{text}</p><div class="sheet">{sheet}</div>' if sheet else ""
    if failed:
        causes = "".join(
            f'<div>{shown}<p class="note">{escape(redacted(why[image.uri]))}</p></div>'
            for image, shown in zip(failed, of_failed, strict=True)
        )
        yield f'<h3>Failed</h3><p class="note">One of each cause.</p><div class="sheet">{causes}</div>'


def _picture(image: ImageToShow) -> str:
    """Return a figure with the boxes, or a grey tile that says why there is none."""
    boxes = np.array([[box[side] for side in SIDES] for box in image.detections], np.float64).reshape(-1, 4)
    texts = [f"{box['label']} {box['score']:.2f}" for box in image.detections]
    colours = [COLOURS[box["label_id"] % len(COLOURS)] for box in image.detections]
    try:
        content = drawn_picture(
            read_version(image.uri, image.etag, image.size_bytes, is_patient=False).data, boxes, texts, colours
        )
    except DecodeError as error:
        content = f'<div class="gone">can\'t be shown: {escape(redacted(reason(error)))}</div>'
    except Exception as error:  # whatever the store raises
        content = f'<div class="gone">can\'t be read: {escape(redacted(reason(error)))}</div>'
    return figure(content, redacted(image.uri))
