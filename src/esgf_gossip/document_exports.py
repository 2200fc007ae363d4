"""
Documents as files for the programs of this site, and the program that is told when one changed.

A file is replaced in one step, only where it differs. The hook runs without a shell, once at a time, for a limited
time; its exit code is logged, what it prints goes nowhere. Source: docs/documents.md, "Files for programs".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
from twisted.logger import Logger

from esgf_gossip.documents.leaves import BODY_BYTES
from esgf_gossip.documents.names import DocumentName
from esgf_gossip.net.hook_run import HookRun
from esgf_gossip.storage.output_file import OutputFile

# After a failure the hook is told again after so long, until it has heard of the newest version.
AGAIN_S: Final = 300.0


@attrs.frozen
class _News:
    """What the hook is to be told: the file of a document was written, or taken away."""

    document: DocumentName
    path: Path
    version: str
    is_deletion: bool


class DocumentExports:
    """The files of one node's documents, and its hook."""

    log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._files: dict[DocumentName, tuple[Path, OutputFile]] = {}
        self._hook: Sequence[str] = ()
        # The newest of each document; what was overtaken before the hook ran is not told.
        self._waiting: dict[DocumentName, _News] = {}
        self._faults: dict[DocumentName, str] = {}
        self._hook_faults: dict[DocumentName, str] = {}
        self._running: HookRun | None = None
        self._again: Any = None
        self._is_stopped = False

    @property
    def names(self) -> list[DocumentName]:
        """The documents that are written into files."""
        return sorted(self._files)

    @property
    def fault(self) -> str:
        """One line while something fails, else empty."""
        faults = [file.write_error for _, file in self._files.values() if file.write_error]
        return "; ".join([*faults, *self._faults.values(), *self._hook_faults.values()])

    def is_wanted(self, name: DocumentName) -> bool:
        """Tell whether a document is written into a file."""
        return name in self._files

    def replace(self, files: Mapping[DocumentName, Path], hook: Sequence[str]) -> None:
        """Write these documents from now on, and tell this program; empty: none."""
        self._files = {
            name: before
            if (before := self._files.get(name)) is not None and before[0] == path
            else (path, OutputFile(path, BODY_BYTES + 1))
            for name, path in files.items()
        }
        for kept in (self._waiting, self._faults, self._hook_faults):
            for name in [name for name in kept if name not in self._files or not hook]:
                del kept[name]
        self._hook = tuple(hook)
        self._go_on()

    def write(self, name: DocumentName, version: bytes, body: bytes) -> None:
        """Let the file of a document hold this; where it does already, nothing happens."""
        path, file = self._files[name]
        self._faults.pop(name, None)
        if not file.is_behind(body):
            file.write_error = ""
            return
        file.write(body)
        if not file.write_error:
            self.log.info("wrote {name} to {path}", name=str(name), path=str(path))
            self._tell(_News(name, path, version.hex(), is_deletion=False))

    def remove(self, name: DocumentName, version: bytes) -> None:
        """Take the file of a document away that was deleted."""
        path, _ = self._files[name]
        try:
            path.unlink()
        except FileNotFoundError:
            self._faults.pop(name, None)
            return
        except OSError as error:
            self.fail(name, f"{path}: {error.strerror}")
            return
        self._faults.pop(name, None)
        self.log.info("removed {path}: {name} was deleted", name=str(name), path=str(path))
        self._tell(_News(name, path, version.hex(), is_deletion=True))

    def fail(self, name: DocumentName, reason: str) -> None:
        """Note why the file of a document cannot be brought up to date; it stays as it is."""
        if self._faults.get(name) != reason:
            self.log.warn("document {name}: {reason}; its file stays as it is", name=str(name), reason=reason)
        self._faults[name] = reason

    def stop(self) -> None:
        """Tell nobody more; a program that runs is ended."""
        self._is_stopped = True
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._running is not None:
            self._running.kill()

    def _tell(self, news: _News) -> None:
        if self._hook:
            self._waiting[news.document] = news
            self._go_on()

    def _go_on(self) -> None:
        while self._running is None and not self._is_stopped and (news := self._next()) is not None:
            del self._waiting[news.document]
            environment = {
                "ESGF_GOSSIP_DOCUMENT": str(news.document),
                "ESGF_GOSSIP_DOCUMENT_PATH": str(news.path),
                "ESGF_GOSSIP_DOCUMENT_VERSION": news.version,
                "ESGF_GOSSIP_DOCUMENT_EVENT": "deleted" if news.is_deletion else "written",
            }
            self._running = HookRun(self._reactor, partial(self._ended, news))
            fault = self._running.start(self._hook, environment, news.path.parent)
            if fault:
                self._running = None
                self._failed(news, fault)

    def _next(self) -> _News | None:
        """Return what the hook is to be told now; after a failure a document has to wait."""
        ready = (
            one for name, one in self._waiting.items() if name not in self._hook_faults or self._again is None
        )
        return next(ready, None) if self._hook else None

    def _ended(self, news: _News, reason: str) -> None:
        self._running = None
        if self._is_stopped:
            return
        if reason:
            self._failed(news, reason)
        else:
            self._hook_faults.pop(news.document, None)
            self.log.info("the hook was told of document {name}: exit code 0", name=str(news.document))
        self._go_on()

    def _failed(self, news: _News, reason: str) -> None:
        self._hook_faults[news.document] = f"the hook for document {news.document} failed: {reason}"
        self.log.warn(
            "the hook for document {name} failed: {reason}; it is told again in {again} s",
            name=str(news.document),
            reason=reason,
            again=int(AGAIN_S),
        )
        if self._is_wanted_still(news):
            self._waiting.setdefault(news.document, news)
        if self._again is None:
            self._again = self._reactor.callLater(AGAIN_S, self._again_due)

    def _is_wanted_still(self, news: _News) -> bool:
        return self._files.get(news.document, (None,))[0] == news.path

    def _again_due(self) -> None:
        self._again = None
        self._go_on()
