"""The provenance of a model: what its package says about code, machine and run, without secrets."""

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
"""The packages whose versions may change what is learned."""


def provenance(settings: ClusterTraining, history: TrainingHistory, seconds: float) -> dict[str, Any]:
    """Return what is known at the end of any training.

    Args:
        settings: all settings of the training, with the seed.
        history: the history of the training.
        seconds: the seconds that the command took since it was last started.
    """
    known: dict[str, Any] = redacted_json(settings.model_dump(mode="json"))
    return {
        "settings": known,
        "num_steps": history.stepped[-1].step if history.stepped else 0,
        "devices": sorted({start.device for start in history.begun}),
        "num_workers": sorted({start.num_workers for start in history.begun}),
        "num_starts": len(history.begun),
        "code": code_version(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "trained_by": trained_by(),
        "seconds": round(seconds),
    }


def code_version() -> str:
    """Return the commit of the code, with "-dirty" where files differ from it; outside a checkout, return the installed version."""
    this = Path(__file__).resolve()
    try:
        # A checkout around an installed package is that of another project, which does not know this file.
        _git(this.parent, "ls-files", "--error-unmatch", this.name)
        return _git(this.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return version("ssd-batch")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603


def trained_by() -> str:
    """Return user@host, or the host alone where a container's user has no name."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):
        return socket.gethostname()
