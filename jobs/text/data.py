"""The report of a data check, as JSON and as text."""

from typing import Any

from model.config import Architecture
from pipeline.labelled.check import DataReport
from pipeline.labelled.findings import FINDING_TEXTS, Finding

NUM_EXAMPLES = 5
"""The number of images that a finding names; the page shows pictures, too."""


def report_as_json(report: DataReport, output: str | None, architecture: Architecture) -> dict[str, Any]:
    """Return the report for JSON; `output` is the path or URL of the page."""
    return {
        "is_sound": report.is_sound,
        "findings": [
            {
                "kind": finding.kind,
                "level": finding.level,
                "split": finding.split,
                "count": finding.count,
                "examples": _examples(finding),
            }
            for finding in report.findings
        ],
        "splits": {
            name: {
                "num_images": split.num_images,
                "num_objects": split.num_objects,
                "class_counts": split.class_counts,
                "sizes": split.sizes,
                "advice": split.advice(architecture),
                "choices": {choice.setting: choice.value for choice in split.choices},
                "reasons": [str(choice) for choice in split.choices],
            }
            for name, split in report.splits.items()
        },
        "output": output,
    }


def _examples(finding: Finding) -> list[str]:
    return [": ".join(filter(None, (mark.uri, mark.why))) for mark in finding.marks[:NUM_EXAMPLES]]


def describe_report(report: dict[str, Any]) -> str:
    """Return a report of `report_as_json` as text for people."""
    lines = []
    for name, split in report["splits"].items():
        classes = ", ".join(f"{label} {count:,}" for label, count in split["class_counts"].items())
        lines.append(f"{name}: {split['num_images']:,} images, {split['num_objects']:,} objects ({classes})")
        if split["sizes"]["num_objects"]:
            sides = split["sizes"]["shorter_side_px"], split["sizes"]["longer_side_px"]
            lines.append(f"  sides at the network's input: {sides[0]['min']} to {sides[1]['max']} px")
        if split["advice"]:
            lines.append(f"  {split['advice']}")
        lines += [f"  train takes {reason}" for reason in split["reasons"]]
    for found in report["findings"]:
        lines.append(f"{found['level']}: {found['split']}: {FINDING_TEXTS[found['kind']][1]}: {found['count']:,}")
        lines += [f"  {example}" for example in found["examples"]]
    lines.append("nothing that would spoil a training" if report["is_sound"] else "the errors would spoil a training")
    return "\n".join(lines + ([f"page: {report['output']}"] if report["output"] else []))
