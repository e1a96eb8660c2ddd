"""The command `demo`."""

from pathlib import Path

import click


@click.command()
@click.option(
    "--output", default="demo-out", show_default=True, type=click.Path(path_type=Path), help="Folder to fill."
)
def demo(output: Path) -> None:
    """Draw pictures, detect, query, compare with what was drawn, and annotate; on this machine alone."""
    from jobs.demo.run import demo as run

    run(output)
