import csv
import os
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ValidationError

from pipeline.errors import SettingError
from pipeline.exports.export import DATA_SETS, export
from pipeline.exports.settings import ExportSettings


def test_a_data_set_is_of_one_model(table, tmp_path, rows):
    table.append(rows.table(rows.ok("c", model_name="other", model_digest="m2")))
    for kind in DATA_SETS:
        settings = {"table": table.url, "output": str(tmp_path / kind), "format": kind}
        with pytest.raises(
            SettingError, match=r"where: the images have results of 2 models \(other m2, tiny m1\), .* as by --where"
        ):
            export(ExportSettings(**settings))
        assert not (tmp_path / kind).exists()
        assert export(ExportSettings(**settings, where="starts_with(model_digest, 'm1')")).images == 4


def test_a_model_of_two_names_is_one(table, exported, rows):
    """Its digest says which it is."""
    table.append(rows.table(rows.ok("c", model_name="tiny-2")))
    assert exported("coco").images == 5


@pytest.mark.parametrize("kind", ["parquet", "coco", "yolo"])
def test_a_column_of_folders_may_be_named_box(kind, table, exported):
    table.add_columns([pa.field("box", pa.string())], None)
    assert exported(kind, min_score=0.5, class_name=("dog", "cat")).rows == 3


@pytest.mark.parametrize("kind", ["parquet", "coco"])
@pytest.mark.parametrize(
    ("settings", "num_boxes"),
    [
        ({}, 4),
        ({"min_score": 0.5}, 3),
        ({"class_name": ("dog",)}, 2),
        ({"class_name": ("dog", "cat"), "min_score": 0.9}, 1),
        ({"where": "num_detections = 1 -- one alone"}, 2),
        ({"where": "uri LIKE '%.jpg' OR uri LIKE '%b.png'"}, 2),
        ({"run": "r2"}, 1),
        ({"run": "r1", "where": "num_detections = 1"}, 1),
    ],
)
def test_what_is_selected(kind, settings, num_boxes, exported, runs):
    assert exported(kind, **settings).rows == num_boxes


@pytest.mark.parametrize("kind", ["csv", "voc"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"where": "num_boxes > 1"}, r"^where: (.|\n)*num_boxes(.|\n)*num_detections"),
        ({"where": "1) OR (1"}, None),
        ({"where": "1); COPY images TO 'x'; SELECT (1"}, "^where: "),
        ({"where": "(SELECT count(*) FROM '/etc/passwd') > 0"}, "does not exist"),
        ({"run": "r7"}, "run 'r7': .* has no record"),
        ({"output": "{table}/out"}, "would be inside the table"),
        ({"output": "{folder}"}, "is not empty"),
        ({"table": "{folder}/none"}, "no table is there"),
    ],
)
def test_what_is_refused(kind, settings, message, table, folder, tmp_path, runs):
    settings = {name: text.format(table=table.url, folder=folder) for name, text in settings.items()}
    settings = {"table": table.url, "output": str(tmp_path / "out"), "format": kind, "min_score": 0} | settings
    if message is None:
        assert export(ExportSettings(**settings)).rows == 4
        return
    with pytest.raises(SettingError, match=message):
        export(ExportSettings(**settings))
    assert not (tmp_path / "out").exists()
    assert not os.path.exists("x")


def test_settings_that_do_not_go_together():
    with pytest.raises(ValidationError, match="csv has no images"):
        ExportSettings(table="t", output="o", format="csv", copy_images=True)
    with pytest.raises(ValidationError, match="yolo has no such IDs"):
        ExportSettings(table="t", output="o", format="yolo", coco_ids="x.json")


def test_no_image_is_selected(exported):
    with pytest.raises(SettingError, match="has no images that are selected"):
        exported("coco", where="false")
    assert exported("parquet", where="false").rows == 0


@pytest.mark.parametrize(
    ("kind", "copies", "name"),
    [
        ("coco", False, "deep/b.png"),
        ("cvat", False, "deep/b.png"),
        ("coco", True, "deep__b.png"),
        ("yolo", False, "deep__b.png"),
    ],
)
def test_the_index_has_the_names_of_the_data_set(kind, copies, name, exported, folder, tmp_path):
    exported(kind, copy_images=copies)
    with open(tmp_path / "out/images.csv", newline="") as file:
        names = {row["uri"]: row["file_name"] for row in csv.DictReader(file)}
    assert names[str(folder / "deep/b.png")] == name


def test_an_image_that_has_gone_or_changed_stays_in_the_data_set(folder, exported, tmp_path):
    (folder / "a.png").unlink()
    (folder / "empty.png").write_bytes(b"changed")
    done = exported("yolo", copy_images=True)
    assert (done.rows, done.images, done.not_copied) == (4, 4, 2)
    with open(tmp_path / "out/images.csv", newline="") as file:
        errors = {Path(row["uri"]).name: row["error"] for row in csv.DictReader(file)}
    assert "No such file" in errors["a.png"]
    assert "has changed" in errors["empty.png"]
    assert errors["a.jpg"] == errors["b.png"] == ""
    assert sorted(os.listdir(tmp_path / "out/images")) == ["a.jpg", "deep__b.png"]
    assert sorted(os.listdir(tmp_path / "out/labels")) == ["a-2.txt", "a.txt", "deep__b.txt", "empty.txt"]


@pytest.mark.s3
@pytest.mark.parametrize("kind", ["csv", "coco", "voc"])
def test_to_and_from_object_storage(kind, s3, new_table, rows):
    bucket = s3.bucket()
    s3.put(bucket, {"photos/a.jpg": b"0123456789", "photos/b//c.jpg": b"0123456789"})
    etags = [
        s3.client.head_object(Bucket=bucket, Key=key)["ETag"].strip('"') for key in ("photos/a.jpg", "photos/b//c.jpg")
    ]
    table = new_table(
        f"s3://{bucket}/table",
        rows.ok(f"s3://{bucket}/photos/a.jpg", etag=etags[0], **rows.boxes((1, "cat", 0.5, 0, 0, 9, 9))),
        rows.ok(f"s3://{bucket}/photos/b//c.jpg", etag=etags[1]),
    )
    done = export(ExportSettings(table=table.url, output=f"s3://{bucket}/out", format=kind, copy_images=kind != "csv"))
    assert (done.rows, done.not_copied) == (1, 0)
    found = {entry["Key"] for entry in s3.client.list_objects_v2(Bucket=bucket, Prefix="out/")["Contents"]}
    assert found == {
        "csv": {"out/part-0.csv"},
        "coco": {"out/annotations/instances_found.json", "out/results.json", "out/images.csv", "out/images/a.jpg", "out/images/b__c.jpg"},
        "voc": {
            "out/Annotations/a.xml", "out/Annotations/b__c.xml", "out/ImageSets/Main/found.txt", "out/images.csv",
            "out/JPEGImages/a.jpg", "out/JPEGImages/b__c.jpg",
        },
    }[kind]  # fmt: skip
    with pytest.raises(SettingError, match="is not empty"):
        export(ExportSettings(table=table.url, output=f"s3://{bucket}/out", format=kind))
    with pytest.raises(SettingError, match="would be inside the table"):
        export(ExportSettings(table=table.url, output=f"{table.url}/out", format=kind))
    with pytest.raises(SettingError, match="can't be written"):
        export(ExportSettings(table=table.url, output="s3://mistyped-bucket/out", format=kind))


@pytest.mark.parametrize(("kind", "expected"), [("yolo", 3), ("voc", 3), ("cvat", 3), ("coco", 4), ("parquet", 4)])
def test_where_scores_are_lost_unlikely_boxes_are_left_out_unless_asked_for(kind, expected, table, tmp_path):
    place = {"table": table.url, "format": kind}
    assert export(ExportSettings(output=str(tmp_path / "likely"), **place)).rows == expected
    assert export(ExportSettings(output=str(tmp_path / "all"), min_score=0, **place)).rows == 4


def test_a_class_that_the_table_does_not_have_is_an_error(exported):
    with pytest.raises(SettingError, match="the table has no box of 'catt'; it has cat, dog"):
        exported("parquet", class_name=("catt",))
