"""The log as lines: log_output."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from esgf_gossip.log_output import REPEATS_MOST, REPEATS_S, LogOutput, LogRule, area_of, is_journal

NOW_S = 1_795_694_400.0


class Scene:
    """A log that is read back."""

    def __init__(self, form="text", levels=("info",), **options):
        self.stream = io.StringIO()
        self.output = LogOutput(self.stream, LogRule.read(form, levels), **options)
        self.now_s = NOW_S

    def say(self, level, said, namespace="esgf_gossip.net.driver.Driver", **fields):
        Logger(namespace, observer=self._hear).emit(LogLevel.lookupByName(level), said, **fields)

    def _hear(self, event):
        self.output({**event, "log_time": self.now_s})

    @property
    def lines(self):
        return self.stream.getvalue().splitlines()


def test_a_line_says_when_where_how_bad_and_what(monkeypatch):
    """In text with the zone of the host; in JSON in UTC, one object a line."""
    monkeypatch.setenv("TZ", "UTC")
    scene = Scene()
    scene.say("warn", "no room on {disk}", disk="sda")
    assert scene.lines == ["2026-11-26T12:00:00+0000 [net#warn] no room on sda"]
    scene = Scene("json")
    scene.say("warn", "no room on {disk}", disk="sda")
    assert [json.loads(line) for line in scene.lines] == [
        {"time": "2026-11-26T12:00:00.000Z", "level": "warn", "area": "net", "message": "no room on sda"}
    ]


@pytest.mark.parametrize(
    ("namespace", "area"),
    [
        ("esgf_gossip.net.driver.Driver", "net"),
        ("esgf_gossip.net.trust_keeper.TrustKeeper", "trust"),
        ("esgf_gossip.service.GossipService", "service"),
        ("twisted.internet.tcp.Port", "twisted"),
        ("", "python"),
    ],
)
def test_areas_are_rooms_and_libraries(namespace, area):
    """Trust is one area wherever its module lies."""
    assert area_of(namespace) == area


def test_levels_go_by_area():
    """One area in detail, another quiet; libraries say warnings alone unless they are asked."""
    scene = Scene(levels=["warn", "net=debug", "web=error", "twisted=info"])
    for namespace in ("net.x.X", "web.x.X", "sources.x.X"):
        for level in ("debug", "info", "warn", "error"):
            scene.say(level, f"{namespace} {level}", f"esgf_gossip.{namespace}")
    scene.say("info", "starting", "twisted.internet")
    said = [line.split("] ")[1] for line in scene.lines]
    assert said == [
        *(f"net.x.X {level}" for level in ("debug", "info", "warn", "error")),
        "web.x.X error",
        "sources.x.X warn",
        "sources.x.X error",
        "starting",
    ]
    quiet = Scene()
    quiet.say("info", "starting", "twisted.internet")
    quiet.say("warn", "slow", "twisted.internet")
    assert len(quiet.lines) == 1
    quiet.output.use(LogRule.read("json", ["error"]))
    quiet.say("warn", "not this", "esgf_gossip.net")
    quiet.say("error", "this", "esgf_gossip.net")
    assert json.loads(quiet.lines[-1])["message"] == "this"


def test_what_repeats_is_counted():
    """A broken peer does not fill the disk; how often is told; what is critical is always written."""
    scene = Scene()
    for number in range(500):
        scene.say("warn", "refused {number}", number=number)
        scene.say("critical", "the disk")
    assert sum("refused" in line for line in scene.lines) == REPEATS_MOST
    assert sum("the disk" in line for line in scene.lines) == 500
    scene.now_s += REPEATS_S
    scene.say("info", "something else")
    told = [line for line in scene.lines if "more lines within a minute" in line]
    assert len(told) == 1
    assert f"{500 - REPEATS_MOST} more lines within a minute such as: refused {{number}}" in told[0]
    scene.say("warn", "refused {number}", number=1)
    assert "refused 1" in scene.lines[-1]


def test_what_was_counted_is_told_at_the_end():
    """A stop loses no count."""
    scene = Scene()
    for _ in range(REPEATS_MOST + 3):
        scene.say("warn", "again")
    scene.output.close()
    assert "3 more lines" in scene.lines[-1]


@given(st.text(max_size=300), st.sampled_from(["text", "json"]), st.booleans())
def test_no_text_makes_a_second_line(text, form, has_priorities):
    """Names and reasons come from others: none can forge a line, or move a cursor."""
    scene = Scene(form, has_priorities=has_priorities)
    scene.say("warn", "refused: {text}", text=text)
    assert len(scene.lines) == 1
    assert scene.stream.getvalue().removesuffix("\n").isprintable()


def test_a_failure_has_its_traceback_below(monkeypatch):
    """Each of its lines is marked; the journal gets the level of each."""
    monkeypatch.setenv("TZ", "UTC")
    scene = Scene(has_priorities=True)
    try:
        raise ValueError("one\ntwo")
    except ValueError:
        scene.say("critical", "a fault", log_failure=Failure())
    first, *rest = scene.lines
    assert first == "<2>2026-11-26T12:00:00+0000 [net#critical] a fault"
    assert len(rest) >= 3
    assert all(line.startswith("<2>\t") for line in rest)


def test_only_the_journal_itself_gets_priorities(tmp_path):
    """A file has another inode than the stream that a session inherited the name of."""
    with (tmp_path / "log").open("w") as file:
        status = (tmp_path / "log").stat()
        assert is_journal(file, f"{status.st_dev}:{status.st_ino}")
        assert not is_journal(file, f"{status.st_dev}:{status.st_ino + 1}")
        assert not is_journal(file, "")
    assert not is_journal(io.StringIO(), "1:2")


def test_a_stream_that_is_gone_ends_nothing():
    """The terminal was closed, the pipe broke: the daemon goes on."""
    scene = Scene()
    scene.stream.close()
    scene.say("warn", "nobody hears")
    assert scene.stream.closed
