"""The command line. Exit codes: 0 done; 1 failed; 2 wrong usage or setting, nothing started; others see `pipeline.errors`."""

import logging
import os
import sys
from io import TextIOWrapper
from typing import Any, get_args

import click
import cloup

from jobs.commands import (
    bench,
    cluster,
    data,
    demo,
    explore,
    iceberg,
    infer,
    label,
    models,
    monitoring,
    spec,
    table,
    train,
)
from pipeline.errors import SsdBatchError
from pipeline.logs import LogFormat, set_up, use
from pipeline.signals import stoppable

logger = logging.getLogger("jobs")


START = """\
ssd-batch detects objects in images, and stores them in a table that you query
with SQL. See it work, on pictures that it draws:
  ssd-batch demo
Your images, with a model of yours (ssd-batch train, ssd-batch model import):
  ssd-batch infer --input photos --table found --model models/mine
What was found:
  ssd-batch query --table found "FROM detections WHERE score > 0.5"

All commands: ssd-batch --help. All flags of one: ssd-batch infer --help."""
"""The text of the command alone: what to do first."""


class StoppableGroup(cloup.Group):
    """Commands that a signal ends early, with an exit code of its own."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command as click does, which by itself knows of Ctrl-C alone, and exits with 1."""
        with stoppable():
            return super().invoke(ctx)


@cloup.group(
    cls=StoppableGroup,
    invoke_without_command=True,
    context_settings=cloup.Context.settings(
        help_option_names=["-h", "--help"], max_content_width=120, show_default=False
    ),
    sections=[
        cloup.Section("Detect", [demo.demo, infer.infer, bench.bench]),
        cloup.Section(
            "Look at results",
            [table.query, table.report, explore.explore, table.export, iceberg.iceberg, table.runs, table.maintain],
        ),
        cloup.Section(
            "Train and publish models",
            [data.data, label.label, train.train, train.evaluate, models.model, infer.canary],
        ),
        cloup.Section(
            "Jobs on a cluster",
            [cluster.submit, cluster.status, cluster.logs, cluster.stop, spec.spec, monitoring.exporter],
        ),
    ],
)
@cloup.version_option(package_name="ssd-batch")
@cloup.option(
    "--log-format",
    type=click.Choice(get_args(LogFormat)),
    default="text",
    show_default=True,
    envvar="SSD_BATCH_LOG_FORMAT",
    show_envvar=True,
    help="Format of standard error: lines for people, or one JSON object per line.",
)
@click.pass_context
def cli(context: click.Context, log_format: LogFormat) -> None:
    """Run an SSD detector over images in object storage, into Parquet tables that you can query."""
    use(log_format)
    if context.invoked_subcommand is None:
        click.echo(START)
        context.exit(2)  # as any other usage that names no command


def main() -> None:
    """Run the command line; errors of the user's making are one line, without a traceback."""
    if sys.getfilesystemencoding() != "utf-8":  # a locale in which names of files would be misread
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 the same command again
    set_up()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # of what a terminal's encoding does not have
    try:
        cli(prog_name="ssd-batch")
    except SsdBatchError as error:
        logger.error("%s", error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
