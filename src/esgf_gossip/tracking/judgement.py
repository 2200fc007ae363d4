"""
Which events of a dataset count: a function of what was said, of what certificates grant, and of an operator's word.

Every node judges for itself, and all that hold the same logs come to the same, whatever the order in which leaves
came; unless two origins claim the original of one version, for then whoever was seen first stays. What does not count
is kept with its reason and judged anew with whatever comes. Source: docs/tracking.md, "Events of datasets".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from esgf_gossip.tracking.events import CLAIMS, EventType
from esgf_gossip.tracking.records import Record

# Holders of replicas that must say that an original is retracted which nobody has on record; and more than half of all.
QUORUM_LEAST: Final = 2
CONTESTED: Final = "contested: "
OF_REPLICAS: Final = frozenset({EventType.REPLICATED, EventType.REPLICA_REMOVED})

_Copy = tuple[str, str, str]


def judge(
    said: Sequence[Record],
    hosts: Mapping[str, Collection[str]],
    accepted: Collection[tuple[bytes, str]] = (),
) -> dict[int, str]:
    """
    Judge all events of one dataset, of all its versions and origins; no order of them is needed.

    Args:
        said: the events.
        hosts: the names that each origin's certificate grants.
        accepted: change keys and origins that the operator of this node lets count, whatever speaks against them.

    Returns:
        By ``seen``: an empty text where the event counts, else one line that says why not.
    """
    return _Judging(hosts, accepted).all(sorted(said, key=lambda one: one.seen))


class _Judging:
    """One judging of one dataset."""

    def __init__(self, hosts: Mapping[str, Collection[str]], accepted: Collection[tuple[bytes, str]]) -> None:
        self._hosts = hosts
        self._accepted = accepted
        # The first leaf of each original that counts, who holds each version's, who was the first with any.
        self._originals: dict[_Copy, int] = {}
        self._holders: dict[str, str] = {}
        self._owner = ""

    def all(self, said: Sequence[Record]) -> dict[int, str]:
        verdicts = {one.seen: self._claim(one) for one in said if one.event.type in CLAIMS}
        quorums = _Quorums([one for one in said if self._is_certified(one)])
        for one in said:
            if one.event.type not in CLAIMS:
                verdicts[one.seen] = self._other(one, quorums)
        return verdicts

    def _is_certified(self, one: Record) -> bool:
        return one.event.data_node in self._hosts.get(one.origin, ())

    def _claim(self, one: Record) -> str:
        holder = self._holders.get(one.event.dataset.version, one.origin)
        if (one.change_key, one.origin) not in self._accepted:
            if not self._is_certified(one):
                return _uncertified(one)
            if holder != one.origin:
                return f"{CONTESTED}the original of this version is {holder}'s"
            if one.event.type is EventType.NEW_VERSION and self._owner not in ("", one.origin):
                return f"{CONTESTED}the originals of this dataset are {self._owner}'s"
        copy = _copy(one)
        self._originals[copy] = min(one.first_leaf, self._originals.get(copy, one.first_leaf))
        self._holders.setdefault(one.event.dataset.version, one.origin)
        self._owner = self._owner or one.origin
        return ""

    def _other(self, one: Record, quorums: _Quorums) -> str:
        if (one.change_key, one.origin) in self._accepted:
            return ""
        if not self._is_certified(one):
            return _uncertified(one)
        if one.event.type in OF_REPLICAS:
            return ""
        first_leaf = self._originals.get(_copy(one))
        if first_leaf is not None and first_leaf < one.last_leaf:
            return ""
        holder = self._holders.get(one.event.dataset.version)
        if holder == one.origin:
            return f"no original on {one.event.data_node} stands before it in the log of {one.origin}"
        if holder is not None:
            return f"only {holder}, which holds the original, may say this"
        if one.event.type is EventType.RETRACTED:
            return quorums.verdict(one)
        return "nobody has the original on record"


class _Quorums:
    """What holders of replicas say of versions whose original nobody has on record."""

    def __init__(self, certified: Sequence[Record]) -> None:
        # By origin and version: the first leaf that says it holds a copy, and the last word on any of its copies.
        self._held_from: dict[tuple[str, str], int] = {}
        self._last: dict[_Copy, Record] = {}
        self._retracted: dict[bytes, dict[str, int]] = {}
        self._counts: dict[bytes, tuple[set[str], int]] = {}
        for one in certified:
            if one.event.type is EventType.REPLICATED:
                key = (one.origin, one.event.dataset.version)
                self._held_from[key] = min(one.first_leaf, self._held_from.get(key, one.first_leaf))
            if one.event.type in OF_REPLICAS:
                copy = _copy(one)
                if copy not in self._last or self._last[copy].last_leaf < one.last_leaf:
                    self._last[copy] = one
            elif one.event.type is EventType.RETRACTED:
                leaves = self._retracted.setdefault(one.change_key, {})
                leaves[one.origin] = max(one.last_leaf, leaves.get(one.origin, 0))

        self._holders: dict[str, set[str]] = {}
        for (origin, version, _), last in self._last.items():
            if last.event.type is EventType.REPLICATED:
                self._holders.setdefault(version, set()).add(origin)

    def verdict(self, one: Record) -> str:
        """Judge a retraction by how many of the holders say it; who only says it is not counted."""
        if one.change_key not in self._counts:
            self._counts[one.change_key] = self._counted(one)
        voters, holders = self._counts[one.change_key]
        if one.origin not in voters:
            return f"nobody has the original on record, and {one.origin} no replica"
        if len(voters) >= QUORUM_LEAST and 2 * len(voters) > holders:
            return ""
        return (
            f"nobody has the original on record, and {len(voters)} of {holders} nodes with a replica say it: "
            f"at least {QUORUM_LEAST} and more than half are needed"
        )

    def _counted(self, one: Record) -> tuple[set[str], int]:
        """Return who says it and held a replica before, and how many hold one."""
        version = one.event.dataset.version
        voters = {
            origin
            for origin, leaf in self._retracted.get(one.change_key, {}).items()
            if self._held_from.get((origin, version), leaf) < leaf
        }
        # Who has removed its copy has no say any more, but for those whose word came before.
        return voters, len(voters | self._holders.get(version, set()))


def _copy(one: Record) -> _Copy:
    return one.origin, one.event.dataset.version, one.event.data_node


def _uncertified(one: Record) -> str:
    return f"the certificate of {one.origin} does not name {one.event.data_node}"
