"""The log of a real daemon: its form and detail change while it runs."""

import json
import subprocess
import sys

from helpers.daemons import a_federation_of_processes, eventually


def reload(config):
    """Let the daemon read its node.toml again."""
    command = [sys.executable, "-m", "esgf_gossip.cli.main", "reload", "--config", str(config)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_a_reload_changes_how_the_log_is_written(tmp_path):
    """From text to JSON, from all to errors; no line of Twisted's own parts; no restart is asked for."""
    with a_federation_of_processes(tmp_path, 2) as federation:
        host, other = federation.hosts
        config = federation.config_path(host)
        log = config.parent / "daemon.log"
        lines = log.read_text().splitlines()
        assert any(f"[service#info] {host} of federation" in line for line in lines)
        assert not any("Factory" in line or "starting on" in line for line in lines)
        text = config.read_text()
        config.write_text(text.replace("[node]\n", '[node]\nlog_format = "json"\n', 1))
        assert "log" in reload(config)
        lines = log.read_text().splitlines()
        told = next(json.loads(line) for line in reversed(lines) if "reloaded; changed" in line)
        assert (told["level"], told["area"]) == ("info", "reloading")
        assert "reloaded; changed: log" in told["message"]
        config.write_text(text.replace("[node]\n", '[node]\nlog_levels = ["error"]\n', 1))
        reload(config)
        before = log.read_text()
        federation.kill(other)
        eventually(lambda: federation.control(host).ask("status")["links"] == 0, "the link is gone")
        assert log.read_text() == before
