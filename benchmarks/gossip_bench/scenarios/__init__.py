"""
All scenarios of our own federation, in the order in which they are run.

What leaves the links as they are comes first; what comes last may be left out where time is short.
"""

from __future__ import annotations

from typing import Final

from gossip_bench.bench import Scenario
from gossip_bench.scenarios.changes import CHANGE, COLD
from gossip_bench.scenarios.failures import KILL, MASS, PAUSE, PAUSES, SILENT
from gossip_bench.scenarios.hostile import DOOR, FLOOD
from gossip_bench.scenarios.leaving import LEAVE, RESTART
from gossip_bench.scenarios.resting import BYTES, IDLE

SCENARIOS: Final[dict[str, Scenario]] = {
    one.name: one
    for one in (COLD, CHANGE, PAUSE, IDLE, BYTES, KILL, SILENT, LEAVE, DOOR, FLOOD, RESTART, PAUSES, MASS)
}
