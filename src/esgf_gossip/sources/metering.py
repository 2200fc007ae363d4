"""
Download numbers of this site, read from a file that another program keeps, once a minute.

A file that cannot be read, or holds no numbers, leaves those told before and says so once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from esgf_gossip.esgf.metrics import FILE_BYTES, Metrics, MetricsError, parse_data_users
from esgf_gossip.files import read_file

# The dashboard writes every few minutes; each new number goes to all nodes.
READ_EVERY_S: Final = 60.0


class Metering:
    """
    Keeps the numbers of this node.

    ``metrics`` are the last ones read, None while there are none; ``on_change`` is called when they changed.
    """

    log = Logger()

    def __init__(self, on_change: Callable[[], object], clock: Any) -> None:
        self.metrics: Metrics | None = None
        self._on_change: Final = on_change
        self._failure = ""
        self._clock: Final = clock
        self._loop: LoopingCall | None = None

    def start(self, path: Path | None) -> None:
        """Read that file now, without a word to anybody, and once a minute from now on; None: there is none."""
        self.stop()
        if path is None:
            self.metrics, self._failure = None, ""
            return
        self._take(path)
        self._loop = LoopingCall(self._read, path)
        self._loop.clock = self._clock
        self._loop.start(READ_EVERY_S, now=False)

    def stop(self) -> None:
        """Read no more."""
        if self._loop is not None and self._loop.running:
            self._loop.stop()

    def _read(self, path: Path) -> None:
        before = self.metrics
        self._take(path)
        if self.metrics != before:
            self._on_change()

    def _take(self, path: Path) -> None:
        failure = ""
        try:
            self.metrics = parse_data_users(read_file(path, FILE_BYTES), str(path))
        except MetricsError as error:
            failure = str(error)
        except OSError as error:
            failure = f"{path}: {error.strerror or type(error).__name__}; see [metrics] in node.toml"
        if failure and failure != self._failure:
            self.log.warn("download numbers stay as they are: {failure}", failure=failure)
        self._failure = failure
