import re
from xml.etree import ElementTree

import pytest

from jobs.pages.chart import Axis, Line, LogAxis, line_chart, top_of

UNIT = Axis("x", 0, 1)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 1500, [0, 500, 1000, 1500]),
        (0, 0.02, [0, 0.005, 0.01, 0.015, 0.02]),
        (3, 7, [3, 4, 5, 6, 7]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert Axis("", low, high).ticks() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "top"), [([0.93], 1), ([12.3, 7], 15), ([0.02], 0.02), ([], 1), ([0.0], 1), ([float("nan"), 4], 4)]
)
def test_the_top_holds_all_values(values: list[float], top: float) -> None:
    assert top_of(values) == pytest.approx(top)


def test_on_a_log_axis_the_same_factor_is_the_same_way() -> None:
    axis = LogAxis("", 0.1, 10)
    assert [axis.share(value) for value in (0.1, 1, 10)] == pytest.approx([0, 0.5, 1])
    assert axis.ticks() == pytest.approx([0.1, 0.2, 0.5, 1, 2, 5, 10])
    assert not any(0 <= axis.share(value) <= 1 for value in (0, -1, float("nan"), float("inf"), 0.09))


def test_points_are_where_they_are() -> None:
    """The frame is 490.5 by 190 pixels: on its left the longest number, 0.2, has room beside the title."""
    svg = line_chart("chart", [Line("a", [(0, 0), (0.5, 1), (1, 0.5)])], UNIT, UNIT)
    assert re.findall(r'polyline points="([^"]+)"', svg) == ["49.5,200.0 294.8,10.0 540.0,105.0"]


@pytest.mark.parametrize("high", [1e-5, 0.00025, 1, 12_000, 3.5e9])
def test_numbers_have_room_beside_the_title(high: float) -> None:
    svg = line_chart("", [Line("a", [(0, 0), (1, high)])], UNIT, Axis("a long title", 0, top_of([high])))
    numbers = re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="end">([^<]+)</text>', svg)
    title_px = 12 + 6  # its middle, and half of a letter's height
    assert numbers
    assert min(float(end) - 6.5 * len(text) for end, text in numbers) > title_px


def test_it_is_well_formed_and_names_its_lines() -> None:
    svg = line_chart(
        "a & b", [Line("<cat>", [(0, 0), (1, 1)]), Line("dog", [(0.5, 0.5)]), Line("none", [])], UNIT, UNIT
    )
    root = ElementTree.fromstring(svg)
    assert root.attrib["aria-label"] == "a & b"
    texts = [element.text for element in root.iter() if element.tag == "text"]
    assert [text for text in texts if text in ("<cat>", "dog", "none")] == ["<cat>", "dog", "none"]
    assert svg.count("<circle") == 1


def test_what_is_outside_is_not_drawn() -> None:
    svg = line_chart("", [Line("a", [(0, 0), (0.5, 9), (0.75, float("nan")), (1, 1)])], UNIT, UNIT)
    assert re.findall(r'polyline points="([^"]+)"', svg) == ["49.5,200.0 540.0,10.0"]
