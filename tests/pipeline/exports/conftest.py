import pytest
from PIL import Image

from pipeline.exports.export import Exported, export
from pipeline.exports.settings import ExportSettings
from pipeline.storage import store
from pipeline.table.run_records import RunRecord, recorded

CAT, DOG = (1, "cat"), (3, "dog")


@pytest.fixture
def folder(tmp_path):
    """Pictures of 40 × 30 pixels, of which two have the same name but for the suffix, and one is in a folder of its own."""
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.png", "a.jpg", "deep/b.png", "empty.png"):
        Image.new("RGB", (40, 30), "red").save(folder / name)
    return folder


@pytest.fixture
def table(folder, tmp_path, new_table, rows):
    """Two boxes in a.png, one in a.jpg and in b.png, none in empty.png, and a failure."""

    def row(name: str, *boxes: tuple[object, ...], **columns: object) -> dict[str, object]:
        stored = store.stat(str(folder / name))
        found = rows.boxes(*boxes) if boxes else {}
        return rows.ok(stored.uri, etag=stored.etag, size_bytes=stored.size_bytes, **found, **columns)

    return new_table(
        tmp_path / "table",
        row("a.png", (*CAT, 0.5, 1, 2, 30, 20), (*DOG, 0.25, 0, 0, 40, 30)),
        row("a.jpg", (*CAT, 0.75, 10, 10, 20, 20), run_id="r2"),
        row("deep/b.png", (*DOG, 0.9, 4.25, 5.5, 6, 7)),
        row("empty.png"),
        rows.failed(str(folder / "broken.png"), "decode"),
    )


@pytest.fixture
def exported(table, tmp_path):
    """Export the table into the folder `out`."""

    def exported(kind: str, **settings: object) -> Exported:
        of_all = {"min_score": 0.0} | settings
        return export(ExportSettings(table=table.url, output=str(tmp_path / "out"), format=kind, **of_all))

    return exported


@pytest.fixture
def runs(table):
    """The records of the runs that wrote the table."""
    for run_id in ("r1", "r2"):
        with recorded(table, RunRecord(run_id=run_id)):
            pass
