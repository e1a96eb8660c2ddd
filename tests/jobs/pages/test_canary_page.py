from pathlib import Path

import pytest

from jobs.pages.canary_page import render
from jobs.text.canary import describe_comparison
from pipeline.errors import TargetMissedError
from pipeline.inference.canary import Comparison, Difference, Side, check_agreement

CAT = {"label": "cat", "score": 0.9, "xmin": 0.0, "ymin": 0.0, "xmax": 5.0, "ymax": 5.0}


def compared(uri: str = "gone.jpg", agreement: float | None = 0.75) -> Comparison:
    old = Side("old", "0123456789", 0, 3, 0.75, 12.5, {"cat": 2, "<dog>": 1})
    new = Side("new", "abcdef0123", 1, 1, None, None, {"cat": 1, "fox": 0})
    return Comparison(5, 4, 3, agreement, 0.5, old, new, [Difference(uri, 2, [CAT], [])])


def test_the_text_has_all_figures_of_both():
    verdict, header, *lines = describe_comparison(compared()).splitlines()
    assert verdict.startswith("4 of 5 images compared: the models agree in 75.0% of them")
    assert header.split() == ["old", "01234567", "new", "abcdef01"]
    assert [tuple(line.rsplit(maxsplit=2)) for line in lines[:-2]] == [
        ("failed images", "0", "1"),
        ("images/s", "12.5", "–"),
        ("mean score", "0.750", "–"),
        ("detections", "3", "1"),
        ("<dog>", "1", "0"),
        ("cat", "2", "1"),
        ("fox", "0", "0"),
    ]
    assert lines[-1].split() == ["2", "gone.jpg"]


def test_the_page_has_pictures_of_what_differs(tmp_path: Path, labelled):
    labelled.voc(tmp_path, a="")
    page = render(compared(str(tmp_path / "JPEGImages/a.jpg")))
    assert page.count("<img src=") == 1
    assert "&lt;dog&gt;" in page
    assert "<img" not in render(compared())


def test_so_far_they_must_agree():
    check_agreement(compared(), None)
    check_agreement(compared(), 0.75)
    with pytest.raises(TargetMissedError, match=r"agree in 75\.0% of the images, not in 76\.0%") as error:
        check_agreement(compared(), 0.76)
    assert error.value.exit_code == 3
    with pytest.raises(TargetMissedError, match="agree in – of"):
        check_agreement(compared(agreement=None), 0.0)
