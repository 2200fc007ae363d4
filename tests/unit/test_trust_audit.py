"""The head of the audit log among the nodes: who may say it, and that it never shrinks or splits without an alarm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from esgf_gossip.core import packing
from esgf_gossip.core.errors import ObjectRefused
from esgf_gossip.trust import audit_object, generations, keys
from esgf_gossip.trust.audit_object import make_head
from esgf_gossip.trust.objects import TrustObjects
from helpers.trust import TestFederation, a_federation
from helpers.trust_admin import admin, run

HOST = "node.example.org"


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> TestFederation:
    """Found a federation with a trust bundle and one node."""
    found = a_federation(tmp_path_factory.mktemp("audit") / "federation")
    found.node(HOST)
    return found


def head(federation: TestFederation, count: int, word: int = 1) -> bytes:
    """Return a head signed by the administrator."""
    (key,) = generations.admin_keys(federation.authority.private, None).values()
    return make_head(federation.name, count, bytes([word]) * 32, key)


def judge(federation: TestFederation, body: bytes, held: bytes | None = None, key: str = "") -> int:
    """Judge a head on the node, and return its number."""
    objects = TrustObjects(federation.node(HOST), federation.material(HOST))
    key = key or f"audit/{federation.name}"
    return objects.judge_object(key, body, held, federation.now_ms).number


def test_a_log_that_grows_is_followed(federation: TestFederation) -> None:
    """More lines are a higher number; the same log and key give the same bytes."""
    assert judge(federation, head(federation, 8), head(federation, 7)) == 8
    assert head(federation, 8) == head(federation, 8)


def test_a_log_that_shrinks_is_refused(federation: TestFederation) -> None:
    """Fewer lines than were shown before mean a backup, or somebody who hides what was signed."""
    with pytest.raises(ObjectRefused, match="E-AUDIT-SHRINK: the audit log has 7 lines, it had 8"):
        judge(federation, head(federation, 7), head(federation, 8))


def test_two_last_lines_of_one_number_are_both_good_and_so_a_contradiction(
    federation: TestFederation,
) -> None:
    """Both judge well under one number with other bytes: the core makes proof of that."""
    assert judge(federation, head(federation, 8, 2), head(federation, 8, 1)) == 8


def test_the_same_head_of_another_administrator_is_no_contradiction(federation: TestFederation) -> None:
    """Two signatures over one head say one thing: either counts, and nobody is accused."""
    objects = TrustObjects(federation.node(HOST), federation.material(HOST))
    one = head(federation, 8)
    payload, _, signature = packing.unpack(one)
    other = packing.pack([payload, bytes(32), signature])
    assert not objects.contradicts(f"audit/{federation.name}", one, other)
    assert objects.contradicts(f"audit/{federation.name}", one, head(federation, 8, 2))
    assert judge(federation, one, other) == 8


def test_only_an_administrator_of_the_bundle_says_it(federation: TestFederation) -> None:
    """Another key, another federation, turned bytes: refused."""
    stranger = make_head(federation.name, 9, bytes(32), keys.new_key())
    (key,) = generations.admin_keys(federation.authority.private, None).values()
    foreign = make_head("other.example.org", 9, bytes(32), key)
    good = head(federation, 9)
    turned = [good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :] for place in range(len(good))]
    for body in (stranger, foreign, b"", b"x", *turned):
        with pytest.raises(ObjectRefused):
            judge(federation, body)
    with pytest.raises(ObjectRefused):
        judge(federation, good, key="audit/other.example.org")


def test_from_the_log_to_a_node(federation: TestFederation, tmp_path: Path) -> None:
    """The command signs what log verify says, and what is handed to a node is offered to all."""
    ran = run("log", "publish", *admin(federation), "--json")
    said = json.loads(ran.out)
    verified = json.loads(run("log", "verify", "--dir", federation.authority.directory, "--json").out)
    assert (ran.code, said["lines"], said["head"]) == (0, verified["lines"], verified["head"])
    config = federation.node(HOST).parent / "node.toml"
    config.write_text(f'[node]\nhost = "{HOST}"\nfederation = "{federation.name}"\n')
    assert run("log", "import", said["file"], "--config", config).code == 0
    ((key, body),) = audit_object.offered(federation.node(HOST), federation.material(HOST))
    assert (key, judge(federation, body)) == (f"audit/{federation.name}", said["lines"])
    junk = tmp_path / "junk.head"
    junk.write_bytes(b"junk")
    ran = run("log", "import", junk, "--config", config)
    assert (ran.code, ran.error) == (3, "E-AUDIT")
    assert run("log", "import", tmp_path / "none", "--config", config).code == 5
    assert run("log", "import", junk).code == 2
