"""The command `explore`."""

import json
from typing import Any

import click

from jobs.commands.options import command, json_option
from jobs.specs.load import check_settings, given, setting_options
from pipeline.explore.settings import ExploreSettings


@command(
    "explore --table tables/photos",
    "explore --table s3://bucket/tables/photos --port 0",
)
@setting_options(ExploreSettings)
@json_option
def explore(as_json: bool, **flags: Any) -> None:
    """Look at a table in a browser: pictures with boxes, filters, failures, two models side by side, SQL."""
    from jobs.explorer.serve import serve

    def on_ready(url: str) -> None:
        click.echo(json.dumps({"url": url}) if as_json else f"open {url}    (Ctrl-C ends)")

    serve(check_settings(ExploreSettings, given(flags)), on_ready)
