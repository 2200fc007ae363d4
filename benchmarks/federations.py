"""What benchmarks of real daemons share: waiting with a deadline, and asking nodes that may not answer yet."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from esgf_gossip.cli.failures import CommandError
from esgf_gossip.demo.processes import DemoFederation

DEADLINE_S = 120.0


def wait(what: str, check: Callable[[], bool]) -> float:
    """Poll until it holds; return the seconds it took. Ends the program at the deadline."""
    began = time.monotonic()
    while not check():
        if time.monotonic() - began > DEADLINE_S:
            raise SystemExit(f"not within {DEADLINE_S:.0f} s: {what}")
        time.sleep(0.05)
    return round(time.monotonic() - began, 2)


def ask(federation: DemoFederation, host: str, command: str, **fields: Any) -> Any:
    """Ask a node; None while it does not answer."""
    try:
        return federation.control(host).ask(command, **fields)
    except (CommandError, OSError):
        return None


def has_one_root(federation: DemoFederation) -> bool:
    """Tell whether all nodes hold one set over all of them, and call all up."""
    states = [ask(federation, host, "status") for host in federation.hosts]
    total = len(states)
    return (
        all(states)
        and len({state["root"] for state in states}) == 1
        and all(state["nodes"]["up"] == total for state in states)
    )
