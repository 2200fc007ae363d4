"""
Fields of index records as publishers write them: XML that often is none, read with patience and within bounds.

Publishers do not escape values, so ``&`` and ``<`` stand in them as they are, which no XML parser takes; an index
does. So fields are found by their tags, and only known entities are resolved. Every look goes forward: the time is
that of the length, whatever the bytes.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from esgf_gossip.tracking.identity import DatasetId, IdentityError, make_dataset, parse_record
from esgf_gossip.tracking.sightings import SeenFile

DOCS_MOST: Final = 20_000
FIELDS_MOST: Final = 2000
VALUE_CHARACTERS: Final = 8000

Fields = Mapping[str, Sequence[str]]

_OPEN: Final = re.compile(
    r"<field\s{1,20}name\s{0,20}=\s{0,20}[\"']([A-Za-z0-9_.:-]{1,100})[\"']\s{0,20}(/?)>"
)
_ENTITY: Final = re.compile(r"&(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9A-Fa-f]{1,6});")
_CDATA: Final = re.compile(r"<!\[CDATA\[(.*)\]\]>", re.DOTALL)


def documents(text: str) -> Iterator[Fields]:
    """Give the fields of each ``<doc>`` of a text; one without an end goes to the end of the text."""
    at = text.find("<doc")
    for _ in range(DOCS_MOST):
        if at < 0:
            return
        end = text.find("</doc", at)
        yield fields(text[at : end if end >= 0 else len(text)])
        at = text.find("<doc", end) if end >= 0 else -1


def fields(text: str) -> Fields:
    """Return the values of all ``<field name="...">`` of a text, in their order."""
    found: dict[str, list[str]] = {}
    at = 0
    for _ in range(FIELDS_MOST):
        opened = _OPEN.search(text, at)
        if opened is None:
            break
        at = opened.end()
        if opened[2]:
            continue
        end = text.find("</field", at)
        if end < 0:
            break
        found.setdefault(opened[1], []).append(value(text[at : min(end, at + VALUE_CHARACTERS)]))
        at = end
    return found


def value(text: str) -> str:
    """Return a value as it was meant: known entities resolved, what is none left alone."""
    text = text.strip()
    cdata = _CDATA.fullmatch(text)
    return cdata[1] if cdata else _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)


def json_fields(document: Mapping[str, Any]) -> Fields:
    """Return a document of a search's answer as fields: every value a list of texts."""
    return {
        name: [str(one)[:VALUE_CHARACTERS] for one in (many if isinstance(many, list) else [many])]
        for name, many in list(document.items())[:FIELDS_MOST]
        if isinstance(name, str)
    }


def first(found: Fields, name: str) -> str:
    """Return the first value of a field; empty: there is none."""
    values = found.get(name)
    return values[0].strip() if values else ""


def flag(found: Fields, name: str) -> bool | None:
    """Return what a field says, as Python, Solr and XML spell it; None: nothing."""
    return {"true": True, "1": True, "false": False, "0": False}.get(first(found, name).lower())


def is_file(found: Fields) -> bool:
    """Tell whether it is the record of a file, not of a dataset."""
    return first(found, "type").lower() == "file" or (
        not first(found, "type") and bool(first(found, "dataset_id"))
    )


def copy_of(found: Fields) -> tuple[DatasetId, str]:
    """
    Return the copy that a record is about, or that a file's record belongs to.

    Raises:
        IdentityError: it names none.
    """
    name = first(found, "dataset_id" if is_file(found) else "id")
    try:
        return parse_record(name)
    except IdentityError:
        if is_file(found) or not first(found, "master_id"):
            raise
    # An index of an older project names its records otherwise; the fields say it too.
    dataset = make_dataset(first(found, "master_id"), first(found, "version"))
    return parse_record(f"{dataset}|{first(found, 'data_node')}")


def seen_file(found: Fields) -> SeenFile:
    """Return the file that a file's record describes."""
    urls = tuple(
        dict.fromkeys(url for url in (one.partition("|")[0].strip() for one in found.get("url", ())) if url)
    )
    name = first(found, "title") or _last_part(urls)
    size = first(found, "size")
    return SeenFile(
        name.rpartition("/")[2],
        urls,
        first(found, "checksum").lower(),
        int(size) if size.isascii() and size.isdigit() and len(size) < 19 else None,
        first(found, "tracking_id"),
    )


def _last_part(urls: Sequence[str]) -> str:
    try:
        return urlsplit(urls[0]).path.rpartition("/")[2] if urls else ""
    except ValueError:
        return ""
