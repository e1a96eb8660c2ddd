"""A Ray cluster of several nodes on this machine, with a token: `ray start` as on real ones."""

import json
import random
import subprocess
import sys
from pathlib import Path

from tests.chaos.processes import kill_tree
from tests.conftest import answers, free_port, wait_until

OBJECT_STORE_BYTES = 200 * 2**20
NODE_CPUS = 2

HEAD_ID = "f" * 51 + "00000"
GROWING = {
    "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
}  # fmt: skip
"""What Ray's own provider of nodes on one machine asks for."""


def autoscaling(address: str, max_grown: int) -> dict[str, object]:
    """A configuration of Ray's autoscaler: nodes of this machine, as many as are needed, at most so many beside the head."""
    resources = {"CPU": NODE_CPUS, "object_store_memory": OBJECT_STORE_BYTES}
    nothing = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "growing",
        "max_workers": max_grown,
        "idle_timeout_minutes": 10,
        "upscaling_speed": 1.0,
        "provider": {
            "type": "fake_multinode", "gcs_address": address, "head_node_id": HEAD_ID, "use_node_id_as_ip": True,
            "disable_node_updaters": True, "disable_launch_config_check": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "min_workers": 0, "max_workers": 0},
            "grown": {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": max_grown},
        },
        "head_node_type": "ray.head.default",
        "auth": {}, "docker": {}, "file_mounts": {}, "cluster_synced_files": [],
        **{f"{name}_commands": [] for name in nothing},
    }  # fmt: skip


UNTIL_IT_RUNS = ("bash", "-c", 'until "$@"; do sleep 1; done', "node")
"""As a kubelet starts its pods: Ray gives up on a node that isn't up after half a minute, which happens on a machine under load."""


class RayNodes:
    """A head and others that come and go.

    Args:
        folder: for sessions, logs and the token; a short path, because Ray's sockets lie there.
        environment: of all nodes, and thus of their workers.
        head_cpus: cores of the head; with none, all work is on nodes that may be killed.
        has_job_server: jobs can be submitted to `job_server`.
        max_grown: nodes that Ray's autoscaler may add by itself.
    """

    def __init__(
        self,
        folder: Path,
        environment: dict[str, str],
        head_cpus: int = NODE_CPUS,
        has_job_server: bool = False,
        max_grown: int = 0,
    ) -> None:
        self._folder = folder
        (folder / "token").write_text("c" * 32)
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
        # As our own clusters: after a second without work Ray would end processes that the next task costs anew.
        patience = {"RAY_idle_worker_killing_time_threshold_ms": "600000"}
        self._surroundings = environment | self.environment | patience | {"RAY_USAGE_STATS_ENABLED": "0"}
        self._surroundings.pop("CUDA_VISIBLE_DEVICES", None)  # where it names none, Ray refuses GPUs in name, too
        self._num_started, port = 0, free_port()
        self.address = f"127.0.0.1:{port}"
        self.nodes: list[subprocess.Popen[bytes]] = []
        dashboard_port = free_port()
        self.job_server = f"http://127.0.0.1:{dashboard_port}"
        head: tuple[object, ...] = ("--head", "--port", port, "--num-gpus", 0)
        head += ("--include-dashboard", has_job_server, "--dashboard-port", dashboard_port)
        if max_grown:
            (folder / "grow.json").write_text(json.dumps(autoscaling(self.address, max_grown)))
            self._surroundings |= GROWING
            head += ("--autoscaling-config", folder / "grow.json")
        self._head = self._start(head_cpus, *head)
        self.wait_until_joined()
        wait_until(lambda: answers(dashboard_port if has_job_server else port))

    def add(self, num_gpus: int = 0) -> None:
        """A node; GPUs are in name only."""
        self.nodes.append(self._start(NODE_CPUS, "--address", self.address, "--num-gpus", num_gpus))

    def replace(self, rng: random.Random) -> None:
        """Kill all processes of a node that is not the head, and start another one."""
        self.kill(rng.choice(self.nodes))
        self.add()

    def kill(self, victim: "subprocess.Popen[bytes]") -> None:
        """All processes of a node."""
        self.nodes.remove(victim)
        kill_tree(victim.pid)
        victim.wait()

    def wait_until_joined(self) -> None:
        """All that were started."""
        logs = [self._folder / f"n{number}.log" for number in range(1, self._num_started + 1)]
        wait_until(lambda: all("Ray runtime started." in log.read_text() for log in logs))

    def num_registered(self) -> int:
        """Nodes that the head has taken in so far, itself and those that are gone too, as its log tells."""
        log = self._folder / "n1/session_latest/logs/gcs_server.out"
        return log.read_text().count("Registering new node") if log.exists() else 0

    def pids(self) -> list[int]:
        return [node.pid for node in (self._head, *self.nodes)]

    def stop(self) -> None:
        for node in (*self.nodes, self._head):
            kill_tree(node.pid)
            node.wait()

    def _start(self, num_cpus: int, *arguments: object) -> "subprocess.Popen[bytes]":
        self._num_started += 1
        name = self._folder / f"n{self._num_started}"
        command = [
            *UNTIL_IT_RUNS, Path(sys.executable).with_name("ray"), "start", "--block", "--num-cpus", num_cpus, "--temp-dir", name,
            "--node-ip-address", "127.0.0.1", "--object-store-memory", OBJECT_STORE_BYTES,
            "--min-worker-port", 0, "--max-worker-port", 0, "--dashboard-agent-listen-port", free_port(),
            "--disable-usage-stats", *arguments,
        ]  # fmt: skip
        with open(f"{name}.log", "wb") as log:
            return subprocess.Popen(
                list(map(str, command)), stdout=log, stderr=log, env=self._surroundings, start_new_session=True
            )
