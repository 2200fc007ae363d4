"""The whole tracking story between real daemons: who is told, how often, and what no other node ever hears."""

import sys
from contextlib import contextmanager
from pathlib import Path

from esgf_gossip.demo import processes
from esgf_gossip.demo.processes import DemoFederation
from esgf_gossip.demo.site_calls import Place, openid
from esgf_gossip.demo.story import NODES, USERS, Story, write_users
from helpers.daemons import all_equal, eventually, fetch

TAPPED = Path(__file__).resolve().parents[1] / "helpers" / "tapped_daemon.py"


def tapped(tap):
    """Return what starts a daemon whose words to other nodes are written down."""

    def command(path):
        env = ["/usr/bin/env", f"TAP_FOLDER={tap / path.parent.name}"]
        return [*env, sys.executable, "-P", str(TAPPED), "run", "--config", str(path.absolute())]

    return command


@contextmanager
def a_story(folder, monkeypatch):
    """Start five daemons with a tap, and the services of their site; give federation, places and the story."""
    monkeypatch.setattr(processes, "daemon_command", tapped(folder / "tap"))
    with DemoFederation(folder / "a demo", NODES, is_tracking=True) as federation:
        federation.prepare()
        nodes = [federation.node(host) for host in federation.hosts]
        places = [Place(node.host, node.tracking.own, node.http_port, node.folder) for node in nodes]
        write_users(places)
        federation.start_services()
        federation.start_all()
        services = federation.services
        story = Story(places, services.mailbox_url, services.recipients, lambda _: None)
        eventually(lambda: all_equal(federation, federation.hosts, NODES), "five nodes converge")
        yield federation, places, story


def test_each_user_has_one_mail_and_no_other_node_hears_of_him(tmp_path, monkeypatch):
    """A retracts; who fetched from A, B or C gets one mail from home; no address is on any wire, an OpenID only to its home."""
    with a_story(tmp_path, monkeypatch) as (federation, places, story):

        def is_over():
            story.step()
            return story.is_over

        eventually(is_over, "the story comes true", 120)
        wanted = sorted(user.address for user in USERS if user.is_concerned)
        assert sorted(federation.services.recipients()) == wanted
        page = fetch(f"http://127.0.0.1:{federation.services.mailbox}", "/")[2].decode()
        assert all(address in page for address in wanted)
    said = {path: path.read_bytes() for path in (tmp_path / "tap").glob("*/to-*")}
    assert len(said) >= NODES * (NODES - 1)
    logs = [path.read_bytes() for path in (tmp_path / "a demo").glob("nodes/*/daemon.log")]
    heard_at_home = 0
    for user in USERS:
        assert not any(user.address.encode() in text for text in [*said.values(), *logs])
        for name in user.openids:
            home = places[user.home]
            for path, text in said.items():
                if openid(home, name).encode() in text:
                    assert path.name == f"to-{home.host}", f"{path} names {name}"
                    heard_at_home += 1
            assert not any(openid(home, name).encode() in text for text in logs)
    assert heard_at_home > 0
