"""Downloads and changes as tests make them up."""

from __future__ import annotations

import itertools

from esgf_gossip.sources.access_log import LogReading, LogRow
from esgf_gossip.sources.log_position import LogPosition
from esgf_gossip.tracking.events import EventType, file_key
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.matches import Change

MASTER = "CMIP6.CMIP.NCAR.CESM2.historical.r1i1p1f1.Amon.tas.gn"
V1, V2, V3 = (DatasetId(MASTER, version) for version in ("20190101", "20200101", "20210101"))
OTHER = DatasetId("CMIP6.CMIP.NCAR.CESM2.historical.r1i1p1f1.Amon.pr.gn", "20190101")
ALICE, BOB, CAROL = (f"https://idp.example.org/esgf-idp/openid/{name}" for name in ("alice", "bob", "carol"))
T0 = 1_600_000_000_000
NAMES = tuple(f"tas_Amon_CESM2_historical_r1i1p1f1_gn_{year}01-{year}12.nc" for year in range(1850, 1900))


def url(dataset: DatasetId, name: str = NAMES[0], host: str = "data.example.org") -> str:
    """Return where a file of a dataset is served, by its folders."""
    return f"https://{host}/thredds/fileServer/root/{dataset.master_id.replace('.', '/')}/v{dataset.version}/{name}"


_ids = itertools.count(1)


def row(user: str | None, where: str, at_ms: int = T0, *, is_whole: bool = True) -> LogRow:
    """Return one row of the log."""
    return LogRow(next(_ids), user, where, at_ms, is_whole)


def reading(*rows: LogRow, reread=()) -> LogReading:
    """Return rows as they are read."""
    return LogReading(rows, LogPosition(rows[-1].id if rows else 0), has_more=False, reread=frozenset(reread))


def retracted(*datasets: DatasetId, at_ms: int = T0 + 1000) -> Change:
    """Return a retraction."""
    return Change(b"r" * 32, EventType.RETRACTED, datasets, at_ms)


def new_version(successor: DatasetId, *supersedes: DatasetId, unchanged=()) -> Change:
    """Return a new version."""
    return Change(
        b"n" * 32,
        EventType.NEW_VERSION,
        (successor,),
        T0 + 1000,
        successor,
        tuple(one.version for one in supersedes),
        frozenset(file_key(name) for name in unchanged),
    )
