"""The commands' own help: what a person reads first."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from jobs.__main__ import cli
from jobs.reference import PAGE, reference


def commands(
    command: click.Command = cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, (*path, name))


ALL = dict(commands())
BELOW = [path for path in ALL if path]


def run(*arguments: str, columns: int = 80) -> tuple[int, str]:
    result = CliRunner().invoke(cli, arguments, env={"COLUMNS": str(columns)}, prog_name="ssd-batch")
    return result.exit_code, result.output


def parse(words: list[str]) -> None:
    """Raise where a command does not understand its flags."""
    program, *words = words
    assert program == "ssd-batch"
    command: click.Command = cli
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words, parent=click.Context(cli, **cli.context_settings))


def examples(path: tuple[str, ...]) -> list[list[str]]:
    """The examples at the end of a command's help, as words."""
    _, _, text = run(*path, "--help")[1].partition("Examples:\n")
    joined = text.replace("\\\n", " ")
    return [shlex.split(line.strip().removeprefix("$ ").partition(" > ")[0]) for line in joined.splitlines() if line]


def test_the_command_alone_says_what_to_do_first() -> None:
    code, text = run()
    lines = text.splitlines()
    copied = [shlex.split(line) for line in lines if line.startswith("  ssd-batch ")]
    assert (code, [words[1] for words in copied]) == (2, ["demo", "infer", "query"])
    assert len(lines) <= 10
    assert all(len(line) <= 80 for line in lines)
    for words in copied:
        parse(words)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
@pytest.mark.parametrize("columns", [80, 100])
def test_no_line_is_longer_than_the_terminal(path: tuple[str, ...], columns: int) -> None:
    code, text = run(*path, "--help", columns=columns)
    assert code == 0
    assert [line for line in text.splitlines() if len(line) > columns] == []


@pytest.mark.parametrize("path", BELOW, ids=" ".join)
def test_each_command_has_two_examples_that_it_understands(path: tuple[str, ...]) -> None:
    found = examples(path)
    assert len(found) == 2
    for words in found:
        parse(words)


@pytest.mark.parametrize("path", [path for path in BELOW if not isinstance(ALL[path], click.Group)], ids=" ".join)
def test_values_have_types(path: tuple[str, ...]) -> None:
    options = [param for param in ALL[path].params if isinstance(param, click.Option)]
    context = click.Context(ALL[path], **cli.context_settings)
    assert [option.name for option in options if option.make_metavar(context) == "TEXT" and not option.is_flag] == []


def test_flags_are_in_groups() -> None:
    text = run("infer", "--help")[1]
    headings = ["Images:", "Model and table:", "Days and columns:", "Failures:", "Limits:", "Cluster:"]
    assert [line for line in text.splitlines() if line in headings] == headings
    before_cluster, cluster = text.split("\nCluster:\n")
    assert "--num-detectors" in cluster
    assert "--num-detectors" not in before_cluster


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(("infre",), "infer"), (("infer", "--tabel", "x"), "--table"), (("data", "chek"), "check")],
)
def test_what_is_mistyped_is_answered_with_the_nearest(typed: tuple[str, ...], meant: str) -> None:
    code, text = run(*typed)
    assert code == 2
    assert meant in text.partition("Did you mean")[2]


def test_the_page_of_all_commands_is_that_of_this_code() -> None:
    assert PAGE.read_text() == reference(), "run python -m jobs.reference --write"


def test_the_shell_completes() -> None:
    words = {"COMP_WORDS": "ssd-batch infer --max-p", "COMP_CWORD": "2", "_SSD_BATCH_COMPLETE": "bash_complete"}
    command = [sys.executable, "-m", "jobs"]
    found = subprocess.run(command, env=os.environ | words, capture_output=True, text=True, timeout=120)
    assert found.stdout.split() == ["plain,--max-pixels", "plain,--max-planned"]
