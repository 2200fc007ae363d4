"""
The identity of a dataset version: one name for the many spellings in use.

``master_id`` is the same for all versions and copies, ``instance_id`` for all copies of one version: the key of
tracking. A persistent identifier (handle) is never derived or compared: publishers disagree on how it is made.
Source: docs/tracking.md, "Names".
"""

from __future__ import annotations

import re
from typing import Final

import attrs

from esgf_gossip.core.packing import HOST

MASTER_CHARACTERS: Final = 255
VERSION_CHARACTERS: Final = 20

_SHOWN_CHARACTERS: Final = 80
# Facets are words of the projects' vocabularies; blanks, quotes and angle brackets are in none of them.
_MASTER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+()-]{0,253}[A-Za-z0-9)]")
_VERSION: Final = re.compile(rf"[0-9]{{1,{VERSION_CHARACTERS}}}")
_SPELLING: Final = re.compile(rf"(?P<master>.+?)(?:\.v|#v?)(?P<version>[0-9]{{1,{VERSION_CHARACTERS}}})")


class IdentityError(ValueError):
    """Report a text that names no dataset version, in one line: what is wrong and what would be right."""


@attrs.frozen(order=True)
class DatasetId:
    """One version of a dataset, whoever holds a copy. Sorted by name, then by version as a number."""

    master_id: str = attrs.field()
    version: str = attrs.field(order=int)

    @property
    def instance_id(self) -> str:
        """The version's name, equal for all its copies."""
        return f"{self.master_id}.v{self.version}"

    @property
    def project(self) -> str:
        """The first facet, as it is spelled."""
        return self.master_id.partition(".")[0]

    def __str__(self) -> str:
        return self.instance_id


def make_dataset(master_id: str, version: str) -> DatasetId:
    """
    Make the identity of its two parts; a ``v`` before the version is taken off.

    Raises:
        IdentityError: one of them has not the form.
    """
    number = version.removeprefix("v")
    if not _MASTER.fullmatch(master_id) or not _VERSION.fullmatch(number):
        raise _wrong(f"{master_id}.v{number}")
    return DatasetId(master_id, number)


def parse_dataset(text: str) -> DatasetId:
    """
    Read a dataset version in any spelling: ``a.b.v20190101``, ``a.b#20190101``, with or without ``|data_node``.

    Raises:
        IdentityError: it is none.
    """
    found = _SPELLING.fullmatch(text.partition("|")[0][: MASTER_CHARACTERS + VERSION_CHARACTERS + 3])
    if found is None:
        raise _wrong(text)
    return make_dataset(found["master"], found["version"])


def parse_record(text: str) -> tuple[DatasetId, str]:
    """
    Read the id of one copy: ``instance_id|data_node``.

    Raises:
        IdentityError: it is none.
    """
    name, bar, host = text.partition("|")
    host = host.lower()
    if not bar or not HOST.fullmatch(host):
        raise IdentityError(
            f"{text[:_SHOWN_CHARACTERS]!r} names no copy of a dataset: write DATASET.vVERSION|DATA_NODE"
        )
    return parse_dataset(name), host


def _wrong(text: str) -> IdentityError:
    return IdentityError(
        f"{text[:_SHOWN_CHARACTERS]!r} names no version of a dataset: write DATASET.vVERSION or DATASET#VERSION, "
        "such as CMIP6.CMIP.NCAR.CESM2.historical.r1i1p1f1.Amon.tas.gn.v20190308"
    )
