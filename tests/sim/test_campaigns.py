"""A fixed sample of each campaign, and proof that the campaigns would see what they look for."""

import json
from functools import partial

import pytest

from esgf_gossip.core import effects as fx
from esgf_gossip.core import fetching, links, model
from esgf_gossip.sim import __main__ as command
from esgf_gossip.sim import campaign, schedules, spread
from esgf_gossip.sim.byzantine import LIES
from esgf_gossip.sim.invariants import Watch, disagreements
from esgf_gossip.sim.network import a_network
from helpers import mutants, stage

SCHEDULES = (1, 2, 3, 4)
SPREADS = (1, 2)


@pytest.mark.parametrize("seed", SCHEDULES)
def test_a_random_history_ends_in_agreement(seed):
    """A partition longer than any digest lives, a mass restart, a lost disk: no split, nobody back from the dead."""
    outcome = schedules.play(seed)
    assert outcome.failures == (), f"replay: python -m esgf_gossip.sim schedules {seed}"
    assert {name for name in schedules.DEMANDED if outcome.done[name]} == set(schedules.DEMANDED)
    assert schedules.NODES_LEAST <= outcome.nodes <= schedules.NODES_MOST
    assert outcome.virtual_days > 7


def test_a_history_is_the_same_whenever_it_is_played():
    """A failing seed fails again."""
    assert schedules.play(5) == schedules.play(5)


def test_a_line_that_falls_is_caught():
    """A lower line on a disk, or one that is gone, is seen when it happens and at the end."""
    network = a_network(3, 1)
    watch = Watch(network)
    assert network.settle(60)
    host, origin = network.hosts["n00.example.org"], "n01.example.org"
    old = host.disk.lines[origin]
    network.publish(origin, {"registration": b"newer"})
    network.run(5)
    assert (watch.fallen, list(watch.floors_held())) == ([], [])
    network.perform(host, [fx.PersistLine(old, {})])
    assert watch.fallen == [f"n00.example.org replaced its line of {origin} by one not above it"]
    assert "the table of n00.example.org is not that of its disk" in list(disagreements(network))
    host.node.registry.withdraw(origin)
    assert list(watch.floors_held()) == [f"n00.example.org holds less of {origin} than before"]


def test_a_node_back_from_the_dead_is_caught():
    """Who left, as a disk knows, and is a member for somebody, is named."""
    network = a_network(4, 1)
    watch = Watch(network)
    assert network.settle(60)
    left, fooled = "n03.example.org", network.hosts["n00.example.org"]
    alive = fooled.disk.lines[left]
    network.leave(left)
    network.run(5)
    assert list(watch.resurrected({left})) == []
    fooled.node.registry.withdraw(left)
    fooled.node.registry.accept(alive, {})
    assert list(watch.resurrected({left})) == [f"{left} left and is back at n00.example.org"]


def test_nodes_that_never_look_for_others_are_caught(monkeypatch):
    """Islands that do not look for each other stay apart after a long partition, and the schedule says so."""
    monkeypatch.setattr(links.Links, "draw_partner", lambda *_: None)
    monkeypatch.setattr(links.Links, "_seeds_due", lambda *_: [])
    monkeypatch.setattr(schedules, "HEAL_WITHIN_S", 60.0)
    outcomes = [schedules.play(seed) for seed in range(1, 4)]
    assert any(outcome.is_split for outcome in outcomes)
    assert any("no agreement" in failure for outcome in outcomes for failure in outcome.failures)


@pytest.mark.parametrize("seed", SPREADS)
def test_a_change_reaches_fifty_nodes_in_time_and_hardly_twice(seed):
    """Links of 5 to 150 ms, one message in a hundred lost: within a second, one body a node."""
    found = spread.measure(spread.Plan(nodes=50, seed=seed, changes=10))
    figures = spread.summary([found])
    assert found.failures == [], f"replay: python -m esgf_gossip.sim spread --nodes 50 --seeds {seed}"
    assert found.faults["segment lost"] > 0
    assert figures["last_p99_s"] <= 1.0
    assert figures["copies_mean"] <= 1.10
    assert figures["bytes_ratio_mean"] <= 1.6


def test_a_fifth_of_liars_slows_a_change_by_little():
    """Relays that withhold, mutate, replay, roll back, mix and flood: nobody honest misses a change."""
    found = spread.measure(spread.Plan(nodes=40, changes=15, byzantine=0.2))
    assert found.failures == []
    assert {f"lie: {lie}" for lie in LIES} <= found.faults.keys()
    assert spread.summary([found])["last_p99_s"] <= 2.0


@pytest.mark.parametrize("name", mutants.CLASSES)
def test_no_mutant_is_accepted(name):
    """A hundred digests of each class that pass the parser change nothing in a node with real trust."""
    batch = mutants.run_batch(name, 1, 100)
    assert batch.accepted == []
    assert batch.parsed == 100


def test_a_node_that_believes_everything_is_caught(monkeypatch):
    """A verifier that does not look at signatures lets mutants in, and the campaign sees it."""
    monkeypatch.setattr(stage.DigestVerifier, "verify", _believe)
    batch = mutants.run_batch("epoch or sequence raised", 1, 50)
    assert len(batch.accepted) == 1


def _believe(_self, signed, digest, chain, _now_ms):
    rank = model.CertificateRank(1, bytes(20))
    order = model.Order(rank, digest.epoch, digest.sequence)
    return model.VerifiedDigest(signed, digest, order, fetching.sha256(signed.payload), tuple(chain))


def test_the_mutation_classes_are_enough():
    """More than ten, as demanded."""
    assert len(mutants.CLASSES) >= 10


def test_seeds_are_read_as_ranges():
    """a-b and a name seeds; everything else is refused."""
    assert list(campaign.seeds_of("3-5")) == [3, 4, 5]
    assert list(campaign.seeds_of("7")) == [7]
    for text in ("", "a", "5-3", "-1"):
        with pytest.raises(ValueError):
            campaign.seeds_of(text)


def test_schedules_go_on_where_they_were_stopped(tmp_path, capsys, monkeypatch):
    """Seeds in the state file are not played again, a line cut short is; the result is appended."""
    state, results = tmp_path / "state.jsonl", tmp_path / "results.json"
    arguments = ["schedules", "1-2", "--state", str(state), "--results", str(results), "--json"]
    assert command.main(arguments) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["seeds_done"], first["resurrections"], first["lasting_splits"]) == (2, 0, 0)
    played = []
    real = schedules.play
    monkeypatch.setattr(schedules, "play", lambda seed: played.append(seed) or real(seed))
    state.write_text(state.read_text()[:-10])
    assert command.main(arguments) == 0
    assert len(played) == 1
    assert len(json.loads(results.read_text())) == 2


def test_a_failed_seed_is_printed_with_the_line_that_replays_it(capsys, monkeypatch):
    """Whoever reads the log can play the history again."""
    outcome = schedules.Outcome(7, 8, {}, ("something fell",), 1, False, 8.0, 100)
    monkeypatch.setattr(schedules, "play", lambda seed: outcome)
    assert command.main(["schedules", "7"]) == 1
    out, err = capsys.readouterr()
    assert "seed 7: something fell; replay: python -m esgf_gossip.sim schedules 7" in err
    assert "resurrections      1" in out


def test_spread_prints_its_figures(capsys):
    """The command line measures, and names what happened."""
    assert command.main(["spread", "--nodes", "12", "--changes", "3", "--latency", "regions"]) == 0
    out = capsys.readouterr().out
    assert "last_p99_s" in out
    assert "copies_mean" in out


def test_processes_give_the_same_outcomes():
    """Two at a time or one after the other: a seed is a seed."""
    measure = partial(command._measure, {"nodes": 12, "changes": 2})
    alone = dict(campaign.outcomes(measure, range(1, 5), 1))
    assert dict(campaign.outcomes(measure, range(1, 5), 2)) == alone
    assert len(alone) == 4
