"""
Random histories that end in peace: a partition longer than any digest lives, a mass restart, a lost disk.

A seed gives a history: 7 to 15 nodes, kills, crashes between two writes, leaves,
changes, pauses, cuts, wrong clocks, restored backups. At its end everything is
healed and judged by ``invariants``. The quiet of a long partition is passed by
leaps of the calendar (``Timeline.leap``), the rest second by second.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import attrs

from esgf_gossip.core.limits import CLOCK_AHEAD_MS, DIGEST_LIFETIME_MS
from esgf_gossip.core.membership import is_member
from esgf_gossip.sim.disk import Disk
from esgf_gossip.sim.invariants import Watch, disagreements
from esgf_gossip.sim.latency import AtRandom
from esgf_gossip.sim.network import VirtualNetwork

NODES_LEAST, NODES_MOST = 7, 15
# Islands find each other by the seeds within a minute, else by a partner drawn every five minutes.
HEAL_WITHIN_S = 900.0
DAY_S = 24 * 3600.0
# Two clocks that differ by less believe each other's dates.
SMALL_STEP_MS = CLOCK_AHEAD_MS // 2 - 30_000

PARTITION = "partition longer than digests live"
MASS_RESTART = "mass restart"
DISK_LOSS = "disk loss"
DEMANDED = (PARTITION, MASS_RESTART, DISK_LOSS)


@attrs.frozen
class Outcome:
    """How one seed ended. ``failures`` is empty where every invariant held."""

    seed: int
    nodes: int
    done: dict[str, int]
    failures: tuple[str, ...]
    resurrections: int
    is_split: bool
    virtual_days: float
    events: int


class Schedule:
    """One history of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(f"schedule/{seed}")
        self.network = VirtualNetwork(seed, AtRandom(0.005, 0.150))
        self.network.faults.loss = self.random.choice((0.0, 0.01, 0.05))
        self.watch = Watch(self.network)
        self.done: Counter[str] = Counter()
        self.names = [
            f"n{number:02}.example.org" for number in range(self.random.randint(NODES_LEAST, NODES_MOST))
        ]
        self.seeds = self.names[: self.random.randint(1, 3)]
        self.left: set[str] = set()
        self.backups: dict[str, Disk] = {}
        self._groups: dict[str, int] = {}
        self._cuts: set[tuple[str, str]] = set()
        self._changes = 0

    def play(self) -> Outcome:
        """Play it to its end and judge it."""
        network = self.network
        for name in self.names:
            network.add(name)
            self._start(name)
        network.settle(120)
        self._turmoil(self.random.randint(2, 6))
        early = self.random.random() < 0.5
        self._long_partition(restart_within=early)
        if not early:
            self._mass_restart()
        self._turmoil(self.random.randint(0, 3))
        if not self.done[DISK_LOSS]:
            self._lose_disk(self.random.choice(self._staying()))
        self._make_peace()
        network.settle(HEAL_WITHIN_S)
        # What observers had to say of the peace is said and withdrawn by then; it too must come to all.
        network.run(60)
        return self._judge(is_split=not network.settle(60))

    # ----------------------------------------------------------------- acts

    def _staying(self) -> list[str]:
        return [name for name in self.names if name not in self.left]

    def _runs(self, name: str) -> bool:
        return self.network.hosts[name].node is not None

    def _start(self, name: str) -> None:
        self.network.start(name, [seed for seed in self.seeds if seed != name])

    def _turmoil(self, steps: int) -> None:
        for _ in range(steps):
            self.network.run(self.random.uniform(0.05, 20.0))
            self._something()
        self.network.run(self.random.uniform(0.0, 5.0))

    def _something(self) -> None:
        name = self.random.choice(self._staying())
        running = ("publish",) * 4 + ("kill", "crash", "power", "stop", "pause", "clock", "leave", "backup")
        down = ("start",) * 4 + ("lose", "restore")
        act = self.random.choice((*(running if self._runs(name) else down), "cut", "mend"))
        self.done[act] += 1
        getattr(self, f"_{act}")(name)

    def _publish(self, name: str) -> None:
        self._changes += 1
        entries = {"registration": f"change {self._changes}".encode()}
        if self.random.random() < 0.5:
            entries["metrics"] = self.random.randbytes(self.random.randint(0, 2000))
        if not self.network.hosts[name].is_paused:
            self.network.publish(name, entries)

    def _kill(self, name: str) -> None:
        self.network.kill(name)

    def _power(self, name: str) -> None:
        self.network.power_off(name)

    def _stop(self, name: str) -> None:
        self.network.stop(name)

    def _crash(self, name: str) -> None:
        self.network.faults.crash_after(name, self.random.randint(0, 2))
        self._publish(name)

    def _pause(self, name: str) -> None:
        if not self.network.hosts[name].is_paused:
            self.network.pause(name, self.random.uniform(0.5, 30.0))

    def _clock(self, name: str) -> None:
        host = self.network.hosts[name]
        if self.random.random() < 0.8:
            host.clock_ahead_ms = self.random.randint(-SMALL_STEP_MS, SMALL_STEP_MS)
        else:
            host.clock_ahead_ms = self.random.randint(-2 * DIGEST_LIFETIME_MS, DIGEST_LIFETIME_MS)
            self.done["clock wrong by more than minutes"] += 1

    def _leave(self, name: str) -> None:
        if len(self.left) >= len(self.names) // 5 or self.network.hosts[name].is_paused:
            return
        self.network.faults.forget_crash(name)
        self.network.leave(name)
        self.left.add(name)

    def _backup(self, name: str) -> None:
        self.backups[name] = self.network.hosts[name].disk.copy()

    def _restore(self, name: str) -> None:
        if name in self.backups:
            self.network.restore_disk(name, self.backups[name])
            self.watch.disk_replaced(name)
            self._start(name)

    def _lose(self, name: str) -> None:
        self.network.lose_disk(name)
        self.watch.disk_replaced(name)
        self.done[DISK_LOSS] += 1
        self._start(name)

    def _lose_disk(self, name: str) -> None:
        if self._runs(name):
            self.network.power_off(name)
        self._lose(name)

    def _cut(self, name: str) -> None:
        other = self.random.choice(self.names)
        self._cuts.add((name, other))
        if self.random.random() < 0.5:
            self._cuts.add((other, name))
        self._apply_cuts()

    def _mend(self, _name: str) -> None:
        self._cuts.clear()
        self._apply_cuts()

    def _apply_cuts(self) -> None:
        groups, cuts = dict(self._groups), frozenset(self._cuts)
        self.network.faults.cut = lambda one, other: (
            groups.get(one) != groups.get(other) or (one, other) in cuts
        )

    # ----------------------------------------------------------------- disasters

    def _mass_restart(self) -> None:
        running = [name for name in self._staying() if self._runs(name)]
        for name in running:
            (self.network.power_off if self.random.random() < 0.5 else self.network.kill)(name)
        assert self.network.running() == []
        self.network.run(self.random.uniform(0.0, 30.0))
        for name in self._staying():
            self._start(name)
            self.network.run(self.random.uniform(0.0, 1.0))
        self.done[MASS_RESTART] += 1

    def _long_partition(self, *, restart_within: bool) -> None:
        sides = self.random.randint(2, 3)
        shuffled = self.random.sample(self.names, len(self.names))
        # One of each side at least; the rest as it falls.
        self._groups = {
            name: place if place < sides else self.random.randrange(sides)
            for place, name in enumerate(shuffled)
        }
        self._apply_cuts()
        start_ms = self.network.wall_ms
        end_ms = start_ms + int(DIGEST_LIFETIME_MS * self.random.uniform(1.05, 1.35))
        self._turmoil(self.random.randint(1, 4))
        self.network.run(60)
        acts = self.random.randint(2, 8)
        restart_at_ms = start_ms + self.random.random() * (end_ms - start_ms) if restart_within else None
        while self.network.wall_ms < end_ms:
            leap_s = self.random.uniform(0.02, 1.5) * DAY_S
            # A renewal on the way needs a moment to spread, the end of a leap some time of beats and dials.
            is_whole = self.network.timeline.leap(leap_s) == leap_s
            self.network.run(self.random.uniform(2.0, 15.0) if is_whole else self.random.uniform(0.0, 2.0))
            if acts and self.random.random() < 0.3:
                acts -= 1
                self._something()
            if restart_at_ms is not None and self.network.wall_ms >= restart_at_ms:
                restart_at_ms = None
                self._mass_restart()
        if restart_at_ms is not None:
            self._mass_restart()
        self.network.run(30)
        self._note_partition(end_ms - start_ms)

    def _note_partition(self, lasted_ms: int) -> None:
        """Count the partition if it was one: time enough, and somebody holds an expired line of another side."""
        expired = any(
            self._groups[host.machine] != self._groups[line.digest.origin]
            and not is_member(line, self.network.wall_ms)
            for host in self.network.running()
            if host.node is not None
            for line in host.node.registry.table
        )
        if lasted_ms > DIGEST_LIFETIME_MS and expired:
            self.done[PARTITION] += 1

    def _make_peace(self) -> None:
        self._groups, self._cuts = {}, set()
        self.network.faults.heal()
        for name in self._staying():
            host = self.network.hosts[name]
            self.network.faults.forget_crash(name)
            if abs(host.clock_ahead_ms) > SMALL_STEP_MS and self._runs(name):
                self.network.kill(name)  # whoever sets a clock right starts the daemon anew
            host.clock_ahead_ms = 0
            if not self._runs(name):
                self._start(name)

    # ----------------------------------------------------------------- the verdict

    def _judge(self, *, is_split: bool) -> Outcome:
        watch = self.watch
        resurrected = list(watch.resurrected(self.left))
        forks = sorted(self.network.verifier.forks)
        failures = [
            *(f"{fault} did not happen" for fault in DEMANDED if not self.done[fault]),
            *([f"no agreement {HEAL_WITHIN_S:.0f} s after the end of all faults"] if is_split else []),
            *resurrected,
            *watch.fallen,
            *watch.floors_held(),
            *watch.stopped,
            *watch.forks,
            *(f"{name} signed two digests of one number" for name in forks),
            *([] if is_split else disagreements(self.network)),
        ]
        self.done.update(self.network.faults.counts)
        timeline = self.network.timeline
        return Outcome(
            seed=self.seed,
            nodes=len(self.names),
            done=dict(self.done),
            failures=tuple(failures),
            resurrections=len(resurrected),
            is_split=is_split,
            virtual_days=(timeline.now_s + timeline.leapt_s) / DAY_S,
            events=timeline.events,
        )


def play(seed: int) -> Outcome:
    """Play the history of one seed."""
    return Schedule(seed).play()
