"""A program that polls the files, as ESGF's do, while the federation flaps: it never sees a part, nothing, or no file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import attrs
import pytest
from lxml import etree

from esgf_gossip.demo.site_data import site_hosts
from esgf_gossip.esgf.health import Health, ServiceHealth
from esgf_gossip.storage.database import Database
from esgf_gossip.storage.list_files import ListFiles
from esgf_gossip.storage.outputs import RegistrationFile
from esgf_gossip.views.federation import FederationView, NodeStatus, OwnState
from esgf_gossip.views.lists_xml import LISTS, USUAL
from helpers.site import a_view, demo_site

CHANGES = 10_000
OWN = OwnState("a.example.org", "f", "0", 1, 1, 0, 0, 0, 0)
ROOTS = {"registration.xml": "Registration", **{name: LISTS[name].root for name in USUAL}}

# A process of its own, without a word of ours in it: reads each file whole, again and again, until it is told to end.
READER = """
import json, sys
folder, roots = sys.argv[1], json.loads(sys.argv[2])
wrong, reads, seen, stamp, is_last = [], 0, set(), 0, False
print("reading", flush=True)
while not is_last and len(wrong) < 5:
    try:
        open(folder + "/end").close()
        is_last = True
    except FileNotFoundError:
        pass
    for name, root in roots.items():
        try:
            with open(folder + "/" + name, "rb") as file:
                content = file.read()
        except OSError as error:
            wrong.append(f"{name}: {error}")
            continue
        reads += 1
        seen.add(hash((name, content)))
        if not content.startswith(b"<?xml ") or not content.endswith(f"</{root}>\\n".encode()):
            wrong.append(f"{name}: {len(content)} bytes, {content[-40:]!r}")
        if name == "registration.xml":
            new = int(content.partition(b'timeStamp="')[2].partition(b'"')[0])
            if new < stamp:
                wrong.append(f"the stamp went back from {stamp} to {new}")
            stamp = new
print(json.dumps({"wrong": wrong, "reads": reads, "seen": len(seen)}))
"""


def flapping(number: int, nodes: list) -> FederationView:
    """Return the view after that many changes: a node goes or comes, an index or a provider falls or rises."""
    place, kind = number % len(nodes), number // len(nodes) % 4
    changed = list(nodes)
    if kind == 0:
        changed[place] = attrs.evolve(changed[place], status=NodeStatus.LEFT)
    elif kind == 1:
        down = ServiceHealth(Health.DOWN, number, "x")
        changed[place] = attrs.evolve(changed[place], health={"IndexService": down, "OpenIDProvider": down})
    elif kind == 2:
        changed = changed[: place + 1]
    changed[0] = attrs.evolve(changed[0], registration_issued_at_ms=number)
    return FederationView(number, b"", OWN, tuple(changed))


@pytest.fixture
def folder():
    """A folder in memory where there is one: how long a disk takes for each of 20,000 fsyncs is not under test."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as made:
        yield Path(made)


def test_ten_thousand_changes_show_a_reader_nothing_but_whole_files(folder, tmp_path):
    """Every read is a whole document of its kind, and the stamp of registration.xml never goes back."""
    database = Database(tmp_path / "registry.db")
    document, lists = RegistrationFile(folder / "registration.xml", database), ListFiles(folder, USUAL)
    nodes = [a_view(demo_site(host).registration) for host in site_hosts(5)]
    changes = 0

    def change(number: int) -> int:
        view = flapping(number, nodes)
        lists.update(view, is_ready=True)
        return document.update(view)

    change(0)
    words = [sys.executable, "-c", READER, str(folder), json.dumps(ROOTS)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout.readline() == "reading\n"
        for number in range(1, CHANGES + 1):
            changes += change(number)
        (folder / "end").touch()
        found = json.loads(reader.communicate(timeout=60)[0])
    database.close()
    assert found["wrong"] == []
    # It did happen: each change wrote a document, and the reader was there while they changed.
    assert changes == CHANGES
    assert found["seen"] > 100
    assert sorted(path.name for path in folder.iterdir()) == sorted(["end", *ROOTS])
    for name in ROOTS:
        etree.parse(str(folder / name))
