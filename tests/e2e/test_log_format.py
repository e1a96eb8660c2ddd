"""Log lines of the command as others read them."""

import json
from pathlib import Path

import pytest

from tests.e2e.command import jpeg, run

AS_JSON = {"SSD_BATCH_LOG_FORMAT": "json"}
SIGNED = "http://user:hidden@127.0.0.1:1/photos?X-Amz-Signature=hidden"


@pytest.mark.slow
def test_each_line_of_a_run_is_an_object_with_its_id(model: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(4):
        (pictures / f"{number}.jpg").write_bytes(jpeg(number))
    command = ("infer", "--input", pictures, "--table", tmp_path / "table", "--model", model, "--json")
    code, out, err = run("--log-format", "json", *command)
    assert code == 0, err
    lines = [json.loads(line) for line in err.splitlines()]
    assert {line["run_id"] for line in lines} == {json.loads(out)["run_id"]}
    messages = [line["message"] for line in lines]
    assert any("4 planned" in message for message in messages)
    assert any("4 of 4 images" in message for message in messages)
    assert all(line["level"] == "info" for line in lines)


@pytest.mark.parametrize("variables", [{}, AS_JSON], ids=["text", "json"])
def test_an_error_has_no_secrets(variables: dict[str, str]) -> None:
    code, out, err = run("runs", "--table", SIGNED, environment=variables)
    assert (code, out, "http://127.0.0.1:1/photos" in err) == (2, "", True), err  # no place for a table
    assert "hidden" not in err
    if variables:
        (line,) = (json.loads(line) for line in err.splitlines())
        assert (line["level"], line["logger"], line["run_id"]) == ("error", "jobs", None)
    else:
        assert err.startswith("Error: ")
