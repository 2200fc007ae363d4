"""
The lists beside registration.xml as files: each replaced in one step, and only when it says something new.

What they say is ``views.lists_xml``'; files that end in ``_static.xml`` are the administrator's and never opened.
Why they heed health, and what guards them from it: docs/adr/0014.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs
from twisted.logger import Logger

from esgf_gossip.esgf.health import Health
from esgf_gossip.storage.output_file import OutputFile
from esgf_gossip.views.federation import FederationView
from esgf_gossip.views.lists_xml import (
    DROP_DOWN,
    LISTS,
    SHARD_FORMS,
    USUAL,
    document,
    entries,
    is_list,
    lines_of,
)

# A list of 10,000 nodes is about 1 MiB.
FILE_BYTES: Final = 16 * 1024 * 1024
# Services that go down within so long of each other may have one cause: several of the usual probe periods.
TOGETHER_MS: Final = 10 * 60 * 1000


@attrs.define
class _List:
    """
    One list: its file, what is served, whether this run made it.

    ``down_at_ms`` is when each line was first seen to be down, ``kept`` are those that are listed nevertheless.
    """

    file: OutputFile
    content: bytes = b""
    is_updated: bool = False
    alarm: str = ""
    down_at_ms: dict[str, int] = attrs.field(factory=dict)
    kept: set[str] = attrs.field(factory=set)


class ListFiles:
    """The lists this node serves, and those among them that it writes."""

    log = Logger()

    def __init__(
        self,
        directory: Path,
        written: Collection[str],
        shard_form: str = SHARD_FORMS[0],
        drop_down: Collection[str] = DROP_DOWN,
    ) -> None:
        """
        Take over what an earlier run or program left, so that readers are served before the registry is compared.

        Args:
            directory: where to write.
            written: names of those to write; the others are served over HTTP alone, files of that name left alone.
            shard_form: one of ``SHARD_FORMS``.
            drop_down: names of the lists that services which are down leave.
        """
        self._drop_down = drop_down
        self._shard_form = shard_form
        self._lists = {
            name: _List(OutputFile(directory / name if name in written else None, FILE_BYTES))
            for name in LISTS
            if name in USUAL or name in written
        }
        for name, one in self._lists.items():
            found = one.file.read()
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
            lines = entries(name, view.nodes, self._shard_form)
            if LISTS[name].is_optional and not lines:
                continue
            one.content = document(name, self._without_down(name, one, lines, view.at_ms))
            one.is_updated = True
            if one.file.is_behind(one.content):
                one.file.write(one.content)

    def write_anew(self) -> None:
        """Write every file with the next ``update``, even where it says nothing new."""
        for one in self._lists.values():
            one.file.write_anew()

    @property
    def write_errors(self) -> tuple[str, ...]:
        """Say which files the disk refuses, and why."""
        return tuple(one.file.write_error for one in self._lists.values() if one.file.write_error)

    @property
    def names(self) -> tuple[str, ...]:
        """Name the lists there are or will be."""
        return tuple(self._lists)

    @property
    def alarms(self) -> tuple[str, ...]:
        """Say which lists are kept as they were because too much would vanish from them."""
        return tuple(one.alarm for one in self._lists.values() if one.alarm)

    def _without_down(self, name: str, one: _List, told: Mapping[str, Health], at_ms: int) -> Collection[str]:
        """
        Leave out what is in maintenance, and what is down, unless more than half would vanish by that within ``TOGETHER_MS``.

        Then what went down in that time stays, or comes back: a fault of the network, or of whoever looks, is
        likelier. Nodes look at different moments, so that one fault is told by one after another. Over a restart
        the list on the disk tells who was in it.
        """
        if name not in self._drop_down:
            return told
        # What is planned is no failure: it leaves at once, and counts neither way.
        lines = {
            line: health is Health.DOWN for line, health in told.items() if health is not Health.MAINTENANCE
        }
        found = frozenset() if one.is_updated else lines_of(one.content).intersection(lines)
        for line, is_down in lines.items():
            if is_down and line not in one.down_at_ms:
                was_away = bool(found) and line not in found
                one.down_at_ms[line] = at_ms - TOGETHER_MS if was_away else at_ms
        down_at_ms = {line: one.down_at_ms[line] for line, is_down in lines.items() if is_down}
        one.down_at_ms = down_at_ms
        together = {
            line for line, since in down_at_ms.items() if line in one.kept or at_ms - since < TOGETHER_MS
        }
        at_stake = len(lines) - len(down_at_ms) + len(together)
        one.kept = together if len(together) * 2 > at_stake else set()
        alarm = ""
        if one.kept:
            alarm = f"{name} is kept as it was: {len(together)} of its {at_stake} entries are down at once"
        if bool(alarm) != bool(one.alarm):
            if alarm:
                self.log.critical("{alarm}; look whether they are", alarm=alarm)
            else:
                self.log.info("{name} follows the health of its services again", name=name)
        one.alarm = alarm
        return [line for line, is_down in lines.items() if not is_down or line in one.kept]

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """Go through the names and contents of the lists there are."""
        return ((name, one.content) for name, one in self._lists.items() if one.content)
