"""
Play a busy site: 100,000 downloads by writers that commit in any order and end late, read by a reader that is killed.

Ids are taken first, as the site's filter takes them; rows are committed later, some after rows with higher ids, some
rolled back, and marked as ended later still. Meanwhile a process reads them into a store and is killed by SIGKILL
again and again. In the end the store must hold what one pass over the final table gives: nothing missed, nothing
counted twice. Ends with 1 and the reason where it does not.

    make downloads-campaign
    PYTHONPATH=tests .venv/bin/python benchmarks/download_campaign.py --rows 20000 --kills 5 --store sqlite
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from machine import machine_line

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from esgf_gossip.sources.access_log import AccessLog
from esgf_gossip.tracking.downloads_postgres import PostgresDownloads
from esgf_gossip.tracking.downloads_sqlite import SqliteDownloads
from helpers.access_tables import INSERT, READER, TRACKER, add_tables, address_of, password_file
from helpers.postgres import PostgresServer, postgres_server

TABLE = "esgf_node_manager.access_logging"
SECONDS = 1_425_134_743
GROUP = 20
# Of a reader, until it is killed.
PASSES = 10
PAUSE = threading.Event()


def user(number: int) -> str:
    """Return who fetched a row; a fortieth are nobody."""
    return "<no-id>" if number % 40 == 0 else f"https://idp.example.org/esgf-idp/openid/user{number % 97}"


def url(number: int) -> str:
    """Return what was fetched; half of it has folders that say what it is."""
    model = f"MODEL-{number % 53}"
    name = f"tas_Amon_{model}_historical_r1i1p1f1_gn_{number}.nc"
    folder = f"CMIP6/CMIP/NCAR/{model}/historical/r1i1p1f1/Amon/tas/gn/v20190308/" if number % 2 else "flat/"
    return f"https://data.example.org/thredds/fileServer/{folder}{name}"


def write(server: PostgresServer, seed: int, rows: int, done: list[int], allowed: list[int]) -> None:
    """Write rows as one worker of a site: groups whose commits overlap those of others and of itself."""
    rng = random.Random(seed)
    early, late = server.superuser(), server.superuser()
    open_ids: list[int] = []
    while done[seed] < rows:
        if done[seed] > allowed[0]:
            # Written while it is read, not before.
            PAUSE.wait(0.005)
            continue
        ids = [
            early.execute("SELECT nextval('esgf_node_manager.access_logging_id_seq')").fetchone()[0]
            for _ in range(GROUP)
        ]
        early.commit()
        rng.shuffle(ids)
        # The second half is taken now and committed after the first, and after what others take meanwhile.
        for connection, part in ((late, ids[: GROUP // 2]), (early, ids[GROUP // 2 :])):
            connection.cursor().executemany(
                INSERT, [(n, user(n), url(n), SECONDS + n, rng.random() < 0.3) for n in part]
            )
        early.commit()
        if open_ids:
            early.execute(f"UPDATE {TABLE} SET success = true WHERE id = ANY(%s)", [open_ids])
            early.commit()
        if rng.random() < 0.05:
            late.rollback()
            done[seed] += GROUP // 2
        else:
            late.commit()
            done[seed] += GROUP
        open_ids = [n for n in ids if rng.random() < 0.6]
    for connection in (early, late):
        connection.close()


def open_store(name: str, server_address: str, password: Path, folder: Path):
    """Open the store."""
    return (
        SqliteDownloads(folder / "downloads.db")
        if name == "sqlite"
        else PostgresDownloads(server_address, password)
    )


def one_pass(log: AccessLog, store) -> int:
    """Read to the end; return how many rows came after some with higher ids had been read."""
    late, is_first, has_more = 0, True, True
    while has_more:
        highest = store.position().highest
        reading = log.read(store.position(), time.time_ns() // 1_000_000, is_rechecking=is_first)
        store.advance(reading)
        late += sum(row.id < highest and row.id not in reading.reread for row in reading.rows)
        has_more, is_first = reading.has_more, False
    return late


def read_for_ever(name: str, reader: str, tracker: str, password: str, folder: str) -> None:
    """Be the process that is killed."""
    store = open_store(name, tracker, Path(password), Path(folder))
    log = AccessLog(reader, Path(password), rows=500)
    while True:
        print(one_pass(log, store), flush=True)


def spans(store, users: list[str]) -> dict:
    """Return everything that a store holds."""
    return {
        name: {key: told[key] for key in ("downloads", "unresolved")}
        for name in users
        for told in [store.export(name)]
    }


def play(name: str, given: argparse.Namespace) -> str:
    """Play one store; return what it showed."""
    rng = random.Random(given.seed)
    with postgres_server() as server, tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        add_tables(server)
        password = password_file(folder)
        reader, tracker = address_of(server, READER), address_of(server, TRACKER)
        each = given.rows // given.writers
        done, allowed = [0] * given.writers, [0]
        writers = [
            threading.Thread(target=write, args=(server, number, each, done, allowed))
            for number in range(given.writers)
        ]
        for writer in writers:
            writer.start()
        kills = passes = came_late = 0
        begun_s = time.perf_counter()
        while any(writer.is_alive() for writer in writers) or kills < given.kills:
            command = [sys.executable, __file__, "--read", name, reader, tracker, str(password), text]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
                for _ in range(PASSES):
                    line = child.stdout.readline()
                    if not line:
                        sys.exit(f"{name}: the reader ended")
                    passes, came_late = passes + 1, came_late + int(line)
                    allowed[0] += max(1, each // (given.kills * PASSES))
                PAUSE.wait(rng.random() * 0.2)
                child.kill()
            kills += 1
        took_s = time.perf_counter() - begun_s
        for writer in writers:
            writer.join()
        log = AccessLog(reader, password)
        store = open_store(name, tracker, password, folder)
        one_pass(log, store)
        anew = SqliteDownloads(folder / "anew.db")
        one_pass(log, anew)
        with server.superuser() as connection:
            rows, late = connection.execute(f"SELECT count(*), max(id) - count(*) FROM {TABLE}").fetchone()
            users = [
                found for (found,) in connection.execute(f"SELECT DISTINCT user_id FROM {TABLE}").fetchall()
            ]
        found, right = store.counts(), anew.counts()
        kept = spans(store, users)
        if found != right or found.rows != rows or kept != spans(anew, users):
            sys.exit(f"{name}: wrong: {found}, one pass over the table gives {right}, it has {rows} rows")
        gaps = len(store.position().gaps)
        store.close()
        anew.close()
        return (
            f"{name}: {rows} rows by {given.writers} writers in {took_s:.0f} s, {late} ids never used, the reader killed"
            f" {kills} times in {passes} passes, {came_late} rows came after higher ids were read: missed 0, counted twice 0; {found.downloads} downloads, {found.unresolved} unresolved,"
            f" {gaps} gaps remembered"
        )


def main() -> None:
    """Play both stores, print."""
    if sys.argv[1:2] == ["--read"]:
        read_for_ever(*sys.argv[2:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--writers", type=int, default=16)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=["sqlite", "postgres", "both"], default="both")
    given = parser.parse_args()
    print(machine_line(f"seed {given.seed}"))
    for name in ("sqlite", "postgres") if given.store == "both" else (given.store,):
        print(play(name, given), flush=True)


if __name__ == "__main__":
    main()
