import numpy as np
import pytest
from PIL import Image

from jobs.pages.draw import COLOURS, thumbnail

RED = tuple(int(COLOURS[0][index : index + 2], 16) for index in (1, 3, 5))


def drawn(*boxes: list[float], size_px: tuple[int, int] = (100, 50)) -> Image.Image:
    image = Image.new("RGB", size_px, "white")
    return thumbnail(image, np.array(boxes, dtype=np.float64).reshape(-1, 4), ["cat"] * len(boxes), 200)


def test_a_box_is_where_it_is():
    image = drawn([20, 20, 60, 40])
    assert image.size == (200, 100)
    assert [image.getpixel(point) for point in ((40, 60), (119, 60), (80, 80), (80, 60))] == [
        RED,
        RED,
        RED,
        (255, 255, 255),
    ]


def test_without_boxes_it_is_the_picture():
    assert drawn().getcolors() == [(200 * 100, (255, 255, 255))]
    assert drawn([float("nan"), 1, 2, 3]).getcolors() == [(200 * 100, (255, 255, 255))]


@pytest.mark.parametrize("box", [[50, 20, 50, 20], [50, 20, 50, 30], [60, 30, 50, 20]])
def test_what_has_no_area_is_seen(box):
    assert RED in [colour for _, colour in drawn(box).getcolors()]


def test_the_picture_grows_for_boxes_beyond_it_up_to_a_half():
    """A quarter to the right: 125 pixels of which each becomes 1.6; far away: half as much again on that side."""
    image = drawn([90, 10, 125, 40])
    assert image.size == (200, 80)
    assert image.getpixel((190, 5)) == (187, 187, 187)
    assert drawn([90, 10, 9000, 40]).size == (200, 66)


def test_a_picture_of_one_row():
    assert drawn([0, 0, 1000, 1], size_px=(1000, 1)).size == (200, 1)


def test_each_box_has_its_colour_and_without_a_text_is_thin():
    boxes = np.array([[10, 20, 40, 40], [60, 20, 90, 40]], dtype=np.float64)
    image = thumbnail(Image.new("RGB", (100, 50), "white"), boxes, ["cat", ""], 100, ["#ff0000", "#0000ff"])
    assert [image.getpixel((left, 30)) for left in (10, 11, 12)] == [(255, 0, 0), (255, 0, 0), (255, 255, 255)]
    assert [image.getpixel((left, 30)) for left in (60, 61)] == [(0, 0, 255), (255, 255, 255)]
