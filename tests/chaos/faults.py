"""Accidents: what dies, stands still or fails, and what the runs may answer. Each takes the campaign that it strikes."""

import os
import signal
import time
from collections.abc import Callable

from tests.chaos.campaign import Campaign, Run, say
from tests.chaos.processes import below, kill, server, wait_until_gone, workers

ORPHANS_S = 60.0
OUTAGE_S = 20.0


def kill_driver_group(campaign: Campaign) -> None:
    """The driver, and all of its process group."""
    _kill_driver(campaign, lambda pid: os.killpg(pid, signal.SIGKILL))


def kill_driver(campaign: Campaign) -> None:
    """The driver alone; what Ray started for it must end by itself."""
    _kill_driver(campaign, kill)


def _kill_driver(campaign: Campaign, strike: Callable[[int], None]) -> None:
    orphans = below(campaign.run.pid)
    if not campaign.run.lives:
        return
    strike(campaign.run.pid)
    campaign.expect(campaign.run, -signal.SIGKILL)
    campaign.report["kills"] += 1
    left = wait_until_gone(orphans, ORPHANS_S)
    campaign.report["orphans"] += len(left)
    for name in left.values():
        say(f"  left behind: {name[:100]}")
    kill(*left)


def kill_worker(campaign: Campaign) -> None:
    """One process that works on images."""
    _kill_one(campaign, workers)


def kill_server(campaign: Campaign) -> None:
    """The server that forks the local runner's processes; they are given up, and another server forks others."""
    _kill_one(campaign, server)


def _kill_one(campaign: Campaign, of: Callable[[int], dict[int, str]]) -> None:
    """One of those that are seen first; a run that ends before has none."""
    nodes = campaign.place.nodes
    while campaign.run.lives:
        roots = nodes.pids() if nodes else [campaign.run.pid]
        if found := [pid for root in roots for pid in of(root)]:
            kill(campaign.rng.choice(sorted(found)))
            campaign.report["kills"] += 1
            return
        time.sleep(0.05)


def kill_node(campaign: Campaign) -> None:
    """All processes of a Ray node; another node comes in its place."""
    assert campaign.place.nodes
    campaign.place.nodes.replace(campaign.rng)
    campaign.report["kills"] += 1


def pause_driver(campaign: Campaign) -> None:
    """The driver stands still; a second one takes the table; the first wakes up, and must stop."""
    paused = campaign.run
    held = campaign.holds(paused)
    paused.process.send_signal(signal.SIGSTOP)
    # On S3 a holder is watched for three minutes and more.
    rival = campaign.run = campaign.start(*(["--take-over"] if campaign.place.store else []))
    while rival.lives and not campaign.holds(rival):
        time.sleep(0.2)
    campaign.ledger.note_others(rival.pid)
    paused.process.send_signal(signal.SIGCONT)
    _expect_overtaken(campaign, paused, *((0, 5) if held else (0, 4, 5)))


def second_driver(campaign: Campaign) -> None:
    """The same command beside a live run: one of the two is refused."""
    first, second = campaign.run, campaign.start()
    while first.lives and second.lives:
        time.sleep(0.2)
    ended, campaign.run = (second, first) if first.lives else (first, second)
    if ended is first:  # It was done; or it stood still for three intervals, under load, and was taken over.
        _expect_overtaken(campaign, first, 0, 4, 5)
        while second.lives and not campaign.holds(second):
            time.sleep(0.2)
    if (
        not second.lives and campaign.expect(second, 0, 4) == 4
    ):  # It has seen the first live, just before that was done perhaps.
        campaign.report["refused"] += 1
        if campaign.run is second:
            campaign.run = campaign.start()


def take_over(campaign: Campaign) -> None:
    """A second driver takes the table from a live run."""
    first, campaign.run = campaign.run, campaign.start("--take-over")
    _expect_overtaken(campaign, first, 0, 4, 5)


def _expect_overtaken(campaign: Campaign, run: Run, *codes: int) -> None:
    if campaign.expect(run, *codes) == 5:
        campaign.report["takeovers"] += 1


def kill_gateway(campaign: Campaign) -> None:
    """S3's server dies, and comes back."""
    assert campaign.place.store
    campaign.place.store.kill()
    time.sleep(campaign.rng.uniform(1, 15))
    campaign.place.store.start()
    campaign.report["kills"] += 1


def outage(campaign: Campaign) -> None:
    """No request is answered."""
    assert campaign.place.proxy
    campaign.place.proxy.set(reset=100)
    time.sleep(OUTAGE_S)
    campaign.place.proxy.set(reset=0)
    campaign.report["storage_faults"] += 1


def flaky(campaign: Campaign) -> None:
    """From here on 10 % of requests are told to slow down, 5 % are cut off before and 2 % after they are done."""
    assert campaign.place.proxy
    campaign.place.proxy.set(slow_down=10, reset=5, lost=2)
    campaign.report["storage_faults"] += 1


def replace_keys(campaign: Campaign) -> None:
    """Other credentials from now on; the old ones end soon."""
    assert campaign.place.keys
    campaign.place.keys.replace()
    campaign.report["storage_faults"] += 1


DRIVERS = (kill_driver_group, kill_driver, pause_driver, second_driver, take_over)
WORKERS = (kill_worker,)
LOCAL = (kill_server,)
STORAGE = (kill_gateway, outage, flaky, replace_keys)
