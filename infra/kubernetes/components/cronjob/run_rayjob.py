"""Run tonight's RayJob: copy the one that never runs, wait until the copy has ended, exit as its command did.

`python run_rayjob.py NAME`, in a pod of the CronJob, for the RayJob of that name. Environment: NAMESPACE; JOB_NAME and JOB_UID are those of
the Kubernetes Job that the pod belongs to, a night's. A pod that follows on one that was lost waits for the same copy; one that follows
on a failed attempt makes the next.
"""

import os
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

RayJob = dict[str, Any]

API = "https://kubernetes.default.svc"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""The folder of a pod's account: its token, and who signs the API server's certificate."""
NIGHT = "ssd-batch/night"
"""Label of a copy: the Job that it was made for."""
ENDED = ("Complete", "Failed", "ValidationFailed")
EXIT_CODE = re.compile(r"Job entrypoint command failed with exit code (\d+)")
"""Ray's message; KubeRay has no field for it."""
DUE_MINUTE = re.compile(r"-(\d{8,})$")
"""The end of a Job's name that a CronJob gives it: the minute that it was due, counted from 1970. Jobs made by hand have other names."""
POLL_S, TIMEOUT_S = 10.0, 30.0
LEAST_S = 600
"""The seconds of an attempt that begins after its night: it is over soon, and says why."""
RETRIES = Retry(
    total=30, backoff_factor=1, backoff_max=30, status_forcelist=(429, 500, 502, 503, 504), allowed_methods=("GET",)
)
"""The API server may be away for a quarter of an hour, as while it is upgraded."""


class RayJobs:
    """The RayJobs of a namespace, through the Kubernetes API.

    Args:
        namespace: the namespace.
        api: the server's address.
        account: folder of the pod's account.
    """

    def __init__(self, namespace: str, api: str = API, account: Path = ACCOUNT) -> None:
        self._url = f"{api}/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
        self._account = account
        self._session = requests.Session()
        self._session.mount(api, HTTPAdapter(max_retries=RETRIES))

    def get(self, name: str) -> RayJob:
        """Return a RayJob by its name."""
        return self._ask("GET", f"/{name}")

    def of_night(self, night: str) -> list[RayJob]:
        """A night's attempts."""
        found: list[RayJob] = self._ask("GET", params={"labelSelector": f"{NIGHT}={night}"})["items"]
        return found

    def create(self, rayjob: RayJob) -> None:
        """Make one, which begins to run."""
        self._ask("POST", json=rayjob)

    def _ask(self, method: str, path: str = "", **options: Any) -> dict[str, Any]:
        token = (self._account / "token").read_text()  # each time: Kubernetes renews it within the hour
        answer = self._session.request(
            method,
            self._url + path,
            headers={"Authorization": f"Bearer {token}"},
            verify=str(self._account / "ca.crt"),
            timeout=TIMEOUT_S,
            **options,
        )
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


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
    """Return a copy that runs, owned by the night's Job. A night's attempts all end before the next night."""
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": night, "uid": night_uid}
    spec = rayjob["spec"] | {"suspend": False}
    if found := DUE_MINUTE.search(night):
        due_s = 60 * int(found[1])
        spec["entrypoint"] += f" --due-at {datetime.fromtimestamp(due_s, UTC).isoformat()}"
        if "activeDeadlineSeconds" in spec:
            spec["activeDeadlineSeconds"] = max(LEAST_S, due_s + spec["activeDeadlineSeconds"] - int(time.time()))
    return {
        "apiVersion": rayjob["apiVersion"],
        "kind": rayjob["kind"],
        "metadata": {"name": f"{night}-{number}", "labels": {NIGHT: night}, "ownerReferences": [owner]},
        "spec": spec,
    }


def has_ended(rayjob: RayJob) -> bool:
    """Return whether nothing of a RayJob runs any more."""
    return rayjob.get("status", {}).get("jobDeploymentStatus") in ENDED


def exit_code(rayjob: RayJob) -> int:
    """Return the exit code of a RayJob that has ended. One that somebody stopped is Complete, and has not succeeded."""
    status = rayjob["status"]
    if status.get("jobStatus") == "SUCCEEDED":
        return 0
    found = EXIT_CODE.match(status.get("message", ""))
    return int(found[1]) if found else 1


def main() -> None:
    """Run the night of the pod's Job, and exit as its command did."""
    rayjobs = RayJobs(os.environ["NAMESPACE"])
    sys.exit(run(rayjobs, sys.argv[1], os.environ["JOB_NAME"], os.environ["JOB_UID"]))


if __name__ == "__main__":
    main()
