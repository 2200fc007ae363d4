"""The tables of an ESGF publisher, as its migrations leave them, and rows as it writes them."""

from __future__ import annotations

import psycopg

PUBLISHER = "publisher_reader"
PUBLISHER_PASSWORD = "journal"

TABLES = """
CREATE TABLE project (name varchar(64) PRIMARY KEY, description varchar(64));
CREATE TABLE model (
    name varchar(64) NOT NULL, project varchar(64) NOT NULL REFERENCES project (name), url varchar(128),
    description text, PRIMARY KEY (name, project)
);
CREATE TABLE experiment (
    name varchar(64) NOT NULL, project varchar(64) NOT NULL REFERENCES project (name), description text,
    PRIMARY KEY (name, project)
);
CREATE TABLE dataset (
    id serial PRIMARY KEY, name varchar(255) UNIQUE, project varchar(64), model varchar(64), experiment varchar(64),
    run_name varchar(64), calendar varchar(32), aggdim_name varchar(64), aggdim_units varchar(64),
    status_id varchar(64), offline boolean, master_gateway varchar(64),
    FOREIGN KEY (experiment, project) REFERENCES experiment (name, project),
    FOREIGN KEY (model, project) REFERENCES model (name, project)
);
CREATE TABLE dataset_version (
    id serial PRIMARY KEY, dataset_id integer REFERENCES dataset (id), version integer, name varchar(255) UNIQUE,
    creation_time timestamp without time zone, comment text, tech_notes varchar(255), tech_notes_title varchar(255),
    citation_url varchar(255), pid varchar(255)
);
CREATE TABLE file (
    id serial PRIMARY KEY, dataset_id integer NOT NULL REFERENCES dataset (id), base varchar(255) NOT NULL,
    format varchar(16)
);
CREATE TABLE file_version (
    id serial PRIMARY KEY, file_id integer REFERENCES file (id), version integer, location text NOT NULL, size bigint,
    checksum varchar(64), checksum_type varchar(32), publication_time timestamp without time zone,
    tracking_id varchar(64), mod_time double precision, url text, tech_notes varchar(255),
    tech_notes_title varchar(255)
);
CREATE TABLE dataset_file_version (
    dataset_version_id integer REFERENCES dataset_version (id), file_version_id integer REFERENCES file_version (id)
);
CREATE TABLE event (
    id serial PRIMARY KEY, datetime timestamp without time zone NOT NULL, object_id integer REFERENCES dataset (id),
    object_name varchar(255) NOT NULL, object_version integer, event integer
);
"""
# What the role of a node may read, as docs/tracking.md says.
GRANT = f"""
CREATE ROLE {PUBLISHER} LOGIN PASSWORD '{PUBLISHER_PASSWORD}';
GRANT USAGE ON SCHEMA public TO {PUBLISHER};
GRANT SELECT ON public.event, public.dataset, public.dataset_version, public.dataset_file_version, public.file_version
    TO {PUBLISHER};
"""
_ALL = "event, dataset_file_version, file_version, file, dataset_version, dataset"


def make_tables(connection: psycopg.Connection) -> None:
    """Make the tables and the role that reads them."""
    connection.execute(TABLES)
    connection.execute(GRANT)


def empty(connection: psycopg.Connection) -> None:
    """Take out all rows; numbers begin with 1 again."""
    connection.execute(f"TRUNCATE {_ALL} RESTART IDENTITY")


def add_dataset(connection: psycopg.Connection, name: str, *versions: int, gateway: str | None = None) -> int:
    """Note a dataset with its versions, each of one file; return its number."""
    (dataset,) = connection.execute(
        "INSERT INTO dataset (name, master_gateway) VALUES (%s, %s) RETURNING id", [name, gateway]
    ).fetchone()
    for version in versions:
        (number,) = connection.execute(
            "INSERT INTO dataset_version (dataset_id, version, name) VALUES (%s, %s, %s) RETURNING id",
            [dataset, version, f"{name}.v{version}"],
        ).fetchone()
        (file,) = connection.execute(
            "INSERT INTO file (dataset_id, base) VALUES (%s, 'tas') RETURNING id", [dataset]
        ).fetchone()
        (stored,) = connection.execute(
            """INSERT INTO file_version (file_id, version, location, size, checksum, checksum_type, tracking_id, url)
            VALUES (%s, 1, %s, 17, %s, 'SHA256', 'hdl:21.14100/1', %s) RETURNING id""",
            [file, f"/data/{name}/v{version}/tas.nc", "a" * 64, f"esg_dataroot/{name}/v{version}/tas.nc"],
        ).fetchone()
        connection.execute("INSERT INTO dataset_file_version VALUES (%s, %s)", [number, stored])
    return dataset


def add_event(
    connection: psycopg.Connection,
    code: int,
    name: str,
    version: int | None,
    at: str = "2026-07-01 12:00:00.5",
    number: int | None = None,
) -> int:
    """Write a row of the journal; return its number."""
    (found,) = connection.execute(
        """INSERT INTO event (id, datetime, object_id, object_name, object_version, event)
        VALUES (coalesce(%s, nextval('event_id_seq')), %s, (SELECT id FROM dataset WHERE name = %s), %s, %s, %s)
        RETURNING id""",
        [number, at, name, name, version, code],
    ).fetchone()
    return found


def delete_dataset(connection: psycopg.Connection, name: str) -> None:
    """Delete a dataset as the publisher does: rows of its journal stay, without its number."""
    connection.execute("UPDATE event SET object_id = NULL WHERE object_name = %s", [name])
    (dataset,) = connection.execute("SELECT id FROM dataset WHERE name = %s", [name]).fetchone()
    connection.execute(
        """DELETE FROM dataset_file_version WHERE dataset_version_id IN
        (SELECT id FROM dataset_version WHERE dataset_id = %s)""",
        [dataset],
    )
    connection.execute(
        "DELETE FROM file_version WHERE file_id IN (SELECT id FROM file WHERE dataset_id = %s)", [dataset]
    )
    connection.execute("DELETE FROM file WHERE dataset_id = %s", [dataset])
    connection.execute("DELETE FROM dataset_version WHERE dataset_id = %s", [dataset])
    connection.execute("DELETE FROM dataset WHERE id = %s", [dataset])
