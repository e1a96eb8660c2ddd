"""The command `demo`."""

from pathlib import Path

import click
import cloup

from jobs.commands.options import command
from pipeline.errors import ended_by


@command("demo", "demo --output /tmp/demo")
@cloup.option(
    "--output", default="demo-out", show_default=True, type=click.Path(path_type=Path), help="Folder to fill."
)
def demo(output: Path) -> None:
    """Draw 200 pictures, detect, query, and compare with what was drawn; on this machine alone."""
    from jobs.demo.run import demo as run

    try:
        run(output)
    except OSError as error:
        raise ended_by(f"output {str(output)!r} can't be used", error) from error
