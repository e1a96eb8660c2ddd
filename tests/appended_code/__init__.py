"""Accidents for real processes: code that they find at the end of our modules."""

import json
import os
from pathlib import Path


def appended(code: dict[str, str]) -> dict[str, str]:
    """The environment of a command in which modules, by their names, end with some code; so do they in its Ray workers."""
    folders = [str(Path(__file__).parent), os.getcwd()]
    return {"PYTHONPATH": os.pathsep.join(folders), "APPENDED_CODE": json.dumps(code)}
