"""What a reload puts into force, part by part, and what it leaves: reloading."""

from types import SimpleNamespace

import pytest

from esgf_gossip.config import load
from esgf_gossip.esgf.site_data import SiteError
from esgf_gossip.reloading import Reloading
from helpers.config import a_node_toml


class Scene:
    """A reload over a real node.toml; site, trust and documents note what they are given."""

    def __init__(self, folder):
        self.path = a_node_toml(folder)
        self.text = self.path.read_text()
        self.config = load(self.path)
        self.taken, self.site_fault = [], ""
        trust = SimpleNamespace(load_again=lambda _place: False, material=SimpleNamespace(notes=()))
        policy = SimpleNamespace(changed_since=lambda _before: ())
        site = SimpleNamespace(
            entries=dict, read=self._read, policy=policy, take=lambda config, _site: self.taken.append(config)
        )
        origin = SimpleNamespace(publication=SimpleNamespace(stopped=""))
        self.documents = self.config.documents
        self.reloading = Reloading(self.path, trust, site, origin, None, lambda: None, self._take_documents)

    def _read(self, _config):
        if self.site_fault:
            raise SiteError(self.site_fault)
        return SimpleNamespace(findings=())

    def _take_documents(self, table):
        is_other, self.documents = table != self.documents, table
        return is_other

    def read(self, more):
        self.path.write_text(f"{self.text}\n{more}\n")
        self.config, outcome = self.reloading.read(self.config)
        return outcome


@pytest.fixture
def scene(tmp_path):
    """A node as it was started."""
    return Scene(tmp_path)


def test_what_needs_a_restart_stays_in_force_until_then(scene):
    """Each of the tables that are read at the start only: told, and not shown as if it counted."""
    before = scene.config
    outcome = scene.read(
        '[gossip]\nlisten = "127.0.0.1:1"\n[http]\nlisten = "127.0.0.1:2"\n[outputs]\nfiles = []\n[tasks]\nkeep = 7'
    )
    for name in ("gossip", "http", "outputs", "tasks"):
        assert getattr(scene.config, name) == getattr(before, name), name
        assert any(line.startswith(f"[{name}] changed; restart") for line in outcome.findings), name
    assert scene.taken == [scene.config]


def test_documents_come_into_force_where_the_site_data_is_wrong(scene):
    """What is wrong in one part keeps no other back; what is told to be in force is."""
    scene.site_fault = "esgf.host is missing"
    outcome = scene.read('[documents]\nprojects = ["CMIP6"]')
    assert outcome.changed == ["documents"]
    assert outcome.refused == ["esgf.host is missing; the registration in force stays"]
    assert scene.documents.projects == scene.config.documents.projects == ("CMIP6",)
