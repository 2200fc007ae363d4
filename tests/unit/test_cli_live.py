"""What watch draws on a terminal: cli.live, without a daemon."""

from rich.console import Console

from esgf_gossip.cli.live import LiveFederation


def drawn(shown, width=80):
    """Return the lines of a terminal of that width."""
    console = Console(width=width, height=30, file=None, color_system=None)
    with console.capture() as captured:
        console.print(shown.drawn(30, width))
    return captured.get().splitlines()


def test_status_and_age_are_whole_at_eighty_columns():
    """Long names give way; those that need an eye come first."""
    nodes = [
        {
            "host": f"a{number}.{'long-' * 8}site.example.org",
            "status": "up",
            "short_name": "S" * 30,
            "since": "2026-01-01T00:00:00Z",
        }
        for number in range(3)
    ]
    nodes.append({**nodes[0], "host": "z.example.org", "status": "unreachable"})
    lines = drawn(LiveFederation({"status": {}, "nodes": nodes}))
    assert all(len(line) <= 80 for line in lines)
    rows = [line for line in lines if "example" in line or "long-" in line]
    assert all(" d" in row for row in rows)
    assert len(rows) == 4
    assert "z.example.org" in rows[0]
    assert "unreachable" in rows[0]
    assert all(" up " in row for row in rows[1:])


def test_a_host_is_whole_where_the_short_name_can_go():
    """What is cut cannot be asked about; the short name comes back where there is room."""
    node = {"host": "esgf-index1.ceda.ac.uk.example.org", "status": "unreachable", "short_name": "S" * 40}
    shown = LiveFederation({"status": {}, "nodes": [node]})
    narrow, wide = "\n".join(drawn(shown)), "\n".join(drawn(shown, 120))
    assert node["host"] in narrow
    assert "SSS" not in narrow
    assert node["host"] in wide
    assert "S" * 40 in wide


def test_events_are_said_as_a_person_would():
    """A verdict, a service, a digest in words; what is not known as it came; nothing is obeyed."""
    shown = LiveFederation({})
    for name, data in (
        ("node-status", {"host": "a.org", "status": "unreachable"}),
        ("service-health", {"host": "a.org", "type": "IndexService", "health": "down"}),
        ("digest-accepted", {"origin": "b.org", "epoch": 1, "sequence": 7}),
        ("unheard-of", {"x": "\x1b[2J"}),
    ):
        shown.hear({"event": name, "data": data})
    said = [line.partition("  ")[2] for line in shown.events]
    assert said[:3] == ["a.org is unreachable", "a.org: IndexService is down", "b.org published digest 7"]
    assert said[3].startswith("unheard-of: x ")
    assert "\x1b" not in said[3]
