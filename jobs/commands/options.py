"""The parts that several commands have: flags, arguments, examples."""

from collections.abc import Callable
from typing import Any

import click
import cloup

from jobs.specs.load import SPEC_FILE

table_option = cloup.option("--table", required=True, metavar="PATH_OR_URL", help="Table of results, local or s3://.")
json_option = cloup.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on the last line of standard output."
)
SPEC = cloup.argument("spec", type=SPEC_FILE)


def examples(*commands: str) -> str:
    """Return the end of a command's help, which shows how it is called.

    Args:
        commands: what follows `ssd-batch`, in lines that end with a backslash where they are long.
    """
    lines = "\n".join(f"  $ ssd-batch {command}" for command in commands)
    return f"\b\nExamples:\n{lines}"


def command(*shown: str, **more: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a click command with `examples`."""
    return cloup.command(epilog=examples(*shown), **more)
