"""What ``status`` prints of tracking: each fault once, whoever met it."""

from __future__ import annotations

from esgf_gossip.cli.node_commands import of_tracking


def test_a_fault_of_several_parts_is_told_once():
    """Two parts that ask one database say the same."""
    faults = {"journal": "nobody answers", "mail": "no room", "downloads": "nobody answers"}
    text = of_tracking({"faults": faults, "downloads": {"rows": 3, "users": 0}})
    assert text == "journal, downloads: nobody answers; mail: no room; downloads (rows 3)"
    assert of_tracking({"faults": {}}) == "nothing yet"
