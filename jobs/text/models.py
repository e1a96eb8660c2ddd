"""Published models, as text for people and programs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from jobs.text.values import plain
from pipeline.registry.aliases import Move
from pipeline.registry.publish import Published, PublishedModel

NUM_MOVES = 5
"""The number of moves that are shown per alias; JSON has all."""
NUM_DIGITS = 12
"""The number of digits that are shown of a digest in a table."""


def describe_published(done: Published) -> str:
    """Return the text on what publishing a model did. Digests have all digits, to be copied."""
    what = "published" if done.is_new else "was published before: nothing written"
    if done.alias_was == done.model_digest:
        moved = "stood for it already"
    else:
        moved = f"moved from {done.alias_was}" if done.alias_was else "is new"
    return f"{done.model_name} {what}, {done.url}\n{done.alias} {moved}\nmodel {done.model_digest}"


def describe_models(models: Sequence[PublishedModel], moves: dict[str, list[Move]]) -> str:
    """Return one line per model, and the last moves of each alias."""
    lines = [_line(model) for model in models]
    for alias, steps in moves.items():
        stood = (f"{step.digest[:NUM_DIGITS]} since {_minute(step.moved_at)}" for step in steps[:NUM_MOVES])
        lines.append(f"{alias}: {', before '.join(stood)}")
    return "\n".join(lines)


def _line(model: PublishedModel) -> str:
    metrics = (f"{name} {value:.3f}" for name, value in model.metrics.items() if isinstance(value, float))
    parts = (model.model_digest[:NUM_DIGITS], model.model_name, _minute(model.published_at), *metrics, *model.aliases)
    return "  ".join(parts)


def _minute(time: Any) -> str:
    return f"{time:%Y-%m-%d %H:%M}" if time else "-"


def models_as_json(models: Sequence[PublishedModel], moves: dict[str, list[Move]]) -> dict[str, Any]:
    """Return models, and the moves of each alias, for JSON; the newest move comes first."""
    steps = {
        alias: [step.model_dump(include={"digest", "moved_at"}) for step in found] for alias, found in moves.items()
    }
    found: dict[str, Any] = plain({"models": [asdict(model) for model in models], "aliases": steps})
    return found
