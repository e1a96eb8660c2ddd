"""The differences between two models, as text."""

from jobs.text.columns import columns, number
from pipeline.inference.canary import Comparison, Side


def describe_comparison(comparison: Comparison) -> str:
    """Return the differences between two models, as text for people."""
    differing = [f"{image.num_differences:>5,}  {image.uri}" for image in comparison.differing]
    return "\n".join(
        [
            verdict(comparison),
            columns([header(comparison), *figures(comparison)]),
            *(["boxes that only one has, and where:"] if differing else []),
            *differing,
        ]
    )


def verdict(comparison: Comparison) -> str:
    """Return a sentence that says in how many images two models agree."""
    return (
        f"{comparison.num_compared:,} of {comparison.num_images:,} images compared: the models agree in "
        f"{_share(comparison.agreement)} of them, that is, find the same boxes (IoU above 0.5, same class, score from "
        f"{comparison.score_thresh:g} on)"
    )


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def header(comparison: Comparison) -> tuple[str, str, str]:
    """Return the header above `figures`: an empty cell, and the name of each side."""
    return "", _name(comparison.against), _name(comparison.new)


def _name(side: Side) -> str:
    return f"{side.model_name} {side.model_digest[:8]}"


def figures(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Return rows with a name and the value of each side."""
    old, new = comparison.against, comparison.new
    classes = sorted({*old.per_class, *new.per_class})
    return [
        ("failed images", f"{old.failed:,}", f"{new.failed:,}"),
        ("images/s", number(old.images_per_s, ".1f"), number(new.images_per_s, ".1f")),
        ("mean score", number(old.mean_score, ".3f"), number(new.mean_score, ".3f")),
        ("detections", f"{old.num_detections:,}", f"{new.num_detections:,}"),
        *((name, f"{old.per_class.get(name, 0):,}", f"{new.per_class.get(name, 0):,}") for name in classes),
    ]
