"""The images to label next, from a table to a folder of tasks, and back to a training's data."""

import csv
import json
import re

import pytest
from PIL import Image

from jobs.commands.label import describe_tasks
from pipeline.active_learning.label_next import label_next
from pipeline.active_learning.settings import LabelNextSettings
from pipeline.errors import SettingError
from pipeline.labelled.dataset import read_clean
from pipeline.storage import store

CAT, DOG = (1, "cat"), (2, "dog")
HERE, THERE = (1, 2, 30, 20), (5, 5, 39, 29)


@pytest.fixture
def row(tmp_path, rows):
    """A row of a picture, which is drawn."""
    folder = tmp_path / "pictures"
    folder.mkdir()

    def row(name: str, *boxes: tuple[object, ...], **columns: object) -> dict[str, object]:
        if not (folder / name).exists():
            Image.new("RGB", (40, 30), "red").save(folder / name)
        stored = store.stat(str(folder / name))
        found = rows.boxes(*boxes) if boxes else {}
        return rows.ok(stored.uri, etag=stored.etag, size_bytes=stored.size_bytes, **found, **columns)

    return row


@pytest.fixture
def table(row, tmp_path, new_table, rows):
    """sure.png is certain, unsure.png is not, empty.png has no box; and a failure."""
    return new_table(
        tmp_path / "table",
        row("sure.png", (*CAT, 0.97, *HERE)),
        row("unsure.png", (*CAT, 0.55, *HERE), (*DOG, 0.3, *THERE), (*DOG, 0.02, *HERE)),
        row("empty.png"),
        row("half.png", (*CAT, 0.75, *THERE)),
        rows.failed("/gone.png", "decode"),
    )


@pytest.fixture
def tasks(table, tmp_path):
    """Choose from the table, into a new folder."""

    def tasks(output: str = "out", **settings: object):
        return label_next(LabelNextSettings(table=table.url, output=str(tmp_path / output), **settings))

    return tasks


def chosen(folder) -> list[dict[str, str]]:
    with (folder / "chosen.csv").open() as file:
        return list(csv.DictReader(file))


def names(folder) -> list[str]:
    return [row["uri"].rpartition("/")[2] for row in chosen(folder)]


def test_tasks_of_label_studio(tasks, tmp_path):
    done = tasks()
    assert (done.images, done.candidates, done.boxes, done.not_copied) == (3, 4, 3, 0)
    unsure, half, *_ = chosen(tmp_path / "out")
    assert unsure == {
        "rank": "1", "uri": str(tmp_path / "pictures/unsure.png"), "gain": unsure["gain"], "uncertain_boxes": "2",
        "uncertain_classes": "cat dog", "disagreeing_boxes": "0",
    }  # fmt: skip
    assert half["uncertain_boxes"] == "1"
    found = json.loads((tmp_path / "out/tasks.json").read_text())
    boxes = {task["data"]["uri"].rpartition("/")[2]: len(task["predictions"][0]["result"]) for task in found}
    assert boxes == {"half.png": 1, "sure.png": 1, "unsure.png": 1}  # of the dogs none counts as found
    assert (tmp_path / "out/images/unsure.png").exists()
    assert describe_tasks(done).startswith("3 of 4 images chosen, with 3 boxes to correct: ")


def test_a_budget(tasks, tmp_path):
    assert tasks(budget=1).images == 1
    assert names(tmp_path / "out") == ["unsure.png"]


def test_images_of_earlier_rounds_are_left_out(tasks, tmp_path):
    tasks("first", budget=1)
    done = tasks("second", budget=1, earlier=(str(tmp_path / "first"),))
    assert (names(tmp_path / "second"), done.candidates) == (["half.png"], 3)
    tasks("third", earlier=(str(tmp_path / "first"), str(tmp_path / "second")))
    assert names(tmp_path / "third") == ["sure.png"]


def test_a_condition(tasks, tmp_path):
    tasks(where="uri LIKE '%half%' -- or another")
    assert names(tmp_path / "out") == ["half.png"]


@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_corrected_tasks_are_data_for_a_training(tasks, tmp_path, layout):
    tasks(format=layout, budget=1)
    data = tmp_path / "out"
    file = data / {"voc": "Annotations/unsure.xml", "coco": "annotations/instances_found.json"}[layout]
    file.write_text(re.sub(r"\bcat\b", "bird", file.read_text()))
    (image,) = read_clean([str(data)], "found")
    assert image.class_names == ("bird",)


def test_two_models(tasks, table, row, rows, tmp_path):
    """Of a certain image, of which another model says something else, more is learned than of an uncertain one on which they agree."""
    table.append(
        rows.table(
            *(
                row(name, *boxes, model_name="old", model_digest="old1", run_id="r0")
                for name, boxes in (
                    ("sure.png", [(*DOG, 0.9, *HERE), (*CAT, 0.6, 1, 2, 30, 8)]),
                    ("half.png", [(*CAT, 0.9, *THERE)]),
                    ("empty.png", [(3, "bird", 0.6, *HERE)]),
                )
            )
        )
    )
    with pytest.raises(SettingError, match="results of 2 models"):
        tasks()
    tasks(against="old", where="uri NOT LIKE '%/unsure.png'")
    assert names(tmp_path / "out") == ["sure.png", "empty.png", "half.png"]
    assert [row["disagreeing_boxes"] for row in chosen(tmp_path / "out")] == ["3", "1", "0"]
    with pytest.raises(
        SettingError, match=r"against: 'new': table .* has no results of a model whose digest begins so"
    ):
        tasks("other", against="new", where="model_digest = 'm1'")


def test_what_can_not_be_chosen(tasks, tmp_path, table):
    with pytest.raises(
        SettingError, match=r"in 1 images that were not chosen before, no box is uncertain at min_score 0.5"
    ):
        tasks("none", where="uri LIKE '%empty%'")
    with pytest.raises(SettingError, match="has no images that are selected"):
        tasks("none", where="uri = 'x'")
    with pytest.raises(SettingError, match=r"^where: (.|\n)*colour"):
        tasks("none", where="colour = 1")
    with pytest.raises(SettingError, match="is no folder of `label next`"):
        tasks("none", earlier=(str(tmp_path / "pictures"),))
    with pytest.raises(SettingError, match="no table is there"):
        label_next(LabelNextSettings(table=str(tmp_path / "elsewhere"), output=str(tmp_path / "none")))
    assert not (tmp_path / "none").exists()


def test_an_image_that_has_gone_is_said(tasks, tmp_path):
    (tmp_path / "pictures/unsure.png").unlink()
    done = tasks()
    assert done.not_copied == 1
    assert "1 images could not be copied, and images.csv says why" in describe_tasks(done)
