"""How answers are drawn on a terminal of any width: cli.tables."""

import io
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from esgf_gossip.cli import tables
from esgf_gossip.cli.node_commands import NODE_COLUMNS, NODE_LEAST

HOST = "esgf-index1.ceda.ac.uk.example.org"
ROW = (
    HOST,
    "unreachable",
    "2026-11-27 22:14:22 UTC",
    "data, index, idp, compute",
    "CEDA-INDEX-1",
    "esgf-prod, esgf-test",
)


def drawn(monkeypatch, width, columns, rows, **options):
    """Return the lines that a terminal of that width shows."""
    shown = io.StringIO()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr("rich.console.Console", lambda: Console(file=shown, width=width, color_system=None))
    tables.print_table(columns, rows, **options)
    return shown.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_host_and_status_are_whole_at_any_width(monkeypatch, width):
    """What answers the question stays; what is nice to know goes first, and nothing is cut."""
    lines = drawn(monkeypatch, width, NODE_COLUMNS, [ROW], least=NODE_LEAST)
    (row,) = [line for line in lines if HOST in line]
    assert "unreachable" in row
    assert all(len(line.rstrip()) <= width for line in lines)
    assert "…" not in "".join(lines)
    assert ("esgf-prod" in "".join(lines)) is (width >= 160)


@given(
    widths=st.lists(st.integers(0, 200), min_size=1, max_size=6),
    room=st.integers(0, 300),
)
def test_no_more_columns_go_than_must(widths, room):
    """The last that went was in the way: with it the table would not have fitted."""
    columns = [f"c{place}" for place in range(len(widths))]
    least = columns[1:]
    gone = tables.left_out_of(columns, widths, least, room)
    assert gone == least[: len(gone)]
    size = dict(zip(columns, widths, strict=True))
    taken = sum(size[name] + 2 for name in columns if name not in gone) + 2
    assert taken <= room or gone == least
    if gone:
        assert taken + size[gone[-1]] + 2 > room


def test_pairs_are_said_as_people_write_them(capsys, monkeypatch):
    """Times in the host's zone, spans and sizes in words, also within a value."""
    monkeypatch.setenv("TZ", "UTC")
    tables.print_pairs(
        {
            "host": HOST,
            "started_at": "2026-11-27T22:12:26.000Z",
            "certificate": {"not_after": "2027-02-25T22:12:26.000Z"},
            "crl": {"age_s": 968},
            "resources": {"memory_bytes": 25_276_502_016, "cores": 8},
            "metrics": {},
        }
    )
    assert [line.split("  ", 1)[1].strip() for line in capsys.readouterr().out.splitlines()] == [
        HOST,
        "2026-11-27 22:12:26 UTC",
        "not after 2027-02-25 22:12:26 UTC",
        "age 16 min",
        "memory 25 GB, cores 8",
        "-",
    ]


def test_nothing_found_is_said(capsys):
    """A head alone would leave open whether the question was understood."""
    tables.print_table(("type", "host"), [], none="no service is like that")
    captured = capsys.readouterr()
    assert captured.out == "TYPE  HOST\n"
    assert captured.err == "no service is like that\n"


def test_a_reader_that_goes_away_is_no_internal_error():
    """``esgf-gossip ... | head -1`` ends with 141, quietly."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "esgf_gossip.cli.main", "--help"]
    with os.fdopen(writing, "wb") as output:
        ended = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (141, b"")
