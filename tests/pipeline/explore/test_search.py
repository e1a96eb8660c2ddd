"""The search over arrays finds what a search image by image finds, for filters of all kinds."""

import random
from collections import Counter
from contextlib import closing
from datetime import date, timedelta

import pytest

from pipeline.explore import build, queries, search
from pipeline.explore.cache import Copy
from pipeline.explore.filters import Filter

NUM_IMAGES, NUM_FILTERS = 200, 100
CLASSES = ("cat", "cow", "dog")
FIRST = date(2026, 1, 1)


def random_rows(rng: random.Random, rows) -> list[dict[str, object]]:
    made = []
    for number in range(NUM_IMAGES):
        columns = {
            "run_id": f"r{number // 50}", "run_date": FIRST + timedelta(days=number // 50), "model_digest": rng.choice(("m1", "m2")),
            "width_px": 100, "height_px": 100,
        }  # fmt: skip
        uri = f"/site-{number % 7}/{rng.randrange(10**6)}-{number}.jpg"
        if rng.random() < 0.1:
            made.append(rows.failed(uri, "decode", **columns | {"width_px": None, "height_px": None}))
            continue
        boxes = []
        for _ in range(rng.choice((0, 0, 1, 2, 5, 30))):
            label, side = rng.randrange(3), rng.choice((5, 10, 50, 100))
            boxes.append((label + 1, CLASSES[label], rng.choice((0.01, 0.3, 0.5, 0.55, 0.9, 1.0)), 0, 0, side, side))
        made.append(rows.ok(uri, **columns, **(rows.boxes(*boxes) if boxes else {})))
    return made


def random_filter(rng: random.Random) -> Filter:
    choices = {
        "label": lambda: tuple(rng.sample(CLASSES, rng.choice((1, 2)))), "min_score": lambda: rng.choice((0.0, 0.3, 0.55, 1.0)),
        "max_score": lambda: rng.choice((0.55, 0.9, 1.0)), "min_size": lambda: rng.choice((0.05, 0.5)),
        "max_size": lambda: rng.choice((0.1, 1.0)), "min_boxes": lambda: rng.choice((0, 1, 5)),
        "max_boxes": lambda: rng.choice((0, 2, 40)), "first_date": lambda: FIRST + timedelta(days=2),
        "last_date": lambda: FIRST + timedelta(days=3), "run": lambda: rng.choice(("r1", "r9")), "model": lambda: "m2",
        "status": lambda: rng.choice(("ok", "failed")), "text": lambda: f"site-{rng.randrange(8)}",
    }  # fmt: skip
    chosen = {name: choose() for name, choose in choices.items() if rng.random() < 0.2}
    return Filter(**chosen, sort=rng.choice(("newest", "name", "best", "least_certain", "most_boxes", "fewest_boxes")))


def is_box_shown(box: dict[str, object], chosen: Filter) -> bool:
    size = (box["xmax"] - box["xmin"]) / 100
    return (
        (not chosen.label or box["label"] in chosen.label)
        and box["score"] >= chosen.min_score
        and (chosen.max_score == 1 or box["score"] < chosen.max_score)
        and size >= chosen.min_size
        and (chosen.max_size == 1 or size < chosen.max_size)
    )


def is_image_shown(row: dict[str, object], chosen: Filter, num_boxes: int) -> bool:
    if chosen.min_boxes is None and chosen.max_boxes is None and chosen.is_about_boxes and not num_boxes:
        return False
    return (
        (chosen.min_boxes is None or num_boxes >= chosen.min_boxes)
        and (chosen.max_boxes is None or num_boxes <= chosen.max_boxes)
        and (chosen.first_date is None or row["run_date"] >= chosen.first_date)
        and (chosen.last_date is None or row["run_date"] <= chosen.last_date)
        and chosen.run in (None, row["run_id"])
        and chosen.model in (None, row["model_digest"])
        and chosen.status in (None, row["status"])
        and (chosen.text or "") in row["uri"]
    )


@pytest.mark.parametrize("part_size", [64, NUM_IMAGES])
def test_any_filter(part_size, tmp_path, new_table, rows, monkeypatch):
    rng = random.Random(part_size)
    monkeypatch.setattr(queries, "PAGE", NUM_IMAGES)
    monkeypatch.setattr(search, "NUM_TOGETHER", part_size)
    monkeypatch.setattr(build, "BATCH", part_size)
    monkeypatch.setattr(build, "ROWS_TOGETHER", part_size)
    made = random_rows(rng, rows)
    table = new_table(tmp_path / "table", *made)
    build.build(table.url, tmp_path / "copy")
    with closing(Copy(tmp_path / "copy")) as copy:
        for _ in range(NUM_FILTERS):
            copy.release()
            chosen = random_filter(rng)
            boxes = {row["uri"]: [box for box in row["detections"] or () if is_box_shown(box, chosen)] for row in made}
            shown = [row for row in made if is_image_shown(row, chosen, len(boxes[row["uri"]]))]
            found = queries.page(copy, chosen, 0)
            assert {image["uri"]: image["found"] for image in found} == {
                row["uri"]: len(boxes[row["uri"]]) for row in shown
            }, chosen
            whole = copy.search.page(chosen, 0, NUM_IMAGES)
            pages = [copy.search.page(chosen, offset, 17) for offset in range(0, NUM_IMAGES, 17)]
            assert [image for page in pages for image in page] == whole, chosen
            for image in found:
                scores = [box["score"] for box in image["boxes"]]
                assert scores == sorted(scores, reverse=True)
            check_order([image["uri"] for image in found], chosen, boxes, {row["uri"]: row for row in made})
            counted = copy.search.count(chosen)
            assert counted["images"] == len(shown)
            assert counted["boxes"] == sum(len(boxes[row["uri"]]) for row in shown)
            assert dict(counted["dates"]) == Counter(row["run_date"] for row in shown)
            assert dict(counted["num_boxes"]) == Counter(min(20, len(boxes[row["uri"]])) for row in shown)
            assert dict(counted["scores"]) == Counter(
                min(19, int(box["score"] * 20 + 1e-6)) for row in shown for box in boxes[row["uri"]]
            )
            if not chosen.label and chosen.min_boxes is None and chosen.max_boxes is None:
                assert dict(counted["labels"]) == Counter(box["label"] for row in shown for box in boxes[row["uri"]])


def check_order(uris: list[str], chosen: Filter, boxes: dict, rows_by_uri: dict) -> None:
    def best(uri: str) -> float:
        return max((box["score"] for box in boxes[uri]), default=-1.0 if chosen.sort == "best" else 2.0)

    order = {
        "newest": lambda uri: -rows_by_uri[uri]["run_date"].toordinal(), "name": lambda uri: uri, "best": lambda uri: -best(uri),
        "least_certain": best, "most_boxes": lambda uri: -len(boxes[uri]), "fewest_boxes": lambda uri: len(boxes[uri]),
    }[chosen.sort]  # fmt: skip
    keys = [order(uri) for uri in uris]
    assert keys == sorted(keys), chosen
