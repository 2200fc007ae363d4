"""
Who watches whom: five distinct observers of each node, and who stands in for one that is gone.

Pure functions of names, so all nodes with one roster name the same observers and
no node chooses its own. Source: Rapid (Suresh et al., USENIX ATC 2018);
docs/protocol.md, "Watching".
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Final

import attrs

from esgf_gossip.core.overlay import RINGS_MIN, ring

# One seat in each of the first rings; every federation has at least so many rings.
SEATS: Final = RINGS_MIN

Seat = tuple[str, ...]
"""Who holds one seat: the observer, then those who stand in while all before them are unreachable."""


@attrs.frozen
class Duty:
    """What one observer does for one subject: its seat, of how many, and whether it only stands in there."""

    seat: int
    seats: int
    stands_in: bool


class Observers:
    """
    The observers of every member of one roster.

    Args:
        members: the names of all members.
        mute: those who cannot be dialled; two of them never watch each other.
    """

    def __init__(self, members: frozenset[str], mute: frozenset[str] = frozenset()) -> None:
        self._members = members
        self._mute = mute
        self._watches_all = len(members) - 1 <= SEATS
        self._orders: list[tuple[str, ...]] = []
        if not self._watches_all:
            self._orders = [tuple(ring(number, members)) for number in range(SEATS)]
        self._originals: dict[str, tuple[str, ...]] = {}
        self._places = [{name: place for place, name in enumerate(order)} for order in self._orders]

    def _can_watch(self, observer: str, subject: str) -> bool:
        return observer != subject and not (observer in self._mute and subject in self._mute)

    def _predecessors(self, number: int, name: str) -> Iterator[str]:
        order, place = self._orders[number], self._places[number][name]
        for step in range(1, len(order)):
            yield order[place - step]

    def originals(self, subject: str) -> tuple[str, ...]:
        """Return the observers of a member while all nodes are well, by seat; all others in a small federation."""
        if subject not in self._members:
            return ()
        found = self._originals.get(subject)
        if found is None:
            found = self._originals[subject] = self._choose(subject)
        return found

    def _choose(self, subject: str) -> tuple[str, ...]:
        if self._watches_all:
            return tuple(sorted(other for other in self._members if self._can_watch(other, subject)))
        chosen: list[str] = []
        for number in range(SEATS):
            for other in self._predecessors(number, subject):
                if other not in chosen and self._can_watch(other, subject):
                    chosen.append(other)
                    break
        return tuple(chosen)

    def seats(self, subject: str, unreachable: Collection[str]) -> list[Seat]:
        """
        Return who holds each seat of a member, stand-ins included.

        A seat only ever grows as more nodes are unreachable, so that verdicts have a least fixpoint.
        """
        originals = self.originals(subject)
        if self._watches_all:
            return [(observer,) for observer in originals]
        return [
            self._seat(number, subject, observer, originals, unreachable)
            for number, observer in enumerate(originals)
        ]

    def _seat(
        self, number: int, subject: str, observer: str, originals: Seat, unreachable: Collection[str]
    ) -> Seat:
        if observer not in unreachable:
            return (observer,)
        holders = [observer]
        for other in self._predecessors(number, subject):
            if other in originals or not self._can_watch(other, subject):
                continue
            holders.append(other)
            if other not in unreachable:
                break
        return tuple(holders)

    def duties(self, observer: str, unreachable: Collection[str]) -> dict[str, Duty]:
        """
        Return whom a member watches now, and how.

        Cost: a walk along each ring as far as its seat could reach, past unreachable nodes only.
        """
        if observer not in self._members:
            return {}
        found: dict[str, Duty] = {}
        for subject in self._candidates(observer, unreachable):
            seats = self.seats(subject, unreachable)
            for number, seat in enumerate(seats):
                if observer in seat:
                    found[subject] = Duty(number, len(seats), stands_in=seat[0] != observer)
                    break
        return found

    def _candidates(self, observer: str, unreachable: Collection[str]) -> set[str]:
        if self._watches_all:
            return set(self._members - {observer})
        near: set[str] = set()
        for order, places in zip(self._orders, self._places, strict=True):
            # Between an observer and its subject stand only nodes with another seat there, or unable to watch.
            between = 0
            for step in range(1, len(order)):
                subject = order[(places[observer] + step) % len(order)]
                near.add(subject)
                between += subject not in unreachable and subject not in self._mute
                if between >= SEATS:
                    break
        return near


@lru_cache(maxsize=8)
def observers_of(members: frozenset[str], mute: frozenset[str]) -> Observers:
    """Return the observers of a roster; drawn once while it stays the same."""
    return Observers(members, mute)
