"""The command `demo`."""

from pathlib import Path

import click
import cloup

from jobs.commands.options import command
from pipeline.errors import SettingError, reason


@command("demo", "demo --output /tmp/demo")
@cloup.option(
    "--output", default="demo-out", show_default=True, type=click.Path(path_type=Path), help="Folder to fill."
)
def demo(output: Path) -> None:
    """Draw 200 pictures, detect, query, and compare with what was drawn; on this machine alone."""
    from jobs.demo.run import demo as run

    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError(f"output {str(output)!r} can't be made: {reason(error)}") from error
    run(output)
