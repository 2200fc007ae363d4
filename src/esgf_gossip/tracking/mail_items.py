"""
What a mail says, as plain values for its templates: entries by group, each text bounded and inert.

Many of the words come from other nodes, publishers and errata services. Whatever they are, they stay words.
Source: docs/tracking.md, "The mail".
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import attrs

from esgf_gossip.tracking.events import ERRATUM, EventType
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.matches import Change, FetchedFile, Match

# title, severity, link
Issue = tuple[str, str, str]
IssuesOf = Callable[[sqlite3.Connection, Sequence[DatasetId]], Sequence[Issue]]
# The version that is to be taken now in place of one, as the ledger stands; None: none is known.
SuccessorOf = Callable[[sqlite3.Connection, DatasetId], DatasetId | None]
Successors = Callable[[DatasetId], DatasetId | None]

TEXT_CHARACTERS: Final = 300
LINK_CHARACTERS: Final = 500
ISSUES_MOST: Final = 5
GROUPS_MOST: Final = 60
REST: Final = "other datasets"
# Where in a name the experiment stands; elsewhere datasets are grouped by project alone.
_EXPERIMENT: Final[Mapping[str, int]] = {"cmip6": 4, "cmip6plus": 4, "cmip5": 4, "cmip3": 4, "cordex": 5}
_LINK: Final = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+(?:[/?#][A-Za-z0-9._~:/?#@!$&()*+,;=%\[\]-]*)?")
_ORDER: Final = (EventType.RETRACTED, ERRATUM, EventType.NEW_VERSION, EventType.REINSTATED)
WORDS: Final[Mapping[str, str]] = {
    EventType.RETRACTED: "retracted",
    EventType.NEW_VERSION: "replaced by a new version",
    EventType.REINSTATED: "valid again",
    ERRATUM: "an erratum was published",
}


@attrs.frozen
class Item:
    """One change of a mail: what its receiver holds of it, and the errata of these datasets."""

    change: Change
    match: Match
    issues: tuple[Issue, ...] = ()


@attrs.frozen
class FileLine:
    """One file of the receiver."""

    name: str
    host: str
    fetched: str
    is_unchanged: bool


@attrs.frozen
class Note:
    """Why: a reason or an erratum that entries refer to by its number."""

    number: int
    title: str
    severity: str
    link: str


@attrs.frozen
class Entry:
    """One dataset: what happened to it, what is to be taken now in its place, the files of it, why."""

    kind: str
    word: str
    dataset: str
    master_id: str
    successor: str
    date: str
    files: tuple[FileLine, ...]
    notes: tuple[int, ...]


@attrs.frozen
class Group:
    """The entries of one project and experiment; ``more``: how many are not shown."""

    name: str
    entries: tuple[Entry, ...]
    more: int


@attrs.frozen
class Content:
    """All of it. ``dataset_count`` counts all datasets held, ``more``: those that stand in no group shown."""

    groups: tuple[Group, ...]
    notes: tuple[Note, ...]
    dataset_count: int
    file_count: int
    more: int
    more_files: int


def inert(text: str, most: int = TEXT_CHARACTERS) -> str:
    """Return a text in one line, bounded, without anything that controls instead of shows: line ends, direction marks."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text[: most * 4]).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def safe_link(text: str) -> str:
    """Return a link of the web, or nothing."""
    return text if len(text) <= LINK_CHARACTERS and _LINK.fullmatch(text) else ""


def date_text(at_ms: int) -> str:
    """Return a date as people of all countries read it."""
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d")
    except (ValueError, OverflowError, OSError):
        return "an unknown date"


def held_datasets(item: Item) -> tuple[DatasetId, ...]:
    """Return the datasets of a change that its receiver holds, as far as their names are known."""
    change, match = item.change, item.match
    if change.kind == ERRATUM and match.dataset_count >= len(change.datasets):
        return change.datasets
    return match.datasets or change.datasets


def take_now(change: Change, dataset: DatasetId, successors: Successors) -> DatasetId | None:
    """Return the version that stands in place of the one held, where what happened is a reason to change over."""
    if change.kind not in (EventType.RETRACTED, EventType.NEW_VERSION):
        return None
    if dataset == change.successor:
        # Which version is held is not known; what replaces it, replaces the oldest.
        dataset = DatasetId(dataset.master_id, "0")
    return successors(dataset)


def make_content(
    items: Sequence[Item], successors: Successors, most_entries: int, most_files: int
) -> Content:
    """
    Return what a mail says.

    Args:
        items: what it is about.
        successors: asked for the datasets shown, and for no other.
        most_entries: that are shown.
        most_files: of each entry.
    """
    ordered = sorted(items, key=rank)
    notes: dict[tuple[str, str, str], int] = {}
    groups: dict[str, list[tuple[Item, DatasetId]]] = {}
    for item in ordered:
        for dataset in held_datasets(item):
            name = _group(dataset)
            name = name if name in groups or len(groups) < GROUPS_MOST else REST
            groups.setdefault(name, []).append((item, dataset))
    left, shown_files, shown = most_entries, 0, list[Group]()
    for place, (name, found) in enumerate(sorted(groups.items())):
        # Each group gets its share of what is left, so that the last is not the one that pays.
        share = max(1, left // (len(groups) - place)) if left > 0 else 0
        entries = tuple(
            _entry(item, dataset, successors, _numbers(item, notes, most_entries), most_files)
            for item, dataset in found[:share]
        )
        left -= len(entries)
        shown_files += sum(len(entry.files) for entry in entries)
        shown.append(Group(name, entries, len(found) - len(entries)))
    named = sum(len(found) for found in groups.values())
    count = sum(max(len(held_datasets(item)), item.match.dataset_count) for item in items)
    files = sum(item.match.file_count for item in items)
    return Content(
        groups=tuple(shown),
        notes=tuple(Note(number, *note) for note, number in notes.items()),
        dataset_count=count,
        file_count=files,
        more=count - named,
        more_files=max(0, files - shown_files),
    )


def rank(item: Item) -> tuple[int, int]:
    """Return by what items are ordered: what is worst first, of one kind the newest."""
    kind = item.change.kind
    return (_ORDER.index(kind) if kind in _ORDER else len(_ORDER), -item.change.occurred_ms)


def _numbers(item: Item, notes: dict[tuple[str, str, str], int], most: int) -> tuple[int, ...]:
    change = item.change
    said: list[Issue] = []
    if change.kind == ERRATUM:
        said.append((change.title or "an erratum without a title", change.severity, change.link))
    if change.reason:
        said.append((change.reason, "", "" if change.kind == ERRATUM else change.link))
    said += list(item.issues)[:ISSUES_MOST]
    numbers = []
    for title, severity, link in said:
        note = (inert(title), inert(severity, 20), safe_link(link))
        if note not in notes and len(notes) >= most:
            continue
        numbers.append(notes.setdefault(note, len(notes) + 1))
    return tuple(dict.fromkeys(numbers))


def _group(dataset: DatasetId) -> str:
    facets = dataset.master_id.split(".")
    place = _EXPERIMENT.get(facets[0].lower())
    return f"{facets[0]} / {facets[place]}" if place is not None and place < len(facets) else facets[0]


def _entry(
    item: Item, dataset: DatasetId, successors: Successors, notes: tuple[int, ...], most_files: int
) -> Entry:
    change = item.change
    successor = take_now(change, dataset, successors)
    # With any other version the files were not compared.
    is_compared = successor is not None and successor == change.successor
    files = [file for file in item.match.files if file.dataset == dataset]
    return Entry(
        kind=change.kind,
        word=WORDS.get(change.kind, inert(change.kind, 40)),
        dataset=inert(str(dataset)),
        master_id=dataset.master_id,
        successor="" if successor is None else inert(str(successor)),
        date=date_text(change.occurred_ms),
        files=tuple(_file(file, is_compared=is_compared) for file in files[:most_files]),
        notes=notes,
    )


def _file(file: FetchedFile, *, is_compared: bool) -> FileLine:
    is_unchanged = is_compared and file.is_unchanged
    return FileLine(inert(file.name, 200), inert(file.host, 100), date_text(file.fetched_ms), is_unchanged)
