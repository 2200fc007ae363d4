"""Watch rings in virtual time: who dies is found by all, who lives is never reported for long, and quarrels end."""

from collections import Counter

import pytest

from esgf_gossip.core import effects as fx
from esgf_gossip.sim import faults
from esgf_gossip.sim.byzantine import slander
from esgf_gossip.sim.latency import AtRandom, Regions
from esgf_gossip.sim.network import VirtualNetwork
from esgf_gossip.sim.preload import start_in_step
from esgf_gossip.sim.traffic import Traffic

SEED = 20_261_126
HOUR_MS = 3600 * 1000


class Federation:
    """A network in agreement whose every change of a verdict is kept: when, where, on whom, what."""

    def __init__(self, size, seed=SEED, *, loss=0.0, latency=None, warm_s=6.0, in_step=True):
        self.network = VirtualNetwork(seed, latency or Regions())
        self.names = [f"n{number:03}.example.org" for number in range(size)]
        self.changes = []
        self.network.on_notice = self._told
        self.network.faults.loss = loss
        if in_step:
            start_in_step(self.network, self.names, keep_disks=True)
            # Faults come at any phase of the beats.
            self.network.run(warm_s + self.network.random.uniform(0, 4))

    def _told(self, host, notice):
        if isinstance(notice, fx.VerdictChanged):
            self.changes.append((self.network.now_s, host.machine, notice.host, notice.verdict.value))

    def node(self, name):
        return self.network.hosts[name].node

    def living(self):
        """Return the nodes that run and are not paused."""
        return [host.machine for host in self.network.running() if not host.is_paused]

    def sample(self, count):
        return self.network.random.sample(self.names, count)

    def all_find(self, gone, *, but=()):
        """Tell whether all that live count exactly these as unreachable."""
        return all(self.node(name).standing.unreachable == gone for name in self.living() if name not in but)

    def is_clear(self):
        """Tell whether nobody is suspect or unreachable anywhere."""
        return not any(self.node(name).standing.tallies for name in self.living())

    def seconds_until(self, condition, most_s):
        """Return how long a condition took to hold; fail with what was told otherwise."""
        start_s = self.network.now_s
        assert self.network.run(most_s, until=condition), f"not after {most_s} s: {self.changes[-5:]}"
        return self.network.now_s - start_s

    def accused(self, *, but=()):
        """Return who was suspect or unreachable for anybody, ever."""
        return {host for _, _, host, verdict in self.changes if verdict != "clear"} - set(but)

    def digests(self, name):
        """Return how many digests a node has made in this run."""
        return self.node(name).origin.publication.sequence


# ----------------------------------------------------------------- one node


@pytest.mark.parametrize("seed", range(5))
def test_a_killed_node_is_found_by_all_within_a_second(seed):
    """Its links close, each observer dials once, 49 nodes know."""
    federation = Federation(50, seed)
    (victim,) = federation.sample(1)
    federation.network.kill(victim)
    assert federation.seconds_until(lambda: federation.all_find({victim}), 5) < 1.0
    assert federation.accused() == {victim}


@pytest.mark.parametrize("seed", range(4))
def test_a_silent_machine_is_found_by_all_within_seven_seconds(seed):
    """The power fails: nothing is closed, nothing answers. When it is back all clear."""
    federation = Federation(50, seed, loss=0.01)
    (victim,) = federation.sample(1)
    federation.network.power_off(victim)
    assert federation.network.faults.counts[faults.HALF_OPEN] > 5
    assert 2.0 < federation.seconds_until(lambda: federation.all_find({victim}), 10) < 7.0
    federation.network.run(60)
    federation.network.start(victim)
    assert federation.seconds_until(federation.is_clear, 10) < 2.0
    federation.network.run(30)
    assert federation.is_clear()
    assert federation.accused() == {victim}


@pytest.mark.parametrize("seed", range(4))
def test_a_paused_process_is_found_and_up_again_within_two_seconds(seed):
    """SIGSTOP for 20 s: unreachable within 7 s, clear 2 s after SIGCONT; it blames nobody itself."""
    federation = Federation(50, seed, loss=0.01)
    (victim,) = federation.sample(1)
    federation.network.pause(victim, 20)
    assert federation.seconds_until(lambda: federation.all_find({victim}), 10) < 7.0
    federation.network.run(60, until=lambda: not federation.network.hosts[victim].is_paused)
    assert federation.network.faults.counts[faults.PAUSED] > 10
    assert federation.seconds_until(federation.is_clear, 10) < 2.0
    federation.network.run(20)
    assert federation.accused() == {victim}


@pytest.mark.parametrize(("size", "pauses"), [(3, 100), (4, 100), (7, 100), (50, 10)])
@pytest.mark.parametrize("latency", [AtRandom(), Regions()], ids=["near", "regions"])
def test_a_pause_of_three_seconds_never_makes_a_node_unreachable(size, pauses, latency):
    """At any phase of the beats, near or 150 ms away, with and without loss: suspect at most, and nobody else."""
    federation = Federation(size, latency=latency)
    for turn in range(pauses):
        federation.network.faults.loss = 0.01 * (turn % 2)
        (victim,) = federation.sample(1)
        federation.changes.clear()
        federation.network.pause(victim, 3.0)
        federation.network.run(federation.network.random.uniform(18, 22))
        assert "unreachable" not in {verdict for *_, verdict in federation.changes}, turn
        assert federation.accused(but={victim}) == set(), turn
        assert federation.is_clear()
    assert federation.network.faults.counts[faults.PAUSED] >= pauses


def test_five_percent_pausing_accuse_nobody_else():
    """Three of fifty, ever others, each for ten seconds: no other node is suspect anywhere, ever."""
    federation = Federation(50, loss=0.01)
    for _ in range(3):
        paused = federation.sample(3)
        federation.changes.clear()
        for victim in paused:
            federation.network.pause(victim, 10)
            federation.network.run(federation.network.random.uniform(0, 1))
        federation.network.run(18)
        assert federation.accused() == set(paused)
        assert federation.is_clear()


def test_no_false_positives_with_loss():
    """Fifty nodes for ten minutes, one segment in a hundred lost: nobody is suspect anywhere, ever."""
    federation = Federation(50, loss=0.01)
    federation.network.run(600)
    assert federation.network.faults.counts[faults.LOST] > 500
    assert federation.changes == []
    assert {federation.digests(name) for name in federation.names} == {1}


# ----------------------------------------------------------------- many nodes


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("fault", ["kill", "power_off"])
def test_all_of_many_that_die_at_once_are_found(share, fault):
    """10, 30 and 50 % of fifty: all within 15 s, for good, and no running node is ever suspect."""
    federation = Federation(50, loss=0.01)
    gone = set(federation.sample(round(50 * share)))
    for victim in gone:
        getattr(federation.network, fault)(victim)
    assert federation.seconds_until(lambda: federation.all_find(gone), 20) < 15.0
    federation.network.run(45)
    assert federation.all_find(gone)
    assert federation.accused() == gone


def test_equal_roots_give_equal_verdicts():
    """Some dead, some paused, some back: whoever holds the same lines says the same of everybody."""
    federation = Federation(30, loss=0.01)
    compared = 0
    for turn in range(10):
        one, other, third = federation.sample(3)
        for victim in (one, other, third):
            if federation.node(victim) is None:
                federation.network.start(victim)
        federation.network.kill(one)
        federation.network.pause(other, 7)
        for _ in range(20):
            federation.network.run(0.37)
            by_root = {}
            for name in federation.living():
                node = federation.node(name)
                tallies = {
                    subject: (tally.verdict, tally.votes) for subject, tally in node.standing.tallies.items()
                }
                key = (node.registry.table.root, node.links.members, node.links.mute)
                compared += bool(tallies) and key in by_root
                assert by_root.setdefault(key, tallies) == tallies, turn
        federation.network.run(5)
    assert compared > 500


def test_a_cold_start_and_a_mass_restart_accuse_nobody():
    """Fifty start within three seconds; all stop in good order, all start again within six: not one suspect."""
    federation = Federation(50, in_step=False)
    network, random = federation.network, federation.network.random

    def start(name):
        network.start(name, [seed for seed in federation.names[:3] if seed != name])

    for name in federation.names:
        network.add(name)
        network.timeline.later(random.uniform(0, 3), start, name)
    network.run(30)
    assert len(network.running()) == 50
    assert federation.accused() == set()
    for name in federation.names:
        network.timeline.later(random.uniform(0, 2), network.stop, name)
    network.run(3)
    assert network.running() == []
    for name in federation.names:
        network.timeline.later(random.uniform(0, 6), start, name)
    network.run(60)
    assert network.converged()
    assert federation.accused() == set()
    assert {federation.digests(name) for name in federation.names} == {1}


@pytest.mark.parametrize("away_s", [3.0, 15.0, 28.0])
def test_an_orderly_restart_within_its_time_is_never_suspect(away_s):
    """It said thirty seconds and was back before: nobody says a word."""
    federation = Federation(12, loss=0.01)
    for victim in federation.sample(4):
        federation.network.stop(victim)
        federation.network.run(away_s)
        federation.network.start(victim)
        federation.network.run(40)
    assert federation.accused() == set()
    federation.network.stop(victim)
    federation.seconds_until(lambda: federation.all_find({victim}), 45)


# ----------------------------------------------------------------- cuts


def test_a_partition_in_halves_heals():
    """Each half counts the other as unreachable and nobody of its own; then all is clear and the roots are equal."""
    federation = Federation(30)
    network = federation.network
    half = set(federation.names[::2])
    rest = set(federation.names) - half
    network.faults.partition(half)
    seen = lambda: all(
        federation.node(name).standing.unreachable == (rest if name in half else half)
        for name in federation.names
    )
    assert federation.seconds_until(seen, 30) < 15.0
    network.run(20)
    assert seen()
    wrong = {
        (name in half) == (host in half)
        for _, name, host, verdict in federation.changes
        if verdict != "clear"
    }
    assert wrong == {False}
    assert network.faults.counts[faults.BLOCKED_DIAL] > 100
    network.faults.heal()
    assert federation.seconds_until(lambda: federation.is_clear() and network.converged(), 30) < 5.0
    network.run(30)
    assert federation.is_clear()
    assert network.converged()


def test_a_node_cut_off_for_a_while_accuses_nobody():
    """Twenty seconds without a wire: it is unreachable; it knows that it hears nobody and abstains."""
    federation = Federation(50)
    (victim,) = federation.sample(1)
    federation.network.faults.partition([victim])
    federation.network.run(20)
    witness = next(name for name in federation.names if name != victim)
    assert federation.node(witness).standing.unreachable == {victim}
    assert federation.node(victim).standing.statement(victim).abstains
    assert federation.network.faults.counts[faults.HELD] > 10
    federation.network.faults.heal()
    federation.seconds_until(federation.is_clear, 30)
    federation.network.run(30)
    assert federation.is_clear()
    assert federation.accused() == {victim}


def test_a_node_that_nobody_hears_counts_as_unreachable_and_is_quiet():
    """A one-way cut: its answers reach nobody. It sees that it is reported, and its quarrel with itself fades."""
    federation = Federation(50)
    victim = federation.names[7]
    federation.network.faults.cut_ways({(victim, name) for name in federation.names})
    federation.network.run(60)
    others = set(federation.names) - {victim}
    assert {frozenset({victim})} == {federation.node(name).standing.unreachable for name in others}
    before = federation.digests(victim)
    federation.network.run(300)
    assert federation.digests(victim) - before <= 1
    assert {
        host for _, name, host, verdict in federation.changes if verdict != "clear" and name != victim
    } == {victim}
    federation.network.faults.heal()
    federation.seconds_until(federation.is_clear, 60)


def test_observers_that_do_not_hear_a_living_node_quarrel_ever_more_rarely():
    """Cut one way to its five observers only: each report is answered; digests of an hour are few."""
    federation = Federation(20)
    victim = federation.names[7]
    observers = federation.node(victim).standing.observers.originals(victim)
    federation.network.faults.cut_ways({(victim, observer) for observer in observers})
    federation.network.run(600)
    assert federation.network.faults.counts[faults.HELD] > 0
    early = federation.digests(victim)
    assert 2 <= early <= 16
    federation.network.run(1200)
    assert federation.digests(victim) - early <= 6
    assert max(federation.digests(observer) for observer in observers) < 60
    federation.network.faults.heal()
    federation.seconds_until(lambda: federation.is_clear() and federation.network.converged(), 90)


# ----------------------------------------------------------------- observers that err


def test_an_observer_whose_loop_stands_still_reports_nobody():
    """Six seconds, again and again, in a loaded process: it abstains and accuses nobody."""
    federation = Federation(20)
    (observer,) = federation.sample(1)
    for _ in range(20):
        federation.network.pause(observer, federation.network.random.uniform(1.5, 6.0))
        federation.network.run(federation.network.random.uniform(7, 9))
        assert federation.node(federation.names[0]).standing.statement(observer).reports == {}
    assert federation.network.faults.counts[faults.PAUSED] > 50
    assert federation.accused(but={observer}) == set()


@pytest.mark.parametrize("size", [3, 7, 25])
def test_one_slanderer_makes_nobody_unreachable_and_little_noise(size):
    """It reports all others every second: suspect where it holds a seat, and not one digest in answer."""
    federation = Federation(size, loss=0.01)
    (liar,) = federation.sample(1)
    others = set(federation.names) - {liar}
    slander(federation.network, liar, others)
    federation.network.run(120)
    assert federation.network.faults.counts["lie: slander"] > 100
    assert "unreachable" not in {verdict for *_, verdict in federation.changes}
    watched = federation.node(liar).standing.observers.duties(liar, ()).keys()
    assert federation.accused() == set(watched)
    assert {federation.digests(name) for name in others} == {1}


@pytest.mark.parametrize("hours", [-5, 7])
def test_wrong_clocks_change_nothing(hours):
    """A third of the clocks is hours off, one steps: found as fast by all who read the others' digests, nobody accused."""
    federation = Federation(21)
    network = federation.network
    wrong = federation.sample(7)
    # By a clock hours behind all new digests are dated ahead: it learns nothing new, of verdicts neither.
    blind = set(wrong) if hours < 0 else set()
    for name in wrong:
        network.hosts[name].clock_ahead_ms = hours * HOUR_MS
    network.run(20)
    assert federation.accused() == set()
    for victim in (wrong[0], next(name for name in federation.names if name not in wrong)):
        network.pause(victim, 15)
        assert federation.seconds_until(lambda v=victim: federation.all_find({v}, but=blind), 12) < 7.5
        network.run(10)
        network.hosts[wrong[1]].clock_ahead_ms += HOUR_MS
        federation.seconds_until(federation.is_clear, 10)
        network.run(15)
    assert federation.is_clear()
    assert federation.accused() == {wrong[0], victim}


# ----------------------------------------------------------------- cost


def test_idle_traffic_of_a_node_does_not_grow_with_the_federation():
    """Messages and bytes a node sends at rest: the same for 7, 25, 50 and 200 nodes."""
    messages, size_bytes = {}, {}
    for size in (7, 25, 50, 200):
        federation = Federation(size, latency=AtRandom())
        federation.network.run(20)
        traffic = federation.network.traffic = Traffic()
        federation.network.run(60)
        messages[size] = traffic.messages.total() / size / 60
        size_bytes[size] = traffic.total_bytes / size / 60
        assert Counter(traffic.messages).most_common(2)[0][0] in ("Ping", "Pong")
    assert max(messages.values()) < 1.15 * min(messages.values())
    assert max(messages.values()) < 3.5
    assert max(size_bytes.values()) < 100
