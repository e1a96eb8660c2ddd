"""The command `bench`."""

import os
import subprocess
import sys
from pathlib import Path

import click
import cloup

from jobs.commands.options import command
from pipeline.errors import SettingError

ROOT = Path(__file__).parents[2]
MODULES = {
    "startup": "startup", "steady": "steady", "efficiency": "efficiency", "peers": "peers", "detector": "detector", "dataplane": "dataplane",
    "rows": "rows", "postprocess": "postprocess", "driver": "driver", "list": "listing", "plan": "planning", "views": "views", "explore": "explore",
}  # fmt: skip
"""The benchmarks, and their modules in tests/benchmarks."""


@command(
    "bench steady --num-images 500 --rounds 1 --json",
    "bench detector -- --help",
    context_settings={"ignore_unknown_options": True},
)
@cloup.argument(
    "name", type=click.Choice(list(MODULES)), metavar="NAME", help=f"Benchmark to run: {', '.join(MODULES)}."
)
@cloup.argument("flags", nargs=-1, type=click.UNPROCESSED, help="Flags of the benchmark, such as --json.")
def bench(name: str, flags: tuple[str, ...]) -> None:
    """Measure the speed of a part on this machine, next to something comparable. Needs a clone of the repository."""
    module = MODULES[name]
    if not (ROOT / f"tests/benchmarks/{module}.py").exists():
        raise SettingError(
            "bench: the benchmarks are not in the installed package; clone the repository, and run it there"
        )
    # -P: a folder `tests` of the user's must not be taken for ours.
    arguments = [sys.executable, "-P", "-m", f"tests.benchmarks.{module}", *flags]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    sys.exit(subprocess.run(arguments, env=os.environ | {"PYTHONPATH": path}).returncode)  # noqa: S603 our own
