"""Trust as a running daemon keeps it: files watched, loads that fail, what a restart knows, clocks that go back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from esgf_gossip.core.model import Address
from esgf_gossip.net.trust_keeper import CLOCK_BACK_S, VISIT_AGAIN_S, WATCH_FILES_S
from esgf_gossip.trust import crl_object, pem, revocation
from esgf_gossip.trust.errors import TrustError
from helpers.trust import DAY_MS, TestFederation, a_federation
from helpers.trust_daemon import HOST, OTHER, Running, start


@pytest.fixture
def federation(tmp_path: Path) -> TestFederation:
    """Found a federation of two nodes."""
    found = a_federation(tmp_path / "federation")
    found.node(HOST)
    found.node(OTHER)
    return found


@pytest.fixture
def running(federation: TestFederation, tmp_path: Path) -> Iterator[Running]:
    """Start the node."""
    found = start(federation, tmp_path)
    with closing(found.database):
        yield found
        found.keeper.stop()


def test_a_file_put_by_hand_is_in_force_when_it_has_settled(running: Running) -> None:
    """Nobody has to say reload: a newer list in the folder counts after it has been the same twice."""
    running.federation.publish(running.federation.crl(5), HOST)
    running.wait(WATCH_FILES_S)
    assert running.number == 1, "half a copy would have been taken"
    running.wait(2 * WATCH_FILES_S)
    assert running.number == 5
    assert any(one.number == 5 for one in running.node.registry.trust)


def test_what_cannot_be_loaded_leaves_the_old_in_force_and_says_so(running: Running) -> None:
    """A damaged chain is a failure that stays visible; mended, it is over."""
    chain = running.federation.node(HOST) / "chain.pem"
    good, before = chain.read_bytes(), running.keeper.material
    chain.write_bytes(good[:100])
    running.wait(3 * WATCH_FILES_S)
    assert running.keeper.material is before
    assert "E-PEM" in running.keeper.failure
    with pytest.raises(TrustError):
        running.keeper.load_again()
    chain.write_bytes(good)
    running.wait(3 * WATCH_FILES_S)
    assert running.keeper.failure == ""


def test_an_object_from_a_peer_is_written_and_in_force_at_once(running: Running) -> None:
    """What the core accepted stands in the folder and counts in the same turn of the reactor."""
    crl = running.federation.crl(3, [running.federation.serial(OTHER)])
    key = next(key for key, one in crl_object.by_key([crl]))
    offer(running, key, crl.public_bytes(Encoding.DER))
    running.clock.advance(0)
    assert running.number == 3
    folder = running.federation.node(HOST) / "crl"
    numbers = {
        revocation.number(one)
        for path in folder.glob("*.pem")
        for one in pem.revocation_lists(pem.read(path), "crl")
    }
    assert 3 in numbers


def offer(running: Running, key: str, body: bytes) -> None:
    """Let the core judge an object."""
    driver = running.keeper._driver
    driver.perform(running.node.offer_trust([(key, body)], driver.at()))


def test_files_put_back_from_a_backup_lower_nothing(running: Running, tmp_path: Path) -> None:
    """After a restart the database knows of the newer list, whatever the folder holds: it is in force, and written back."""
    old = {path: path.read_bytes() for path in (running.federation.node(HOST) / "crl").iterdir()}
    running.federation.publish(running.federation.crl(7, [running.federation.serial(OTHER)]), HOST)
    running.wait(3 * WATCH_FILES_S)
    running.keeper.stop()
    running.database.close()
    for path, content in old.items():
        path.write_bytes(content)
    again = start(running.federation, tmp_path)
    with closing(again.database):
        again.clock.advance(0)
        assert again.number == 7
        again.keeper.stop()


def test_a_clock_that_was_set_back_is_an_alarm(running: Running) -> None:
    """The highest time outlives a restart in the database; a clock below it is told, and nothing else is refused."""
    assert running.keeper.alarms == []
    running.now_ms[0] += DAY_MS
    running.wait(61)
    running.now_ms[0] -= 1000 * (CLOCK_BACK_S - 60)
    running.wait(61)
    assert running.keeper.alarms == [], "a step of a minute is no alarm"
    running.now_ms[0] -= DAY_MS
    running.wait(61)
    assert any("clock has been set back" in alarm for alarm in running.keeper.alarms)


def test_a_refused_address_is_visited_and_not_too_often(running: Running) -> None:
    """A dial that brought no link leads to one look for newer trust; again only after a while."""
    visits: list[Address] = []
    running.keeper.visit = lambda address, said, done: (visits.append(address), list(said), done([]))[0]
    for _ in range(3):
        running.keeper._driver.on_refusal(("192.0.2.1", 1))
    assert visits == [("192.0.2.1", 1)]
    running.clock.advance(VISIT_AGAIN_S)
    running.keeper._driver.on_refusal(("192.0.2.1", 1))
    assert len(visits) == 2


def test_what_is_refused_is_an_alarm_once(running: Running) -> None:
    """A forged object is told in one line and kept among the alarms, once."""
    for _ in range(2):
        offer(running, "crl/00", b"junk")
    assert [alarm.startswith("refused crl/00: E-CRL-FORM") for alarm in running.keeper.alarms] == [True]


def test_a_list_that_has_run_out_starts_and_says_so(federation: TestFederation, tmp_path: Path) -> None:
    """After forty days the node starts; the alarm says what is wrong, and files of today end it."""
    late_ms = federation.now_ms + 40 * DAY_MS
    found = start(federation, tmp_path, late_ms)
    with closing(found.database):
        assert any("is too old" in alarm for alarm in found.keeper.alarms)
        federation.publish(federation.crl(2, at_ms=late_ms), HOST)
        found.wait(3 * WATCH_FILES_S)
        assert (found.number, found.keeper.alarms) == (2, [])
        found.keeper.stop()


def test_what_comes_too_early_is_no_alarm(running: Running) -> None:
    """A list dated ahead of this clock may be good in an hour: nobody is woken for it."""
    crl = running.federation.crl(9, at_ms=running.federation.now_ms + DAY_MS)
    offer(running, next(key for key, _ in crl_object.by_key([crl])), crl.public_bytes(Encoding.DER))
    assert (running.keeper.alarms, running.number) == ([], 1)


def test_a_clock_that_is_off_its_peers_is_an_alarm_as_long_as_it_is(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minute off the median is worth a word, half a minute is not, and without peers nobody knows."""
    for offset_ms, count in ((None, 0), (-30_000.0, 0), (-61_000.0, 1), (90_000.0, 1), (0.0, 0)):
        monkeypatch.setattr(
            type(running.node.links), "clock_offset_ms", property(lambda _, is_=offset_ms: is_)
        )
        assert len(running.keeper.alarms) == count
