"""
Measure how long a real PostgreSQL takes to give a site's numbers, beside a bare count of the same rows.

A server of its own on loopback, 1,000,000 rows of access_logging made from a seed: a fifth never ended, a tenth of the
users unknown. The numbers are compared with those of the generator. Prints machine and commit.

    PYTHONPATH=tests .venv/bin/python benchmarks/database.py --rows 1000000 --users 20000
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from machine import machine_line

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from esgf_gossip.esgf.metrics import Metrics
from esgf_gossip.sources.postgres import ask
from helpers.postgres import READER_PASSWORD, PostgresServer, postgres_server

COLUMNS = "user_id, url, file_id, remote_addr, service_type, batch_update_time, date_fetched, success, duration, user_id_hash, user_idp, data_size, xfer_size"


def fill(server: PostgresServer, rows: int, users: int, seed: int) -> Metrics:
    """Write the rows and return the numbers they should give."""
    rng = random.Random(seed)
    count = size = 0
    seen: set[int] = set()
    with server.superuser() as connection, connection.cursor() as cursor:
        with cursor.copy(f"COPY esgf_node_manager.access_logging ({COLUMNS}) FROM STDIN") as copy:
            for number in range(rows):
                user = rng.randrange(users)
                name = (
                    "<no-id>"
                    if user % 10 == 0
                    else f"https://esgf-node{user % 7}.example.org/esgf-idp/openid/user{user}"
                )
                data_size = rng.randrange(1, 2_000_000_000)
                is_finished = rng.random() < 0.8
                sent = data_size if is_finished else rng.choice([-1, rng.randrange(data_size)])
                url = f"http://data.example.org/thredds/fileServer/cmip5/output1/MOHC/HadGEM2-ES/rcp45/mon/atmos/tas_{number}.nc"
                copy.write_row((name, url, "0A", "192.0.2.1", "thredds", 0.0, 1.4e9 + number, is_finished, 1200.0,
                                f"{user:040X}", f"esgf-node{user % 7}.example.org", data_size if sent >= 0 else -1, sent))  # fmt: skip
                if is_finished:
                    count, size = count + 1, size + data_size
                    seen.add(user)
        cursor.execute("ANALYZE")
    return Metrics(count, size, sum(user % 10 != 0 for user in seen), 0)


def main() -> None:
    """Fill the tables, ask in turn, print medians and the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--looks", type=int, default=9)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with postgres_server() as server, tempfile.TemporaryDirectory() as folder:
        right = fill(server, given.rows, given.users, given.seed)
        password = Path(folder) / "password"
        password.write_text(READER_PASSWORD)
        ours, bare = [], []
        for _ in range(given.looks):
            begun_s = time.perf_counter()
            found = ask(server.address, password).metrics
            ours.append(time.perf_counter() - begun_s)
            if found != right:
                sys.exit(f"wrong: {found}, the rows say {right}")
            begun_s = time.perf_counter()
            with psycopg.connect(server.address, password=READER_PASSWORD) as connection:
                connection.execute("SELECT count(user_id) FROM esgf_node_manager.access_logging").fetchone()
                version = connection.info.server_version // 10000
            bare.append(time.perf_counter() - begun_s)
    print(
        machine_line(
            f"PostgreSQL {version}, {given.rows} rows, {given.users} users, {given.looks} looks, seed {given.seed}"
        )
        + "\n"
        f"right numbers each time: {right.numbers()}\n"
        f"a look {statistics.median(ours):.3f} s (from {min(ours):.3f} to {max(ours):.3f}), "
        f"a bare count {statistics.median(bare):.3f} s, ratio {statistics.median(ours) / statistics.median(bare):.1f}"
    )


if __name__ == "__main__":
    main()
