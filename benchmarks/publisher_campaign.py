"""
Let the real publisher work through the index proxy: what it sends must arrive as it is, what it did is told once.

Two releases of ``esgcet`` from PyPI, each in an environment of its own below build/: 5.5.3 publishes and updates, 5.2.0
retracts and deletes (5.5.3 cannot). Behind the proxy is a made-up index on loopback. Every request is written down
where the publisher sends it and where the index takes it. The publishers can reach nothing but loopback: their sockets
are guarded, and neither PIDs, citations nor errata are configured. Prints a line for each check and appends them to a
JSON file. Exit code 1: a claim does not hold.

    .venv/bin/python benchmarks/publisher_campaign.py --stories 3
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from helpers.daemons import eventually
from helpers.tracking_process import DATA_NODES, TrackingProcess

ROOT = Path(__file__).resolve().parents[1]
# Release of the publisher, and what it needs beside it to run at all.
RELEASES = {"5.5.3": ["pandas==2.2.3"], "5.2.0": []}
NODE = DATA_NODES[0]
# Of a project without PIDs: for others the publisher insists on a message broker.
MASTER = "obs4MIPs.NASA-JPL.AIRS-2-1.mon.ta.gn{}"
FILES = 3

GUARD = '''
"""Put before a publisher: it reaches loopback alone, and writes down what it sends."""
import base64, json, os, socket

def _note(kind, value):
    with open(os.environ["CAMPAIGN_RECORD"], "a") as file:
        file.write(json.dumps({"kind": kind, "value": value}) + "\\n")

_connect, _look_up = socket.socket.connect, socket.getaddrinfo

def connect(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
        _note("refused", repr(address))
        raise OSError("not on loopback")
    return _connect(self, address)

def getaddrinfo(host, *rest, **named):
    if host not in ("127.0.0.1", "::1", "localhost", None):
        _note("refused", repr(host))
        raise socket.gaierror("not on loopback")
    return _look_up(host, *rest, **named)

socket.socket.connect, socket.getaddrinfo = connect, getaddrinfo

import requests

_send = requests.Session.send

def send(self, request, **named):
    body = request.body or b""
    body = body.encode() if isinstance(body, str) else body
    _note("sent", [request.method, request.path_url, request.headers.get("Content-Type"), base64.b64encode(body).decode()])
    answer = _send(self, request, **named)
    _note("answered", answer.status_code)
    return answer

requests.Session.send = send
'''


class Node(Protocol):
    """What is under test: a proxy with an index behind it. A daemon can stand here as well as ``TrackingProcess``."""

    address: str
    certificate: Path

    def received(self) -> list[dict[str, Any]]:
        """Return the requests that reached the index: method, target, content_type, body, agent."""

    def events(self) -> list[str]:
        """Return what the log of datasets holds: type, version, epoch."""


class Publisher:
    """
    One release of the publisher.

    Args:
        release: of esgcet.
        folder: for its configuration and record.
        node: that it publishes to.
    """

    def __init__(self, release: str, folder: Path, node: Node) -> None:
        self._bin = environment(release) / "bin"
        self.folder = folder
        self.record = folder / "record.jsonl"
        self._node = node
        guard = folder / "guard"
        (guard / "ESGConfigParser").mkdir(parents=True, exist_ok=True)
        (guard / "sitecustomize.py").write_text(GUARD)
        # An import of 5.2.0 that the commands used here never call.
        (guard / "ESGConfigParser" / "__init__.py").write_text("SectionParser = None\n")
        (folder / "esg.yaml").write_text(
            f"index_node: {node.address}\ndata_node: {NODE}\nsilent: 'false'\nverbose: 'false'\n"
        )

    def run(self, program: str, *arguments: str) -> None:
        """Run one of its commands; raises where it fails."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        surroundings = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(self.folder / "guard"),
            "PYTHONWARNINGS": "ignore",
            "CAMPAIGN_RECORD": str(self.record),
            "REQUESTS_CA_BUNDLE": str(self._node.certificate),
            "NO_PROXY": "*",
        }
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            cwd=self.folder,
            env=surroundings,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            raise SystemExit(
                f"{program} {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )


def environment(release: str) -> Path:
    """Return the environment of a release; made where there is none."""
    folder = ROOT / "build" / f"publisher-{release}"
    done = folder / ".installed"
    if not done.exists():
        print(f"installing esgcet {release}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [
            str(folder / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        subprocess.run([*pip, f"esgcet=={release}", *RELEASES[release]], check=True, stdout=sys.stderr)
        done.touch()
    return folder


def records(master: str, number: int, title: str) -> list[dict[str, Any]]:
    """Return what ``esgmkpubrec`` would: the records of the files, then that of the dataset."""
    instance = f"{master}.v{number}"
    common = {
        "master_id": master,
        "version": str(number),
        "data_node": NODE,
        "index_node": "index.example.org",
        "project": "obs4MIPs",
        "replica": False,
        "latest": True,
        "retracted": False,
        "variable": ["ta"],
        "access": ["HTTPServer", "OPENDAP"],
    }
    files = [
        {
            **common,
            "id": f"{instance}.ta_{part}.nc|{NODE}",
            "instance_id": f"{instance}.ta_{part}.nc",
            "master_id": f"{master}.ta_{part}.nc",
            "dataset_id": f"{instance}|{NODE}",
            "title": f"ta_{part}.nc",
            "type": "File",
            # The first file never changes.
            "checksum": [f"{part:02x}{number if part else 0:06x}" * 8],
            "checksum_type": ["SHA256"],
            "size": 1000 + part,
            "url": [
                f"https://{NODE}/thredds/fileServer/v{number}/ta_{part}.nc|application/netcdf|HTTPServer"
            ],
        }
        for part in range(FILES)
    ]
    dataset = {
        **common,
        "id": f"{instance}|{NODE}",
        "instance_id": instance,
        "title": title,
        "type": "Dataset",
        "number_of_files": FILES,
        "size": 3003,
    }
    return [*files, dataset]


def tell_story(node: Node, folder: Path, name: str, title: str) -> dict[str, Any]:
    """Publish, publish anew, retract and delete one dataset; compare both ends."""
    master = MASTER.format(name)
    before, said = len(node.received()), len(node.events())
    new, old = (Publisher(release, folder / f"{name}-{release}", node) for release in ("5.5.3", "5.2.0"))
    for publisher in (new, old):
        publisher.folder.mkdir(exist_ok=True)
    config = ("--config", "esg.yaml")
    for number in (20200101, 20210101):
        (new.folder / f"{number}.json").write_text(json.dumps(records(master, number, title)))
    new.run("esgindexpub", *config, "--no-auth", "--verify", "--pub-rec", "20200101.json")
    new.run("esgupdate", *config, "--no-auth", "--verify", "--pub-rec", "20210101.json")
    new.run("esgindexpub", *config, "--no-auth", "--verify", "--pub-rec", "20210101.json")
    for flags in ((), (), ("--delete",)):
        old.run("esgunpublish", *config, "--no-auth", "--dset-id", f"{master}.v20200101|{NODE}", *flags)
    notes = [json.loads(line) for one in (new, old) for line in one.record.read_text().splitlines()]
    sent = [one["value"] for one in notes if one["kind"] == "sent"]
    arrived = [
        [one["method"], one["target"], one["content_type"], base64.b64encode(one["body"]).decode()]
        for one in node.received()[before:]
        if one["agent"].startswith("python-requests")
    ]
    eventually(lambda: len(node.events()) - said >= 3, "the story is told")
    counts = Counter(one.split()[0] for one in node.events()[said:])
    return {
        "story": name,
        "requests": len(sent),
        "arrived_identical": sent == arrived,
        "answers_not_200": sum(one["kind"] == "answered" and one["value"] != 200 for one in notes),
        "beyond_loopback": sum(one["kind"] == "refused" for one in notes),
        "new_version": counts["new-version"],
        "retracted": counts["retracted"],
        "events": node.events()[said:],
        "holds": sent == arrived
        and len(sent) > 10
        and counts == {"published": 1, "new-version": 1, "retracted": 1}
        and not any(one["kind"] == "refused" for one in notes),
    }


def kills(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Kill the process at random while versions are published; what was answered must be said, once."""
    random, answered, lost = Random(seed), [], 0
    number = 0
    for _ in range(count):
        with TrackingProcess(folder) as node:
            end_s = time.monotonic() + random.uniform(0.05, 0.5)
            killer = threading.Timer(end_s - time.monotonic(), node.kill)
            killer.start()
            try:
                while True:
                    number += 1
                    record = records(MASTER.format("kills"), number, "killed")[-1]
                    fields = "".join(
                        f'<field name="{name}">{value}</field>' for name, value in record.items()
                    )
                    body = f"<doc>{fields}</doc>".encode()
                    head = f"POST /esg-search/ws/publish HTTP/1.1\r\nHost: {node.address}\r\nConnection: close\r\n"
                    found = node.send(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                    if b'status="success"' in found:
                        answered.append(number)
            except OSError:
                lost += 1
            killer.join()
    with TrackingProcess(folder) as node:
        eventually(lambda: node.order("counts")["intake_waiting"] == 0, "everything is said")
        said = Counter(int(one.split()[1]) for one in node.events())
    missing, twice = sum(not said[one] for one in answered), sum(many > 1 for many in said.values())
    return {
        "kills": count,
        "broken_off": lost,
        "answered": len(answered),
        "answered_and_not_said": missing,
        "said_twice": twice,
        "holds": missing == twice == 0 and len(answered) > count,
    }


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument(
        "--stories", type=int, default=2, help="datasets that are published, replaced, retracted, deleted"
    )
    parser.add_argument(
        "--results", type=Path, help="file to which results are appended, one JSON object a line"
    )
    parser.add_argument("--kills", type=int, default=40, help="kill -9 of a process that publishes")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, title, flags in (
            ("plain", "AIRS air temperature", ()),
            ("ampersand", "A & B < C", ("lenient",)),
        ):
            place = Path(folder) / kind
            place.mkdir()
            with TrackingProcess(place, *flags) as node:
                for number in range(options.stories):
                    begun_s = time.monotonic()
                    story = tell_story(node, place, f"{kind}{number}", title)
                    story["seconds"] = round(time.monotonic() - begun_s, 1)
                    found.append(story)
                    print(json.dumps(story), flush=True)
        place = Path(folder) / "kills"
        place.mkdir()
        found.append(kills(place, options.kills, options.seed))
        print(json.dumps(found[-1]), flush=True)
    if options.results is not None:
        with options.results.open("a") as file:
            file.writelines(json.dumps(one) + "\n" for one in found)
    return 0 if all(one["holds"] for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
