"""The task queue on the page of this node and in status; web tasks."""

from esgf_gossip.views.task_counts import FailedTask, TaskCounts
from helpers.web import HOST, NOON_MS, Client, StubDaemon, a_site, a_view

HOSTILE = FailedTask("<b>x</b>.json", NOON_MS, "<script>alert(1)</script>\x1b[2J")
COUNTS = TaskCounts(1234, 2, 3, 1, 90, "the disk is full", ("1 failed; look",), (HOSTILE,))


def ask(path, tasks, host="127.0.0.1"):
    """Ask a daemon with such a queue."""
    daemon = StubDaemon()
    daemon.picture = a_view(tasks=tasks)
    return Client(a_site(daemon, hosts=(HOST, "127.0.0.1"))).ask(path, Host=host)


def test_the_page_of_this_node_shows_counts_and_failures_as_text():
    """Whatever a program wrote, it is shown and not obeyed; the alarm stands on the page."""
    page = ask("/this-node", COUNTS).body.decode()
    assert "&lt;script&gt;" in page
    assert "<script>alert" not in page
    assert "\x1b" not in page
    assert "&lt;b&gt;x&lt;/b&gt;.json" in page
    assert "1\N{NARROW NO-BREAK SPACE}234" in page
    assert "Tasks: the disk is full" in page
    assert "Tasks: 1 failed; look" in page


def test_others_see_counts_alone():
    """Names and reasons are of this host's files; without a queue there is no section."""
    page = ask("/this-node", COUNTS, HOST).body.decode()
    assert "x&lt;/b&gt;.json" not in page
    assert "is shown on this host alone" in page
    assert 'id="tasks"' not in ask("/this-node", None).body.decode()


def test_status_tells_the_queue():
    """Numbers, what keeps it, what to look at; nothing where it is switched off."""
    assert ask("/api/v1/status", COUNTS).json["tasks"] == {
        "waiting": 1234,
        "running": 2,
        "done": 3,
        "failed": 1,
        "oldest_age_s": 90,
        "error": "the disk is full",
        "alarms": ["1 failed; look"],
    }
    assert "tasks" not in ask("/api/v1/status", None).json
