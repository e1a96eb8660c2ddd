"""Choose the images to label next, and write them as tasks with the boxes that a person corrects."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.active_learning.candidates import Candidates, read_candidates
from pipeline.active_learning.choice import NOISE, Choice, choose, class_values, uncertainties
from pipeline.active_learning.disagreement import disagreements
from pipeline.active_learning.settings import LabelNextSettings
from pipeline.errors import SettingError, reason
from pipeline.exports.export import write_data_set
from pipeline.exports.folder import NewFolder
from pipeline.exports.selection import Selection
from pipeline.exports.settings import ExportSelectionSettings
from pipeline.sql import literal
from pipeline.storage import store
from pipeline.table.delta import ResultTable
from pipeline.urls import absolute

CHOSEN = "chosen.csv"
"""The file that says which images were chosen, and why."""
UNCERTAIN = 0.5
"""The uncertainty from which a box is counted as uncertain in `CHOSEN`."""

Disagreements = dict[tuple[int, int], int]
"""The number of boxes on which two models disagree, by image and class."""


@dataclass(frozen=True)
class LabelTasks:
    """The images that were chosen and written."""

    output: str
    images: int
    """The number of chosen images."""
    candidates: int
    """The number of images that could have been chosen."""
    boxes: int
    """The number of boxes that were written."""
    not_copied: int
    """The number of chosen images that could not be read."""


def label_next(settings: LabelNextSettings) -> LabelTasks:
    """Choose images and write the folder.

    Raises:
        SettingError: there is no table, the selection is wrong, nothing is worth choosing, or the folder can't be made.
    """
    table = ResultTable(settings.table)
    conditions = [f"({settings.where}\n)"] if settings.where else []  # a comment of SQL ends with its line
    if settings.against:
        conditions.append(f"NOT starts_with(model_digest, {literal(settings.against)})")
    selection = Selection(table, _selected(conditions, NOISE * settings.min_score))
    with NewFolder(settings.output) as folder:
        selection.check_one_model()
        candidates = read_candidates(selection)
        candidates, disagreeing = _compared(candidates, table, selection.model_digest, settings)
        earlier = _indexes(candidates, [uri for url in settings.earlier for uri in chosen_uris(url)])
        values = class_values(candidates, settings.min_score, disagreeing)
        chosen = choose(candidates, values, settings.budget, earlier)
        if not chosen:
            raise SettingError(
                f"table {table.url!r}: in {len(candidates.uris) - len(earlier):,} images that were not chosen before, no box is uncertain "
                f"at min_score {settings.min_score}"
            )
        _write_chosen(folder, candidates, chosen, disagreeing, settings.min_score)
        uris = ", ".join(literal(candidates.uris[choice.image].as_py()) for choice in chosen)
        tasks = Selection(table, _selected([*conditions, f"uri IN ({uris})"], settings.min_score))
        tasks.check_one_model()
        written = write_data_set(tasks, folder, settings.format, copies_images=True)
    return LabelTasks(
        written.output, len(chosen), len(candidates.uris) - len(earlier), written.rows, written.not_copied
    )


def _selected(conditions: Sequence[str], min_score: float) -> ExportSelectionSettings:
    return ExportSelectionSettings(where=" AND ".join(conditions) or None, min_score=min_score)


def _compared(
    candidates: Candidates, table: ResultTable, digest: str, settings: LabelNextSettings
) -> tuple[Candidates, Disagreements]:
    """Return the candidates, whose classes are now those of both models, and where the models disagree."""
    if not settings.against:
        return candidates, {}
    found = disagreements(table, digest, settings.against, settings.min_score)
    names = tuple(dict.fromkeys([*candidates.class_names, *(label for _, label in found)]))
    places = {name: number for number, name in enumerate(names)}
    uris = list(dict.fromkeys(uri for uri, _ in found))
    images = {uri: place for uri, place in zip(uris, _places(candidates, uris), strict=True) if place is not None}
    counts = {(images[uri], places[label]): number for (uri, label), number in found.items() if uri in images}
    return replace(candidates, class_names=names), counts


def _places(candidates: Candidates, uris: list[str]) -> list[int | None]:
    """Return the index of each image among the candidates, or None."""
    places: list[int | None] = pc.index_in(pa.array(uris, pa.string()), candidates.uris).to_pylist()
    return places


def _indexes(candidates: Candidates, uris: list[str]) -> list[int]:
    return [place for place in _places(candidates, uris) if place is not None]


def chosen_uris(url: str) -> list[str]:
    """Return the images that an earlier `label next` chose.

    Args:
        url: the folder that it made.

    Raises:
        SettingError: it has no `chosen.csv`.
    """
    place = f"{absolute(url).rstrip('/')}/{CHOSEN}"
    try:
        return [row["uri"] for row in csv.DictReader(io.StringIO(store.read(place).decode(), newline=""))]
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
        raise SettingError(f"earlier: {url!r} is no folder of `label next`: {reason(error)}") from error


def _write_chosen(
    folder: NewFolder, candidates: Candidates, chosen: list[Choice], disagreeing: Disagreements, min_score: float
) -> None:
    are_uncertain = uncertainties(candidates.scores, min_score) >= UNCERTAIN
    differences: dict[int, int] = {}
    for (image, _), number in disagreeing.items():
        differences[image] = differences.get(image, 0) + number
    with folder.text_file(CHOSEN) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("rank", "uri", "gain", "uncertain_boxes", "uncertain_classes", "disagreeing_boxes"))
        for rank, choice in enumerate(chosen, 1):
            boxes = candidates.boxes_of(choice.image)
            classes = candidates.classes[boxes][are_uncertain[boxes]]
            names = [candidates.class_names[number] for number in np.unique(classes)]
            uri = candidates.uris[choice.image].as_py()
            more = differences.get(choice.image, 0)
            rows.writerow((rank, uri, f"{choice.gain:.3f}", len(classes), " ".join(names), more))
