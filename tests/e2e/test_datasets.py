"""Dataset events between real daemons: said at one, known at all; a forgery counts nowhere; who comes late catches up."""

import json
import subprocess
import sys
import urllib.request
from contextlib import closing

from esgf_gossip.config import load
from esgf_gossip.core.log_effects import PersistLeaves
from esgf_gossip.core.logs import Log
from esgf_gossip.core.merkle import Tree
from esgf_gossip.storage.database import FILE_NAME, Database
from esgf_gossip.storage.state_files import TRACKING
from esgf_gossip.tracking.events import LOG, encode_event
from helpers.daemons import a_federation_of_processes, all_equal, eventually, fetch, fetch_json, status_of
from helpers.registrars import V1, V2, an_event


def dataset(federation, host, *arguments):
    """Run the command dataset on a node; return exit code, output and what it said."""
    command = [sys.executable, "-m", "esgf_gossip.cli.main", "dataset", *arguments]
    command += ["--config", federation.config_path(host)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60, text=True)
    return done.returncode, done.stdout, done.stderr


def events(federation, host):
    """Return what counts at a node: type, dataset and origin; None while it does not answer."""
    try:
        found = fetch_json(federation.http_url(host), "/api/v1/datasets/events")["events"]
    except OSError:
        return None
    return sorted((one["type"], one["dataset"], one["origin"]) for one in found)


def check(federation, host, *names):
    """Ask whether versions are still good."""
    request = urllib.request.Request(
        f"{federation.http_url(host)}/api/v1/datasets/check",
        data=json.dumps(names).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())["datasets"]


def forge(config_path, author, event):
    """Put an event into the log on the disk of a node that does not run: its daemon signs it when it starts."""
    leaves = (encode_event(event),)
    with closing(Database(load(config_path).node.state / FILE_NAME)) as database:
        database.apply([PersistLeaves(author, LOG, Log(1, Tree().extended(leaves), None), 0, leaves)])


def test_what_one_says_all_know_and_a_forgery_counts_nowhere(tmp_path):
    """A publishes, replaces and retracts; B is warned of its replica; X's forgery is quarantined; D has missed all and catches up."""
    with a_federation_of_processes(tmp_path, 4) as federation:
        one, other, forger, late = federation.hosts
        federation.kill(late)
        state = load(federation.config_path(late)).node.state
        for name in (FILE_NAME, TRACKING):
            for file in state.glob(f"{name}*"):
                file.unlink()

        code, said, error = dataset(federation, one, "publish", str(V1))
        assert (code, said, error) == (0, f"{V1}: current\n", "")
        assert dataset(federation, one, "new-version", str(V2))[1] == f"{V2}: current\n"
        before = [("new-version", str(V2), one), ("published", str(V1), one)]
        eventually(lambda: events(federation, other) == before, "it is known")
        assert check(federation, other, str(V1))[0]["successor"] == str(V2)
        code, _, error = dataset(federation, forger, "retract", str(V1), "--data-node", one)
        assert (code, f"does not name {one}" in error, error.count("\n")) == (4, True, 1)
        assert dataset(federation, other, "replicated", str(V2))[0] == 0
        assert dataset(federation, one, "retract", str(V2), "--reason", "wrong units")[0] == 0
        code, _, error = dataset(federation, one, "retract", str(V2))
        assert (code, "said already" in error) == (0, True)
        eventually(
            lambda: status_of(federation, other).get("datasets", {}).get("stale_replicas") == 1, "B is warned"
        )
        page = fetch(federation.http_url(other), "/datasets", {"Accept": "text/html"})[2].decode()
        assert "your copy is still served" in page
        assert dataset(federation, other, "replica-removed", str(V2))[0] == 0
        eventually(lambda: "datasets" not in status_of(federation, other), "the warning is over")

        federation.kill(forger)
        forge(federation.config_path(forger), forger, an_event("retracted", V1, one))
        for host in (forger, late):
            federation.start(host)
        told = [*before, ("replica-removed", str(V2), other), ("replicated", str(V2), other)]
        told = sorted([*told, ("retracted", str(V2), one)])
        for host in federation.hosts:
            eventually(lambda host=host: events(federation, host) == told, f"{host} has all that counts")
            eventually(
                lambda host=host: (
                    [
                        (one["origin"], one["quarantine"])
                        for one in fetch_json(federation.http_url(host), "/api/v1/datasets/quarantine")
                    ]
                    == [(forger, f"the certificate of {forger} does not name {one}")]
                ),
                f"{host} has the forgery in quarantine",
            )
        (found,) = check(federation, late, str(V2))
        assert (found["status"], found["reason"]) == ("retracted", "wrong units")
        code, shown, _ = dataset(federation, late, "show", str(V1))
        assert code == 0
        assert f"the certificate of {forger}" in " ".join(shown.split())
        # A restart reads on where it was, and says nothing twice.
        federation.kill(one)
        federation.start(one)
        eventually(lambda: events(federation, one) == told, "it is back")
        assert "nothing was written" in dataset(federation, one, "publish", str(V1))[2]
        listed = json.loads(dataset(federation, one, "list", "--type", "retracted", "--json")[1])
        assert [one["dataset"] for one in listed["events"]] == [str(V2)]
        # A file that is damaged stops nothing of the federation, and is told; moved away, it is made anew.
        federation.kill(one)
        file = load(federation.config_path(one)).node.state / TRACKING
        for name in file.parent.glob(f"{TRACKING}-*"):
            name.unlink()
        file.write_bytes(b"nothing that SQLite would know" * 99)
        federation.start(one)
        eventually(lambda: "damaged" in status_of(federation, one).get("datasets_error", ""), "it is told")
        code, _, error = dataset(federation, one, "retract", str(V1))
        assert (code, "damaged" in error, error.count("\n")) == (4, True, 1)
        assert fetch(federation.http_url(one), "/api/v1/datasets/events")[0] == 503
        eventually(lambda: all_equal(federation, federation.hosts, 4), "one root over all")
        federation.kill(one)
        file.unlink()
        federation.start(one)
        eventually(lambda: events(federation, one) == told, "the logs gave it back")
        quarantined = b"esgf_gossip_dataset_events_quarantined 1.0"
        # The log of the forgery may be read after those of the others.
        eventually(
            lambda: quarantined in fetch(federation.http_url(one), "/metrics")[2], "the forgery is counted"
        )
