"""Where a model is from: what its package tells of code, machine and run, without secrets."""

import getpass
import platform
import socket
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.redaction import redacted_json
from pipeline.training.history import TrainingHistory
from pipeline.training.settings import ClusterTraining

PACKAGES = ("ray", "torch", "torchvision")
"""Whose versions may change what is learned."""


def provenance(settings: ClusterTraining, history: TrainingHistory, seconds: float) -> dict[str, Any]:
    """Return what can be told at the end of any training.

    Args:
        settings: all of them, the seed among them.
        history: of the training.
        seconds: that the command took, since it was last started.
    """
    known: dict[str, Any] = redacted_json(settings.model_dump(mode="json"))
    return {
        "settings": known,
        "num_steps": settings.num_steps,
        "devices": sorted({told.device for told in history.begun}),
        "num_workers": sorted({told.num_workers for told in history.begun}),
        "num_starts": len(history.begun),
        "code": code_version(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "trained_by": trained_by(),
        "seconds": round(seconds),
    }


def code_version() -> str:
    """The commit that the code is of, with "-dirty" where files differ from it; outside a checkout the installed version."""
    this = Path(__file__).resolve()
    try:
        # The checkout around an installed package is some other project's: it does not know this file.
        _git(this.parent, "ls-files", "--error-unmatch", this.name)
        return _git(this.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return version("ssd-batch")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603


def trained_by() -> str:
    """user@host; the host alone where a container's user has no name."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):
        return socket.gethostname()
