"""
Anti-entropy: roots, and the full vector of heads where they differ.

Pure: says what to send, keeps nothing but the vector being received. Large tables are
compared by fingerprints first (narrowing).
Source: docs/protocol.md, "Reconciliation".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from esgf_gossip.core.messages import Announce, Heads, LineKind
from esgf_gossip.core.model import Head
from esgf_gossip.core.registry import Registry
from esgf_gossip.core.sessions import Session

# 256 heads of the longest host names stay below the bound of a frame.
HEADS_PER_PAGE: Final = 256


def roots_of(registry: Registry) -> dict[int, bytes]:
    """Return the root of each kind of line."""
    return {
        LineKind.DIGESTS: registry.table.root,
        LineKind.TRUST: registry.trust.root,
        LineKind.FORKS: registry.forks.root,
    }


def differing(ours: Mapping[int, bytes], theirs: Mapping[int, bytes]) -> dict[int, bytes]:
    """Return our roots of the kinds that both ends know and whose roots differ."""
    return {kind: root for kind, root in ours.items() if theirs.get(kind, root) != root}


def vector(heads: list[Head]) -> list[Heads]:
    """Return heads in pages, the last marked; one empty page where there are none."""
    pages = _pages(heads) or [()]
    return [Heads(page, is_last=number == len(pages) - 1) for number, page in enumerate(pages)]


def note_page(session: Session, page: Heads, registry: Registry) -> list[Head]:
    """
    Take one page of a peer's vector; after the last, return what we hold above it.

    Only heads of origins we hold are kept, so the memory is bounded by our own table.
    """
    session.vector.update({head.origin: head for head in page.heads if head.origin in registry.table})
    if not page.is_last:
        return []
    seen, session.vector = session.vector, {}
    return registry.heads_above(seen)


def announcements(heads: list[Head]) -> list[Announce]:
    """Return claims to these heads, in pages."""
    return [Announce(page) for page in _pages(heads)]


def _pages(heads: list[Head]) -> list[tuple[Head, ...]]:
    return [tuple(heads[start : start + HEADS_PER_PAGE]) for start in range(0, len(heads), HEADS_PER_PAGE)]
