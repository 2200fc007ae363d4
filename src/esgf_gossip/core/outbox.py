"""
What waits for a peer that does not read as fast as we have to say.

Newer replaces older, so a slow peer costs heads and not messages. Pure:
messages go in, frames come out. When to write is the link's.
Source: docs/protocol.md, "Links".
"""

from __future__ import annotations

from collections import OrderedDict, deque

import attrs

from esgf_gossip.core.codec import encode
from esgf_gossip.core.framing import frame
from esgf_gossip.core.messages import Announce, Answer, Message, Ping, Pong, Roots
from esgf_gossip.core.model import Head
from esgf_gossip.core.reconciliation import HEADS_PER_PAGE


@attrs.define
class _Frames:
    """Frames that leave together and in order, one message or the parts of one."""

    frames: deque[bytes] = attrs.field(factory=deque)


class Outbox:
    """
    Messages for one peer, in the order in which they first had something to say.

    - Announcements become one map from origin to highest head, cut into pages when it leaves.
    - Our own change sent unasked is replaced by the next one, unless a part of it has left:
      the peer takes a digest whole, and asks for bodies it lacks by their hash.
    - Pings, pongs and roots are replaced by later ones; a question for roots is not replaced by an answer.
    - All others, answers above all, stay as they are and where they are.

    ``size_bytes`` is what all of it will take on the wire, but for the few bytes around each page of heads.
    """

    def __init__(self) -> None:
        self.size_bytes = 0
        self._slots: OrderedDict[object, _Frames] = OrderedDict()
        self._heads: dict[str, Head] = {}
        self._number = 0

    def __bool__(self) -> bool:
        return bool(self._slots)

    def put(self, message: Message) -> None:
        """Take a message in."""
        match message:
            case Announce():
                self._slots.setdefault(Announce, _Frames())
                for head in message.heads:
                    self._announce(head)
            case Answer(request=0):
                self._push((Answer, message.origin), message)
            case Roots():
                self._replace((Roots, message.is_reply), message)
            case Ping() | Pong():
                self._replace(type(message), message)
            case _:
                self._append(self._next_key(), message)

    def take(self) -> bytes | None:
        """Take out the next frame; None where nothing waits."""
        if not self._slots:
            return None
        key, slot = next(iter(self._slots.items()))
        if key is Announce:
            data = self._page()
            if not self._heads:
                del self._slots[key]
            return data
        data = slot.frames.popleft()
        self.size_bytes -= len(data)
        if isinstance(key, tuple) and key[0] is Answer:
            # Begun: its remaining parts belong together now, whatever comes after.
            del self._slots[key]
            key = self._next_key()
            self._slots[key] = slot
            self._slots.move_to_end(key, last=False)
        if not slot.frames:
            del self._slots[key]
        return data

    def clear(self) -> None:
        """Forget everything: the link is gone."""
        self._slots.clear()
        self._heads.clear()
        self.size_bytes = 0

    def _announce(self, head: Head) -> None:
        before = self._heads.get(head.origin)
        if not head.is_above(before):
            return
        self.size_bytes += len(head.encoded) - (0 if before is None else len(before.encoded))
        self._heads[head.origin] = head

    def _page(self) -> bytes:
        page = [self._heads.pop(origin) for origin in list(self._heads)[:HEADS_PER_PAGE]]
        self.size_bytes -= sum(len(head.encoded) for head in page)
        return frame(encode(Announce(tuple(page))))

    def _push(self, key: tuple[type, str], part: Answer) -> None:
        if part.signed is not None and key in self._slots:
            self.size_bytes -= sum(map(len, self._slots[key].frames))
            self._slots[key].frames.clear()
        # A part whose beginning has left already is no change of its own.
        begun = part.signed is None and key not in self._slots
        self._append(self._next_key() if begun else key, part)

    def _replace(self, key: object, message: Message) -> None:
        slot = self._slots.get(key)
        if slot is not None:
            self.size_bytes -= len(slot.frames.popleft())
        self._append(key, message)

    def _append(self, key: object, message: Message) -> None:
        data = frame(encode(message))
        self._slots.setdefault(key, _Frames()).frames.append(data)
        self.size_bytes += len(data)

    def _next_key(self) -> int:
        self._number += 1
        return self._number
