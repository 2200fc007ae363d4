"""Tasks of a real daemon that is killed again and again: by files and by command, once each, in order."""

import json
import subprocess
import sys
from random import Random

from esgf_gossip.sources.spool import FAILED, REASON
from helpers.daemons import eventually, fetch, set_property
from helpers.task_daemon import TaskDaemon

TASKS = 300
KILLS = 4


def _task(daemon, *arguments, **options):
    """Run esgf-gossip task as an administrator does."""
    command = [
        sys.executable,
        "-m",
        "esgf_gossip.cli.main",
        "task",
        *arguments,
        "--config",
        str(daemon.config),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_killed_at_random_a_daemon_does_each_task_once(tmp_path):
    """Three hundred tasks, four kill -9: each takes effect once, none is lost, keys keep their order."""
    random = Random(7)
    with TaskDaemon(tmp_path) as daemon:
        daemon.start()
        # In the first life: what an earlier one left stays as it is until the registry has been compared.
        _commands_work(daemon)
        for number in range(KILLS):
            daemon.hand_in(TASKS // (KILLS + 1), random)
            wanted = len(daemon.ids) - random.randrange(1, TASKS // (KILLS + 1))
            eventually(lambda wanted=wanted: len(daemon.notes()) >= wanted, f"tasks of round {number}")
            daemon.federation.kill(daemon.host)
            daemon.start()
        daemon.hand_in(TASKS - len(daemon.ids), random)
        eventually(daemon.is_idle, "everything is done")
        found = daemon.verdict()
        assert (found["once"], found["twice"], found["files_lost"], found["failed"]) == (TASKS, 0, 0, 0)
        assert found["keys_out_of_order"] == 0


def _commands_work(daemon):
    """Reload and lists by task; what fails is shown everywhere, and goes when it is tried again."""
    daemon.answers()
    properties = daemon.config.parent / "esgf.properties"
    document = daemon.state / "registration.xml"
    set_property(properties, "node.short.name", "RENAMED")
    _task(daemon, "submit", "-", input='{"action": "reload"}')
    eventually(lambda: b"RENAMED" in document.read_bytes(), "the task reload")
    document.unlink()
    _task(daemon, "submit", "-", input='{"action": "rebuild-lists"}')
    eventually(document.exists, "the task rebuild-lists")
    put = {"action": "put-document", "document": "CMIP6/publisher/facets.ini", "text": "one\ntwo\n"}
    path = f"/api/v1/documents/{put['document']}"
    told = lambda: fetch(daemon.federation.http_url(daemon.host), path)
    for task_id in ("put", "put again"):
        _task(daemon, "submit", "-", input=json.dumps({**put, "id": task_id, "key": "facets"}))
    _task(
        daemon, "submit", "-", input=json.dumps({"action": "note", "text": "x", "id": "n", "key": "facets"})
    )
    eventually(lambda: "n" in daemon.notes(), "both puts are over")
    body = json.loads(told()[2])
    assert (body["heads"][0]["text"], body["versions_total"]) == ("one\ntwo\n", 1)
    _task(daemon, "submit", "-", input=json.dumps({"action": "delete-document", "document": put["document"]}))
    eventually(lambda: json.loads(told()[2])["deleted"], "the document is deleted")
    text = properties.read_text()
    set_property(properties, "esgf.host", "another.example.org")
    task_id = _task(daemon, "submit", "-", input='{"action": "reload"}').strip()
    eventually(lambda: daemon.status().get("failed") == 1, "the failure in status")
    (name,) = daemon.names(FAILED)
    assert "esgf.host" in (daemon.folder / FAILED / f"{name}{REASON}").read_text()
    assert json.loads(_task(daemon, "list", "--json"))["tasks"][0]["id"] == task_id
    url = daemon.federation.http_url(daemon.host)
    assert b'esgf_gossip_tasks{state="failed"} 1.0' in fetch(url, "/metrics")[2]
    assert name.encode() in fetch(url, "/this-node")[2]
    properties.write_text(text)
    assert name in _task(daemon, "retry", task_id)
    eventually(lambda: daemon.status().get("failed") == 0, "the retry is done")
    eventually(lambda: daemon.status().get("waiting") == 0, "nothing waits")
    assert daemon.names(FAILED) == []
    daemon.files += 7
