"""The man pages: one a command, made from the commands; packaging/man_pages.py."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """All pages, by name."""
    spec = importlib.util.spec_from_file_location("man_pages", ROOT / "packaging" / "man_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {path.stem: path.read_text() for path in module.write(tmp_path_factory.mktemp("man"))}


def test_every_command_has_a_page_with_its_options_and_example(pages):
    """Also those of trust-admin, in all depths."""
    assert {
        "esgf-gossip",
        "esgf-gossip-history",
        "esgf-gossip-maintenance",
        "trust-admin-cert-approve",
    } <= set(pages)
    assert len(pages) > 50
    for name, text in pages.items():
        assert re.match(r'\.TH "[A-Z -]+" "1" "\d{4}-\d\d-\d\d" "', text), name
        assert ".SH SYNOPSIS" in text, name
    history = pages["esgf-gossip-history"]
    assert "\\-\\-since" in history
    assert ".SH EXAMPLE\nesgf\\-gossip history" in history


def test_the_page_of_a_program_lists_its_commands_and_exit_codes(pages):
    """Whoever reads one page finds the others."""
    program = pages["esgf-gossip"]
    assert (
        "\\fBesgf-gossip-backup\\fP(1)\nWrite a backup of this node into FILE, while the daemon runs or not."
        in program
    )
    assert ".SH EXIT CODES\n0 done; " in program
    assert "\\fBtrust-admin-cert-approve\\fP(1)" in pages["trust-admin-cert"]


def test_no_text_is_taken_for_a_request(pages):
    """A line that begins with a dot would be swallowed."""
    known = (".TH", ".SH", ".TP", ".PP", ".B ", ".br")
    for name, text in pages.items():
        assert [
            line for line in text.splitlines() if line.startswith(".") and not line.startswith(known)
        ] == [], name
