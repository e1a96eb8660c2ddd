import pyarrow as pa
import pytest

from pipeline.errors import SettingError
from pipeline.report.images import find_causes
from pipeline.report.report import report
from pipeline.report.settings import ReportSettings

CAT, DOG, NOISE = ("cat", 0.9), ("dog", 0.8), ("bird", 0.1)


def of(nights, **settings):
    return report(ReportSettings(table=nights.table.url, **settings))


def test_the_last_run_and_those_before(nights):
    for _ in range(3):
        nights.add(("a", [CAT, NOISE]), ("b", [DOG, DOG]), failed=1)
    found = of(nights)
    assert (found.record["run_id"], found.counts.num_boxes) == ("r02", 3)
    assert [run.run_id for run in found.earlier] == ["r00", "r01"]
    assert sorted(found.records) == ["r00", "r01", "r02"]
    assert found.shifts == []
    assert found.previous_model is None
    assert of(nights, run="r01").counts.run_id == "r01"
    assert [run.run_id for run in of(nights, run="r01").earlier] == ["r00"]
    assert of(nights, min_score=0.05).counts.num_boxes == 4


def test_failures_that_were_retried_still_count_in_their_night(nights):
    """Their rows are another run's by then."""
    for _ in range(2):
        nights.add(("a", [CAT]), failed=3)
    nights.add(failed=2)
    nights.add(("a", [CAT]))
    nights.table.refreshed().delete("run_id IN ('r00', 'r02') AND status = 'failed'")
    assert [run.num_failed for run in of(nights).earlier] == [3, 3, 2]
    assert of(nights, run="r02").counts.num_failed == 2


def test_of_itself_it_is_on_the_last_run_that_did_something(nights):
    nights.add(("a", [CAT]))
    nights.add()
    assert of(nights).record["run_id"] == "r00"
    assert of(nights, run="r01").record["run_id"] == "r01"


def test_a_column_of_folders_may_have_any_name(nights):
    nights.table.add_columns([pa.field("box", pa.string())], None)
    for number in range(6):
        nights.add(*(("a", [CAT, *([DOG] if number < 3 else [])]) for _ in range(150)))
    assert of(nights).shifts


def test_a_change_at_one_camera(nights):
    """Camera b shows no dogs from the fourth night on."""
    for number in range(6):
        of_b = [DOG, DOG] if number < 3 else []
        nights.add(*(("a", [CAT, CAT, DOG]) for _ in range(150)), *(("b", [CAT, *of_b]) for _ in range(150)))
    shifts = {(shift.quantity, shift.class_name): shift for shift in of(nights).shifts}
    dogs = shifts["class_share", "dog"]
    assert (dogs.began_run, dogs.places) == ("r03", (("camera", "b"),))
    assert shifts["boxes_per_image", None].places == (("camera", "b"),)


def test_another_model_is_not_compared(nights):
    nights.add(("a", [CAT]), digest="m1")
    nights.add(("a", [DOG, DOG]), digest="m2")
    found = of(nights)
    assert (found.earlier, found.previous_model, found.shifts) == ([], "m1", [])


def test_images_to_look_at(nights):
    usual = [("a", [("cat", 0.6 + number / 100), ("cat", 0.55)]) for number in range(20)]
    nights.add(
        *usual,
        ("a", [("cat", 0.99)]),
        ("a", [("cat", 0.51)]),
        ("a", [("dog", 0.7)]),
        ("a", [("cat", 0.7)] * 30),
        ("a", [NOISE]),
    )
    chosen = {
        choice: [image.uri.rpartition("-")[2] for image in images] for choice, images in of(nights).images.items()
    }
    assert chosen["best"][:2] == ["20.jpg", "19.jpg"]
    assert chosen["low"][:2] == ["21.jpg", "0.jpg"]
    assert set(chosen["odd"][:2]) == {"22.jpg", "23.jpg"}
    assert len(set(chosen["random"])) == 6
    boxes = {image.uri: image.detections for images in of(nights).images.values() for image in images}
    assert all(box["score"] >= 0.5 for found in boxes.values() for box in found)
    assert len(boxes["/a/r00-23.jpg"]) == 30


def test_failures_that_are_alike_are_one_cause(nights):
    nights.add(failed=12)
    (cause,), num_causes = find_causes(nights.table, "r00", 10, 3)
    assert (cause.message, cause.num_images, cause.is_permanent, num_causes) == ("image … of … is lost", 12, False, 1)
    assert cause.uris == ["/a/r00-broken-0.jpg", "/a/r00-broken-1.jpg", "/a/r00-broken-10.jpg"]
    found = of(nights)
    assert (found.counts.num_failed, found.images, found.counts.num_boxes) == (12, {}, 0)


def test_nothing_to_report_on(nights, tmp_path, new_table):
    with pytest.raises(SettingError, match="has no run that ended"):
        of(nights)
    with pytest.raises(SettingError, match="no table is there"):
        report(ReportSettings(table=str(tmp_path / "none")))
    nights.add(("a", []))
    with pytest.raises(SettingError, match="run 'r7'"):
        of(nights, run="r7")
