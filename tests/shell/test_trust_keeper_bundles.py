"""Trust bundles in a running daemon: nothing put into its folder by hand lowers, forks or forges what is in force unseen."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from esgf_gossip.net.trust_keeper import WATCH_FILES_S
from esgf_gossip.trust import bundle_files
from esgf_gossip.trust.bundle import Bundle
from helpers.bundles import FAR_MS, admin_keys, history, next_bundle, write
from helpers.trust import TestFederation, a_federation
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


def in_force(running: Running) -> Bundle:
    """Return the bundle in force."""
    found = running.keeper.material.bundle
    assert found is not None
    return found


def give(running: Running, *bundles: Bundle) -> None:
    """Let a peer's objects come in, in this order."""
    objects = [(f"roots/{one.version:06}", one.body) for one in bundles]
    running.keeper._driver.perform(running.node.offer_trust(objects, running.keeper._driver.at()))
    running.wait(3 * WATCH_FILES_S)


def test_bundles_of_peers_are_in_force_one_after_the_other(running: Running) -> None:
    """Each that follows is written and counts at once; the statement says so."""
    versions = history(running.federation, 4)
    for one in versions[1:]:
        give(running, one)
        assert in_force(running) == one
    assert bundle_files.read_bundles(running.federation.node(HOST)) == versions
    assert running.keeper.material.bundles == versions


def test_a_backup_of_the_files_lowers_nothing(running: Running, tmp_path: Path) -> None:
    """What the node knows is put back into its folder, while it runs and at its next start."""
    directory = running.federation.node(HOST)
    backup = tmp_path / "backup"
    shutil.copytree(directory / "bundle", backup)
    versions = history(running.federation, 3)
    give(running, versions[1])
    give(running, versions[2])
    for restart in (False, True):
        shutil.rmtree(directory / "bundle")
        shutil.copytree(backup, directory / "bundle")
        if restart:
            running.keeper.stop()
            running.database.close()
            running = start(running.federation, tmp_path)
        running.wait(3 * WATCH_FILES_S)
        assert in_force(running) == versions[2]
        assert bundle_files.read_bundles(directory) == versions
    running.keeper.stop()
    running.database.close()


def test_a_twin_put_by_hand_is_proof_and_the_smaller_counts(running: Running) -> None:
    """Both orders: the conflict is an object for all nodes and a grave alarm, and the files hold the one that counts."""
    first, second = history(running.federation, 2)
    signers = admin_keys(running.federation)
    twins = sorted(
        (next_bundle(first, signers, not_after_ms=FAR_MS + number) for number in (7, 8)),
        key=lambda one: one.fingerprint,
    )
    del second
    give(running, twins[0])
    write(running.federation.node(HOST), twins[1])
    running.wait(3 * WATCH_FILES_S)
    held = {one.key: one for one in running.node.registry.trust}
    assert "conflict/roots/000002/2" in held
    counts = held["roots/000002"].body
    assert counts == min((one.body for one in twins), key=lambda body: hashlib.sha256(body).digest())
    assert in_force(running).body == counts
    assert bundle_files.read_bundles(running.federation.node(HOST))[-1].body == counts
    assert any("two different roots/000002" in text for text in running.keeper.alarms)


@pytest.mark.parametrize("kind", ["unsigned", "a hole", "garbage"])
def test_a_forged_bundle_in_the_folder_changes_nothing(running: Running, kind: str) -> None:
    """The trust in force stays and the reason is shown, until the file is gone."""
    versions = history(running.federation, 3)
    directory = running.federation.node(HOST)
    before = running.keeper.material
    if kind == "unsigned":
        write(directory, next_bundle(versions[0]))
    elif kind == "a hole":
        write(directory, versions[2])
    else:
        (directory / "bundle" / "000002.bundle").write_bytes(b"garbage")
    running.wait(3 * WATCH_FILES_S)
    assert running.keeper.material is before
    assert "E-BUNDLE" in running.keeper.failure
    for number in (2, 3):
        (directory / "bundle" / f"{number:06}.bundle").unlink(missing_ok=True)
    running.wait(3 * WATCH_FILES_S)
    assert running.keeper.failure == ""
    assert in_force(running) == versions[0]
