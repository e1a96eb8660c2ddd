from xml.etree import ElementTree

import numpy as np
import pytest

from jobs.pages.chart import Line, bar_chart, histogram, line_chart, run_chart


def texts(drawing: str) -> list[str]:
    """The texts of a chart, which is well-formed."""
    root = ElementTree.fromstring(drawing)
    return ["".join(element.itertext()).strip() for element in root.iter() if element.tag.endswith("}text")]


def paths(drawing: str) -> list[str]:
    root = ElementTree.fromstring(drawing)
    lines = [
        element for element in root.iter() if element.tag.endswith("}g") and element.get("id", "").startswith("line2d")
    ]
    return [
        path.get("d", "")
        for line in lines
        for path in line
        if path.get("style", "").startswith("fill: none; stroke: #e6194b")
    ]


def test_it_is_for_those_who_cannot_see_it_too():
    drawing = line_chart('a & "b"', [Line("", [(0, 0), (1, 1)])], "step", "loss")
    assert drawing.startswith('<div role="img" aria-label="a &amp; &quot;b&quot;"><svg')
    assert {"step", "loss"} <= set(texts(drawing))


def test_lines_are_where_their_points_are():
    (path,) = paths(line_chart("", [Line("", [(0, 0), (0.5, 1), (1, 0.5)])], "x", "y", (0, 1)))
    numbers = np.array([float(word) for word in path.split() if word not in "ML"]).reshape(-1, 2)
    (left, bottom), (middle, top), (right, half) = numbers
    assert middle == pytest.approx((left + right) / 2)
    assert half == pytest.approx((top + bottom) / 2)


def test_several_lines_have_a_legend_and_odd_names_are_text():
    lines = [Line("<cat>", [(0, 0), (1, 1)]), Line("$\\frac$", [(0.5, 0.5)]), Line("猫 🐈", [])]
    assert {"<cat>", "$\\frac$", "猫 🐈"} <= set(texts(line_chart("", lines, "x", "y")))
    assert "cat" not in texts(line_chart("", [Line("cat", [(0, 0), (1, 1)])], "x", "y"))


def test_a_logarithmic_axis_leaves_out_what_it_cannot_show():
    points = [(0, 100.0), (1, 10.0), (2, 0.0), (3, float("nan")), (4, 1.0)]
    assert paths(line_chart("", [Line("", points)], "x", "y", (1, 100), is_log=True))


def test_bars_have_names_and_values():
    found = texts(bar_chart("", [("cat", 1234567), ("x" * 60, 2)], "boxes"))
    assert {"cat", "1,234,567", "x" * 39 + "…", "2", "boxes"} <= set(found)


def test_bins_below_a_value_are_red():
    drawing = histogram("", [1, 2, 3, 4], [0, 0.25, 0.5, 0.75, 1], "x", "y", red_below=0.5)
    assert (drawing.count("fill: #e6194b"), drawing.count("fill: #4363d8")) == (2, 2)


def test_a_panel_for_each_quantity():
    panels = [("images", [1, 2, 3]), ("share", [0.5, None, 0.1])]
    found = texts(run_chart("", ["20 Nov", "21 Nov", "22 Nov"], panels))
    assert {"images", "share", "20 Nov", "22 Nov"} <= set(found)
    assert texts(run_chart("", ["20 Nov"], [("images", [0])]))
