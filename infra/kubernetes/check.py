"""Hold the manifests against schemas, overlay by overlay: Kubernetes' own, and those of `schemas/` for KubeRay's kinds."""

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4, DRAFT202012

HERE = Path(__file__).parent
OVERLAYS = sorted((HERE / "overlays").iterdir())
KUBECTL = Path(sys.executable).with_name("kubectl")
KUBERNETES_VERSION = "1.37"

Manifest = dict[str, Any]


def render(overlay: Path) -> list[Manifest]:
    """What `kubectl apply -k` would apply.

    Raises:
        subprocess.CalledProcessError: the overlay can't be built; kubectl has said why.
    """
    text = subprocess.run([KUBECTL, "kustomize", overlay], check=True, capture_output=True, text=True).stdout  # noqa: S603
    return list(yaml.safe_load_all(text))


def errors_in(manifest: Manifest) -> Iterator[str]:
    """What is wrong with it: where, and what."""
    for error in _validator(manifest["apiVersion"], manifest["kind"]).iter_errors(manifest):
        yield f"{error.json_path}: {error.message}"


def main() -> None:
    """Check all overlays; exit code 1 where one is wrong."""
    num_errors = 0
    for overlay in OVERLAYS:
        manifests = render(overlay)
        for manifest in manifests:
            for error in errors_in(manifest):
                num_errors += 1
                print(f"{overlay.name}: {manifest['kind']} {manifest['metadata']['name']}: {error}")
        print(f"{overlay.name}: {len(manifests)} manifests checked")
    sys.exit(bool(num_errors))


if __name__ == "__main__":
    main()
