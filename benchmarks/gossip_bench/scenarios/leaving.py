"""How a node goes in good order: for ever by ``leave``, for a while by a stop."""

from __future__ import annotations

import threading
from typing import Final

from gossip_bench.bench import NO_DETECTOR, Bench, Cost, Scenario
from gossip_bench.event_streams import Heard
from gossip_bench.federation import BenchError
from gossip_bench.measures import row
from gossip_bench.rows import Row

LEAVE_MOST_S: Final = 30.0
AWAY_S: Final = 3.0


def leave(bench: Bench) -> list[Row]:
    """Have one node leave by its control socket, as `esgf-gossip leave` does."""
    last, digest = [], []
    federation = bench.federation
    for (leaver,) in bench.victims(1):
        with bench.turns.shared():
            others = bench.others([leaver])
            at_s = _ask_to_leave(bench, leaver)

            def tells_left(heard: Heard, leaver: str = leaver) -> bool:
                is_it = heard.name == "node-status" and heard.data["host"] == leaver
                return is_it and heard.data["status"] == "left"

            def tells_digest(heard: Heard, leaver: str = leaver) -> bool:
                return heard.name == "digest-accepted" and heard.data["origin"] == leaver

            left = federation.first_told(at_s, others, tells_left, LEAVE_MOST_S)
            held = federation.first_told(at_s, others, tells_digest, LEAVE_MOST_S)
            federation.wait_for_end(leaver)
            federation.restart([leaver])
        if len(left) < len(others):
            raise BenchError(f"{len(others) - len(left)} nodes do not call {leaver} left")
        last.append(max(left.values()) - at_s)
        digest.append(max(held.values()) - at_s)
        bench.tell(f"leave: left on all after {last[-1]:.2f} s, digest {digest[-1]:.2f} s")
    return [row("leave.last", bench.nodes, last), row("leave.digest", bench.nodes, digest)]


def _ask_to_leave(bench: Bench, host: str) -> float:
    # In a thread: while we waited for the answer, the events of the others would lie unread and seem late.
    control = bench.federation.control(host)
    thread = threading.Thread(target=control.ask, args=("leave",), daemon=True)
    at_s = bench.federation.now()
    thread.start()
    return at_s


def restart(bench: Bench) -> list[Row]:
    """Stop one node in good order, start it again three seconds later: nobody may worry."""
    down, back, worried = [], [], []
    federation = bench.federation
    for (host,) in bench.victims(1):
        with bench.turns.shared():
            others = bench.others([host])
            at_s, gone_s = federation.terminate(host)
            federation.loop.run_for(AWAY_S)
            federation.start([host])
            said = federation.streams.said[host]

            def tells_again(heard: Heard, host: str = host) -> bool:
                return heard.name == "digest-accepted" and heard.data["origin"] == host

            seen = federation.first_told(gone_s, others, tells_again, LEAVE_MOST_S)
            federation.wait_until_whole()
            federation.loop.run_for(2.0)
        if len(seen) < len(others) or said.listening_at_s is None:
            raise BenchError(f"{len(others) - len(seen)} nodes do not see {host} again")
        down.append(gone_s - at_s)
        # The ports are found open by tries: a daemon may be heard of some milliseconds before.
        back.append(max(0.0, max(seen.values()) - said.listening_at_s))
        worried.append(
            len(
                {
                    heard.data["host"]
                    for heard in federation.streams.statuses_told(at_s)
                    if heard.data["status"] in {"suspect", "unreachable"}
                }
            )
        )
        bench.tell(f"orderly stop: gone after {down[-1]:.2f} s, back {back[-1]:.2f} s after it listened")
    return [
        row("restart.down", bench.nodes, down),
        row("restart.false", bench.nodes, worried)
        if bench.detects()
        else row("restart.false", bench.nodes, note=NO_DETECTOR),
        row("restart.back", bench.nodes, back),
    ]


LEAVE: Final = Scenario("leave", leave, Cost(20))
RESTART: Final = Scenario("restart", restart, Cost(40))
