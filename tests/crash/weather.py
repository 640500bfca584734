"""The campaign `network`: proxies between the agent and everybody, and bad weather on each in turn."""

import json
import random
import sys
import time

from tests.crash.world import Simulator, World

WEATHERS: list[tuple[dict[str, object], dict[str, object]]] = [  # what comes, and what ends it
    ({"do": "rst"}, {}),
    ({"do": "fin"}, {}),
    ({"half_open": True}, {"half_open": False}),
    ({"refuse": True, "do": "rst"}, {"refuse": False}),
    ({"latency_s": 0.3}, {"latency_s": 0}),
    ({"bandwidth": 20_000}, {"bandwidth": 0}),
    ({"cut_after": 3000, "cut": "rst", "do": "fin"}, {"cut_after": None}),
    ({"cut_after": 150, "cut": "fin", "do": "rst"}, {"cut_after": None}),
]
CALM_S = 0.5
STORM_S_MAX = 4.0


class Network:
    """A proxy in front of every Destination and of the MLLP listener."""

    def __init__(self, world: World) -> None:
        self.proxies = {name: self._proxy(port) for name, port in world.ports.items()}
        self.proxies["emr"] = self._proxy(world.listening["mllp"])
        world.write_config({name: self.proxies[name].port for name in world.ports})

    def storm(self, rounds: int, seed: int) -> None:
        """Let it be bad on one or two ways at a time."""
        draw = random.Random(seed)
        for number in range(rounds):
            struck = draw.sample(sorted(self.proxies), draw.choice((1, 1, 2)))
            storms = [(name, *draw.choice(WEATHERS)) for name in struck]
            for name, coming, _ in storms:
                self._command(name, coming)
            time.sleep(draw.uniform(0.1, STORM_S_MAX))
            for name, _, going in storms:
                self._command(name, going)
            time.sleep(CALM_S)
            if number % 10 == 9:
                print(f"  {number + 1} of {rounds} storms", file=sys.stderr)

    def stop(self) -> None:
        for proxy in self.proxies.values():
            proxy.stop()

    def _proxy(self, port: int) -> Simulator:
        return Simulator("fault_proxy", "--to", f"127.0.0.1:{port}")

    def _command(self, name: str, command: dict[str, object]) -> None:
        if not command:
            return
        process = self.proxies[name].process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(command).encode() + b"\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert answer["ok"], answer
