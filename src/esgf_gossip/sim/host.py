"""One machine of the virtual network: a disk that survives, a process that may not run, clocks that may be wrong."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import attrs

from esgf_gossip.core.messages import Message
from esgf_gossip.core.model import Address, Link
from esgf_gossip.core.node import Node
from esgf_gossip.sim.disk import Disk

PORT = 8951


@attrs.define(eq=False)
class End:
    """
    One end of a link, as one process sees it.

    ``quiet_until_s``: nothing that arrives here may come earlier, because TCP
    keeps the order. ``held``: what a cut holds up. ``is_open`` is what this
    end believes; after a lost close the two ends believe different things.
    """

    link: Link
    host: Host
    latency_s: float
    other: End = attrs.field(init=False)
    quiet_until_s: float = 0.0
    is_open: bool = True
    held: deque[tuple[Callable[..., None], tuple[Any, ...]]] = attrs.field(factory=deque)


Tamper = Callable[[End, Message, bytes], list[bytes]]
"""What a Byzantine host sends in place of a payload: any number of payloads."""


@attrs.define(eq=False)
class Host:
    """
    A machine. ``machine`` names the place, ``name`` whom its certificate names: two for a clone.

    ``node`` is None while the process does not run, ``is_powered`` False while
    nothing answers for it. ``run`` counts processes, so that what is meant for
    an old one finds nobody.
    """

    machine: str
    name: str
    disk: Disk = attrs.field(factory=Disk)
    entries: dict[str, bytes] = attrs.field(factory=dict)
    node: Node | None = None
    generation: int = 1
    run: int = 0
    is_powered: bool = True
    is_paused: bool = False
    clock_ahead_ms: int = 0
    notices: list[object] = attrs.field(factory=list)
    ends: dict[Link, End] = attrs.field(factory=dict)
    tamper: Tamper | None = None
    # What a stopped process finds when it goes on: timers first, as an event loop does.
    late_timers: list[Callable[[], None]] = attrs.field(factory=list)
    late_arrivals: list[Callable[[], None]] = attrs.field(factory=list)

    @property
    def contact(self) -> Address:
        """Where others dial."""
        return (self.name, PORT)
