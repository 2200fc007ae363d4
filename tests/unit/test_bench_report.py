"""What the benchmarks make of their numbers: statistics, targets, the table, what is kept of a run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gossip_bench import plan, simulated
from gossip_bench.measures import MEASURES, row
from gossip_bench.report import header_line, notes, table, unmet
from gossip_bench.results import Results, job_name
from gossip_bench.rows import Row, from_json, percentile, to_json
from gossip_bench.scenarios import SCENARIOS
from gossip_bench.scenarios.serf import SERF_SCENARIOS
from gossip_bench.turns import Turns

HEADER = {
    "commit": "abc1234", "cores": 2, "machine": "a machine", "python": "3.11.7", "date": "2026-01-01 00:00 UTC",
    "seed": 1, "mode": "short", "serf": "serf 0.9.4",
}  # fmt: skip


@pytest.mark.parametrize(
    ("count", "percent", "value"),
    [(1, 99, 1), (100, 99, 99), (101, 99, 100), (4, 50, 2), (5, 50, 3), (7, 100, 7)],
)
def test_a_percentile_is_the_nearest_rank(count, percent, value):
    """A value that was measured, never one in between."""
    assert percentile(range(count, 0, -1), percent) == value


def test_no_values_have_no_percentile():
    """An empty list is a mistake of the caller."""
    with pytest.raises(ValueError, match="no values"):
        percentile([], 99)


def test_a_target_is_about_the_median():
    """One bad run of five does not miss it."""
    assert row("kill.last", 7, [0.5, 0.6, 0.7, 0.8, 9.0]).verdict() == "yes"
    assert row("kill.last", 7, [0.5, 1.6, 1.7, 1.8, 0.1]).verdict() == "NO"


def test_a_target_of_never_is_about_the_worst():
    """One false alarm in five runs is one too many."""
    assert row("pause.unreachable", 7, [0, 0, 0, 0, 0]).verdict() == "yes"
    assert row("pause.unreachable", 7, [0, 0, 0, 0, 1]).verdict() == "NO"


def test_a_target_may_hang_on_serf():
    """Half of its median; without serf only the number counts."""
    fast = row("change.last", 50, [0.15])
    assert fast.verdict() == "yes"
    assert fast.verdict(serf_median=0.40) == "yes"
    assert fast.verdict(serf_median=0.20) == "NO"


def test_what_was_not_measured_meets_no_target():
    """No values are neither a success nor a failure."""
    assert row("kill.last", 7, note="not available").verdict() == ""


def test_a_row_survives_json():
    """What a worker prints is what the runner reads."""
    before = row("change.last", 7, [0.1, 0.2], note="a note")
    assert from_json(json.loads(json.dumps(to_json(before)))) == before


def test_a_row_of_another_program_needs_few_fields():
    """Key, title, nodes, unit and values; what we do not know is left out."""
    other = from_json({"key": "sim.p99", "title": "p99", "nodes": 1000, "unit": "s", "values": [1], "new": 0})
    assert (other.scenario, other.median) == ("sim", 1)


@pytest.mark.parametrize("data", [{}, {"key": "a.b", "title": "t", "nodes": "many", "unit": "s"}])
def test_what_is_no_row_is_refused(data):
    """With a reason, before it gets into the results."""
    with pytest.raises(ValueError, match="no row of a benchmark"):
        from_json(data)


def test_the_table_puts_serf_beside_us():
    """Ratio of the medians of one measure and size; nothing of another size."""
    rows = [
        row("change.last", 7, [0.1, 0.2, 0.3]),
        row("change.last", 7, [0.4, 0.4, 0.4], system="serf lan"),
        row("change.last", 25, [0.5]),
    ]
    head, _, first, second = table(rows).splitlines()
    cells = [cell.strip() for cell in first.strip("|").split("|")]
    assert "0.200 s" in cells
    assert "0.100 - 0.300" in cells
    assert cells[-3:] == ["0.400", "0.50", "--only change --nodes 7"]
    assert "serf lan" in head
    assert second.rstrip(" |").endswith("|          |       | --only change --nodes 25")


def test_columns_of_serf_are_left_out_without_serf():
    """No empty promises."""
    assert "serf lan" not in table([row("kill.last", 7, [0.5])])


def test_what_could_not_be_measured_says_so():
    """In the table, and below it why."""
    missing = row("kill.last", 7, note="not available: a reason")
    assert "not available" in table([missing])
    assert notes([missing, missing], {"esgf-gossip/7/door": "failed"}) == [
        "kill.last, esgf-gossip: not available: a reason",
        "esgf-gossip/7/door: failed",
    ]


def test_rows_of_other_programs_come_last():
    """They are in the table like ours."""
    other = Row(
        "sim.p99", "simulated p99", 1000, "s", (0.8,), most=1.0, repeat="python -m esgf_gossip.sim spread"
    )
    lines = table([other, row("kill.last", 7, [0.5])]).splitlines()
    assert "simulated p99" in lines[-1]
    assert "python -m esgf_gossip.sim spread" in lines[-1]


def test_what_misses_its_target_is_counted():
    """Against the number and against serf."""
    rows = [
        row("change.last", 7, [0.15]),
        row("change.last", 7, [0.2], system="serf lan"),
        row("kill.last", 7, [0.5]),
    ]
    assert [one.key for one in unmet(rows)] == ["change.last"]


def test_the_header_names_commit_machine_and_seed():
    """Whoever finds the table alone can repeat it."""
    line = header_line(HEADER)
    assert all(str(HEADER[name]) in line for name in HEADER)


def test_a_run_goes_on_where_it_was_ended(tmp_path):
    """What is finished is kept, what came to nothing is tried again."""
    path = tmp_path / "bench.json"
    first = Results(path, HEADER, resume=True)
    first.add(job_name("esgf-gossip", 7, "kill"), [row("kill.last", 7, [0.5])])
    first.add(job_name("esgf-gossip", 7, "door"), [], "failed: a reason")
    second = Results(path, HEADER | {"date": "later"}, resume=True)
    assert second.is_done("esgf-gossip/7/kill")
    assert not second.is_done("esgf-gossip/7/door")
    assert second.rows == [row("kill.last", 7, [0.5])]


@pytest.mark.parametrize("change", [{"commit": "def5678"}, {"seed": 2}, {"mode": "full"}])
def test_figures_of_another_commit_are_not_resumed(tmp_path, change):
    """A table mixes nothing."""
    path = tmp_path / "bench.json"
    Results(path, HEADER, resume=True).add("esgf-gossip/7/kill", [])
    assert not Results(path, HEADER | change, resume=True).is_done("esgf-gossip/7/kill")
    assert not Results(path, HEADER, resume=False).is_done("esgf-gossip/7/kill")


def test_every_measure_belongs_to_a_scenario():
    """What stands in the table can be asked for by --only."""
    assert {key.partition(".")[0] for key in MEASURES} == set(SCENARIOS)
    assert set(SERF_SCENARIOS) <= set(SCENARIOS)


def test_the_short_run_measures_every_scenario():
    """At one of its sizes at least, with serf beside it."""
    legs = plan.legs(plan.SHORT, plan.SIZES[plan.SHORT], (), with_serf=True, profiles=("lan",))
    done = {name for leg in legs for name in leg.scenarios}
    assert set(SCENARIOS) == done
    assert [leg.system for leg in legs] == ["esgf-gossip", "serf lan"] * 2


def test_the_short_run_fits_into_ten_minutes():
    """By its own estimate, all legs at once."""
    legs = plan.legs(plan.SHORT, plan.SIZES[plan.SHORT], (), with_serf=True, profiles=("lan",))
    assert max(leg.seconds(is_full=False) for leg in legs) < plan.SHORT_S < 600


def test_the_answers_of_the_simulator_become_rows():
    """One value per seed, with the targets of simulated federations."""
    answers = [{"last_p99_s": 0.5, "copies_mean": 1.05, "bytes_ratio_mean": 1.4, "nodes": 50}] * 5
    found = {one.key: (one.median, one.most, len(one.values)) for one in simulated.rows(50, answers)}
    assert found == {
        "simulated.last": (0.5, 1.0, 5),
        "simulated.copies": (1.05, 1.1, 5),
        "simulated.ratio": (1.4, 1.6, 5),
    }


def test_one_row_can_be_asked_for():
    """Ours and serf's, nothing else."""
    legs = plan.legs(plan.SHORT, [50], ["kill"], with_serf=True, profiles=("lan",))
    assert [(leg.system, leg.nodes, leg.scenarios) for leg in legs] == [
        ("esgf-gossip", 50, ("kill",)),
        ("serf lan", 50, ("kill",)),
    ]


def test_who_shares_lets_others_in_and_who_is_alone_does_not(tmp_path):
    """The two locks of a turn, seen from a second holder."""
    import fcntl

    turns = Turns(tmp_path)
    room = (tmp_path / "room.lock").open("w")
    with turns.shared(), turns.shared(), pytest.raises(BlockingIOError):
        fcntl.flock(room, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with turns.alone(), pytest.raises(BlockingIOError):
        fcntl.flock(room, fcntl.LOCK_SH | fcntl.LOCK_NB)
    fcntl.flock(room, fcntl.LOCK_EX | fcntl.LOCK_NB)
    room.close()
    assert room.closed


def test_the_document_has_every_measure():
    """docs/performance.md explains each row of the table, in its words."""
    text = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()
    words = set(re.findall(r"`([a-z]+\.[a-z_0-9]+)`", text))
    assert {*MEASURES, *(f"simulated.{name}" for name in simulated.MEASURES)} <= words
