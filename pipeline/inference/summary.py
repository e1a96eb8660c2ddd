"""The summary of what a run did, or would do, in figures and in words."""

from dataclasses import dataclass

from pipeline.inference.estimate import Estimate, Throughput
from pipeline.inference.plan import Plan


@dataclass(frozen=True)
class Summary:
    """The summary of what a run did. At its end, listed = already_done + ok + failed."""

    run_id: str
    table: str
    model_digest: str
    listed: int
    skipped: int
    already_done: int
    """The number of images that were ok, or had failed permanently, before the run."""
    planned: int
    ok: int
    failed: int
    wall_s: float
    images_per_s: float


@dataclass(frozen=True)
class DryRunSummary(Summary):
    """The summary of what a run would do."""

    planned_bytes: int | None
    """The bytes of the planned images; None where a size is not known."""
    measured: Throughput | None
    """The run that the estimates follow; None where there is none."""
    estimates: list[Estimate]


def explain(plan: Plan, skipped: int) -> str:
    """Return the plan in a sentence."""
    from pipeline.inference.path_columns import TYPE_NAMES

    nothing = "; nothing to do" if not plan.planned else ""
    columns = ", ".join(f"{field.name} ({TYPE_NAMES[field.type]})" for field in plan.path_columns)
    unfit = f" ({plan.num_unfit:,} images without)" if plan.num_unfit else ""
    from_paths = f"; columns from paths: {columns}{unfit}" if columns else ""
    return (
        f"{plan.listed:,} images listed ({skipped:,} other files skipped): {plan.already_ok:,} already detected, "
        f"{plan.already_failed:,} failed for good before, {plan.planned:,} planned{nothing}{from_paths}"
    )
