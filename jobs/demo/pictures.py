"""Labelled pictures of drawn objects: any number, each made from its seed alone."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

CLASS_NAMES = ("circle", "square", "triangle", "star", "ring", "cross")
"""The six kinds of objects; no rotation turns one into another."""

MIN_VISIBLE = 0.6
"""The least share of an object's area that is visible: neither the border nor a later object hides more."""
MIN_CONTRAST = 60.0
"""The least distance of an object's colour from what it covers, in RGB levels, so that a person sees it."""
SUPERSAMPLING = 3

Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class LabelledPicture:
    """A picture and its objects."""

    image: Image.Image
    """The picture in RGB."""
    boxes_xyxy: NDArray[np.float32]
    """(N, 4) float32, in pixels, tight around each object's extent inside the picture, covered parts included."""
    labels: NDArray[np.int64]
    """(N,) int64; label i + 1 means CLASS_NAMES[i]."""


def draw_picture(seed: int) -> LabelledPicture:
    """Draw the picture of a seed: 320 to 640 by 240 to 480 pixels, one to eight objects, which may overlap in part."""
    random = np.random.default_rng(seed)
    width_px, height_px = int(random.integers(320, 641)), int(random.integers(240, 481))
    canvas = background(random, width_px, height_px)
    owner = np.full((height_px, width_px), -1)
    objects: list[Visibility] = []
    boxes, labels = [], []
    for _ in range(int(random.integers(1, 9))):
        label = int(random.integers(len(CLASS_NAMES)))
        side_px = int(min(width_px, height_px) * random.uniform(0.1, 0.45))
        mask = object_mask(CLASS_NAMES[label], side_px, random.uniform(0, 2 * math.pi))
        placed = _place(mask, owner, objects, random)
        if placed is None:
            continue
        left, top, visible = placed
        patch = canvas[top : top + visible.shape[0], left : left + visible.shape[1]]
        _paint(patch, visible, random)
        boxes.append(_tight_box(visible, left, top))
        labels.append(label + 1)
    return LabelledPicture(
        _photographed(canvas, random),
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array(labels, dtype=np.int64),
    )


def background(random: Generator, width_px: int, height_px: int) -> NDArray[np.float32]:
    """Return a background: (H, W, 3) float32 in 0 to 255.

    It is a gradient or blotches between two colours, perhaps striped, with grain.
    """
    first, second = random.uniform(20, 235, (2, 3))
    y, x = np.mgrid[0:height_px, 0:width_px].astype(np.float32)
    if random.random() < 0.5:
        angle = random.uniform(0, 2 * math.pi)
        blend = (math.cos(angle) * x / width_px + math.sin(angle) * y / height_px + 1) / 3
    else:
        coarse = Image.fromarray(random.integers(0, 256, (6, 8), dtype=np.uint8))
        blend = np.asarray(coarse.resize((width_px, height_px), Image.Resampling.BICUBIC), np.float32) / 255
    if random.random() < 0.4:
        angle, period_px = random.uniform(0, math.pi), random.uniform(8, 60)
        wave = np.sin((math.cos(angle) * x + math.sin(angle) * y) * 2 * math.pi / period_px)
        blend = blend + 0.15 * wave
    blend = blend.clip(0, 1)[..., None].astype(np.float32)
    grain = random.standard_normal((height_px, width_px, 1), dtype=np.float32) * random.uniform(0, 8)
    texture: NDArray[np.float32] = (first * (1 - blend) + second * blend + grain).astype(np.float32)
    return texture


def object_mask(kind: str, side_px: int, angle: float) -> Mask:
    """Return an object's mask: (H, W) uint8, 255 inside.

    The object is in a square patch, turned by `angle` (radians), with smooth edges.
    """
    patch_px = 2 * math.ceil(side_px * 0.75)
    size = patch_px * SUPERSAMPLING
    drawing = Image.new("L", (size, size))
    pen, centre, radius = ImageDraw.Draw(drawing), size / 2, side_px * SUPERSAMPLING / 2
    disc = (centre - radius, centre - radius, centre + radius, centre + radius)
    if kind == "circle":
        pen.ellipse(disc, fill=255)
    elif kind == "ring":
        pen.ellipse(disc, fill=255)
        inner = radius * 0.55
        pen.ellipse((centre - inner, centre - inner, centre + inner, centre + inner), fill=0)
    else:
        turned = [
            (centre + radius * r * math.cos(angle + a), centre + radius * r * math.sin(angle + a))
            for r, a in _corners(kind)
        ]
        pen.polygon(turned, fill=255)
    return np.asarray(drawing.reduce(SUPERSAMPLING))


def _corners(kind: str) -> list[tuple[float, float]]:
    """Return a polygon's corners as (radius, angle), the farthest at radius 1 to 1.2."""
    if kind == "square":
        return [(1.15, math.pi / 4 + k * math.pi / 2) for k in range(4)]
    if kind == "triangle":
        return [(1.2, k * 2 * math.pi / 3) for k in range(3)]
    if kind == "star":
        return [(1.2 if k % 2 == 0 else 0.5, k * math.pi / 5) for k in range(10)]
    assert kind == "cross", kind
    arm, half = 1.1, 0.33
    corners = [(arm, -half), (arm, half), (half, half)]
    return [(math.hypot(x, y), math.atan2(y, x) + quarter * math.pi / 2) for quarter in range(4) for x, y in corners]


@dataclass
class Visibility:
    """The number of an object's pixels."""

    area: int
    """The number of all its pixels."""
    visible: int
    """The number of its pixels that nothing hides."""


def _place(
    mask: Mask, owner: NDArray[np.int64], objects: list[Visibility], random: Generator
) -> tuple[int, int, Mask] | None:
    """Find a place where this object and all earlier ones stay visible, and take it.

    Returns:
        left, top, and the mask cut at the border; None where no place was found. `owner` and `objects` are updated.
    """
    height_px, width_px = owner.shape
    area = int((mask > 127).sum())
    for _ in range(10):
        left = int(random.integers(-mask.shape[1] // 3, width_px - mask.shape[1] * 2 // 3))
        top = int(random.integers(-mask.shape[0] // 3, height_px - mask.shape[0] * 2 // 3))
        cut = mask[max(0, -top) : height_px - top, max(0, -left) : width_px - left]
        left, top, inside = max(0, left), max(0, top), cut > 127
        below = owner[top : top + cut.shape[0], left : left + cut.shape[1]]
        hidden = np.bincount(below[inside] + 1, minlength=len(objects) + 1)[1:]
        if inside.sum() < MIN_VISIBLE * area:
            continue
        if any(o.visible - h < MIN_VISIBLE * o.area for o, h in zip(objects, hidden, strict=True)):
            continue
        for earlier, count in zip(objects, hidden, strict=True):
            earlier.visible -= int(count)
        below[inside] = len(objects)
        objects.append(Visibility(area, int(inside.sum())))
        return left, top, cut
    return None


def _paint(patch: NDArray[np.float32], mask: Mask, random: Generator) -> None:
    """Fill the mask with a colour that stands out from what it covers, shaded from one side."""
    covered = patch[mask > 127]
    colour = random.uniform(0, 255, 3)
    while min(np.linalg.norm(colour - covered.mean(0)), np.linalg.norm(colour - np.median(covered, 0))) < MIN_CONTRAST:
        colour = random.uniform(0, 255, 3)
    shade = random.uniform(-15, 15) * np.linspace(-1, 1, mask.shape[1])[None, :, None]
    alpha = mask[..., None].astype(np.float32) / 255
    patch[:] = patch * (1 - alpha) + (colour + shade) * alpha


def _tight_box(mask: Mask, left: int, top: int) -> tuple[float, float, float, float]:
    """Return the tight box of a mask: xyxy in pixels of the picture, the right and lower border outside."""
    inside = mask > 127
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1


def _photographed(canvas: NDArray[np.float32], random: Generator) -> Image.Image:
    """Return the picture with the light and softness of a cheap camera."""
    lit = canvas * random.uniform(0.8, 1.2)
    picture = Image.fromarray(lit.clip(0, 255).astype(np.uint8))
    return picture.filter(ImageFilter.GaussianBlur(random.uniform(0, 1.0)))
