"""From a trained package to the rows of a night, and back: the commands as people run them."""

import json

import pytest

from model.package import ModelPackage
from pipeline.registry.packages import write_package
from pipeline.storage import store
from tests.e2e.command import ask, infer, jpeg, run

pytestmark = pytest.mark.slow


@pytest.fixture
def other(model, tmp_path):
    """The same network with another threshold: so its digest is another."""
    package = ModelPackage.from_files(
        {name: (model / name).read_bytes() for name in ("model.json", "model.safetensors")}
    )
    thresholds = package.record.thresholds.model_copy(update={"detections_per_img": 1})
    record = package.record.model_copy(update={"thresholds": thresholds, "metrics": {"map50": 0.9}})
    write_package(ModelPackage(record, package.weights), str(tmp_path / "other"))
    return tmp_path / "other"


@pytest.mark.s3
def test_nights_before_and_after_a_model_is_published_and_rolled_back(model, other, s3):
    bucket = s3.bucket()
    s3.put(bucket, {f"in/{seed}.jpg": jpeg(seed) for seed in range(3)})
    models, table = f"s3://{bucket}/models/blood", f"s3://{bucket}/table"
    arguments = ("--input", f"s3://{bucket}/in", "--table", table, "--model", f"{models}/latest")

    def command(*words: object) -> dict:
        code, out, err = run("model", *words, "--json")
        assert code == 0, err
        return json.loads(out)

    def night() -> list[object]:
        summary = infer(*arguments)
        return [summary[name] for name in ("model_digest", "already_done", "planned", "ok")]

    first = command("publish", "--model", model, "--to", models)["model_digest"]
    assert night() == [first, 0, 3, 3]
    second = command("publish", "--model", other, "--to", models, "--alias", "latest")["model_digest"]
    assert night() == [second, 0, 3, 3]
    assert command("rollback", f"{models}/latest") == {"alias": "latest", "from_digest": second, "to_digest": first}
    assert night() == [first, 3, 0, 0]

    sql = "SELECT model_digest, count(*) AS n, max(num_detections) AS most FROM history GROUP BY ALL ORDER BY most"
    assert [(row["model_digest"], row["n"]) for row in ask(table, sql)] == [(second, 3), (first, 3)]
    runs = ask(table, "SELECT model_digest, settings->>'model' AS model FROM runs ORDER BY started_at")
    expected = [{"model_digest": digest, "model": f"{models}/latest"} for digest in (first, second, first)]
    assert runs == expected, "the record of a run has the name as given, and what it stood for"

    listed = command("list", models)
    assert {row["model_digest"]: row["aliases"] for row in listed["models"]} == {first: ["latest"], second: []}
    assert [step["digest"] for step in listed["aliases"]["latest"]] == [first, second, first]


def test_what_people_are_told(model, other, tmp_path):
    models = tmp_path / "models"
    code, out, _ = run("model", "publish", "--model", model, "--to", models)
    first = out.split()[-1]
    assert (code, out) == (0, f"tiny published, {models}/{first}\nlatest is new\nmodel {first}\n")
    code, out, _ = run("model", "publish", "--model", model, "--to", models)
    assert f"tiny was published before: nothing written, {models}/{first}\nlatest stood for it already\n" in out
    code, out, _ = run("model", "publish", "--model", other, "--to", models)
    second = out.split()[-1]
    assert f"latest moved from {first}\n" in out
    code, out, _ = run("model", "list", models)
    newest, oldest, moves = (line.split("  ") for line in out.splitlines())
    assert (newest[:2], newest[3:]) == ([second[:12], "tiny"], ["map50 0.900", "latest"])
    assert (oldest[:2], oldest[3:]) == ([first[:12], "tiny"], [])
    assert moves[0].startswith(f"latest: {second[:12]} since ")
    assert f", before {first[:12]} since " in moves[0]
    code, out, _ = run("model", "rollback", f"{models}/latest")
    assert (code, out) == (0, f"latest moved back from {second} to {first}\n")
    code, out, err = run("infer", "--input", tmp_path, "--table", tmp_path / "t", "--model", f"{models}/latest")
    assert f"model {models}/latest is {first}" in err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("publish --model {tmp}/none --to {tmp}/models", "model.json"),
        ("publish --model {model} --to {tmp}/models --alias a/b", "alias: give letters"),
        ("publish --model {model} --to {tmp}/file/models", "can't be written"),
        ("rollback {tmp}/published/latest", "nothing before to roll back to"),
        ("rollback {tmp}/published/last", "there are: latest"),
        ("list {tmp}", "no model is published at"),
    ],
)
def test_wrong_settings(command, message, model, tmp_path):
    digest = "0" * 64
    content = {"number": 1, "digest": digest, "moved_at": "2026-01-02T03:04:05Z", "before": None}
    store.write(f"{tmp_path}/published/aliases/latest/00000001.json", json.dumps(content).encode())
    (tmp_path / "file").touch()
    code, _, err = run("model", *command.format(tmp=tmp_path, model=model).split())
    assert (code, message in err, "Traceback" in err) == (2, True, False), err
