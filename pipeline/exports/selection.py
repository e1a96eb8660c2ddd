"""The images and boxes of a table that are taken out of it."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import SettingError
from pipeline.exports.settings import ExportSelectionSettings
from pipeline.sql import literal
from pipeline.table.delta import ResultTable
from pipeline.table.find_runs import find_run
from pipeline.table.query import BOX, query, rows_of

BATCH_ROWS = 8192
NAMED_MODELS = 5
"""The number of models that an error names."""
NAMED_CLASSES = 20
"""The number of classes that an error names."""
SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, eq=False)
class SelectedImage:
    """An image that was detected in, with the boxes that are taken."""

    uri: str
    etag: str
    size_bytes: int | None
    size_px: tuple[int, int]
    """The width and height, of the image as a viewer shows it."""
    label_ids: NDArray[np.int32]
    """(N,) int32, from 1."""
    labels: tuple[str, ...]
    """The names of the classes, N."""
    scores: NDArray[np.float32]
    """(N,) float32."""
    boxes_xyxy: NDArray[np.float64]
    """(N, 4) float64 pixels, 0-based, right and lower border outside."""


class Selection:
    """A choice of images and boxes.

    Args:
        table: the table of results.
        settings: the choice.

    Raises:
        SettingError: no run, or several runs, have the ID; or the condition can't be used.
    """

    def __init__(self, table: ResultTable, settings: ExportSelectionSettings) -> None:
        self.table = table
        self.model_name = self.model_digest = ""
        conditions = ["status = 'ok'"]
        if settings.run:
            conditions.append(f"run_id = {literal(str(find_run(table, settings.run)['run_id']))}")
        if settings.where:
            conditions.append(f"({settings.where}\n)")  # a comment of SQL ends with its line
        self._of_images = " AND ".join(conditions)
        self._has_all_images = len(conditions) == 1
        if settings.where:
            self._check_condition()
        of_box = [f"{BOX}.score >= {settings.min_score}::FLOAT"] if settings.min_score else []
        if settings.class_name:
            self._check_classes(settings.class_name)
            of_box.append(f"{BOX}.label IN ({', '.join(map(literal, settings.class_name))})")
        self._of_boxes = " AND ".join(of_box) or "true"

    def _check_condition(self) -> None:
        try:
            rows_of(self.table, f"SELECT 1 FROM images WHERE {self._of_images} LIMIT 0")
        except SettingError as error:
            raise SettingError(f"where: {str(error).removeprefix('query: ')}") from error

    def _check_classes(self, names: Collection[str]) -> None:
        found = [row["label"] for row in rows_of(self.table, "SELECT DISTINCT label FROM detections ORDER BY ALL")]
        for name in names if found else ():
            if name not in found:
                raise SettingError(
                    f"class_name: the table has no box of {name!r}; it has {', '.join(found[:NAMED_CLASSES])}"
                    f"{' and others' if len(found) > NAMED_CLASSES else ''}"
                )

    def boxes_sql(self) -> str:
        """Return the SQL of the boxes, with the columns of the view `detections`."""
        images = f"SELECT uri, etag, model_digest FROM images WHERE {self._of_images}"
        chosen = "" if self._has_all_images else f"SEMI JOIN ({images}) USING (uri, etag, model_digest)"
        return f"SELECT {BOX}.* FROM detections AS {BOX} {chosen} WHERE {self._of_boxes}"

    def check_one_model(self) -> None:
        """Check that all images were detected in by one model, so that an image is taken once, and keep its name.

        Raises:
            SettingError: there are several models, or no images.
        """
        found = rows_of(
            self.table,
            f"SELECT max(model_name) AS model_name, model_digest FROM images WHERE {self._of_images} GROUP BY model_digest ORDER BY ALL",
        )
        if not found:
            raise SettingError(f"table {self.table.url!r} has no images that are selected; see where and run")
        if len(found) > 1:
            named = ", ".join(f"{row['model_name']} {row['model_digest'][:8]}" for row in found[:NAMED_MODELS])
            condition = f"starts_with(model_digest, '{found[-1]['model_digest'][:8]}')"
            raise SettingError(
                f"where: the images have results of {len(found)} models ({named}), and a data set has those of one; "
                f'choose one, as by --where "{condition}"'
            )
        self.model_digest = str(found[0]["model_digest"])
        self.model_name = f"{found[0]['model_name']} {self.model_digest[:8]}"

    def class_names(self, are_chosen: bool = False) -> dict[int, str]:
        """Return the names of the classes that the selected images have detections of, or chosen ones only, by `label_id`."""
        found = f"list_filter(detections, lambda {BOX}: {self._of_boxes})" if are_chosen else "detections"
        boxes = f"SELECT unnest({found}, recursive := true) FROM images WHERE {self._of_images}"
        rows = rows_of(self.table, f"SELECT DISTINCT label_id, label FROM ({boxes}) ORDER BY ALL")
        return {row["label_id"]: row["label"] for row in rows}

    def common_folder(self) -> str:
        """Return the folder that all the images are below, with a slash at its end, or "" if they have none in common."""
        (row,) = rows_of(self.table, f"SELECT min(uri) AS first, max(uri) AS last FROM images WHERE {self._of_images}")
        first, last = row["first"], row["last"]
        num_alike = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
        return str(first[: first.rfind("/", 0, num_alike) + 1])

    def images(self) -> Iterator[SelectedImage]:
        """Yield the images, ordered by URI."""
        for batch in self.batches():
            yield from _images(batch)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the images, ordered by URI, with the columns uri, etag, size_bytes, width_px, height_px and detections."""
        boxes = f"list_filter(detections, lambda {BOX}: {self._of_boxes}) AS detections"
        columns = f"uri, etag, size_bytes, width_px, height_px, {boxes}"
        with query(self.table, f"SELECT {columns} FROM images WHERE {self._of_images} ORDER BY uri") as relation:
            yield from relation.to_arrow_reader(BATCH_ROWS)


def _images(batch: pa.RecordBatch) -> Iterator[SelectedImage]:
    lists = batch["detections"]
    boxes = lists.flatten()
    label_ids = boxes.field("label_id").to_numpy(zero_copy_only=False)
    scores = boxes.field("score").to_numpy(zero_copy_only=False)
    labels = boxes.field("label").to_pylist()
    corners = np.stack([boxes.field(side).to_numpy(zero_copy_only=False) for side in SIDES], axis=1, dtype=np.float64)
    stop = 0
    rows = batch.drop_columns(["detections"]).to_pylist()
    for row, num_boxes in zip(rows, lists.value_lengths().to_pylist(), strict=True):
        start, stop = stop, stop + (num_boxes or 0)
        yield SelectedImage(
            uri=row["uri"],
            etag=row["etag"],
            size_bytes=row["size_bytes"],
            size_px=(row["width_px"], row["height_px"]),
            label_ids=label_ids[start:stop],
            labels=tuple(labels[start:stop]),
            scores=scores[start:stop],
            boxes_xyxy=corners[start:stop],
        )
