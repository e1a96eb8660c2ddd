"""A Ray cluster of several nodes on this machine, with a token: `ray start` as on real ones."""

import random
import subprocess
import sys
from pathlib import Path

from tests.chaos.processes import kill_tree
from tests.conftest import answers, free_port, wait_until

OBJECT_STORE_BYTES = 200 * 2**20
NODE_CPUS = 2


class RayNodes:
    """A head and others that come and go.

    Args:
        folder: for sessions, logs and the token; a short path, because Ray's sockets lie there.
        environment: of all nodes, and thus of their workers.
        head_cpus: cores of the head; with none, all work is on nodes that may be killed.
        has_job_server: jobs can be submitted to `job_server`.
    """

    def __init__(
        self, folder: Path, environment: dict[str, str], head_cpus: int = NODE_CPUS, has_job_server: bool = False
    ) -> None:
        self._folder = folder
        (folder / "token").write_text("c" * 32)
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
        self._surroundings = environment | self.environment | {"RAY_USAGE_STATS_ENABLED": "0"}
        self._num_started, port = 0, free_port()
        self.address = f"127.0.0.1:{port}"
        self.nodes: list[subprocess.Popen[bytes]] = []
        dashboard_port = free_port()
        self.job_server = f"http://127.0.0.1:{dashboard_port}"
        dashboard = ("--include-dashboard", has_job_server, "--dashboard-port", dashboard_port)
        self._head = self._start(head_cpus, "--head", "--port", port, *dashboard)
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
            Path(sys.executable).with_name("ray"), "start", "--block", "--num-cpus", num_cpus, "--temp-dir", name,
            "--node-ip-address", "127.0.0.1", "--object-store-memory", OBJECT_STORE_BYTES,
            "--min-worker-port", 0, "--max-worker-port", 0, "--dashboard-agent-listen-port", free_port(),
            "--disable-usage-stats", *arguments,
        ]  # fmt: skip
        with open(f"{name}.log", "wb") as log:
            return subprocess.Popen(
                list(map(str, command)), stdout=log, stderr=log, env=self._surroundings, start_new_session=True
            )
