import io
import json
import logging
import sys
from collections.abc import Iterator
from datetime import datetime

import pytest

from pipeline import logs
from pipeline.logs import TextFormatter


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What a handler of ours writes, as text at first."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    yield stream
    logs.use("text")
    root.removeHandler(handler)


def lines(log: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_is_logged_of_an_exception_has_no_secrets(log: io.StringIO, log_format: logs.LogFormat) -> None:
    logs.use(log_format)
    try:
        raise OSError("https://h/a.jpg?sig=hidden")
    except OSError as error:
        logging.getLogger("pipeline").error("%s", error, exc_info=True)
    assert "hidden" not in log.getvalue()
    assert "Traceback (most recent call last)" in log.getvalue()
    assert "OSError: https://h/a.jpg" in log.getvalue()


def test_text_is_the_message(log: io.StringIO) -> None:
    logging.getLogger("pipeline").warning("%d images", 3)
    logging.getLogger("pipeline").error("no images")
    assert log.getvalue() == "3 images\nError: no images\n"


def test_json_is_an_object_a_line(log: io.StringIO) -> None:
    logs.use("json")
    logging.getLogger("pipeline.inference.run").warning("é\n%d", 3)
    with logs.of_run("r1"):
        logging.getLogger("pipeline.inference.run").error("no")
    first, second = lines(log)
    assert datetime.fromisoformat(str(first.pop("time"))).utcoffset() is not None
    assert first == {"level": "warning", "logger": "pipeline.inference.run", "message": "é\n3", "run_id": None}
    assert (second["level"], second["run_id"]) == ("error", "r1")


def test_what_nobody_caught_is_a_line_too(log: io.StringIO) -> None:
    logs.use("json")
    try:
        raise ZeroDivisionError("https://h/a?sig=hidden")
    except ZeroDivisionError as error:
        logs._log_uncaught(type(error), error, error.__traceback__)
    (line,) = lines(log)
    assert line["level"] == "critical"
    assert "ZeroDivisionError: https://h/a" in str(line["traceback"])
    assert "hidden" not in log.getvalue()


def test_progress_is_part_of_a_log_of_json(log: io.StringIO, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pipeline")
    stream = io.StringIO()
    logs.write_line(stream, "5 of 10 images")
    assert stream.getvalue() == "5 of 10 images\n"
    logs.use("json")
    logs.write_line(stream, "6 of 10 images")
    assert stream.getvalue() == "5 of 10 images\n"
    assert [line["message"] for line in lines(log)] == ["6 of 10 images"]


def test_a_terminal_is_written_to_line_by_line_in_a_log_of_json(
    log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert logs.can_rewrite(sys.stderr)
    logs.use("json")
    assert not logs.can_rewrite(sys.stderr)
