"""The whole tracking story between real daemons: who is told, how often, and what no other node ever hears."""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from esgf_gossip.demo import processes
from esgf_gossip.demo.processes import DemoFederation
from esgf_gossip.demo.site_calls import Place, openid
from esgf_gossip.demo.story import NODES, USERS, Story, write_users
from helpers.daemons import all_equal, eventually, fetch

PROGRAM = Path(sys.executable).parent / "esgf-gossip"
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


WRONG = """
[tracking]
listen = "127.0.0.1:{port}"
public_url = "http://127.0.0.1:{port}"
smtp = "127.0.0.1:9"
sender = "news@node.example"
dkim_key = "gone.pem"
dkim_selector = "x"
"""


def test_a_wrong_table_switches_tracking_off_and_nothing_else(tmp_path):
    """A key that is not there is a fault that status shows; the daemon gossips on, and follows the log of datasets."""
    with DemoFederation(tmp_path / "a demo", 2) as federation:
        federation.prepare()
        wrong, right = federation.hosts
        path = federation.config_path(wrong)
        path.write_text(path.read_text() + WRONG.format(port=federation.node(wrong).http_port + 1))
        federation.start_all()
        eventually(lambda: all_equal(federation, federation.hosts, 2), "both converge")
        assert "gone.pem" in federation.control(wrong).ask("status")["tracking"]["faults"]["tracking"]
        assert "tracking" not in federation.control(right).ask("status")
        checked = subprocess.run(
            [PROGRAM, "check", "--config", path], capture_output=True, text=True, timeout=60, check=False
        )
        assert "attention: tracking: " in checked.stdout
        assert "gone.pem" in checked.stdout
