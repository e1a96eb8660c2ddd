"""Look through labelled images before a training."""

from collections.abc import Sequence
from typing import Any

from jobs.check_page import render
from jobs.class_names import read_class_names
from jobs.page import write_page
from jobs.settings import DataCheckSettings
from model.config import Architecture
from pipeline.data_check import DataReport, check_data
from pipeline.findings import KINDS, Finding
from pipeline.packages import read_package

NUM_EXAMPLES = 5
"""Images that a finding names; its page shows pictures, too."""


def check(settings: DataCheckSettings) -> dict[str, Any]:
    """Check the data and write the page; what was found, as JSON has it.

    Raises:
        SettingError: the data, the model or the class names can't be read, or the page can't be written.
    """
    known, architecture = _expected(settings)
    if settings.output:  # What can't be written is told before hours of reading.
        write_page(settings.output, "This data check has not ended.", "output")
    report = check_data(settings.data, settings.split, known, architecture)
    if settings.output:
        write_page(settings.output, render(report, settings.data, architecture), "output")
    return _as_json(report, settings.output, architecture)


def _expected(settings: DataCheckSettings) -> tuple[Sequence[str] | None, Architecture]:
    """Known classes, and the network that is to learn."""
    if settings.model:
        record = read_package(settings.model).record
        return record.class_names, record.architecture
    names = read_class_names(settings.class_names) if settings.class_names else None
    return names, Architecture(kind=settings.architecture)


def _as_json(report: DataReport, output: str | None, architecture: Architecture) -> dict[str, Any]:
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
            }
            for name, split in report.splits.items()
        },
        "output": output,
    }


def _examples(finding: Finding) -> list[str]:
    return [": ".join(filter(None, (mark.uri, mark.why))) for mark in finding.marks[:NUM_EXAMPLES]]


def describe_report(report: dict[str, Any]) -> str:
    """The same for people."""
    lines = []
    for name, split in report["splits"].items():
        classes = ", ".join(f"{label} {count:,}" for label, count in split["class_counts"].items())
        lines.append(f"{name}: {split['num_images']:,} images, {split['num_objects']:,} objects ({classes})")
        if split["sizes"]["num_objects"]:
            sides = split["sizes"]["shorter_side_px"], split["sizes"]["longer_side_px"]
            lines.append(f"  sides at the network's input: {sides[0]['min']} to {sides[1]['max']} px")
        if split["advice"]:
            lines.append(f"  {split['advice']}")
    for found in report["findings"]:
        lines.append(f"{found['level']}: {found['split']}: {KINDS[found['kind']][1]}: {found['count']:,}")
        lines += [f"  {example}" for example in found["examples"]]
    lines.append("nothing that would spoil a training" if report["is_sound"] else "the errors would spoil a training")
    return "\n".join(lines + ([f"page: {report['output']}"] if report["output"] else []))
