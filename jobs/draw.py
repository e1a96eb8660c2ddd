"""Pictures of what was found."""

from collections.abc import Iterable
from typing import Any

from PIL import Image, ImageDraw, ImageFont

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")


def draw_detections(image: Image.Image, detections: Iterable[dict[str, Any]], min_score: float) -> Image.Image:
    """A copy of a picture with boxes, labels and scores drawn in.

    Args:
        image: as a viewer shows it.
        detections: the table's `detections` of the image; boxes in its pixels.
        min_score: weaker ones are left out.
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
