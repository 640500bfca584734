"""The long campaigns: campaigns.py [--only NAME] [--kills N] [--seed N] [--out FILE]; see README.md."""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from gateway.store.connection import open_reader
from tests.crash.away import run_away
from tests.crash.fullness import SmallDisk, fill_and_empty, world_on
from tests.crash.judging import Verdict, judge
from tests.crash.power import Disk
from tests.crash.weather import Network
from tests.crash.world import Load, World, wait_until
from tests.system.agents import Agent

AGENT = "gateway.cli.main"
DRAIN_TIMEOUT_S = 600.0
POWER_SHARE = 4  # one power cut or storm for so many kills: each takes longer
ROUND_SHARE = 16  # one filling of the disk for so many kills
AWAY_SHARE = 10  # one kill while a day's backlog is forwarded for so many kills
STOP_EVERY = 5  # after so many kills one orderly stop
STARTING_SHARE = 0.15  # of the kills hit an agent that is still starting


def run_kill(folder: Path, kills: int, seed: int, module: str = AGENT) -> Verdict:
    """Kill the agent at random moments under mixed load; then let it drain, and judge."""
    load = Load(instances_per_s=40, associations=4)  # more than is forwarded between two kills
    world = World(folder, folder / "data", seed, load, module=module)
    draw = random.Random(seed)
    began_s = time.monotonic()
    stops: list[int] = []
    world.start()
    try:
        world.send()
        for number in range(kills):
            starting = draw.random() < STARTING_SHARE
            agent = world.agent(until_ready=not starting)
            time.sleep(draw.uniform(0.0, 0.8) if starting else draw.uniform(0.05, 2.0))
            agent.kill()
            if number % STOP_EVERY == STOP_EVERY - 1:
                stops.append(stop_in_order(world, draw))
                print(f"  {number + 1} of {kills} kills", file=sys.stderr)
        drain(world)
    finally:
        world.stop()
    verdict = judge(world, "kill", kills, time.monotonic() - began_s)
    for status in stops:
        if status != 0:
            verdict.unexpected += 1
            verdict.note(f"an orderly stop ended with {status}")
    return verdict


def stop_in_order(world: World, draw: random.Random) -> int:
    """Stop by SIGTERM under load; return the exit status."""
    agent = world.agent()
    time.sleep(draw.uniform(0.05, 2.0))
    return agent.stop()


def run_power(folder: Path, kills: int, seed: int, module: str = AGENT) -> Verdict:
    """Cut the power at random moments: the disk forgets what was not synced, then the agent is killed too."""
    folder.mkdir(parents=True, exist_ok=True)
    cuts = max(1, kills // POWER_SHARE)
    disk = Disk(folder)
    world = World(folder, disk.path / "data", seed, Load(messages_per_s=60, instances_per_s=6), module=module)
    draw = random.Random(seed)
    began_s = time.monotonic()
    disk.mount()
    world.start()
    try:
        world.send()
        for number in range(cuts):
            starting = draw.random() < STARTING_SHARE
            agent = world.agent(until_ready=not starting)
            time.sleep(draw.uniform(0.0, 1.5) if starting else draw.uniform(0.05, 3.0))
            disk.cut()
            time.sleep(draw.uniform(0.0, 0.1))  # for a moment it runs on a dead disk: it must not acknowledge
            agent.kill()
            disk.clear()
            disk.mount(leak=0.3 if number % 2 else 0.0, seed=seed + number)
            if number % 5 == 4:
                print(f"  {number + 1} of {cuts} power cuts", file=sys.stderr)
        drain(world)
        return judge(world, "power", cuts, time.monotonic() - began_s)
    finally:
        world.stop()
        disk.clear()


def run_disk_full(folder: Path, kills: int, seed: int, module: str = AGENT) -> Verdict:
    """Fill the disk again and again while input comes; it is refused in the protocol's word, and taken again."""
    rounds = max(3, kills // ROUND_SHARE)
    disk = SmallDisk(folder)
    world = world_on(disk, folder, seed, module)
    began_s = time.monotonic()
    world.start()
    try:
        agent = world.agent()
        world.send()
        agent, wrong = fill_and_empty(world, disk, agent, rounds)
        drain(world, agent)
        verdict = judge(world, "disk-full", 0, time.monotonic() - began_s)
    finally:
        world.stop()
        disk.unmount()
    verdict.unexpected += len(wrong)
    verdict.notes = wrong + verdict.notes
    return verdict


def run_network(folder: Path, kills: int, seed: int, module: str = AGENT) -> Verdict:
    """Break, stop and slow the connections of a running agent."""
    world = World(folder, folder / "data", seed, Load(messages_per_s=60, instances_per_s=6), module=module)
    began_s = time.monotonic()
    world.start()
    network = Network(world)
    try:
        agent = world.agent()
        world.send(network.proxies["emr"].port)
        network.storm(max(3, kills // POWER_SHARE), seed)
        drain(world, agent)
    finally:
        world.stop()
        network.stop()
    return judge(world, "network", 0, time.monotonic() - began_s)


def drain(world: World, agent: Agent | None = None) -> None:
    """Start the agent once more where it does not run, end the load, wait until nothing is owed any more."""
    agent = agent or world.agent()
    try:
        time.sleep(2.0)
        world.stop_sending()
        time.sleep(1.0)
        wait_until(lambda: pending(world.data) == 0, DRAIN_TIMEOUT_S)
    except TimeoutError:
        print(f"  {pending(world.data)} deliveries still pending", file=sys.stderr)
    finally:
        agent.stop()


def pending(data: Path) -> int:
    """Return how many deliveries wait."""
    connection = open_reader(data / "gateway.db")
    try:
        return int(str(connection.execute("SELECT count(*) FROM delivery WHERE state = 0").get))
    finally:
        connection.close()


CAMPAIGNS: dict[str, Callable[[Path, int, int, str], Verdict]] = {
    "kill": run_kill,
    "disk-full": run_disk_full,
    "network": run_network,
    "power": run_power,
    "away": lambda folder, kills, seed, module: run_away(folder, max(1, kills // AWAY_SHARE), seed, module),
}
NEED_ROOT = frozenset({"disk-full", "power"})


def show(verdicts: list[Verdict]) -> None:
    """Print the table."""
    columns = ("name", "kills", "acknowledged", "promised", "stored", "delivered", "repeated")
    wrong = ("lost", "out_of_order", "changed", "repeated_new_id", "unexpected", "seconds")
    print("  ".join(f"{column:>15}" for column in columns + wrong))
    for verdict in verdicts:
        print("  ".join(f"{getattr(verdict, column):>15}" for column in columns + wrong))
        for note in verdict.notes:
            print(f"    {note}")


def main() -> int:
    """Run what was asked for; 1 when anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help=f"one of {', '.join(CAMPAIGNS)}; several separated by commas")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--module", default=AGENT, help="tests.system.agent_normal does not sync: see it fail")
    parser.add_argument("--keep", type=Path, help="work here and leave everything behind")
    arguments = parser.parse_args()
    chosen = [name for name in arguments.only.split(",") if name] or list(CAMPAIGNS)
    if unknown := set(chosen) - set(CAMPAIGNS):
        parser.error(f"no campaign is called {', '.join(sorted(unknown))}; there are {', '.join(CAMPAIGNS)}")
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="crash-") as folder:
        for name in chosen:
            if name in NEED_ROOT and os.geteuid() != 0:
                print(f"{name} mounts a file system and needs root: not run", file=sys.stderr)
                continue
            print(f"{name}, seed {arguments.seed}", file=sys.stderr)
            place = (arguments.keep or Path(folder)) / name
            verdicts.append(CAMPAIGNS[name](place, arguments.kills, arguments.seed, arguments.module))
    show(verdicts)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({"campaigns": [one.as_json() for one in verdicts]}, indent=1), "utf-8")
    return 0 if len(verdicts) == len(chosen) and all(verdict.good for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
