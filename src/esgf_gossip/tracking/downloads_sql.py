"""The words in which PostgreSQL is asked who downloaded what; tables and questions of ``downloads_postgres``."""

from __future__ import annotations

from typing import Final

SCHEMA: Final = "esgf_gossip_tracking"
# Two daemons that make the schema at once wait for each other.
LOCK: Final = b"SELECT pg_advisory_xact_lock(8951001)"

# Text is compared byte by byte, so that no locale orders hosts or folds names.
SCRIPT: Final = b"""
CREATE TABLE state (name text PRIMARY KEY, body text NOT NULL);
CREATE TABLE tally (name text PRIMARY KEY, number bigint NOT NULL);
CREATE TABLE dataset (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, master text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL, UNIQUE (master, version)
);
CREATE TABLE file (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, dataset bigint NOT NULL, name text COLLATE "C" NOT NULL,
    UNIQUE (dataset, name)
);
CREATE TABLE person (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, folded text COLLATE "C" NOT NULL UNIQUE,
    openid text NOT NULL
);
CREATE TABLE download (
    dataset bigint NOT NULL, person bigint NOT NULL, file bigint NOT NULL, host text COLLATE "C" NOT NULL,
    first_ms bigint NOT NULL, last_ms bigint NOT NULL, whole_ms bigint, PRIMARY KEY (dataset, person, file)
);
CREATE INDEX download_age ON download (last_ms);
CREATE TABLE place (
    key bytea NOT NULL, host text COLLATE "C" NOT NULL, dataset bigint, PRIMARY KEY (key, host)
);
CREATE TABLE unresolved (
    key bytea NOT NULL, place_host text COLLATE "C" NOT NULL, person bigint NOT NULL, path text COLLATE "C" NOT NULL,
    host text COLLATE "C" NOT NULL, first_ms bigint NOT NULL, last_ms bigint NOT NULL, whole_ms bigint,
    PRIMARY KEY (key, place_host, person)
);
CREATE INDEX unresolved_age ON unresolved (last_ms);
CREATE TABLE erased (hash bytea PRIMARY KEY, at_ms bigint NOT NULL);
"""

# Many rows go to the server as one JSON text: an array for each column takes psycopg three times as long to write.
ADD_PEOPLE: Final = b"""
INSERT INTO person (folded, openid)
SELECT given.folded, given.openid FROM json_to_recordset(%s::json) AS given(folded text, openid text)
ON CONFLICT DO NOTHING
"""
ADD_DATASETS: Final = b"""
INSERT INTO dataset (master, version)
SELECT given.master, given.version FROM json_to_recordset(%s::json) AS given(master text, version text)
ON CONFLICT DO NOTHING
"""
# The rows of a look, on their way: COPY is the fastest way in.
GIVEN: Final = b"""
CREATE TEMPORARY TABLE given (
    dataset bigint, name text COLLATE "C", folded text COLLATE "C", host text COLLATE "C",
    first_ms bigint, last_ms bigint, whole_ms bigint
) ON COMMIT DELETE ROWS
"""
COPY_GIVEN: Final = b"COPY given FROM STDIN"
ADD_GIVEN_FILES: Final = b"""
INSERT INTO file (dataset, name) SELECT DISTINCT given.dataset, given.name FROM given ON CONFLICT DO NOTHING
"""
DATASETS_IN: Final = b"""
SELECT number, master, version FROM json_to_recordset(%s::json) AS given(master text, version text)
JOIN dataset USING (master, version)
"""
# In any order of rows the same comes out.
ADD_GIVEN: Final = b"""
INSERT INTO download (dataset, person, file, host, first_ms, last_ms, whole_ms)
SELECT given.dataset, person.number, file.number, given.host, given.first_ms, given.last_ms, given.whole_ms
FROM given JOIN person USING (folded) JOIN file USING (dataset, name)
ON CONFLICT (dataset, person, file) DO UPDATE SET
    first_ms = least(download.first_ms, excluded.first_ms),
    host = CASE WHEN (excluded.last_ms, excluded.host) > (download.last_ms, download.host)
        THEN excluded.host ELSE download.host END,
    last_ms = greatest(download.last_ms, excluded.last_ms),
    whole_ms = greatest(download.whole_ms, excluded.whole_ms)
"""
ADD_UNRESOLVED: Final = b"""
INSERT INTO unresolved (key, place_host, person, path, host, first_ms, last_ms, whole_ms)
SELECT decode(given.key, 'hex'), given.place_host, person.number, given.path, given.host,
    given.first_ms, given.last_ms, given.whole_ms
FROM json_to_recordset(%s::json) AS given(
    key text, place_host text, folded text, path text, host text, first_ms bigint, last_ms bigint, whole_ms bigint
)
JOIN person USING (folded)
ON CONFLICT (key, place_host, person) DO UPDATE SET
    first_ms = least(unresolved.first_ms, excluded.first_ms),
    host = CASE WHEN (excluded.last_ms, excluded.host) > (unresolved.last_ms, unresolved.host)
        THEN excluded.host ELSE unresolved.host END,
    last_ms = greatest(unresolved.last_ms, excluded.last_ms),
    whole_ms = greatest(unresolved.whole_ms, excluded.whole_ms)
"""
ADD_PLACES: Final = b"""
INSERT INTO place (key, host, dataset)
SELECT decode(given.key, 'hex'), given.host, dataset.number
FROM json_to_recordset(%s::json) AS given(key text, host text, master text, version text)
LEFT JOIN dataset USING (master, version)
ON CONFLICT (key, host) DO UPDATE SET dataset = excluded.dataset
"""
CLAIMS: Final = b"""
SELECT place.key, place.host, dataset.master, dataset.version
FROM place LEFT JOIN dataset ON dataset.number = place.dataset WHERE place.key = ANY(%b::bytea[])
"""
UNRESOLVED_AT: Final = b"""
SELECT unresolved.key, place_host, unresolved.person, path, folded, first_ms, last_ms, whole_ms, host
FROM unresolved JOIN person ON person.number = unresolved.person WHERE unresolved.key = ANY(%s::bytea[])
"""
_HELD: Final = b"""
SELECT download.person, person.openid, download.dataset, file.name, download.host, download.last_ms
FROM download JOIN person ON person.number = download.person JOIN file ON file.number = download.file
WHERE download.dataset = ANY(%s::bigint[]) AND download.first_ms <= %s
"""
_NEWEST_FIRST: Final = b"ORDER BY download.person, download.last_ms DESC, file.name"
# Two questions: with an empty list the planner would still expect some and read whole tables.
MATCHED: Final = _HELD + _NEWEST_FIRST
MATCHED_WITHOUT: Final = (
    _HELD
    + b"""
AND NOT EXISTS (
    SELECT FROM download AS taken
    WHERE taken.dataset = ANY(%s::bigint[]) AND taken.person = download.person
)
"""
    + _NEWEST_FIRST
)
HELD_BY: Final = b"""
SELECT master || '.v' || version, file.name, host, first_ms, last_ms, whole_ms
FROM download JOIN dataset ON dataset.number = download.dataset JOIN file ON file.number = download.file
WHERE download.person = (SELECT number FROM person WHERE folded = %s) ORDER BY 1, 2
"""
UNRESOLVED_OF: Final = b"""
SELECT path, host, first_ms, last_ms, whole_ms
FROM unresolved WHERE person = (SELECT number FROM person WHERE folded = %s) ORDER BY 1, 2
"""
FORGET: Final = (
    b"""
DELETE FROM download WHERE (dataset, person, file) IN (
    SELECT dataset, person, file FROM download WHERE last_ms < %s ORDER BY last_ms LIMIT %s
)
""",
    b"""
DELETE FROM unresolved WHERE (key, place_host, person) IN (
    SELECT key, place_host, person FROM unresolved WHERE last_ms < %s ORDER BY last_ms LIMIT %s
)
""",
)
SWEEP_PEOPLE: Final = b"""
DELETE FROM person WHERE NOT EXISTS (SELECT FROM download WHERE download.person = person.number)
AND NOT EXISTS (SELECT FROM unresolved WHERE unresolved.person = person.number)
"""
COUNTS: Final = b"""
SELECT (SELECT count(*) FROM download), (SELECT count(*) FROM person), (SELECT count(*) FROM dataset),
(SELECT count(*) FROM place), (SELECT count(*) FROM unresolved)
"""
