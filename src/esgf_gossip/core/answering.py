"""
How lines go out: answers to Ask and Want, and our own change sent unasked.

Pure functions from the registry to messages, each below the bound of a frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from esgf_gossip.core import limits
from esgf_gossip.core.messages import Answer, Ask, Bodies, Want
from esgf_gossip.core.model import VerifiedDigest
from esgf_gossip.core.registry import Registry

# What is left of a frame beside a digest, a chain and their envelope.
PART_BYTES: Final = limits.FRAME_BYTES - limits.DIGEST_BYTES - limits.CHAIN_BYTES - 4096


def answer_to(ask: Ask, registry: Registry) -> list[Answer]:
    """Return our newest line of the origin asked about, in parts; "nothing newer" where ours is not above."""
    line = registry.table.line(ask.origin)
    if line is None or not line.head.is_above(ask.held):
        return [Answer(ask.request, ask.origin, None, (), (), is_last=True)]
    after = (0, 0) if ask.held is None else (ask.held.order.epoch, ask.held.order.sequence)
    return answer_parts(
        ask.request,
        line,
        registry,
        after=after,
        with_chain=ask.certificate_sha256 != line.digest.certificate_sha256,
    )


def answer_parts(
    request: int, line: VerifiedDigest, registry: Registry, *, after: tuple[int, int], with_chain: bool
) -> list[Answer]:
    """
    Return a line and those of its bodies that changed after (epoch, sequence), in parts.

    A body the asker lacks all the same (it took no part in that epoch) it wants by hash.
    """
    changed = {ref.sha256: ref.size_bytes for ref in line.digest.entries.values() if ref.changed_at > after}
    held = ((registry.body(content), size_bytes) for content, size_bytes in changed.items())
    # An expired line is held whatever it says of sizes; what it misstates is not sent for it.
    parts = list(_pages(body for body, size_bytes in held if body is not None and len(body) == size_bytes))
    return [
        Answer(
            request,
            line.digest.origin,
            line.signed if number == 0 else None,
            line.chain if number == 0 and with_chain else (),
            bodies,
            is_last=number == len(parts) - 1,
        )
        for number, bodies in enumerate(parts)
    ]


def bodies_for(want: Want, registry: Registry) -> list[Bodies]:
    """Return the bodies wanted, those we hold, in parts."""
    held = (body for content in dict.fromkeys(want.hashes) if (body := registry.body(content)) is not None)
    parts = list(_pages(held))
    return [
        Bodies(want.request, bodies, is_last=number == len(parts) - 1) for number, bodies in enumerate(parts)
    ]


def _pages(bodies: Iterable[bytes]) -> Iterator[tuple[bytes, ...]]:
    page: list[bytes] = []
    size_bytes = 0
    for body in bodies:
        if page and (size_bytes + len(body) > PART_BYTES or len(page) == limits.MESSAGE_BODIES):
            yield tuple(page)
            page, size_bytes = [], 0
        page.append(body)
        size_bytes += len(body) + 8
    yield tuple(page)
