"""A new model against the one that is published, on the same images."""

from pathlib import Path

import pytest
import torch

from model.package import ModelPackage
from model.ssd import SSD
from pipeline.registry.packages import read_package, write_package
from tests.e2e.command import answer, ask, jpeg, run

pytestmark = pytest.mark.slow


@pytest.fixture
def other(model: Path, tmp_path: Path) -> Path:
    """Of the same shape, with other weights."""
    record = read_package(str(model)).record
    torch.manual_seed(1)
    write_package(ModelPackage(record, SSD(record.architecture, 3).state_dict()), str(tmp_path / "other"))
    return tmp_path / "other"


def test_a_canary(model: Path, other: Path, tmp_path: Path) -> None:
    pictures, table, page = tmp_path / "pictures", tmp_path / "table", tmp_path / "page.html"
    pictures.mkdir()
    for index in range(12):
        (pictures / f"{index}.jpg").write_bytes(jpeg(index))
    (pictures / "broken.jpg").write_bytes(jpeg(0)[:100])
    sampled = ("--input", pictures, "--against", model, "--sample", 9, "--score-thresh", 0.3)
    sampled = (*sampled, "--path-columns", "{place}")
    code, _, err = run("canary", *sampled, "--model", model)
    assert (code, "is the same as against" in err) == (2, True), err

    found = answer("canary", *sampled, "--model", other, "--table", table, "--output", page)
    assert found["num_images"] == 9
    assert found["num_compared"] == 9 - found["new"]["failed"] == 9 - found["against"]["failed"]
    assert found["num_agreeing"] == found["num_compared"] - len(found["differing"])
    assert "<img" in page.read_text() or found["agreement"] == 1
    for side in (found["against"], found["new"]):
        assert sum(side["per_class"].values()) == side["num_detections"] > 0
        (counted,) = ask(
            table,
            f"SELECT count(*) AS n FROM detections WHERE score >= 0.3 AND model_digest = '{side['model_digest']}'",
        )
        assert counted["n"] == side["num_detections"]
    (images,) = ask(table, "SELECT count(*) AS n, count(DISTINCT uri) AS uris, any_value(place) AS place FROM images")
    assert images == {"n": 18, "uris": 9, "place": "pictures"}

    again = answer("canary", *sampled, "--model", other, "--table", table)
    names = ("num_images", "agreement", "differing")
    assert [again[name] for name in names] == [found[name] for name in names], "the same images, detected once"
    code, out, err = run("canary", *sampled, "--model", other, "--min-agreement", 1.0)
    assert (code, "of 9 images compared" in out) == (0 if found["agreement"] == 1 else 3, True), err
