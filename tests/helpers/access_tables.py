"""Downloads of an ESGF site in a real PostgreSQL: its tables, a role that only reads, the tracker's own role."""

from __future__ import annotations

from pathlib import Path

import psycopg

from helpers.postgres import DATABASE, PostgresServer

READER, TRACKER = "esgf_reader", "esgf_tracker"
PASSWORD = "of both"

# The publisher's tables, as far as they say whose file is where.
PUBLISHER = """
CREATE TABLE public.dataset (id serial PRIMARY KEY, name varchar(255) UNIQUE, project varchar(64), master_gateway varchar(64));
CREATE TABLE public.dataset_version (
    id serial PRIMARY KEY, dataset_id integer REFERENCES public.dataset (id), version integer, name varchar(255) UNIQUE,
    creation_time timestamp without time zone, comment text
);
CREATE TABLE public.file (
    id serial PRIMARY KEY, dataset_id integer NOT NULL REFERENCES public.dataset (id), base varchar(255) NOT NULL,
    format varchar(16)
);
CREATE TABLE public.file_version (
    id serial PRIMARY KEY, file_id integer REFERENCES public.file (id), version integer, location text NOT NULL,
    size bigint, checksum varchar(64), checksum_type varchar(32), publication_time timestamp without time zone,
    tracking_id varchar(64), mod_time double precision, url text
);
CREATE TABLE public.dataset_file_version (
    dataset_version_id integer REFERENCES public.dataset_version (id),
    file_version_id integer REFERENCES public.file_version (id)
);
"""
# As docs/tracking.md has them.
GRANTS = f"""
CREATE ROLE {READER} LOGIN PASSWORD '{PASSWORD}';
GRANT USAGE ON SCHEMA esgf_node_manager TO {READER};
GRANT SELECT (id, user_id, url, date_fetched, success, data_size, xfer_size)
    ON esgf_node_manager.access_logging TO {READER};
GRANT SELECT ON public.dataset_version, public.dataset_file_version, public.file_version TO {READER};
CREATE ROLE {TRACKER} LOGIN PASSWORD '{PASSWORD}';
CREATE SCHEMA esgf_gossip_tracking AUTHORIZATION {TRACKER};
"""
INSERT = """
INSERT INTO esgf_node_manager.access_logging
    (id, user_id, url, file_id, remote_addr, service_type, batch_update_time, date_fetched, success)
VALUES (%s, %s, %s, '0A', '192.0.2.1', 'thredds', 0, %s, %s)
"""


def add_tables(server: PostgresServer) -> None:
    """Make the tables and roles."""
    with server.superuser() as connection:
        connection.execute(PUBLISHER)
        connection.execute(GRANTS)


def address_of(server: PostgresServer, role: str) -> str:
    """Return what a role connects with."""
    return f"host=127.0.0.1 port={server.port} dbname={DATABASE} user={role}"


def password_file(folder: Path) -> Path:
    """Write the file with the password of both roles."""
    file = folder / "password"
    file.write_text(f"{PASSWORD}\n")
    return file


def publish(connection: psycopg.Connection, name: str, urls: list[str]) -> None:
    """Write a dataset version and its files as the publisher does."""
    (dataset,) = connection.execute(
        "INSERT INTO public.dataset (name) VALUES (%s) RETURNING id", [name]
    ).fetchone()
    (version,) = connection.execute(
        "INSERT INTO public.dataset_version (dataset_id, name) VALUES (%s, %s) RETURNING id", [dataset, name]
    ).fetchone()
    for url in urls:
        (file,) = connection.execute(
            "INSERT INTO public.file (dataset_id, base) VALUES (%s, %s) RETURNING id", [dataset, url]
        ).fetchone()
        (file_version,) = connection.execute(
            "INSERT INTO public.file_version (file_id, location, url) VALUES (%s, %s, %s) RETURNING id",
            [file, f"/esg/data/{url}", url],
        ).fetchone()
        connection.execute("INSERT INTO public.dataset_file_version VALUES (%s, %s)", [version, file_version])
