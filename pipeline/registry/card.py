"""The card of a model: what people read on its page in the Hugging Face Hub, made from `model.json`."""

import json

from model.package_files import PackageFiles
from pipeline.redaction import redacted_json

FRONT = """---
library_name: ssd-batch
pipeline_tag: object-detection
tags: [object-detection, ssd, vgg16]
---
"""
FIGURES = {
    "map": "COCO mAP, IoU 0.5 to 0.95", "map50": "COCO mAP, IoU 0.5", "voc_map_all": "VOC mAP, IoU 0.5, all points",
}  # fmt: skip
NUM_CLASSES = 40
"""The number of classes that a card lists."""


def card(files: PackageFiles, url: str) -> str:
    """Return a package's card, as Markdown.

    Args:
        files: the package.
        url: the place where it will be, such as hf://me/blood.
    """
    record = files.record
    architecture, metrics = record.architecture, record.metrics
    kind = architecture.kind.partition("_")[0].upper()
    names = list(record.class_names)
    listed = ", ".join(names[:NUM_CLASSES]) + (", …" if len(names) > NUM_CLASSES else "")
    form = "int8, for CPUs" if record.quantized else f"width {architecture.width:g}"
    lines = [
        FRONT,
        f"# {record.name}",
        "",
        f"{kind} with a VGG16 trunk ({form}), which detects {len(names)} classes: {listed}.",
        "",
        "```console",
        f"$ ssd-batch infer --input photos --table tables/photos --model {url}",
        "```",
        "",
        f"Digest: `{files.digest}`",
    ]
    if measured := [(text, metrics[name]) for name, text in FIGURES.items() if metrics.get(name) is not None]:
        lines += [
            "",
            "## Quality",
            "",
            f"Measured on {metrics.get('num_images', '?')} images: {metrics.get('data', 'unnamed')}",
            "",
        ]
        lines += ["| | |", "|---|---|", *(f"| {text} | {value:.3f} |" for text, value in measured)]
        per_class, best = metrics.get("per_class", {}), metrics.get("best_scores", {})
        if per_class:
            lines += ["", "| class | AP, IoU 0.5 | best score |", "|---|---|---|"]
            lines += [f"| {name} | {_number(value)} | {_number(best.get(name))} |" for name, value in per_class.items()]
    if record.provenance:
        origin = json.dumps(redacted_json(record.provenance), indent=2, ensure_ascii=False)
        lines += ["", "## Origin", "", "```json", origin, "```"]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
