"""
Merkle trees of append-only logs: roots, frontiers, right-hand hashes, consistency proofs.

Pure: hashes in, hashes out; nobody's leaves are kept here. A tree is held as the roots of its
full blocks and its frontier, so a million leaves cost some kilobytes.
Source: RFC 9162, 2.1; docs/protocol.md, "Logs".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from typing import Final

import attrs

BLOCK_LEVEL: Final = 12
# Leaves are fetched, verified and dropped in blocks: whole subtrees that never change once full.
BLOCK_LEAVES: Final = 1 << BLOCK_LEVEL

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()

Subtree = Callable[[int, int], bytes]
"""The root of the leaves from the first number up to, not including, the second."""


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of a leaf; the prefix keeps leaves from passing for nodes."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node over its two children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def folded(hashes: Sequence[bytes]) -> bytes:
    """Return the root over perfect subtrees that shrink from left to right; EMPTY_ROOT for none."""
    return reduce(lambda right, left: node_hash(left, right), reversed(hashes)) if hashes else EMPTY_ROOT


def root_over(hashes: Sequence[bytes]) -> bytes:
    """Return the root over subtrees of one size, only the last of which may be smaller; there is one at least."""
    level = list(hashes)
    while len(level) > 1:
        odd = level[len(level) & ~1 :]
        level = [*map(node_hash, level[::2], level[1::2]), *odd]
    return level[0]


def block_start(number: int) -> int:
    """Return the first leaf of the block that a leaf lies in."""
    return number & -BLOCK_LEAVES


@attrs.frozen
class Tree:
    """
    A log without its leaves: what is needed to append, to prove, and to verify what follows.

    ``start`` is the first leaf held, the first of a block; ``left`` holds the perfect subtrees of the leaves
    before it. ``blocks`` are the roots of the full blocks from there on, ``frontier`` the perfect subtrees of
    the whole, largest first.
    """

    start: int = 0
    left: tuple[bytes, ...] = attrs.field(default=(), repr=False)
    blocks: tuple[bytes, ...] = attrs.field(default=(), repr=False)
    size: int = 0
    frontier: tuple[bytes, ...] = attrs.field(default=(), repr=False)

    @classmethod
    def after(cls, start: int, left: Sequence[bytes]) -> Tree:
        """
        Return the tree of which only the left-hand hashes at the first leaf of a block are known.

        Raises:
            ValueError: that many leaves have another number of perfect subtrees.
        """
        if start % BLOCK_LEAVES or len(left) != start.bit_count():
            raise ValueError(f"{len(left)} left-hand hashes at leaf {start}")
        return cls(start, tuple(left), (), start, tuple(left))

    @property
    def root(self) -> bytes:
        """The root over all leaves."""
        return folded(self.frontier)

    def extended(self, leaves: Iterable[bytes]) -> Tree:
        """Return the tree with these leaves at its end; about 3 µs a leaf."""
        frontier, blocks, size = list(self.frontier), list(self.blocks), self.size
        for leaf in leaves:
            joined, level = leaf_hash(leaf), 0
            while size >> level & 1:
                joined = node_hash(frontier.pop(), joined)
                level += 1
                if level == BLOCK_LEVEL:
                    blocks.append(joined)
            frontier.append(joined)
            size += 1
        return Tree(self.start, self.left, tuple(blocks), size, tuple(frontier))

    def left_at(self, start: int) -> tuple[bytes, ...]:
        """
        Return the left-hand hashes at the first leaf of a block, one that is held or follows the last.

        Raises:
            ValueError: it is not held.
        """
        if start % BLOCK_LEAVES or not self.start <= start <= self.size:
            raise ValueError(f"leaf {start} begins no block held from {self.start} to {self.size}")
        frontier = list(self.left)
        for number in range(self.start // BLOCK_LEAVES, start // BLOCK_LEAVES):
            joined, level = self.blocks[number - self.start // BLOCK_LEAVES], 0
            while number >> level & 1:
                joined = node_hash(frontier.pop(), joined)
                level += 1
            frontier.append(joined)
        return tuple(frontier)

    def without(self, start: int) -> Tree:
        """
        Return the tree that holds no leaf before the first of this block.

        Raises:
            ValueError: that block is not held.
        """
        left = self.left_at(start)
        dropped = (start - self.start) // BLOCK_LEAVES
        return Tree(start, left, self.blocks[dropped:], self.size, self.frontier)

    def subtree(self, low: int, high: int) -> bytes:
        """
        Return the root of the leaves from ``low`` to ``high``, whole blocks or up to the end of the tree.

        Of leaves before the start only the perfect subtrees are known that lie to the left of some block held.

        Raises:
            ValueError: that root is not known, or the range cuts a block.
        """
        if low < self.start:
            return self._left_subtree(low, high)
        cuts_block = low % BLOCK_LEAVES or (high % BLOCK_LEAVES and high != self.size)
        if cuts_block or not self.start <= low < high <= self.size:
            raise ValueError(f"leaves {low} to {high} are no blocks of {self.start} to {self.size}")
        first = self.start // BLOCK_LEAVES
        parts = list(self.blocks[low // BLOCK_LEAVES - first : high // BLOCK_LEAVES - first])
        if high % BLOCK_LEAVES:
            parts.append(folded(self.frontier[-(high % BLOCK_LEAVES).bit_count() :]))
        return root_over(parts)

    def _left_subtree(self, low: int, high: int) -> bytes:
        end, edge = max(self.start, high), 0
        for root in self.left_at(end):
            width = 1 << (end - edge).bit_length() - 1
            if (low, high) == (edge, edge + width):
                return root
            edge += width
        raise ValueError(f"leaves {low} to {high} are no subtree left of {end}")


# ----------------------------------------------------------------- paths


def _turns(end: int, size: int) -> Iterator[tuple[bool, int, int]]:
    """
    Walk from the root of ``size`` leaves to where the first ``end`` of them end, outermost first.

    Yields, for each node passed, whether the way goes left, and the range of the child not taken.
    """
    low, high = 0, size
    while end != high:
        middle = low + (1 << (high - low - 1).bit_length() - 1)
        if end <= middle:
            yield True, middle, high
            high = middle
        else:
            yield False, low, middle
            low = middle


def right_hashes(end: int, size: int, subtree: Subtree) -> tuple[bytes, ...]:
    """Return the subtrees that cover what follows leaf ``end`` in a tree of ``size`` leaves, from left to right."""
    ranges = [(low, high) for goes_left, low, high in _turns(end, size) if goes_left]
    return tuple(subtree(low, high) for low, high in reversed(ranges))


def root_with_right(tree: Tree, size: int, right: Sequence[bytes]) -> bytes:
    """
    Return the root of ``size`` leaves of which the tree holds the first ones, the right-hand hashes the rest.

    Raises:
        ValueError: so many leaves have another number of right-hand hashes.
    """
    turns = list(_turns(tree.size, size))
    if not 0 < tree.size <= size or len(right) != sum(goes_left for goes_left, _, _ in turns):
        raise ValueError(f"{len(right)} right-hand hashes between leaves {tree.size} and {size}")
    # Each turn to the right passes the largest perfect subtree that is left.
    passed = len(turns) - len(right)
    root, lefts, rights = folded(tree.frontier[passed:]), list(tree.frontier[:passed]), iter(right)
    for goes_left, _, _ in reversed(turns):
        root = node_hash(root, next(rights)) if goes_left else node_hash(lefts.pop(), root)
    return root


def consistency_proof(first: int, second: int, subtree: Subtree) -> tuple[bytes, ...]:
    """
    Return the hashes that show what the first leaves of a tree of ``second`` leaves were, innermost first.

    As in RFC 9162, 2.1.4.1, with one difference: the subtree at the end of ``first`` always comes along, for a
    power of two as well. Without it a wrong past of such a size could not be told from a wrong proof.
    """
    turns = list(_turns(first, second))
    low = max((high for goes_left, _, high in turns if not goes_left), default=0)
    return (subtree(low, first), *(subtree(low, high) for _, low, high in reversed(turns)))


def consistency_roots(first: int, second: int, hashes: Sequence[bytes]) -> tuple[bytes, bytes]:
    """
    Return what a proof makes the roots of the first ``first`` and of all ``second`` leaves.

    The second equal to a signed root makes the proof true; the first then is the past that this root stands
    for, and shows a rewritten log where it is not the root signed before.

    Raises:
        ValueError: the sizes have no proof, or one with another number of hashes.
    """
    turns = list(_turns(first, second)) if 0 < first < second else []
    if not turns or len(hashes) != len(turns) + 1:
        raise ValueError(f"{len(hashes)} hashes between {first} and {second} leaves")
    root_first = root_second = hashes[0]
    for (goes_left, _, _), sibling in zip(reversed(turns), hashes[1:], strict=True):
        if goes_left:
            root_second = node_hash(root_second, sibling)
        else:
            root_first, root_second = node_hash(sibling, root_first), node_hash(sibling, root_second)
    return root_first, root_second
