"""The comparison over arrays finds what a comparison image by image finds."""

import random
from collections import Counter
from contextlib import closing

from pipeline.explore import build, queries, search
from pipeline.explore.cache import Copy

NUM_IMAGES = 150
CLASSES = ("cat", "cow", "dog")
MIN_SCORE = 0.5


def test_differences_are_those_of_numbers_per_class(tmp_path, new_table, rows, monkeypatch):
    rng = random.Random(0)
    monkeypatch.setattr(search, "NUM_TOGETHER", 64)
    monkeypatch.setattr(build, "BATCH", 64)
    monkeypatch.setattr(queries, "PAGE", 2 * NUM_IMAGES)
    made, numbers = [], {}
    for model in ("m1", "m2"):
        for number in rng.sample(range(NUM_IMAGES), NUM_IMAGES - 20):  # in an order of its own, and not all
            uri = f"/{number:03}.jpg"
            if rng.random() < 0.1:
                made.append(rows.failed(uri, "decode", model_digest=model))
                continue
            labels = [rng.randrange(3) for _ in range(rng.choice((0, 1, 5)))]
            boxes = [(label + 1, CLASSES[label], rng.choice((0.3, 0.5, 0.9)), 0, 0, 9, 9) for label in labels]
            made.append(rows.ok(uri, model_digest=model, **(rows.boxes(*boxes) if boxes else {})))
            numbers[model, uri] = Counter(name for _, name, score, *_ in boxes if score >= MIN_SCORE)
    expected = {}
    for model, uri in numbers:
        if model == "m1" and ("m2", uri) in numbers:
            first, second = numbers["m1", uri], numbers["m2", uri]
            expected[uri] = ((first - second) + (second - first)).total()
    build.build(new_table(tmp_path / "table", *made).url, tmp_path / "copy")
    with closing(Copy(tmp_path / "copy")) as copy:
        found = queries.compare(copy, queries.Side(model="m1"), queries.Side(model="m2"), MIN_SCORE, 0)
    assert found["images"] == len(expected) > NUM_IMAGES / 2
    assert found["differing"] == sum(difference > 0 for difference in expected.values())
    by_difference = sorted(expected.items(), key=lambda item: (-item[1], item[0]))
    assert [(pair["a"]["uri"], pair["difference"]) for pair in found["page"]] == by_difference
    assert all(pair["a"]["uri"] == pair["b"]["uri"] for pair in found["page"])
    assert all((pair["a"]["model_digest"], pair["b"]["model_digest"]) == ("m1", "m2") for pair in found["page"])
