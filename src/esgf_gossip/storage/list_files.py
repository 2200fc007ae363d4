"""
The lists beside registration.xml as files: each replaced in one step, and only when it says something new.

What they say is ``views.lists_xml``'; files that end in ``_static.xml`` are the administrator's and never opened.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import attrs
from twisted.logger import Logger

from esgf_gossip.files import read_file, replace_file
from esgf_gossip.views.federation import FederationView
from esgf_gossip.views.lists_xml import LISTS, SHARD_FORMS, is_list, render

# A list of 10,000 nodes is about 1 MiB.
FILE_BYTES: Final = 16 * 1024 * 1024


@attrs.define
class _List:
    """One list: what is served, what is known to be on the disk, whether this run made it."""

    path: Path | None
    content: bytes = b""
    is_updated: bool = False
    write_error: str = ""


class ListFiles:
    """The lists this node serves, and those among them that it writes."""

    log = Logger()

    def __init__(self, directory: Path, written: Collection[str], shard_form: str = SHARD_FORMS[0]) -> None:
        """
        Take over what an earlier run or program left, so that readers are served before the registry is compared.

        Args:
            directory: where to write.
            written: names of those to write; the others are served over HTTP alone, files of that name left alone.
            shard_form: one of ``SHARD_FORMS``.
        """
        self._shard_form = shard_form
        self._lists = {name: _List(directory / name if name in written else None) for name in LISTS}
        for name, one in self._lists.items():
            found = _read(one.path)
            if is_list(name, found):
                one.content = found

    def update(self, view: FederationView, *, is_ready: bool) -> None:
        """
        Render the view; write what says something new or has gone from the disk.

        Until ``is_ready`` a list of an earlier run stays as it is: a registry that still fills would shorten it.
        Where the disk fails the file before stays whole, and the next call tries again.
        """
        for name, one in self._lists.items():
            if one.content and not one.is_updated and not is_ready:
                continue
            one.is_updated = True
            one.content = render(name, view.nodes, self._shard_form)
            if one.path is not None and _read(one.path) != one.content:
                self._write(one, one.path)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """Go through the names and contents of the lists there are."""
        return ((name, one.content) for name, one in self._lists.items() if one.content)

    def _write(self, one: _List, path: Path) -> None:
        try:
            replace_file(path, one.content)
        except OSError as error:
            if not one.write_error:
                self.log.critical(
                    "cannot write {path}: {reason}; the file before stays",
                    path=str(path),
                    reason=error.strerror,
                )
            one.write_error = error.strerror or str(error)
            return
        if one.write_error:
            self.log.info("{path} can be written again", path=str(path))
        one.write_error = ""


def _read(path: Path | None) -> bytes:
    if path is None:
        return b""
    try:
        return read_file(path, FILE_BYTES)
    except OSError:
        return b""
