"""
Measure who downloaded what: reading millions of rows of a site's log, and finding whom a change concerns; both stores.

A PostgreSQL of its own on loopback with access_logging made from a seed, log and store in one server with two roles,
and SQLite beside it. What is found is compared with the rows. Prints machine and commit.

    make downloads-bench
    PYTHONPATH=tests .venv/bin/python benchmarks/downloads.py --rows 500000 --users 10000 --datasets 7200
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from machine import machine_line

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from esgf_gossip.sources.access_log import ROWS, AccessLog
from esgf_gossip.tracking.downloads_postgres import PostgresDownloads
from esgf_gossip.tracking.downloads_sqlite import SqliteDownloads
from esgf_gossip.tracking.events import ERRATUM, EventType
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.matches import Change
from helpers.access_tables import READER, TRACKER, add_tables, address_of, password_file
from helpers.postgres import PostgresServer, postgres_server

ERRATUM_DATASETS = 2_747
EVENTS = 60
LOOKS = 10
FILES = 20
VERSION = "20190308"
T0_S = 1_546_300_800

# A fifth never ended; dataset, file and user are hashes of the row's number and the seed.
FILL = """
INSERT INTO esgf_node_manager.access_logging (id, user_id, url, file_id, remote_addr, service_type, date_fetched, success)
SELECT n, CASE WHEN draw.who %% 50 = 0 THEN '<no-id>' ELSE
    'https://esgf-node' || draw.who %% 7 || '.example.org/esgf-idp/openid/user' || draw.who END,
  'https://esgf-data.example.org/thredds/fileServer/css03_data/CMIP6/CMIP/NCAR/MODEL-' || draw.what
    || '/historical/r1i1p1f1/Amon/tas/gn/v20190308/tas_Amon_MODEL-' || draw.what || '_historical_r1i1p1f1_gn_'
    || 1850 + draw.part || '01-' || 1850 + draw.part || '12.nc',
  '0A', '192.0.2.1', 'thredds', %(t0)s + n / 10.0, draw.what %% 5 <> 0
FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n,
LATERAL (SELECT abs(hashint8extended(n, %(seed)s)) %% %(users)s AS who, abs(hashint8extended(n, %(seed)s + 1)) %% %(datasets)s AS what,
  abs(hashint8extended(n, %(seed)s + 2)) %% %(files)s AS part) AS draw
"""
TRUTH = """
SELECT count(DISTINCT user_id) FROM esgf_node_manager.access_logging
WHERE user_id <> '<no-id>' AND split_part(url, '/', 10) = ANY(%s)
"""


def dataset(number: int, version: str = VERSION) -> DatasetId:
    """Return the dataset with a number."""
    return DatasetId(f"CMIP6.CMIP.NCAR.MODEL-{number}.historical.r1i1p1f1.Amon.tas.gn", version)


def fill(server: PostgresServer, given: argparse.Namespace, first: int, last: int) -> None:
    """Write rows of the log."""
    with server.superuser() as connection:
        for at in range(first, last + 1, 500_000):
            values = {
                "first": at,
                "last": min(at + 499_999, last),
                "seed": given.seed,
                "t0": T0_S,
                "files": FILES,
            }
            connection.execute(FILL, {**values, "users": given.users, "datasets": given.datasets})
            connection.commit()


def one_pass(log: AccessLog, store) -> list[float]:
    """Read to the end; return the seconds of each look."""
    took, is_first, has_more = [], True, True
    while has_more:
        begun_s = time.perf_counter()
        reading = log.read(store.position(), time.time_ns() // 1_000_000, is_rechecking=is_first)
        store.advance(reading)
        took.append(time.perf_counter() - begun_s)
        has_more, is_first = reading.has_more, False
    return took


def matched(store, change: Change) -> tuple[float, int]:
    """Return how long a change takes to the last match, and how many there are."""
    begun_s = time.perf_counter()
    count = sum(len(batch) for batch in store.match([change]))
    return time.perf_counter() - begun_s, count


def truth(server: PostgresServer, numbers: list[int]) -> int:
    """Return how many users the rows themselves show for some datasets."""
    with server.superuser() as connection:
        return connection.execute(TRUTH, [[f"MODEL-{number}" for number in numbers]]).fetchone()[0]


def span(values: list[float], unit: float = 1.0) -> str:
    """Return median and worst."""
    return f"{statistics.median(values) * unit:.3g} (worst {max(values) * unit:.3g})"


def measure(name: str, server: PostgresServer, log: AccessLog, store, given: argparse.Namespace) -> list[str]:
    """Measure one store; return lines of the table."""
    later_ms = (T0_S + given.rows) * 1000
    rng = random.Random(given.seed)
    begun_s, cpu_s = time.perf_counter(), time.process_time()
    first = one_pass(log, store)
    whole_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - cpu_s
    last = given.rows
    looks, idle = [], []
    for _ in range(LOOKS):
        fill(server, given, last + 1, last + ROWS)
        last += ROWS
        looks.append(sum(one_pass(log, store)))
        idle.append(sum(one_pass(log, store)))
    with server.superuser(autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    counts = store.counts()
    if counts.rows != last or counts.unresolved:
        sys.exit(f"{name}: wrong: {counts}, {last} rows were written")
    events = []
    for number in rng.sample(range(given.datasets), EVENTS):
        change = Change(b"r" * 32, EventType.RETRACTED, (dataset(number),), later_ms)
        took_s, count = matched(store, change)
        events.append(took_s)
    if count != (right := truth(server, [number])):
        sys.exit(f"{name}: wrong: {count} users of one dataset, the rows say {right}")
    versions = []
    for number in rng.sample(range(given.datasets), EVENTS):
        successor = dataset(number, "20200101")
        change = Change(b"n" * 32, EventType.NEW_VERSION, (successor,), later_ms, successor, (VERSION,))
        versions.append(matched(store, change)[0])
    listed = rng.sample(range(given.datasets), min(ERRATUM_DATASETS, given.datasets))
    erratum = Change(b"e" * 32, ERRATUM, tuple(map(dataset, listed)), later_ms)
    batches = [matched(store, erratum) for _ in range(3)]
    found = batches[0][1]
    if {count for _, count in batches} != {right := truth(server, listed)}:
        sys.exit(f"{name}: wrong: {found} users of {len(listed)} datasets, the rows say {right}")
    return [
        f"{name}: load of the machine {os.getloadavg()[1]:.1f}",
        f"{name}: {given.rows} rows read in {whole_s:.0f} s (our own processor {cpu_s:.0f} s), per look of {ROWS} {span(first)} s",
        f"{name}: a pass with {ROWS} new rows {span(looks)} s, with none {span(idle)} s",
        f"{name}: one retraction {span(events, 1000)} ms, one new version {span(versions, 1000)} ms",
        f"{name}: an erratum of {len(listed)} datasets, {found} users: {span([took for took, _ in batches])} s",
        f"{name}: {counts.downloads} downloads of {counts.users} users, {counts.datasets} datasets",
    ]


def main() -> None:
    """Fill the log, measure both stores, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--datasets", type=int, default=72_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=["sqlite", "postgres", "both"], default="both")
    given = parser.parse_args()
    machine = machine_line(
        f"{given.rows} rows, {given.users} users, {given.datasets} datasets of {FILES} files, seed {given.seed}"
    )
    lines = [machine]
    for name in ("sqlite", "postgres") if given.store == "both" else (given.store,):
        with postgres_server() as server, tempfile.TemporaryDirectory() as folder:
            add_tables(server)
            fill(server, given, 1, given.rows)
            with server.superuser(autocommit=True) as connection:
                connection.execute("VACUUM ANALYZE")
            password = password_file(Path(folder))
            log = AccessLog(address_of(server, READER), password)
            file = Path(folder) / "downloads.db"
            store = (
                SqliteDownloads(file)
                if name == "sqlite"
                else PostgresDownloads(address_of(server, TRACKER), password)
            )
            lines += measure(name, server, log, store, given)
            if name == "sqlite":
                lines.append(f"sqlite: the file has {file.stat().st_size / 1e6:.0f} MB")
            else:
                with server.superuser() as connection:
                    size = connection.execute(
                        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class"
                        " WHERE relkind = 'r' AND relnamespace = 'esgf_gossip_tracking'::regnamespace"
                    ).fetchone()[0]
                lines.append(f"postgres: the schema has {int(size) / 1e6:.0f} MB")
            store.close()
        print("\n".join(lines), flush=True)
        lines = []


if __name__ == "__main__":
    main()
