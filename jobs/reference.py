"""Write the page of all commands, docs/cli.md: `python -m jobs.reference --write`. Without `--write`, print it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from jobs.__main__ import cli

PAGE = Path(__file__).parents[1] / "docs/cli.md"
HEAD = """# Every command and flag

This page is generated from the commands: `python -m jobs.reference --write`. A setting `max_planned` of a spec is the flag `--max-planned`.
`ssd-batch COMMAND --help` shows the same in a terminal. [Environment variables](#environment-variables) and
[shell completion](#shell-completion) are below.
"""
TAIL = """## Environment variables

| variable | what it decides |
|---|---|
| `SSD_BATCH_LOG_FORMAT` | `--log-format` |
| `RAY_ADDRESS` | the cluster that `--address auto` means |
| `RAY_API_SERVER_ADDRESS` | `--address` of `submit`, `status`, `logs` and `stop` |
| `AWS_…` | where S3 is, and its credentials: [s3.md](s3.md) |
| `HF_TOKEN` | the token for `hf://` |
| `MLFLOW_EXPERIMENT_NAME` | the experiment of `--mlflow`, `ssd-batch` unless it is set |
| `XDG_CACHE_HOME` | the folder above `ssd-batch/explore`, where `explore` keeps its copies; `~/.cache` unless it is set |
| `TMPDIR` | the folder for listings, plans and sockets |

## Shell completion

For bash; put the line into `~/.bashrc`:

```console
$ eval "$(_SSD_BATCH_COMPLETE=bash_source ssd-batch)"
```

For zsh the word is `zsh_source`, and the file `~/.zshrc`. For fish:

```console
$ _SSD_BATCH_COMPLETE=fish_source ssd-batch > ~/.config/fish/completions/ssd-batch.fish
```
"""


def reference() -> str:
    """Return the page, in Markdown."""
    context = click.Context(cli, info_name="ssd-batch", **cli.context_settings)
    parts = [HEAD, *_command(cli, context, "ssd-batch")]
    for section in cli.list_sections(context):
        for command in section.commands.values():
            parts += _tree(command, context)
    return "\n".join([*parts, TAIL])


def _tree(command: click.Command, above: click.Context) -> Iterator[str]:
    """Yield a command and the commands below it."""
    context = click.Context(command, info_name=command.name, parent=above)
    yield from _command(command, context, context.command_path)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            yield from _tree(command.commands[name], context)


def _command(command: click.Command, context: click.Context, path: str) -> Iterator[str]:
    """Yield the heading, the usage, the examples and the flags of one command."""
    yield f"## {path}\n\n{command.help}\n"
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    if any(isinstance(param, click.Argument) for param in command.params):
        yield f"Usage: `{usage}`\n"
    shown = (command.epilog or "").removeprefix("\b\nExamples:\n").splitlines()
    examples = [line.removeprefix("  ") for line in shown]
    yield "\n".join(["```console", *(examples or [f"$ {usage}"]), "```\n"])
    groups = [(group.title, group.options) for group in getattr(command, "option_groups", ())]
    ungrouped = [
        param
        for param in command.get_params(context)
        if isinstance(param, click.Option)
        and "--help" not in param.opts  # which all have
        and not any(param in options for _, options in groups)
    ]
    for title, options in [*groups, ("Other flags", ungrouped)]:
        if rows := [row for option in options if (row := _row(option, context))]:
            yield "\n".join([f"| {title} | |", "|---|---|", *rows, ""])


def _row(option: click.Parameter, context: click.Context) -> str:
    """Return a flag and its help as a row of a table."""
    record = option.get_help_record(context)
    if record is None:
        return ""
    flag, text = (" ".join(part.split()).replace("|", "\\|") for part in record)
    return f"| `{flag}` | {text} |"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(reference())
    else:
        print(reference())
