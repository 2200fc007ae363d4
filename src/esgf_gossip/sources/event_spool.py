"""
A folder into which programs of the site put files with events, in the manner of a maildir.

A file is taken whole or not at all: claimed into cur/, read, handed on, and only when that is on the disk put into
done/; what is none goes to failed/ with a line why. A crash between leaves it in cur/, where the next run begins: its
events come twice then and are told apart by their ids. What stands in a file is its reader's work.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from twisted.internet.defer import Deferred, inlineCallbacks

from esgf_gossip.sources.rounds import Rounds
from esgf_gossip.sources.spool import CUR, DONE, FAILED, NEW, REASON, TMP, Found, Spool, SpoolError

FILE_BYTES: Final = 8 * 1024 * 1024
POLL_S: Final = 2.0
# Of one round; and names looked at for them, so that a folder of a million does not hold up the daemon.
FILES: Final = 50
NAMES: Final = 2000
# What stays in done/, and in failed/.
KEPT: Final = 1000
KEEP_NS: Final = 30 * 24 * 60 * 60 * 10**9
# A program that takes longer between tmp/ and new/ has died.
TMP_KEEP_NS: Final = 36 * 60 * 60 * 10**9
TIDY_S: Final = 600.0

# What is of the disk or the host and of no single file.
_TROUBLES: Final = frozenset(
    {errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EROFS}
)

T = TypeVar("T")


class EventSpool(Generic[T]):
    """
    The folder at work, from ``start`` to ``stop``.

    Args:
        path: of it; made where it is not there. Files of its owner, the daemon's user and root are taken.
        read: makes events of a file's content; fails with a ValueError of one line where it holds none.
        see: takes them; fires when they are on the disk.
        clock: the reactor, or a Clock in tests.
        now_ns: Unix nanoseconds.
        expected: what else may go wrong outside of this program.

    ``taken`` and ``refused`` count files; ``fault`` says what an operator must mend, or "".
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[bytes], Deferred[Sequence[T]]],
        see: Callable[[Sequence[T]], Deferred[None]],
        clock: Any,
        now_ns: Callable[[], int],
        expected: tuple[type[Exception], ...] = (),
    ) -> None:
        self.taken = 0
        self.refused = 0
        self._path: Final = path
        self._read: Final = read
        self._see: Final = see
        self._clock: Final = clock
        self._now_ns: Final = now_ns
        self._spool: Spool | None = None
        self._tidied_s = -TIDY_S
        self._tidied_at = 0
        # Files that cannot be moved, until the next tidying.
        self._immovable: Final[dict[str, str]] = {}
        self._rounds: Final = Rounds(f"events in {path}", self._round, POLL_S, clock, (OSError, *expected))

    @property
    def fault(self) -> str:
        """What went wrong last, or ""."""
        name, reason = next(iter(self._immovable.items()), ("", ""))
        return self._rounds.fault or (f"{self._path}: {name!r} cannot be moved: {reason}" if name else "")

    def start(self) -> None:
        """Begin to look."""
        self._rounds.start()

    def stop(self) -> None:
        """Look no more; what was begun is begun again by the next run. Twice does no harm."""
        self._rounds.stop()
        if self._spool is not None:
            self._spool.unlock()

    def wake(self) -> None:
        """Look now."""
        self._rounds.wake()

    @inlineCallbacks
    def _round(self) -> Iterator[Any]:
        spool = self._opened()
        handled = self.taken + self.refused
        if self._clock.seconds() - self._tidied_s >= TIDY_S or handled - self._tidied_at >= KEPT:
            self._tidied_at = handled
            self._tidy(spool)
        for folder in (CUR, NEW):
            names = [one for one in self._oldest(spool, folder) if one.name not in self._immovable]
            for found in names:
                try:
                    yield self._take(spool, folder, found)
                except OSError as error:
                    if error.errno in _TROUBLES:
                        raise
                    self._immovable[found.name] = error.strerror or type(error).__name__
            if names:
                # What was interrupted comes before what is new; and another round looks for more.
                return True
        return False

    @inlineCallbacks
    def _take(self, spool: Spool, folder: str, found: Found) -> Iterator[Any]:
        name = found.name
        if found.kind:
            self._refuse(spool, folder, name, f"is {found.kind}, no file; write a file")
            return
        if folder == NEW:
            if spool.holds(CUR, name):
                # The one before it of that name is still in hand.
                return
            if not spool.claim(name):
                return
        try:
            content = spool.read(CUR, name, FILE_BYTES)
            if len(content) > FILE_BYTES:
                raise SpoolError(f"longer than {FILE_BYTES} bytes; write several files")
            events = yield self._read(content)
        except FileNotFoundError:
            return
        except (SpoolError, ValueError) as fault:
            self._refuse(spool, CUR, name, str(fault))
            return
        if events:
            yield self._see(events)
        spool.put_aside(name, CUR, DONE)
        self.taken += 1

    def _refuse(self, spool: Spool, folder: str, name: str, reason: str) -> None:
        spool.put_aside(name, folder, FAILED, reason)
        self.refused += 1

    def _opened(self) -> Spool:
        if self._spool is None:
            Spool(self._path).make()
            owner = self._path.stat().st_uid
            self._spool = Spool(self._path, [owner], "let the owner of the folder write them")
        self._spool.lock()
        return self._spool

    def _oldest(self, spool: Spool, folder: str) -> list[Found]:
        with contextlib.closing(spool.look(folder)) as names:
            return heapq.nsmallest(FILES, islice(names, NAMES))

    def _tidy(self, spool: Spool) -> None:
        """Remove what was kept long enough, the oldest first."""
        self._tidied_s = self._clock.seconds()
        self._immovable.clear()
        now_ns = self._now_ns()
        for folder, kept, keep_ns in (
            (DONE, KEPT, KEEP_NS),
            (FAILED, KEPT, KEEP_NS),
            (TMP, NAMES, TMP_KEEP_NS),
        ):
            with contextlib.closing(spool.look(folder)) as names:
                found = [one for one in islice(names, 2 * NAMES) if not one.name.endswith(REASON)]
            found.sort(key=lambda one: one.moved_ns, reverse=True)
            for place, one in enumerate(found):
                if place >= kept or one.moved_ns < now_ns - keep_ns:
                    # A folder with something in it stays: it is an administrator's to remove.
                    with contextlib.suppress(OSError):
                        spool.discard(folder, one.name)
