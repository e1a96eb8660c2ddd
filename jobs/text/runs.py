"""Runs as text for people: their list, the time of a run and how to shorten it, and the estimate of a dry run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jobs.text.columns import columns, number
from pipeline.inference.summary import DryRunSummary
from pipeline.table.find_runs import Record

BUSY_SHARE = 0.8
"""The share of busy time from which detectors are treated as the bottleneck of a run."""
LARGE_SHARE = 0.5
"""The share of a run's time above which a stage is worth a change by itself."""


def describe_runs(records: Sequence[Record]) -> str:
    """Return a header and one line per run."""
    header = ("run", "date", "outcome", "model", "planned", "ok", "failed", "seconds", "images/s", "cost")
    return columns([header, *map(_line, records)], num_names=4)


def _line(record: Record) -> tuple[str, ...]:
    counts = (number(record[name], ",") for name in ("planned", "ok", "failed"))
    model = f"{record['model_name']} {(record['model_digest'] or '')[:8]}"
    rates = (number(record[name], ".1f") for name in ("wall_s", "images_per_s"))
    return (
        record["run_id"],
        str(record["run_date"] or "–"),
        record["outcome"],
        model,
        *counts,
        *rates,
        number(record["cost"], ".2f"),
    )


@dataclass(frozen=True)
class Bottleneck:
    """The stage that a run waited for most."""

    stage: str
    """The stage: start-up, detecting, reading, decoding or committing."""
    why: str
    """The measurements that show it."""
    change: str
    """The advice on what to change."""


def bottleneck(record: Record) -> Bottleneck | None:
    """Return the bottleneck by the first fixed rule that fits; None where the record has no measurements."""
    wall_s, start_up_s, stream_s = (record[name] or 0.0 for name in ("wall_s", "start_up_s", "stream_s"))
    if record["start_up_s"] is None:
        return None
    if start_up_s > LARGE_SHARE * (wall_s or start_up_s + stream_s):
        return Bottleneck(
            "start-up",
            f"{start_up_s:.0f} s went by before the first results, and {stream_s:.0f} s from then on",
            "run less often, so that a run has more images; or keep the cluster's nodes up, so that they need not be waited for",
        )
    if (record["detector_busy_share"] or 0.0) >= BUSY_SHARE:
        return Bottleneck(
            "detecting",
            f"the {record['num_detectors']} detectors were busy for {record['detector_busy_share']:.0%} of the time",
            "give more GPUs, or cores where there are none, and num_detectors if it is set; on GPUs try a larger batch_size",
        )
    if record["commit_s"] > LARGE_SHARE * stream_s:
        return Bottleneck(
            "committing",
            f"commits took {record['commit_s']:.0f} s of {stream_s:.0f} s",
            "raise commit_interval_s, and compact the table (ssd-batch maintain): many small files make commits slow",
        )
    return _before_the_detectors(record)


def _before_the_detectors(record: Record) -> Bottleneck:
    share = f"the detectors were busy for {record['detector_busy_share'] or 0:.0%} of the time only"
    took = f"images took {record['fetch_s']:.0f} s to wait for and {record['decode_s']:.0f} s to decode"
    if record["fetch_s"] > record["decode_s"]:
        retries = record["num_retries"]
        slow = f"; {retries:,} requests had to be repeated, so storage may be throttling" if retries else ""
        return Bottleneck(
            "reading",
            f"{share}; {took}{slow}",
            "run where the storage is (same region), or add nodes: each process reads up to 64 images at once",
        )
    return Bottleneck(
        "decoding",
        f"{share}; {took}",
        "add cores, by nodes without GPUs for example; store smaller pictures; or take fewer detectors",
    )


def describe_run(record: Record) -> str:
    """Return all figures of a record, with where the time went and what to change."""
    return "\n".join(_story(record))


def _story(record: Record) -> Iterator[str]:
    model = f"model {record['model_name']} {(record['model_digest'] or '')[:12]}"
    yield f"run {record['run_id']} of {record['run_date'] or '–'}: {record['outcome']}, {model}, on {record['host']}"
    if record["error"]:
        yield f"error: {record['error']}"
    if record["outcome"] == "running":
        yield "it runs, or was killed: its end was never written"
    counts = (
        f"{number(record[name], ',')} {name.replace('_', ' ')}"
        for name in ("listed", "already_done", "planned", "ok", "failed")
    )
    yield f"images: {', '.join(counts)}"
    found = bottleneck(record)
    if found is None:
        yield "times: none, as nothing was detected, or an earlier version has recorded it"
        return
    yield (
        f"times: {record['start_up_s']:.1f} s to the first results, then {record['stream_s']:.1f} s at "
        f"{number(record['stream_images_per_s'], '.1f')} images/s; {number(record['wall_s'], '.1f')} s in all"
    )
    yield (
        f"summed over the images: waiting for bytes {record['fetch_s']:.1f} s, decoding {record['decode_s']:.1f} s, detecting "
        f"{record['detect_s']:.1f} s; commits {record['commit_s']:.1f} s"
    )
    yield (
        f"{record['num_detectors']} detectors on {record['num_nodes']} nodes, busy for {number(record['detector_busy_share'], '.0%')} "
        f"of the time; {record['bytes_read']:,} bytes read, {record['num_retries']:,} requests repeated"
    )
    of_peak = share_of_peak(record)
    if of_peak is not None:
        yield (
            f"speed: a detector at {of_peak:.0%} of its processor's peak with {record['engine']}, all images at "
            f"{number(record['detector_busy_share'], '.0%')} of the detectors"
        )
    yield f"cost: {number(record['cost'], '.2f')}, {number(record['cost_per_thousand'], '.4f')} per thousand images"
    yield f"bottleneck: {found.stage}: {found.why}"
    yield f"to change it: {found.change}"


def share_of_peak(record: Record) -> float | None:
    """Return the speed of a run's detectors as a share of what their processors multiply at most; None where it was not measured, or
    the run was stopped before it counted."""
    if record["ok"] is None or not record["peak_images_per_s"] or not record["detect_s"]:
        return None
    return float(record["ok"] / record["detect_s"] / record["peak_images_per_s"])


def describe_dry_run(summary: DryRunSummary) -> str:
    """Return the time and cost that a run would take, with more and more detectors."""
    num_bytes = "an unknown number of" if summary.planned_bytes is None else f"{summary.planned_bytes:,}"
    planned = f"a run would do {summary.planned:,} images, {num_bytes} bytes"
    if summary.measured is None:
        return f"{planned}; how long it takes is not known, as no run of this table has been measured yet"
    last_run = summary.measured
    first = f"{planned}; as fast as run {last_run.run_id} ({last_run.images_per_s:.1f} images/s a detector, model {last_run.model_digest[:12]}):"
    rows = [
        (f"{estimate.num_detectors:,}", f"{estimate.hours:.2f}", number(estimate.cost, ".2f"))
        for estimate in summary.estimates
    ]
    return f"{first}\n{columns([('detectors', 'hours', 'cost'), *rows], num_names=0)}"
