"""A real PostgreSQL of the tests' own: on loopback, in a folder of its own, with the tables of an ESGF site."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

DATABASE = "esgcet"
READER, READER_PASSWORD = "metrics_reader", "read 'only\\ "

# As the site's database stands after its migrations.
TABLES = """
CREATE SCHEMA esgf_node_manager;
CREATE TABLE esgf_node_manager.access_logging (
    id serial PRIMARY KEY, user_id varchar NOT NULL, email varchar, url varchar NOT NULL, file_id varchar,
    remote_addr varchar NOT NULL, user_agent varchar, service_type varchar, batch_update_time double precision,
    date_fetched double precision NOT NULL, success boolean, duration double precision, user_id_hash varchar,
    user_idp varchar, data_size bigint DEFAULT -1, xfer_size bigint DEFAULT -1
);
CREATE INDEX url_index ON esgf_node_manager.access_logging USING btree (url);
CREATE SCHEMA esgf_security;
CREATE TABLE esgf_security."user" (
    id serial PRIMARY KEY, firstname varchar(100) NOT NULL, middlename varchar(100), lastname varchar(100) NOT NULL,
    email varchar(100) NOT NULL, username varchar(100) NOT NULL, password varchar(100), dn varchar(300),
    openid varchar(200) NOT NULL UNIQUE, organization varchar(200), organization_type varchar(200), city varchar(100),
    state varchar(100), country varchar(100), status_code integer, verification_token varchar(100),
    notification_code integer DEFAULT 0
);
CREATE TABLE esgf_security."group" (
    id serial PRIMARY KEY, name varchar(100) NOT NULL UNIQUE, description text NOT NULL,
    visible boolean DEFAULT true, automatic_approval boolean DEFAULT true
);
"""


class PostgresServer:
    """One server; ``stop`` and ``start`` are those of a real operator."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bin = _programs()
        self._as = (
            []
            if os.geteuid()
            else ["setpriv", f"--reuid={_user().pw_uid}", f"--regid={_user().pw_gid}", "--clear-groups"]
        )
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    def make(self) -> None:
        """Make the cluster, the reading role and the tables, and start."""
        if self._as:
            os.chown(self._folder, _user().pw_uid, _user().pw_gid)
        password = self._folder / "password"
        password.write_text("super")
        password.chmod(0o644)
        self._run(
            "initdb",
            "-D",
            str(self._data),
            "-U",
            "dbsuper",
            "--auth=scram-sha-256",
            f"--pwfile={password}",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        )
        settings = (
            f"port = {self.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\n"
        )
        with (self._data / "postgresql.conf").open("a") as configuration:
            configuration.write(settings)
        self.start()
        with self.superuser("postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")
        with self.superuser() as connection:
            connection.execute(TABLES)
            connection.execute(
                psycopg.sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                    psycopg.sql.Identifier(READER), READER_PASSWORD
                )
            )
            connection.execute(f"GRANT USAGE ON SCHEMA esgf_node_manager, esgf_security TO {READER}")
            connection.execute(
                f"GRANT SELECT (user_id, success, data_size, xfer_size) ON esgf_node_manager.access_logging TO {READER}"
            )
            connection.execute(f'GRANT SELECT (id) ON esgf_security."user" TO {READER}')
            connection.execute(f'GRANT SELECT (id, name, description) ON esgf_security."group" TO {READER}')

    @property
    def address(self) -> str:
        """The address that a node is given."""
        return f"host=127.0.0.1 port={self.port} dbname={DATABASE} user={READER}"

    def superuser(self, database: str = DATABASE, **options) -> psycopg.Connection:
        """Connect as the owner of the tables."""
        return psycopg.connect(
            f"host=127.0.0.1 port={self.port} dbname={database} user=dbsuper password=super", **options
        )

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self._run("pg_ctl", "start", "-w", "-D", str(self._data), "-l", str(self._folder / "log"))

    def stop(self, mode: str = "fast") -> None:
        """Stop it: ``fast`` ends the sessions, ``immediate`` is a crash."""
        self._run("pg_ctl", "stop", "-w", "-D", str(self._data), "-m", mode)

    @property
    def pid(self) -> int:
        """The process that listens."""
        return int((self._data / "postmaster.pid").read_text().split()[0])

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*self._as, str(self._bin / program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
            cwd=self._folder,
        )
        assert done.returncode == 0, f"{program}: {done.stderr}"


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Run a server; skips the test where PostgreSQL is not installed, fails there with CI=true."""
    try:
        _programs()
    except FileNotFoundError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    # Not pytest's folder: the server's user could not enter it.
    folder = Path(tempfile.mkdtemp(prefix="esgf-gossip-postgres-", dir="/tmp"))
    server = PostgresServer(folder)
    try:
        server.make()
        yield server
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            server.stop("immediate")
        shutil.rmtree(folder)


def _programs() -> Path:
    """Find initdb and pg_ctl: on the PATH, or where Debian keeps them, the newest first."""
    found = shutil.which("initdb")
    debian = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4].split(".")[0])
    )
    if found is None and not debian:
        raise FileNotFoundError("no PostgreSQL server is installed: apt-get install postgresql")
    return debian[-1].parent if debian else Path(found).resolve().parent


def _user() -> pwd.struct_passwd:
    """The user a server may run as: it refuses root."""
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")
