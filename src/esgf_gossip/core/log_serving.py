"""
How leaves and proofs go out: what a question becomes for the disk, and what its leaves become for the peer.

Pure functions. Only what is held and verified is given; the rest is "not held", which costs a few bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from esgf_gossip.core import limits
from esgf_gossip.core.effects import Send
from esgf_gossip.core.log_effects import SendLeaves, SendProof
from esgf_gossip.core.logs import Log, answer_end
from esgf_gossip.core.merkle import (
    BLOCK_LEAVES,
    Tree,
    block_start,
    consistency_proof,
    right_hashes,
)
from esgf_gossip.core.messages import AskLeaves, AskProof, Leaves, Proof
from esgf_gossip.core.model import Link

# What msgpack adds to a leaf, at most: three bytes of length.
_LEAF_ENVELOPE_BYTES = 3


def no_leaves(request: int, start: int) -> Leaves:
    """Return the answer "not held"."""
    return Leaves(request, start, (), (), (), is_last=True)


def answer_leaves(link: Link, ask: AskLeaves, log: Log | None) -> Send | SendLeaves:
    """Return what answers a question for leaves; "not held" where that is not all verified here."""
    refusal = Send(link, no_leaves(ask.request, ask.start))
    if log is None or log.born != ask.born or not log.tree.start <= ask.start < ask.size:
        return refusal
    end = answer_end(ask.start, ask.size)
    if end > log.tree.size:
        return refusal
    right: tuple[bytes, ...] = ()
    if end < ask.size:
        whole = log.tree_of(ask.size)
        if whole is None:
            return refusal
        right = right_hashes(end, ask.size, whole.subtree)
    left = log.tree.left_at(ask.start) if ask.start % BLOCK_LEAVES == 0 else ()
    return SendLeaves(link, ask.request, ask.origin, ask.log, ask.start, end, left, right)


def pages(order: SendLeaves, leaves: Sequence[bytes]) -> Iterator[Leaves]:
    """
    Yield the messages that carry leaves from the start of the order on, as many as the disk gave.

    Right-hand hashes go along only where the leaves reach the end; else the peer asks again for the rest.
    """
    start, low, size_bytes = order.start, 0, 0
    left = order.left
    for number, leaf in enumerate(leaves):
        size_bytes += len(leaf) + _LEAF_ENVELOPE_BYTES
        if size_bytes > limits.LEAVES_PACKED_BYTES - _LEAF_ENVELOPE_BYTES:
            yield Leaves(order.request, start + low, tuple(leaves[low:number]), left, (), is_last=False)
            left, low, size_bytes = (), number, len(leaf) + _LEAF_ENVELOPE_BYTES
    right = order.right if order.start + len(leaves) == order.end else ()
    yield Leaves(order.request, start + low, tuple(leaves[low:]), left, right, is_last=True)


def answer_proof(link: Link, ask: AskProof, log: Log | None) -> Send | SendProof:
    """Return what answers a question for a consistency proof."""
    tree = None if log is None or log.born != ask.born else log.tree_of(ask.second_size)
    if log is None or tree is None or not 0 < ask.first_size < ask.second_size:
        return Send(link, Proof(ask.request, ()))
    low = high = block_start(ask.first_size)
    if low != ask.first_size:
        high = min(low + BLOCK_LEAVES, tree.size)
    if low < tree.start:
        # What was dropped has left no hashes from which a past within it could be told.
        return Send(link, Proof(ask.request, ()))
    return SendProof(link, ask.request, ask.origin, ask.log, ask.first_size, low, high, tree)


def proof(order: SendProof, leaves: Sequence[bytes]) -> Proof:
    """Return the proof, made of the tree and of the leaves of the one block that the first size cuts."""
    tree = order.tree
    if len(leaves) != order.high - order.low:
        return Proof(order.request, ())

    def subtree(low: int, high: int) -> bytes:
        if order.low <= low and high <= order.high:
            return Tree().extended(leaves[low - order.low : high - order.low]).root
        return tree.subtree(low, high)

    return Proof(order.request, consistency_proof(order.first_size, tree.size, subtree))
