"""
registration.xml as a file: replaced in one step, and only when its content changes.

What it says is the views' work; here is only when it is written, and its
stamp: readers skip a document whose root timeStamp does not rise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from esgf_gossip.storage.database import Database, StorageError
from esgf_gossip.storage.output_file import OutputFile
from esgf_gossip.views.federation import FederationView
from esgf_gossip.views.registration_xml import ElementCache, content_key, render, root_timestamp_ms

STAMP: Final = "registration_stamp_ms"
# Far above any real document; a larger file is not ours.
FILE_BYTES: Final = 64 * 1024 * 1024


class RegistrationFile:
    """
    The document this node serves and writes; ``content`` is empty before the first ``update``.

    ``write_error`` is one line while the disk refuses the file, else empty.
    """

    def __init__(self, path: Path | None, database: Database) -> None:
        """
        Take over what an earlier run or program left: its stamp is the floor of ours.

        Args:
            path: where to write, None where the document is only served.
            database: keeps the last stamp, in case the file is lost.

        Raises:
            StorageError: the database cannot be read.
        """
        self._file = OutputFile(path, FILE_BYTES)
        self._database = database
        self._cache = ElementCache()
        self.content = self._file.read()
        self._is_updated = False
        self._stamp_ms = max(database.fact(STAMP), root_timestamp_ms(self.content))
        if root_timestamp_ms(self.content) == 0:
            self.content = b""

    @property
    def is_inherited(self) -> bool:
        """Whether ``content`` is still what was found at the start."""
        return bool(self.content) and not self._is_updated

    @property
    def write_error(self) -> str:
        """Say what keeps the file from being written."""
        return self._file.write_error

    def write_anew(self) -> None:
        """Write the file with the next ``update``, even where it says nothing new."""
        self._file.write_anew()

    def update(self, view: FederationView) -> bool:
        """
        Render the view; keep and write it if it says something new. Tell whether it does.

        Where the disk fails, the file before stays whole and the next call tries again.
        """
        self._is_updated = True
        stamp_ms = max(view.newest_ms, self._stamp_ms + 1)
        document = render(view.nodes, stamp_ms, self._cache)
        changed = content_key(document) != content_key(self.content)
        if changed:
            self.content, self._stamp_ms = document, stamp_ms
        if self._file.is_behind(self.content):
            self._write()
        return changed

    def _write(self) -> None:
        try:
            self._database.set_fact(STAMP, self._stamp_ms)
        except StorageError as error:
            self._file.fail(str(error))
        else:
            self._file.write(self.content)
