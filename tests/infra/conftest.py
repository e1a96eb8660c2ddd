"""The overlays as they would be applied."""

from typing import Any

import pytest

from infra.kubernetes.check import OVERLAYS, render

Manifest = dict[str, Any]


@pytest.fixture(scope="session", params=OVERLAYS, ids=lambda overlay: overlay.name)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return render(request.param)


def rayjob_spec(manifests: list[Manifest]) -> Manifest:
    """Of the RayJob, or of the RayCronJob's template."""
    specs = {
        manifest["kind"]: manifest["spec"] for manifest in manifests if manifest["kind"] in ("RayJob", "RayCronJob")
    }
    return specs["RayJob"] if "RayJob" in specs else specs["RayCronJob"]["jobTemplate"]
