"""Run a piece of code as several real processes of one gloo group."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_world(
    arguments: Sequence[str], world: int, timeout_s: float = 120, **environment: str
) -> list[str]:
    """Start `python *arguments` `world` times as ranks of one group; their outputs, by rank.

    A process that fails ends the others; its output is in the assertion.
    """
    here = Path(__file__).parent
    shared = os.environ | {
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parent / "src")]),
        **environment,
    }
    started = [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    outputs = []
    try:
        for process in started:
            outputs.append(process.communicate(timeout=timeout_s)[0])
    finally:
        for process in started:
            process.kill()
    for rank, process in enumerate(started):
        assert process.returncode == 0, f"rank {rank} of {world} failed:\n{outputs[rank]}"
    return outputs
