"""
What an administrator must see of trust: kept until the next start, told in the log not more often than that can bear.

What a liar can cause at will never pushes out what only a stolen key can.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from twisted.logger import Logger

from esgf_gossip.net.sparing import Sparing

KEPT_OF_A_KIND: Final = 10


class TrustAlarms:
    """The alarms of one daemon since its start, the gravest kind first."""

    log = Logger()

    def __init__(self, clock: Any) -> None:
        self._grave: deque[str] = deque(maxlen=KEPT_OF_A_KIND)
        self._common: deque[str] = deque(maxlen=KEPT_OF_A_KIND)
        self._sparing = Sparing(clock, self._tell_left_out)

    @property
    def raised(self) -> list[str]:
        """Every alarm that is kept."""
        return [*self._grave, *self._common]

    def grave(self, text: str) -> None:
        """Raise what no peer can cause by lying."""
        self.log.critical("trust: {text}", text=text)
        if text not in self._grave:
            self._grave.append(text)

    def common(self, text: str, source: str) -> None:
        """Raise what anybody may cause; ``source`` is whom a flood is counted against."""
        if self._sparing.allows(source):
            self.log.warn("trust: {text}", text=text)
        if text not in self._common:
            self._common.append(text)

    def stop(self) -> None:
        """Tell no more."""
        self._sparing.stop()

    def _tell_left_out(self, subject: str, count: int) -> None:
        self.log.warn("trust: {count} more lines on {subject} within a minute", count=count, subject=subject)
