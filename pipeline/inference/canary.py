"""The comparison of two models on the same images: how far they agree, and where they differ."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
import torch

from model.example import plain_truth
from model.mistakes import find_mistakes
from model.package_files import PackageFiles
from model.postprocess import Detections
from pipeline.errors import SettingError, TargetMissedError
from pipeline.inference.prepare import RunTask
from pipeline.inference.run import execute
from pipeline.inference.settings import CanarySettings, InferSettings
from pipeline.inputs.listing import list_inputs, take_sample
from pipeline.registry.packages import read_files
from pipeline.settings import InputSettings
from pipeline.sql import literal
from pipeline.table.delta import ResultTable
from pipeline.table.query import query

NUM_DIFFERING = 20
MAX_NAMED = 10_000
"""The most images that a query names. With more, it reads all of the model's."""
"""The maximum number of differing images that a comparison names."""

Found = list[dict[str, Any]]
"""The `detections` of a row."""


@dataclass(frozen=True)
class Side:
    """The results of one of the models on the sample. Scores and counts are of the detections that reach the threshold."""

    model_name: str
    model_digest: str
    failed: int
    num_detections: int
    mean_score: float | None
    images_per_s: float | None
    """The images per second from the first results on; null where they came at once, or the images had been detected before."""
    per_class: dict[str, int]


@dataclass(frozen=True)
class Difference:
    """An image in which the models differ."""

    uri: str
    num_differences: int
    """The number of boxes that only one of the models has."""
    found_against: Found
    """The detections of the model `against` that reach the threshold."""
    found: Found
    """The detections of the new model that reach the threshold."""


@dataclass(frozen=True)
class Comparison:
    """The comparison of a new model with the model `against`."""

    num_images: int
    """The number of images in the sample."""
    num_compared: int
    """The number of images in which both models have detected."""
    num_agreeing: int
    """The number of compared images without a difference."""
    agreement: float | None
    """The share of the compared images without a difference; null where nothing could be compared."""
    score_thresh: float
    against: Side
    new: Side
    differing: list[Difference]
    """The images that differ most."""


def canary(settings: CanarySettings) -> Comparison:
    """Detect in a sample with both models, each in a run of its own, and compare what the table holds of it.

    Raises:
        SettingError: the models are the same, for example; it is raised before anything is started or written.
        SsdBatchError: as `pipeline.inference.run.infer`.
    """
    against, new = (
        read_files(url, settings.precision, None, settings.test_time_flip) for url in (settings.against, settings.model)
    )
    if against.digest == new.digest:
        raise SettingError(f"model {settings.model!r} is the same as against {settings.against!r}: digest {new.digest}")
    with TemporaryDirectory(prefix="ssd-batch-") as folder:
        listed, table_url = Path(folder, "sample.parquet"), settings.table or f"{folder}/table"
        list_inputs(settings.input, settings.all_files, listed)
        if settings.sample:
            take_sample(listed, settings.sample)
        _detect_with_both(settings, (against, new), table_url, listed)
        keys = pq.read_table(listed, columns=["uri", "etag"]).to_pylist()
        return _compare(ResultTable(table_url), (against, new), keys, settings.score_thresh)


def _detect_with_both(settings: CanarySettings, packages: Sequence[PackageFiles], table_url: str, listed: Path) -> None:
    knobs = {name: getattr(settings, name) for name in InputSettings.model_fields}
    with ExitStack() as stack:  # keeps the place of work that both runs share
        for url, package in zip((settings.against, settings.model), packages, strict=True):
            own = InferSettings(**knobs, path_columns=settings.path_columns, table=table_url, model=url)
            execute(RunTask(own, ResultTable(table_url), package, listed.parent, listed), stack)


def _rows(
    table: ResultTable, package: PackageFiles, keys: Sequence[dict[str, str]], score_thresh: float
) -> dict[str, Found | None]:
    """Return the detections of a model in the sample that reach the threshold, by uri; None where an image failed."""
    sql = f"SELECT uri, etag, detections FROM history WHERE model_digest = {literal(package.digest)}"
    if 0 < len(keys) <= MAX_NAMED:  # the table may be that of all nights
        sql += f" AND uri IN ({', '.join(literal(key['uri']) for key in keys)})"
    with query(table, sql) as relation:
        found = {(uri, etag): detections for uri, etag, detections in relation.fetchall()}
    return {key["uri"]: _reaching(found[key["uri"], key["etag"]], score_thresh) for key in keys}


def _reaching(found: Found | None, score_thresh: float) -> Found | None:
    return None if found is None else [detection for detection in found if detection["score"] >= score_thresh]


def _side(table: ResultTable, package: PackageFiles, found: dict[str, Found | None]) -> Side:
    detections = [detection for image in found.values() for detection in image or ()]
    sql = f"""
        SELECT stream_images_per_s FROM runs WHERE model_digest = {literal(package.digest)} AND planned > 0
        ORDER BY started_at DESC LIMIT 1
    """
    with query(table, sql) as relation:
        rates = relation.fetchall()
    per_class: dict[str, int] = dict.fromkeys(package.record.class_names, 0)
    for detection in detections:
        per_class[detection["label"]] += 1
    mean_score = sum(detection["score"] for detection in detections) / len(detections) if detections else None
    failed = sum(image is None for image in found.values())
    return Side(
        package.record.name,
        package.digest,
        failed,
        len(detections),
        mean_score,
        rates[0][0] if rates else None,
        per_class,
    )


def _compare(
    table: ResultTable, packages: Sequence[PackageFiles], keys: Sequence[dict[str, str]], score_thresh: float
) -> Comparison:
    against, new = (_rows(table, package, keys, score_thresh) for package in packages)
    old_side, new_side = (_side(table, package, found) for package, found in zip(packages, (against, new), strict=True))
    both = [
        (uri, found_against, found_new)
        for uri, found_against in against.items()
        if found_against is not None and (found_new := new[uri]) is not None
    ]
    labels = {name: number for number, name in enumerate({**old_side.per_class, **new_side.per_class}, start=1)}
    differences = count_differences(
        [to_detections(found_against, labels) for _, found_against, _ in both],
        [to_detections(found_new, labels) for _, _, found_new in both],
        len(labels),
    )
    differing = [
        Difference(uri, number, found_against, found_new)
        for number, (uri, found_against, found_new) in zip(differences, both, strict=True)
        if number
    ]
    num_agreeing = len(both) - len(differing)
    return Comparison(
        len(against),
        len(both),
        num_agreeing,
        num_agreeing / len(both) if both else None,
        score_thresh,
        old_side,
        new_side,
        sorted(differing, key=lambda difference: -difference.num_differences)[:NUM_DIFFERING],
    )


def count_differences(against: Sequence[Detections], new: Sequence[Detections], num_labels: int) -> list[int]:
    """Count in each image the boxes that only one of the models has. A box that moved, or changed its class, counts once.

    The detections of the first model are treated as the objects in the image, and the second model is measured on them. The rule is
    that of `model.average_precision.average_precisions`: the same label, and an IoU above 0.5.
    """
    truths = [plain_truth(found.boxes_xyxy, found.labels) for found in against]
    counts = [0] * len(truths)
    for mistake in find_mistakes(new, truths, torch.zeros(num_labels + 1)):
        counts[mistake.image] += 1
    return counts


def to_detections(found: Found, labels: dict[str, int]) -> Detections:
    """Return the `detections` of a row as tensors, best first; `labels` maps the name of a label to its number."""
    best_first = sorted(found, key=lambda detection: -detection["score"])
    return Detections(
        torch.tensor(
            [[detection[side] for side in ("xmin", "ymin", "xmax", "ymax")] for detection in best_first]
        ).reshape(-1, 4),
        torch.tensor([detection["score"] for detection in best_first]),
        torch.tensor([labels[detection["label"]] for detection in best_first], dtype=torch.int64),
    )


def check_agreement(comparison: Comparison, min_agreement: float | None) -> None:
    """Check the agreement of a comparison against its limit.

    Raises:
        TargetMissedError: the models agree in fewer images, or no image could be compared.
    """
    share = "–" if comparison.agreement is None else f"{comparison.agreement:.1%}"
    if min_agreement is not None and (comparison.agreement is None or comparison.agreement < min_agreement):
        raise TargetMissedError(f"min_agreement: the models agree in {share} of the images, not in {min_agreement:.1%}")
