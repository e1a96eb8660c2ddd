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
from referencing import Registry

HERE = Path(__file__).parent
OVERLAYS = sorted((HERE / "overlays").iterdir())
KUBECTL = Path(sys.executable).with_name("kubectl")
KUBERNETES = files("kubernetes_validate") / "kubernetes-json-schema/v1.37.0-local-strict/_definitions.json"

Manifest = dict[str, Any]


def render(overlay: Path) -> list[Manifest]:
    """Return what `kubectl apply -k` would apply.

    Raises:
        subprocess.CalledProcessError: the overlay can't be built; kubectl has said why.
    """
    text = subprocess.run([KUBECTL, "kustomize", overlay], check=True, capture_output=True, text=True).stdout  # noqa: S603
    return list(yaml.safe_load_all(text))


def errors_in(manifest: Manifest) -> Iterator[str]:
    """Yield what is wrong with a manifest: where, and what."""
    for error in _validator(manifest["apiVersion"], manifest["kind"]).iter_errors(manifest):
        yield f"{error.json_path}: {error.message}"


@cache
def _validator(api_version: str, kind: str) -> "Draft202012Validator":
    """Return the validator of a kind; a kind without a schema raises."""
    definitions = json.loads(KUBERNETES.read_text())
    ours = {path.stem: json.loads(path.read_text()) for path in (HERE / "schemas").glob("*.json")}
    registry = Registry().with_contents((schema["$id"], schema) for schema in (definitions, *ours.values()))
    if api_version == "ray.io/v1":
        return Draft202012Validator(ours[kind.lower()], registry=registry)
    (name,) = [name for name, schema in definitions["$defs"].items() if _is_of(schema, api_version, kind)]
    return Draft202012Validator({"$ref": f"{definitions['$id']}#/$defs/{name}"}, registry=registry)


def _is_of(schema: dict[str, Any], api_version: str, kind: str) -> bool:
    properties = schema.get("properties", {})
    return all(
        properties.get(key, {}).get("enum") == [value]
        for key, value in {"apiVersion": api_version, "kind": kind}.items()
    )


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
