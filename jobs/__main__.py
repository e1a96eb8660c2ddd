"""The command line. Exit codes: 0 done; 1 failed; 2 wrong usage or setting, nothing started; others see `pipeline.errors`."""

import logging
import os
import sys
from io import TextIOWrapper
from typing import Any, get_args

import click

from jobs.commands import cluster, data, demo, infer, models, monitoring, spec, table, train
from pipeline.errors import SsdBatchError
from pipeline.logs import LogFormat, set_up, use
from pipeline.signals import stoppable

logger = logging.getLogger("jobs")


class StoppableGroup(click.Group):
    """Commands that a signal ends early, with an exit code of its own."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command as click does, which by itself knows of Ctrl-C alone, and exits with 1."""
        with stoppable():
            return super().invoke(ctx)


@click.group(cls=StoppableGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="ssd-batch")
@click.option(
    "--log-format",
    type=click.Choice(get_args(LogFormat)),
    default="text",
    show_default=True,
    envvar="SSD_BATCH_LOG_FORMAT",
    show_envvar=True,
    help="Of standard error: lines for people, or a JSON object each.",
)
def cli(log_format: LogFormat) -> None:
    """Run an SSD detector over images in object storage, into Parquet tables you can query."""
    use(log_format)


for command in (
    infer.infer, demo.demo, table.query, table.export, table.runs, table.maintain, train.train, train.evaluate, data.data, models.model,
    infer.canary, cluster.submit, cluster.status, cluster.logs, cluster.stop, spec.spec, monitoring.exporter,
):  # fmt: skip
    cli.add_command(command)


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
