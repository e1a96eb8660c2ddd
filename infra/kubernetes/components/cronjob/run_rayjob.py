"""Run tonight's RayJob: copy the one that never runs, wait until the copy has ended, exit as its command did.

`python run_rayjob.py NAME`, in a pod of the CronJob, for the RayJob of that name. Environment: NAMESPACE; JOB_NAME and JOB_UID are those of
the Kubernetes Job that the pod belongs to, a night's. A pod that follows on one that was lost waits for the same copy; one that follows
on a failed attempt makes the next.
"""

import os
import re
import sys
import time
from typing import Any

from kubernetes import client, config
from urllib3 import Retry

RayJob = dict[str, Any]

NIGHT = "ssd-batch/night"
"""Label of a copy: the Job that it was made for."""
ENDED = ("Complete", "Failed", "ValidationFailed")
EXIT_CODE = re.compile(r"Job entrypoint command failed with exit code (\d+)")
"""Ray's message; KubeRay has no field for it."""
POLL_S = 10.0
RETRIES = Retry(total=30, backoff_factor=1, backoff_max=30, status_forcelist=(429, 500, 502, 503, 504), allowed_methods=("GET",))
"""The API server may be away for a quarter of an hour, as while it is upgraded."""


class RayJobs:
    """Those of a namespace, through the Kubernetes API."""

    def __init__(self, api: client.CustomObjectsApi, namespace: str) -> None:
        self._api = api
        self._where = {"group": "ray.io", "version": "v1", "namespace": namespace, "plural": "rayjobs"}

    def get(self, name: str) -> RayJob:
        """One of them."""
        found: RayJob = self._api.get_namespaced_custom_object(**self._where, name=name)
        return found

    def of_night(self, night: str) -> list[RayJob]:
        """A night's attempts."""
        found: list[RayJob] = self._api.list_namespaced_custom_object(**self._where, label_selector=f"{NIGHT}={night}")["items"]
        return found

    def create(self, rayjob: RayJob) -> None:
        """Make one, which begins to run."""
        self._api.create_namespaced_custom_object(**self._where, body=rayjob)


def run(rayjobs: RayJobs, name: str, night: str, night_uid: str, poll_s: float = POLL_S) -> int:
    """Bring a night to its end.

    Args:
        rayjobs: of the namespace.
        name: of the RayJob to copy.
        night: the Job's name.
        night_uid: the Job's UID; the copy is deleted with it.
        poll_s: seconds between looks.

    Returns:
        The command's exit code; 1 where it has none, such as for a copy that came to its deadline.
    """
    attempts = rayjobs.of_night(night)
    current = next((some for some in attempts if not has_ended(some) or exit_code(some) == 0), None)
    if current is None:
        current = copy_of(rayjobs.get(name), night, night_uid, number=len(attempts) + 1)
        rayjobs.create(current)
    attempt = current["metadata"]["name"]
    print(f"RayJob {attempt}: kubectl logs -f job/{attempt} shows what it prints")
    while not has_ended(current := rayjobs.get(attempt)):
        time.sleep(poll_s)
    status = current["status"]
    print(f"RayJob {attempt}: {status.get('jobStatus')} {status.get('reason', '')} {status.get('message', '')}")
    return exit_code(current)


def copy_of(rayjob: RayJob, night: str, night_uid: str, number: int) -> RayJob:
    """One that runs, owned by the night's Job."""
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": night, "uid": night_uid}
    return {
        "apiVersion": rayjob["apiVersion"],
        "kind": rayjob["kind"],
        "metadata": {"name": f"{night}-{number}", "labels": {NIGHT: night}, "ownerReferences": [owner]},
        "spec": rayjob["spec"] | {"suspend": False},
    }


def has_ended(rayjob: RayJob) -> bool:
    """Whether nothing of it runs any more."""
    return rayjob.get("status", {}).get("jobDeploymentStatus") in ENDED


def exit_code(rayjob: RayJob) -> int:
    """Of one that has ended. A job that somebody stopped is Complete, and has not succeeded."""
    status = rayjob["status"]
    if status.get("jobStatus") == "SUCCEEDED":
        return 0
    found = EXIT_CODE.match(status.get("message", ""))
    return int(found[1]) if found else 1


def main() -> None:
    """In the pod."""
    config.load_incluster_config()
    configuration = client.Configuration.get_default_copy()
    configuration.retries = RETRIES
    rayjobs = RayJobs(client.CustomObjectsApi(client.ApiClient(configuration)), os.environ["NAMESPACE"])
    sys.exit(run(rayjobs, sys.argv[1], os.environ["JOB_NAME"], os.environ["JOB_UID"]))


if __name__ == "__main__":
    main()
