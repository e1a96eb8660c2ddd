from contextlib import closing
from datetime import date

import pytest

from pipeline.errors import SettingError
from pipeline.explore import build as build_module
from pipeline.explore import queries
from pipeline.explore.build import build
from pipeline.explore.cache import Copy
from pipeline.explore.filters import Filter, parse_filter

CAT, DOG = (1, "cat"), (2, "dog")


@pytest.fixture
def copy(tmp_path, new_table, rows):
    """Of a.jpg two versions; b.jpg has boxes of two models; one image is empty, one failed."""
    table = new_table(tmp_path / "table")
    table.append(
        rows.table(
            rows.ok("/x/a.jpg", etag="v0", **rows.boxes((*CAT, 0.9, 0, 0, 4, 3))),
            rows.ok(
                "/x/b.jpg", **rows.boxes((*CAT, 0.7, 0, 0, 20, 15), (*DOG, 0.95, 0, 0, 40, 30), (*DOG, 0.1, 1, 1, 2, 2))
            ),
            rows.ok("/x/empty.jpg"),
            rows.failed("/y/broken.jpg", "decode", error_type="DecodeError", error_message="line 17 of 'x' is cut"),
        )
    )
    later = {"run_id": "r2", "run_date": date(2026, 1, 3)}
    table.append(
        rows.table(
            rows.ok("/x/a.jpg", etag="v1", **later, **rows.boxes((*CAT, 0.6, 0, 0, 4, 3), (*CAT, 0.55, 4, 4, 8, 7))),
            rows.ok("/x/b.jpg", model_digest="m2", **later, **rows.boxes((*CAT, 0.8, 0, 0, 20, 15))),
        )
    )
    build(table.url, tmp_path / "copy")
    with closing(Copy(tmp_path / "copy")) as copy:
        yield copy


def shown(copy, **chosen):
    """The images that a filter shows, by version, with their number of boxes; the page and the counts agree."""
    chosen = Filter(**chosen)
    found = queries.page(copy, chosen, 0)
    counted = copy.search.count(chosen)
    assert counted["images"] == len(found)
    assert counted["boxes"] == sum(image["found"] for image in found)
    if not chosen.is_about_boxes:
        assert all(len(image["boxes"]) == image["found"] for image in found)
    assert (
        sum(number for _, number in counted["dates"]) == sum(number for _, number in counted["num_boxes"]) == len(found)
    )
    return sorted((image["uri"], image["etag"], image["model_digest"], image["found"]) for image in found)


A, B, B_OF_M2 = ("/x/a.jpg", "v1", "m1", 2), ("/x/b.jpg", "v1", "m1", 2), ("/x/b.jpg", "v1", "m2", 1)
EMPTY, BROKEN = ("/x/empty.jpg", "v1", "m1", 0), ("/y/broken.jpg", "v1", "m1", 0)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, [A, B, B_OF_M2, EMPTY, BROKEN]),
        ({"run": "r1"}, [("/x/a.jpg", "v0", "m1", 1), B, EMPTY, BROKEN]),
        ({"model": "m2"}, [B_OF_M2]),
        ({"status": "failed"}, [BROKEN]),
        ({"text": "/x/b"}, [B, B_OF_M2]),
        ({"text": "%"}, []),
        ({"first_date": date(2026, 1, 3)}, [A, B_OF_M2]),
        ({"last_date": date(2026, 1, 2)}, [B, EMPTY, BROKEN]),
        ({"label": ("dog",)}, [(*B[:3], 1)]),
        ({"label": ("dog", "cat")}, [A, B, B_OF_M2]),
        ({"label": ("cow",)}, []),
        ({"min_score": 0.05}, [A, (*B[:3], 3), B_OF_M2, EMPTY, BROKEN]),
        ({"min_score": 0.05, "max_score": 0.2}, [(*B[:3], 1)]),
        ({"min_size": 0.9}, [(*B[:3], 1)]),
        ({"max_size": 0.2}, [A]),
        ({"min_boxes": 2}, [A, B]),
        ({"max_boxes": 0}, [EMPTY, BROKEN]),
        ({"label": ("dog",), "max_boxes": 0}, [(*A[:3], 0), (*B_OF_M2[:3], 0), EMPTY, BROKEN]),
        ({"label": ("cat",), "min_boxes": 2}, [A]),
        ({"min_boxes": 1, "max_boxes": 1}, [B_OF_M2]),
    ],
)
def test_filters(copy, chosen, expected):
    assert shown(copy, **chosen) == sorted(expected)


@pytest.mark.parametrize(
    ("sort", "first"),
    [("name", "/x/a.jpg"), ("best", "/x/b.jpg"), ("least_certain", "/x/a.jpg"), ("fewest_boxes", "/x/empty.jpg")],
)
def test_orders(copy, sort, first):
    assert queries.page(copy, Filter(sort=sort), 0)[0]["uri"] == first
    assert queries.page(copy, Filter(sort=sort, min_score=0.4), 0)[0]["uri"] == first


def test_histograms_leave_the_choice_of_other_classes(copy):
    found = copy.search.count(Filter(label=("dog",), model="m1"))
    assert found["labels"] == [("cat", 3), ("dog", 1)]
    assert found["scores"] == [(19, 1)]
    assert copy.search.count(Filter(min_score=0.0))["scores"] == [(2, 1), (11, 1), (12, 1), (14, 1), (16, 1), (19, 1)]


def test_pages_follow_each_other(copy, monkeypatch):
    monkeypatch.setattr(queries, "PAGE", 2)
    pages = [queries.page(copy, Filter(sort="name"), offset) for offset in (0, 2, 4, 6)]
    assert [[image["uri"][-5:] for image in found] for found in pages] == [
        ["a.jpg", "b.jpg"],
        ["b.jpg", "y.jpg"],
        ["n.jpg"],
        [],
    ]


def test_what_can_be_chosen(copy):
    found = queries.facts(copy)
    assert found.classes == ["cat", "dog"]
    assert [(model["model_digest"], model["model_name"]) for model in found.models] == [("m1", "tiny"), ("m2", "tiny")]
    assert found.runs == ["r2", "r1"]
    assert found.columns == {}


def test_columns_from_paths(tmp_path, new_table, rows):
    import pyarrow as pa

    table = new_table(tmp_path / "table")
    names = ("camera", "key", "image_id", "is_latest", "num_boxes", "boxes", "row")  # most are words of our own, too
    table.add_columns([pa.field(name, pa.int64()) for name in names], None)
    table.add_columns([pa.field("tags", pa.list_(pa.string()))], None)  # by another program
    table.append(rows.table(rows.ok("a"), rows.ok("b")).append_column("camera", pa.array([7, None])))
    build(table.url, tmp_path / "copy")
    with closing(Copy(tmp_path / "copy")) as copy:
        assert queries.facts(copy).columns == {"camera": ["", "7"]} | {name: [""] for name in names[1:]}
        chosen = parse_filter({"column.camera": ["7"]}, ["camera"])
        assert [image["uri"] for image in queries.page(copy, chosen, 0)] == ["a"]


def test_a_column_of_too_many_values_is_no_filter_but_runs_always_are(tmp_path, new_table, rows, monkeypatch):
    import pyarrow as pa

    monkeypatch.setattr(build_module, "MAX_VALUES", 2)
    table = new_table(tmp_path / "table")
    table.add_columns([pa.field("camera", pa.int64()), pa.field("site", pa.int64())], None)
    made = rows.table(*(rows.ok(name, run_id=f"r{name}") for name in "abc"))
    table.append(made.append_column("camera", pa.array([7, 8, 9])).append_column("site", pa.array([1, 1, 2])))
    build(table.url, tmp_path / "copy")
    with closing(Copy(tmp_path / "copy")) as copy:
        found = queries.facts(copy)
        assert (found.columns, found.runs) == ({"site": ["1", "2"]}, ["rc", "rb", "ra"])
        assert [image["uri"] for image in queries.page(copy, Filter(run="rb"), 0)] == ["b"]


def test_a_row_by_its_name(copy):
    (found,) = (image for image in queries.page(copy, Filter(model="m1", text="b.jpg"), 0))
    row = queries.image(copy, found["key"])
    assert (row["uri"], row["etag"], len(row["boxes"]), row["key"]) == ("/x/b.jpg", "v1", 3, found["key"])
    assert queries.image(copy, "0" * 16) is None
    assert [version["uri"] for version in queries.versions(copy, [found["key"], "f" * 16])] == ["/x/b.jpg"]
    assert queries.versions(copy, []) == []
    assert [version["uri"] for version in queries.all_versions(copy, Filter(label=("dog",)))] == ["/x/b.jpg"]


def test_failures_by_cause(copy):
    (cause,) = queries.failures(copy)
    assert (cause["message"], cause["num_images"], len(cause["keys"])) == ("line … of … is cut", 1, 1)
    assert queries.image(copy, cause["keys"][0])["uri"] == "/y/broken.jpg"


def test_two_models_and_two_runs_are_compared(copy):
    models = queries.compare(copy, queries.Side(model="m1"), queries.Side(model="m2"), 0.5, 0)
    assert (models["images"], models["differing"]) == (1, 1)
    (pair,) = models["page"]
    assert (pair["difference"], len(pair["a"]["boxes"]), len(pair["b"]["boxes"])) == (1, 2, 1)
    runs = queries.compare(copy, queries.Side(run="r1"), queries.Side(run="r2"), 0.5, 0)
    assert (runs["images"], runs["differing"]) == (2, 2)
    assert [pair["a"]["uri"] for pair in runs["page"]] == ["/x/a.jpg", "/x/b.jpg"]
    assert queries.compare(copy, queries.Side(model="m1"), queries.Side(model="m3"), 0.5, 0)["page"] == []


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"colour": ["red"]}, "colour"),
        ({"min_score": ["2"]}, "min_score: .* not '2'"),
        ({"min_score": ["1; DROP TABLE images"]}, "min_score"),
        ({"sort": ["uri; DROP TABLE images"]}, "sort"),
        ({"first_date": ["yesterday"]}, "first_date"),
        ({"column.uri": ["x"]}, "no column 'uri' from paths"),
    ],
)
def test_wrong_filters(parameters, message):
    with pytest.raises(SettingError, match=message):
        parse_filter(parameters, ["camera"])
