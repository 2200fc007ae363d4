"""When the lists are written, kept and left alone: storage.list_files."""

from __future__ import annotations

import os

import pytest

from esgf_gossip.esgf.registration import Registration
from esgf_gossip.storage import output_file
from esgf_gossip.storage.list_files import ListFiles
from esgf_gossip.views.federation import FederationView, OwnState
from esgf_gossip.views.lists_xml import USUAL
from helpers.site import FULL_HOST, a_view, demo_site, render_list

OWN = OwnState("a.example.org", "fed.example.org", "0", 1, 1, 0, 0, 0, 0)
NAME = "esgf_idp.xml"


def a_federation(*hosts: str) -> FederationView:
    """Return the picture of nodes that each have an identity provider."""
    sites = [Registration(host, 60, {"idp.service.endpoint": f"https://{host}/idp"}) for host in hosts]
    return FederationView(0, b"", OWN, tuple(map(a_view, sites)))


def test_every_list_is_there_after_the_first_update(tmp_path):
    """None is absent and none is empty, whatever the federation has."""
    files = ListFiles(tmp_path, tuple(USUAL))
    files.update(a_federation(), is_ready=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(USUAL)
    assert {name: (tmp_path / name).read_bytes() for name in USUAL} == dict(files)


def test_an_unchanged_list_keeps_its_file_and_a_lost_one_comes_back(tmp_path):
    """Readers look at the mtime; a file that somebody took away or cut is whole again with the next picture."""
    files = ListFiles(tmp_path, tuple(USUAL))
    files.update(a_federation("a.example.org"), is_ready=True)
    before = os.stat(tmp_path / NAME)
    files.update(a_federation("a.example.org"), is_ready=True)
    after = os.stat(tmp_path / NAME)
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    for harm in (lambda path: path.unlink(), lambda path: path.write_bytes(b"")):
        harm(tmp_path / NAME)
        files.update(a_federation("a.example.org"), is_ready=True)
        assert (tmp_path / NAME).read_bytes() == dict(files)[NAME]


def test_what_an_earlier_run_left_stays_until_the_registry_was_compared(tmp_path):
    """A restart must not shorten a whitelist to this node alone; when it is ready it may."""
    old = render_list(NAME, a_federation("a.example.org", "b.example.org").nodes)
    (tmp_path / NAME).write_bytes(old)
    files = ListFiles(tmp_path, tuple(USUAL))
    files.update(a_federation("a.example.org"), is_ready=False)
    assert (tmp_path / NAME).read_bytes() == old == dict(files)[NAME]
    files.update(a_federation("a.example.org"), is_ready=True)
    assert (tmp_path / NAME).read_bytes() == dict(files)[NAME] != old


def test_files_that_are_not_listed_and_static_ones_are_left_alone(tmp_path):
    """What [outputs] files does not name is served over HTTP and not written; static lists are the administrator's."""
    for name in (NAME, "esgf_idp_static.xml"):
        (tmp_path / name).write_bytes(b"mine")
    files = ListFiles(tmp_path, ["esgf_shards.xml"])
    files.update(a_federation("a.example.org"), is_ready=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        NAME,
        "esgf_idp_static.xml",
        "esgf_shards.xml",
    ]
    assert (tmp_path / NAME).read_bytes() == b"mine" == (tmp_path / "esgf_idp_static.xml").read_bytes()
    assert b"https://a.example.org/idp" in dict(files)[NAME]


def test_a_disk_that_refuses_leaves_the_file_before_whole(tmp_path, monkeypatch):
    """The next update tries again."""
    files = ListFiles(tmp_path, tuple(USUAL))
    files.update(a_federation("a.example.org"), is_ready=True)
    old = (tmp_path / NAME).read_bytes()

    def full(_path, _content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(output_file, "replace_file", full)
        files.update(a_federation("b.example.org"), is_ready=True)
    assert (tmp_path / NAME).read_bytes() == old != dict(files)[NAME]
    files.update(a_federation("b.example.org"), is_ready=True)
    assert (tmp_path / NAME).read_bytes() == dict(files)[NAME]


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_a_broken_file_is_not_served(tmp_path, content):
    """Half a file, or a page of a proxy, is no list to begin with."""
    (tmp_path / NAME).write_bytes(content)
    assert dict(ListFiles(tmp_path, tuple(USUAL))) == {}


def test_a_list_that_is_asked_for_is_never_written_empty(tmp_path):
    """An empty list of sites deletes them all at its reader: the file before stays, and there is none before the first entry."""
    names = ("esgf_cogs.xml", "esgf_known_providers.xml")
    files = ListFiles(tmp_path, names)
    assert set(files.names) == {*USUAL, *names}
    nobody = FederationView(1, b"", OWN, ())
    files.update(nobody, is_ready=True)
    assert list(tmp_path.iterdir()) == []
    full = FederationView(1, b"", OWN, (a_view(demo_site(FULL_HOST).registration),))
    files.update(full, is_ready=True)
    before = (tmp_path / "esgf_known_providers.xml").read_bytes()
    assert b"<OP>" in before
    assert not (tmp_path / "esgf_cogs.xml").exists()
    files.update(nobody, is_ready=True)
    assert (tmp_path / "esgf_known_providers.xml").read_bytes() == before
    assert set(ListFiles(tmp_path, ()).names) == set(USUAL)
