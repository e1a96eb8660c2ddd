"""Measure the postprocessing of raw outputs next to torchvision's, on the same outputs, with one thread.

The heads are those of a trained network, of which few boxes pass `score_thresh`, or fresh ones, of which all may pass.
Times are CPU seconds, so that other processes of the machine matter little.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.models.detection import ssd300_vgg16
from torchvision.models.detection.ssd import SSD

from model.boxes import cxcywh_to_xyxy
from model.config import Architecture, Thresholds
from model.default_boxes import default_boxes
from model.postprocess import postprocess
from tests.benchmarks.sides import report, spread

NUM_CLASSES, SIZE_PX = 91, 300
LEADS = {"sparse": 16.0, "fresh": 0.0}
"""What is added to the background's logit: with 16, some 20 scores per image pass 0.01, and with 0 some 35,000."""
SPREADS = {"sparse": 2.0, "fresh": 0.3}
"""The standard deviation of logits."""


def outputs(heads: str, batch_size: int) -> tuple[Tensor, Tensor]:
    """Return offsets (B, 8732, 4) and logits (B, 8732, 91) of trained or fresh heads."""
    generator = torch.Generator().manual_seed(0)
    offsets = torch.randn(batch_size, 8732, 4, generator=generator)
    logits = torch.randn(batch_size, 8732, NUM_CLASSES, generator=generator) * SPREADS[heads]
    logits[..., 0] += LEADS[heads]
    return offsets, logits


def sides(reference: SSD, offsets: Tensor, logits: Tensor) -> dict[str, Callable[[], object]]:
    """Return the two sides, which take the same outputs."""
    boxes = default_boxes(Architecture())
    anchors_px = [cxcywh_to_xyxy(boxes) * SIZE_PX] * len(logits)
    sizes = [(SIZE_PX, SIZE_PX)] * len(logits)
    heads = {"bbox_regression": offsets, "cls_logits": logits}
    sizes_px = torch.full((len(logits), 2), float(SIZE_PX))
    return {
        "ours": lambda: postprocess(offsets, logits, boxes, sizes_px, Thresholds()),
        "torchvision": lambda: reference.postprocess_detections(heads, anchors_px, sizes),
    }


def equal(ours: object, theirs: object) -> bool:
    """Are the labels and scores of all detections the same, in their order?"""
    assert isinstance(ours, list)
    assert isinstance(theirs, list)
    return all(
        len(one.scores) == len(other["scores"]) and torch.allclose(one.scores, other["scores"], atol=1e-5)
        for one, other in zip(ours, theirs, strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=64, help="images per call")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON on the last line too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    reference = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=NUM_CLASSES).eval()
    lines, figures = [], {}
    for heads in LEADS:
        offsets, logits = outputs(heads, options.batch_size)
        num_passing = int((logits.softmax(dim=-1)[..., 1:] > Thresholds().score_thresh).sum()) // options.batch_size
        both = sides(reference, offsets, logits)
        took: dict[str, list[float]] = {side: [] for side in both}
        found: dict[str, object] = {}
        with torch.inference_mode():
            for number in range(options.rounds + 1):
                for side, run in both.items():
                    begun_s = time.thread_time()
                    found[side] = run()
                    if number:
                        took[side].append((time.thread_time() - begun_s) / options.batch_size * 1000)
        ratios = [theirs / ours for ours, theirs in zip(took["ours"], took["torchvision"], strict=True)]
        is_equal = equal(found["ours"], found["torchvision"])
        figures[heads] = {"cpu_ms": took, "torchvision_to_ours": ratios, "equal": is_equal, "passing": num_passing}
        lines.append(
            f"{heads:6} {num_passing:,} scores per image pass: ours {spread(took['ours'])} ms per image, torchvision {spread(took['torchvision'])}: "
            f"{spread(ratios, 1)} times; results are {'equal' if is_equal else 'NOT EQUAL'}"
        )
    report(lines, figures, options.json)


if __name__ == "__main__":
    main()
