"""Planned downtime of a real node: all see it, nobody is alarmed, and it ends."""

import json
import subprocess
import sys

from helpers.daemons import a_federation_of_processes, eventually, fetch, fetch_json, status_of


def esgf_gossip(*arguments):
    """Run the command line; return code, stdout and stderr."""
    command = [sys.executable, "-m", "esgf_gossip.cli.main", *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_a_node_in_maintenance_may_go_and_come(tmp_path):
    """Announced, stopped, started again: maintenance on every node until it is said to be over; out of the lists meanwhile."""
    with a_federation_of_processes(tmp_path, 4) as federation:
        host, *others = federation.hosts
        config = federation.config_path(host)

        def told():
            return {
                fetch_json(federation.http_url(other), f"/api/v1/nodes/{host}")["status"] for other in others
            }

        def lists():
            return {
                host.encode() in fetch(federation.http_url(other), f"/{name}")[2]
                for other in others
                for name in ("esgf_shards.xml", "esgf_idp.xml")
            }

        eventually(lambda: lists() == {True}, "the node is in the lists")
        code, out, _ = esgf_gossip(
            "maintenance", "--for", "2h", "--reason", "new disks", "--config", config, "--json"
        )
        assert (code, json.loads(out)["maintenance"]["reason"]) == (0, "new disks")
        eventually(lambda: told() == {"maintenance"}, "all know")
        eventually(lambda: lists() == {False}, "it is out of the lists")
        federation.kill(host)
        eventually(lambda: status_of(federation, others[0])["links"] == len(others) - 1, "it is gone")
        assert told() == {"maintenance"}
        assert fetch_json(federation.http_url(others[0]), f"/api/v1/nodes/{host}")["maintenance"]["ends_at"]
        federation.start(host)
        eventually(lambda: status_of(federation, host), "it answers")
        code, out, _ = esgf_gossip("maintenance", "--config", config)
        assert "new disks" in out
        assert told() == {"maintenance"}
        assert esgf_gossip("maintenance", "--end", "--config", config)[:2] == (
            0,
            "no maintenance is announced\n",
        )
        eventually(lambda: lists() == {True}, "it is back in the lists")
        eventually(lambda: told() <= {"up", "unreachable"}, "it is over")
        for arguments, words in (
            (["--for", "soon"], "no length of time"),
            (["--for", "40d"], "longer than 30 days"),
            (["--reason", "x"], "say for how long"),
            (["--for", "1h", "--until", "tomorrow"], "is no time"),
            (["--until", "1h ago"], "ends before it begins"),
            (["--end", "--for", "1h"], "--end goes alone"),
        ):
            code, _, error = esgf_gossip("maintenance", *arguments, "--config", config)
            assert code in (2, 4), arguments
            assert words in error, arguments
            assert error.count("\n") == 1
