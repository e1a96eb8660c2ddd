"""Pictures with boxes: those of detections, and those of annotations."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

MIN_DRAWN_PX = 8
"""The side in pixels with which a box is drawn if its own is smaller, or 0."""
MAX_MARGIN = 0.5
"""The largest share of a picture's side that is added at each edge for boxes that reach beyond it."""
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")


def draw_detections(image: Image.Image, detections: Iterable[dict[str, Any]], min_score: float) -> Image.Image:
    """Return a copy of a picture with boxes, labels and scores drawn in.

    Args:
        image: the picture as a viewer shows it.
        detections: the table's `detections` of the image; boxes in its pixels.
        min_score: the score below which detections are left out.
    """
    drawn = image.convert("RGB")
    pen = ImageDraw.Draw(drawn)
    font = ImageFont.load_default(size=max(10, drawn.height // 32))
    for found in detections:
        if found["score"] < min_score:
            continue
        colour = COLOURS[found["label_id"] % len(COLOURS)]
        corner = (found["xmin"], found["ymin"])
        pen.rectangle((*corner, found["xmax"], found["ymax"]), outline=colour, width=max(2, drawn.height // 200))
        text = f"{found['label']} {found['score']:.2f}"
        pen.rectangle(pen.textbbox(corner, text, font=font), fill=colour)
        pen.text(corner, text, fill="white", font=font)
    return drawn


def thumbnail(
    image: Image.Image,
    boxes_xyxy: NDArray[np.float64],
    texts: Sequence[str],
    side_px: int,
    colours: Sequence[str] | None = None,
) -> Image.Image:
    """Return a small picture with boxes drawn in, with gray around it where they reach beyond it.

    Args:
        image: the picture as a viewer shows it.
        boxes_xyxy: (N, 4) in its pixels. Boxes that are infinite or NaN are not drawn; those without area are visible.
        texts: the text at each box; a box with an empty text is thin.
        side_px: the longer side of the result.
        colours: the colour of each box; the same for all unless given.
    """
    is_drawn = np.isfinite(boxes_xyxy).all(axis=1)
    boxes, size = boxes_xyxy[is_drawn], np.array(image.size, dtype=np.float64)
    low = np.maximum(boxes[:, :2].min(axis=0, initial=0), -MAX_MARGIN * size)
    high = np.minimum(np.concatenate((boxes[:, 2:], size[None])).max(axis=0), (1 + MAX_MARGIN) * size)
    scale = side_px / (high - low).max()
    drawn = Image.new("RGB", _pair(np.maximum((high - low) * scale, 1)), "#bbbbbb")
    drawn.paste(image.convert("RGB").resize(_pair(np.maximum(size * scale, 1))), _pair(-low * scale))
    each = colours or [COLOURS[0]] * len(texts)
    for index, box in zip(np.flatnonzero(is_drawn).tolist(), (boxes - np.tile(low, 2)) * scale, strict=True):
        _draw_box(drawn, box, texts[index], each[index])
    return drawn


def _pair(values: NDArray[np.float64]) -> tuple[int, int]:
    return int(values[0]), int(values[1])


def _draw_box(image: Image.Image, box_xyxy: NDArray[np.float64], text: str, colour: str) -> None:
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=11)
    centre, half = (box_xyxy[:2] + box_xyxy[2:]) / 2, np.maximum(np.abs(box_xyxy[2:] - box_xyxy[:2]), MIN_DRAWN_PX) / 2
    pen.rectangle((_pair(centre - half), _pair(centre + half)), outline=colour, width=2 if text else 1)
    if not text:
        return
    left, top = _pair(centre - half)
    corner = (min(max(left, 0), image.width - 12), min(max(top - 13, 0), image.height - 12))
    pen.rectangle(pen.textbbox(corner, text, font=font), fill=colour)
    pen.text(corner, text, fill="white", font=font)
