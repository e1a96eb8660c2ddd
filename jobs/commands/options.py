"""Flags that several commands have."""

import click

from jobs.specs.load import SPEC_FILE

table_option = click.option("--table", required=True, help="Table of results: a path or s3:// URL.")
json_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON object on the last line of standard output."
)
SPEC = click.argument("spec", type=SPEC_FILE)
