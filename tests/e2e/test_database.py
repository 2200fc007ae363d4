"""Daemons beside a real PostgreSQL: its numbers and groups on all nodes, its stop and start survived."""

from __future__ import annotations

from click.testing import CliRunner

from esgf_gossip.cli.main import program
from esgf_gossip.demo.processes import DemoFederation
from helpers.daemons import all_equal, eventually, fetch, fetch_json, status_of
from helpers.postgres import READER_PASSWORD, postgres_server

DOWNLOADS = """
INSERT INTO esgf_node_manager.access_logging (user_id, url, remote_addr, date_fetched, success, data_size, xfer_size)
SELECT 'https://idp.example.org/openid/' || i %% 3, 'http://data.example.org/a.nc', '192.0.2.1', i, true, 10, 10
FROM generate_series(1, %s) AS i
"""
ACCOUNT = """
INSERT INTO esgf_security."user" (firstname, lastname, email, username, openid)
VALUES ('A', 'B', 'a@example.org', 'ab', 'https://idp.example.org/openid/ab')
"""
GROUP = """INSERT INTO esgf_security."group" (name, description) VALUES (%s, 'from the database')"""


def checked(config) -> str:
    """Return what check says of a node."""
    return CliRunner().invoke(program, ["check", "--config", str(config)]).stdout


def test_numbers_and_groups_of_a_real_database_reach_every_node(tmp_path):
    """A node started before its database tells it once it is there, keeps it while it is down, over a restart too."""
    with postgres_server() as server, DemoFederation(tmp_path / "demo", 3) as federation:
        federation.prepare()
        host, other, _ = federation.hosts
        with server.superuser() as connection:
            connection.execute(DOWNLOADS, [30])
            connection.execute(ACCOUNT)
            connection.execute(GROUP, ["Federation Testers"])
        server.stop()
        config = federation.config_path(host)
        (config.parent / "password").write_text(READER_PASSWORD)
        (config.parent / "password").chmod(0o600)
        text = config.read_text()
        assert 'groups = "groups.txt"' in text
        config.write_text(
            text.replace('groups = "groups.txt"', "")
            + f'\n[metrics]\ndatabase = "{server.address}"\npassword_file = "password"\n'
        )
        federation.start_all()
        eventually(lambda: all_equal(federation, federation.hosts, 3), "three nodes converge")

        def seen_by(viewer):
            return fetch_json(federation.http_url(viewer), f"/api/v1/nodes/{host}")["metrics"]

        def listed(viewer):
            return b'type="Federation Testers"' in fetch(federation.http_url(viewer), "/esgf_ats.xml")[2]

        assert seen_by(other) == {}
        assert "attention: metrics: [metrics] database: " in checked(config)

        server.start()
        federation.control(host).ask("reload")
        right = {"download_count": 30, "download_bytes": 300, "download_users": 3, "registered_users": 1}
        eventually(lambda: seen_by(other) == right, "its numbers reach another node")
        eventually(lambda: listed(other), "its groups reach the list of another node")
        assert "download count 30, download bytes 300" in checked(config)
        document = fetch(federation.http_url(other), "/registration.xml")[2]
        assert b'<DownloadedData count="30" size="300" users="3"/>' in document

        server.stop("immediate")
        federation.control(host).ask("reload")
        federation.terminate(host)
        federation.start(host)
        eventually(lambda: status_of(federation, host), "it runs again, without its database")
        eventually(lambda: all_equal(federation, federation.hosts, 3), "all are equal again")
        assert seen_by(other) == right
        assert listed(other)
        log = federation.node(host).log_path.read_text()
        assert "download numbers stay as they are" in log
        assert READER_PASSWORD not in log

        server.start()
        with server.superuser() as connection:
            connection.execute(DOWNLOADS, [12])
        federation.control(host).ask("reload")
        eventually(lambda: seen_by(other)["download_count"] == 42, "a new number reaches another node")
