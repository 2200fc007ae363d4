"""A backup of a running node put back when it is old: no fork, and nobody sees the node go back in time."""

import json
import select
import subprocess
import sys

from helpers.daemons import (
    a_federation_of_processes,
    all_equal,
    eventually,
    fetch_json,
    set_property,
    status_of,
)


def esgf_gossip(*arguments):
    """Run the command line as an administrator does; return what it prints."""
    command = [sys.executable, "-m", "esgf_gossip.cli.main", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def told_of(conversation, subject):
    """Return every (epoch, sequence) of a node that came since the last call."""
    while select.select([conversation], [], [], 0)[0]:
        conversation.read_more()
    return [
        (event["data"]["epoch"], event["data"]["sequence"])
        for event in conversation.lines_at_hand()
        if event.get("event") == "digest-accepted" and event["data"]["origin"] == subject
    ]


def test_an_old_backup_put_back_makes_no_fork_and_no_rollback(tmp_path):
    """Four nodes; one is changed many times after its backup, killed, and started from the backup."""
    with a_federation_of_processes(tmp_path, 4) as federation:
        host, *others = federation.hosts
        config = federation.config_path(host)
        file = tmp_path / "backup.tar.gz"
        made = json.loads(esgf_gossip("backup", file, "--config", config, "--json"))
        assert {"state/registry.db", "state/history.db", "node.toml", "trust/node.key"} <= set(made["parts"])
        assert not list((config.parent / "state").glob("backup-*"))
        _, conversation = federation.control(others[0]).watch()
        for number in range(5):
            set_property(config.parent / "esgf.properties", "node.long.name", f"after the backup {number}")
            esgf_gossip("reload", "--config", config)
        eventually(lambda: all_equal(federation, federation.hosts, 4), "all hold what came after")
        before = status_of(federation, host)
        federation.kill(host)
        done = json.loads(esgf_gossip("restore", file, "--config", config, "--replace", "--json"))
        assert any(path.endswith("registry.db") for path in done["placed"])
        assert any("node.toml" not in path and path.endswith("trust") for path in done["kept"])
        federation.start(host)
        eventually(lambda: all_equal(federation, federation.hosts, 4), "one root again")
        after = status_of(federation, host)
        assert after["epoch"] > before["epoch"]
        for one in federation.hosts:
            nodes = fetch_json(federation.http_url(one), "/api/v1/nodes")
            assert [node["host"] for node in nodes if node["forked"]] == []
            told = next(node for node in nodes if node["host"] == host)
            assert (told["epoch"], told["sequence"]) >= (after["epoch"], 1)
            assert told["long_name"] == "after the backup 4"
        with conversation:
            seen = told_of(conversation, host)
        assert len(seen) >= 6
        assert seen == sorted(seen)
        assert seen[-1][0] == after["epoch"]
