"""
The virtual network: machines that run the real node, and everything that may happen to them.

Everything follows from the seed. What a batch of effects means is decided here
as in the daemon's driver: persist, send, timers, notices (docs/adr/0004-effects.md).
Faults are in ``faults``, wires in ``wires``, time in ``timeline``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from random import Random

from esgf_gossip.core import effects as fx
from esgf_gossip.core.codec import decode, encode
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.limits import FRAME_BYTES, HANDSHAKE_S
from esgf_gossip.core.log_effects import SendLog
from esgf_gossip.core.messages import Message
from esgf_gossip.core.model import Address, Moment
from esgf_gossip.core.node import Node
from esgf_gossip.sim import faults as fault
from esgf_gossip.sim.disk import PERSISTS, Disk
from esgf_gossip.sim.faults import Faults
from esgf_gossip.sim.host import PORT, End, Host
from esgf_gossip.sim.latency import AtRandom, Latency
from esgf_gossip.sim.timeline import Timeline
from esgf_gossip.sim.traffic import Traffic
from esgf_gossip.sim.trust import START_MS, PlainJudge, PlainSigner, PlainVerifier
from esgf_gossip.sim.wires import Wires

# One reading serves all who get the same bytes: messages are immutable. Long ones would fill the memory.
_CACHED_BYTES = 16 * 1024
_read_once = lru_cache(maxsize=4096)(decode)
# TCP and TLS 1.3 shake hands for two round trips before the first message.
_HANDSHAKE_TRIPS = 4
_ACCEPT_AGAIN_S = 0.25


def read(payload: bytes) -> Message:
    """
    Read a payload by the real codec, equal ones once.

    Raises:
        WireError: it is no message.
    """
    return _read_once(payload) if len(payload) <= _CACHED_BYTES else decode(payload)


class VirtualNetwork:
    """
    Hosts by machine name, one timeline, one set of faults.

    ``on_persist`` is told every effect that reached a disk, ``on_notice`` every
    notice; without it notices are kept by the hosts. ``traffic`` counts where given.
    """

    def __init__(self, seed: int, latency: Latency | None = None, *, traffic: Traffic | None = None) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.timeline = Timeline()
        self.faults = Faults()
        self.hosts: dict[str, Host] = {}
        self.verifier = PlainVerifier()
        self.judge = PlainJudge()
        self.traffic = traffic
        self.on_persist: Callable[[Host, fx.Output], None] | None = None
        self.on_notice: Callable[[Host, fx.Output], None] | None = None
        self.wires = Wires(
            self.timeline, self.faults, latency or AtRandom(), self.random, self._payload, self._lost
        )

    @property
    def now_s(self) -> float:
        """Virtual seconds since the start."""
        return self.timeline.now_s

    @property
    def wall_ms(self) -> int:
        """The right time."""
        return START_MS + int((self.timeline.now_s + self.timeline.leapt_s) * 1000)

    def at(self, host: Host | None = None) -> Moment:
        """Return this instant, by the clock of a host that may be wrong."""
        return Moment(self.timeline.now_s, self.wall_ms + (0 if host is None else host.clock_ahead_ms))

    # ----------------------------------------------------------------- life

    def add(self, name: str, entries: dict[str, bytes] | None = None, *, disk: Disk | None = None) -> Host:
        """Set up a machine that is certified for its own name; nothing runs yet."""
        host = self.hosts[name] = Host(name, name, Disk() if disk is None else disk)
        host.entries = {"registration": f"registration of {name}".encode()} if entries is None else entries
        return host

    def clone(self, machine: str, copy: str) -> Host:
        """Copy a machine, disk and key and all, to a place where nobody dials it."""
        original = self.hosts[machine]
        host = self.hosts[copy] = Host(copy, original.name, original.disk.copy(), dict(original.entries))
        host.generation = original.generation
        return host

    def start(self, machine: str, seeds: Sequence[str] = ()) -> Host:
        """Start the process of a machine with what its disk holds."""
        host = self.hosts[machine]
        assert host.node is None, f"{machine} runs already"
        host.run += 1
        host.is_powered = True
        host.node = Node(
            PlainSigner(host.name, host.generation),
            self.verifier,
            host.contact,
            [(seed, PORT) for seed in seeds],
            Random(f"{self.random.random()}/{machine}"),
            self.judge,
        )
        stored, bodies = host.disk.stored(), dict(host.disk.bodies)
        forks, logs = list(host.disk.forks.values()), host.disk.stored_logs()
        trust = list(host.disk.trust.values())
        at = self.at(host)
        self._perform(host, host.node.restore(host.disk.epoch, stored, bodies, at, forks, logs, trust))
        if host.node is not None:
            self._perform(host, host.node.start(host.entries, self.at(host)))
        return host

    def kill(self, machine: str) -> None:
        """Stop a process as kill -9 does: nothing is said, its links are closed by the system."""
        self._end(self.hosts[machine], self.wires.close)

    def power_off(self, machine: str) -> None:
        """Take the power: nothing is closed, nothing answers, peers keep half of each link."""
        host = self.hosts[machine]
        self._end(host, self.wires.vanish)
        host.is_powered = False

    def stop(self, machine: str) -> None:
        """Stop a process in order: goodbyes are on their way, links close behind them."""
        host = self.hosts[machine]
        assert host.node is not None
        self._perform(host, host.node.stop())
        self._end(host, self.wires.close)

    def _end(self, host: Host, part: Callable[[End], None]) -> None:
        host.node = None
        host.run += 1
        host.is_paused = False
        host.late_timers.clear()
        host.late_arrivals.clear()
        self.faults.forget_crash(host.machine)
        for end in list(host.ends.values()):
            part(end)

    def lose_disk(self, machine: str) -> None:
        """Take everything from a machine whose process does not run."""
        self.restore_disk(machine, Disk())

    def restore_disk(self, machine: str, backup: Disk) -> None:
        """Put a backup in place of the disk of a machine whose process does not run."""
        host = self.hosts[machine]
        assert host.node is None
        host.disk = backup.copy()

    def publish(self, machine: str, entries: dict[str, bytes]) -> None:
        """Let a running node publish these entries."""
        host = self.hosts[machine]
        host.entries = entries
        assert host.node is not None
        self._perform(host, host.node.publish(entries, self.at(host)))

    def offer_trust(self, machine: str, objects: Sequence[tuple[str, bytes]]) -> None:
        """Let a running node find trust objects, key and body, among its files."""
        host = self.hosts[machine]
        assert host.node is not None
        self._perform(host, host.node.offer_trust(objects, self.at(host)))

    def append(self, machine: str, log: str, leaves: Sequence[bytes]) -> None:
        """Let a running node add events to a log of its own."""
        host = self.hosts[machine]
        assert host.node is not None
        self._perform(host, host.node.append(log, leaves, self.at(host)))

    def leave(self, machine: str) -> None:
        """Let a running node leave the federation for good."""
        host = self.hosts[machine]
        assert host.node is not None
        self._perform(host, host.node.leave(self.at(host)))
        if host.node is not None:
            self.stop(machine)

    def pause(self, machine: str, seconds: float) -> None:
        """Stop a process as SIGSTOP does: what is due meanwhile comes late, all at once."""
        host = self.hosts[machine]
        assert host.node is not None
        host.is_paused = True
        self.timeline.later(seconds, self._resume, host, host.run)

    def _resume(self, host: Host, run: int) -> None:
        if host.run != run:
            return
        host.is_paused = False
        late, host.late_timers, host.late_arrivals = [*host.late_timers, *host.late_arrivals], [], []
        for action in late:
            if host.run == run:
                action()

    # ----------------------------------------------------------------- time

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let virtual time pass; stop early when ``until`` holds. Tells whether it held."""
        return self.timeline.run(seconds, until)

    def settle(self, seconds: float, every_s: float = 0.25) -> bool:
        """Let time pass until all running nodes agree, looked at now and then; tell whether they do."""
        end_s = self.now_s + seconds
        while self.now_s < end_s and not self.converged():
            self.run(min(every_s, end_s - self.now_s))
        return self.converged()

    # ----------------------------------------------------------------- state

    def running(self) -> list[Host]:
        """Return the hosts whose process runs."""
        return [host for host in self.hosts.values() if host.node is not None]

    def roots(self) -> set[bytes]:
        """Return the roots of all running nodes."""
        return {host.node.registry.table.root for host in self.running() if host.node}

    def converged(self) -> bool:
        """Tell whether all running nodes hold the same lines, one of each of them at least."""
        sizes = {len(host.node.registry.table) for host in self.running() if host.node}
        names = {host.name for host in self.running()}
        return len(self.roots()) == 1 and max(sizes, default=0) >= len(names)

    # ----------------------------------------------------------------- effects

    def perform(self, host: Host, outputs: list[fx.Output]) -> None:
        """Carry out what a node returned to a call made by hand."""
        self._perform(host, outputs)

    def _perform(self, host: Host, outputs: list[fx.Output]) -> None:
        if not outputs:
            return
        run = host.run
        if not self._persist(host, outputs):
            self.kill(host.machine)
            return
        for output in outputs:
            match output:
                case fx.Send():
                    self._send(host, output)
                case _ if isinstance(output, SendLog):
                    for message in host.disk.read(output):
                        self._send(host, fx.Send(output.link, message))
                case fx.Disconnect():
                    end = host.ends.get(output.link)
                    if end is not None:
                        self.wires.close(end)
                case fx.Dial():
                    self._dial(host, output.address)
                case fx.StartTimer():
                    plan = self.timeline.later
                    if isinstance(output.timer, fx.SignAnew):
                        plan = self.timeline.later_by_wall
                    plan(output.after_s, self._timer, host, run, output.timer)
                case fx.PauseReading():
                    pass  # a wire here carries no flood
                case _ if type(output) in PERSISTS:
                    pass
                case _ if self.on_notice is not None:
                    self.on_notice(host, output)
                case _:
                    host.notices.append(output)

    def _persist(self, host: Host, outputs: list[fx.Output]) -> bool:
        """Write a batch, effect by effect; False where the process crashes within or right after it."""
        persisted = False
        for output in outputs:
            if type(output) in PERSISTS:
                if self.faults.crashes_now(host.machine):
                    return False
                host.disk.apply(output)
                if self.on_persist is not None:
                    self.on_persist(host, output)
                self.faults.persisted(host.machine)
                persisted = True
        return not (persisted and self.faults.crashes_now(host.machine))

    def _timer(self, host: Host, run: int, timer: fx.Timer) -> None:
        if host.run != run or host.node is None:
            return
        if host.is_paused:
            self.faults.counts[fault.PAUSED] += 1
            host.late_timers.append(lambda: self._timer(host, run, timer))
            return
        self._perform(host, host.node.handle_timer(timer, self.at(host)))

    # ----------------------------------------------------------------- links

    def link(self, one: str, other: str) -> None:
        """Join two running nodes by a link that the first dialled, without the time that takes."""
        host, target = self.hosts[one], self.hosts[other]
        self._join(host, target, target.contact, self.wires.latency.between(one, other, self.random))

    def _join(self, host: Host, target: Host, address: Address, latency_s: float) -> None:
        ours, theirs = self.wires.join(host, target, latency_s)
        if host.node is not None:
            self._perform(host, host.node.peer_connected(ours.link, target.name, address, self.at(host)))
        if target.node is not None and theirs.is_open:
            self._perform(target, target.node.peer_connected(theirs.link, host.name, None, self.at(target)))

    def _dial(self, host: Host, address: Address) -> None:
        latency_s = self.wires.latency.between(host.machine, address[0], self.random)
        after_s = _HANDSHAKE_TRIPS * latency_s
        self.timeline.later(after_s, self._dialled, host, host.run, address, latency_s, after_s)

    def _dialled(self, host: Host, run: int, address: Address, latency_s: float, waited_s: float) -> None:
        if host.run != run or host.node is None:
            return
        target = self.hosts.get(address[0])
        if target is not None and (
            self.faults.is_cut(host.machine, target.machine)
            or self.faults.is_cut(target.machine, host.machine)
        ):
            self.faults.counts[fault.BLOCKED_DIAL] += 1
            self.timeline.later(HANDSHAKE_S, self._failed, host, run, address, "timed out")
        elif target is None or (target.node is None and target.is_powered):
            self._failed(host, run, address, "connection refused")
        elif target.node is None:
            self.timeline.later(HANDSHAKE_S, self._failed, host, run, address, "timed out")
        elif not (target.is_paused or host.is_paused):
            self._join(host, target, address, latency_s)
        elif waited_s < HANDSHAKE_S:
            # The system takes the connection in, the process does not answer yet.
            waited_s += _ACCEPT_AGAIN_S
            self.timeline.later(_ACCEPT_AGAIN_S, self._dialled, host, run, address, latency_s, waited_s)
        else:
            self._failed(host, run, address, "timed out")

    def _failed(self, host: Host, run: int, address: Address, reason: str) -> None:
        if host.run != run or host.node is None:
            return
        if host.is_paused:
            host.late_arrivals.append(lambda: self._failed(host, run, address, reason))
            return
        self._perform(host, host.node.dial_failed(address, reason, self.at(host)))

    def _send(self, host: Host, order: fx.Send) -> None:
        end = host.ends.get(order.link)
        if end is None:
            return
        payload = encode(order.message)
        payloads = [payload] if host.tamper is None else host.tamper(end, order.message, payload)
        for payload in payloads:
            assert 0 < len(payload) <= FRAME_BYTES
            if self.traffic is not None:
                self.traffic.note(host.machine, end.other.host.machine, order.message, len(payload))
            self.wires.carry(end, payload)

    def _payload(self, end: End, payload: bytes) -> None:
        host = end.host
        if host.node is None or not end.is_open:
            return
        if host.is_paused:
            self.faults.counts[fault.PAUSED] += 1
            host.late_arrivals.append(lambda: self._payload(end, payload))
            return
        try:
            message = read(payload)
        except WireError as error:
            outputs = host.node.wire_error(end.link, error, self.at(host))
        else:
            outputs = host.node.handle_message(end.link, message, self.at(host))
        self._perform(host, outputs)

    def _lost(self, end: End, reason: str) -> None:
        host = end.host
        if host.node is None:
            return
        if host.is_paused:
            host.late_arrivals.append(lambda: self._lost(end, reason))
            return
        self._perform(host, host.node.peer_lost(end.link, reason, self.at(host)))


def a_network(size: int, seed: int, seeds: int = 1) -> VirtualNetwork:
    """Start a network of nodes n00, n01, ... that all know the first ones as seeds."""
    network = VirtualNetwork(seed)
    names = [f"n{number:02}.example.org" for number in range(size)]
    for name in names:
        network.add(name)
    for name in names:
        network.start(name, [seed_name for seed_name in names[:seeds] if seed_name != name])
    return network
