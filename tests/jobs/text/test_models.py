"""How published models look to people and programs."""

import json
from datetime import UTC, datetime

from jobs.text.models import describe_models, models_as_json
from pipeline.registry.aliases import Move
from pipeline.registry.publish import PublishedModel

A, B = "a" * 64, "b" * 64
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
MODELS = [
    PublishedModel(B, "cells", NOON, {"map50": 0.91234, "per_class": {"rbc": 0.9}}, ["latest", "stable"]),
    PublishedModel(A, "cells", None, {"map50": float("nan")}, []),
]
MOVES = {
    "latest": [Move(number=2, digest=B, moved_at=NOON, before=1), Move(number=1, digest=A, moved_at=NOON, before=None)]
}


def test_people_see_a_line_a_model_and_a_line_an_alias() -> None:
    assert describe_models(MODELS, MOVES).splitlines() == [
        "bbbbbbbbbbbb  cells  2026-01-02 12:00  map50 0.912  latest  stable",
        "aaaaaaaaaaaa  cells  -  map50 nan",
        "latest: bbbbbbbbbbbb since 2026-01-02 12:00, before aaaaaaaaaaaa since 2026-01-02 12:00",
    ]


def test_of_many_moves_the_last_five_are_shown() -> None:
    steps = [Move(number=n, digest=f"{n}" * 64, moved_at=NOON, before=n - 1) for n in range(9, 0, -1)]
    line = describe_models([], {"latest": steps})
    assert (line.count("since"), "5" * 12 in line, "4" * 12 in line) == (5, True, False)


def test_programs_read_all_of_it() -> None:
    found = json.loads(json.dumps(models_as_json(MODELS, MOVES), allow_nan=False))
    assert found["models"][0] == {
        "model_digest": B,
        "model_name": "cells",
        "published_at": "2026-01-02T12:00:00+00:00",
        "metrics": {"map50": 0.91234, "per_class": {"rbc": 0.9}},
        "aliases": ["latest", "stable"],
    }
    assert found["models"][1]["metrics"] == {"map50": None}
    assert found["aliases"]["latest"][1] == {"digest": A, "moved_at": "2026-01-02T12:00:00+00:00"}
