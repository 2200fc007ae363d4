"""What is asked and answered on the control socket."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from esgf_gossip.views.federation import NodeStatus
from esgf_gossip.views.node_json import node_body, nodes_body, status_body
from esgf_gossip.web.archive import PastError
from esgf_gossip.web.control_protocol import (
    CLIENTS,
    LINE_BYTES,
    STATUS_EVERY_S,
    STOP_AFTER_S,
    WAITING_LINES,
    CommandError,
    ControlFactory,
)
from esgf_gossip.web.outlet import UNSENT_BYTES
from helpers.web import HOST, LiveTransport, StubDaemon, a_node, a_view


class StubCommands(StubDaemon):
    """A daemon that notes what it was told to do."""

    def __init__(self):
        super().__init__()
        self.done = []
        self.reloaded = Deferred()
        self.left = Deferred()
        self.watchers = []

    def reload(self):
        self.done.append("reload")
        return self.reloaded

    def stop(self):
        self.done.append("stop")

    def wake_tasks(self):
        self.done.append("wake-tasks")

    def leave(self):
        self.done.append("leave")
        return self.left

    def backup(self):
        self.done.append("backup")
        return succeed({"directory": "/somewhere", "files": ["registry.db"]})

    def on_view_changed(self, callback):
        self.watchers.append(callback)
        return lambda: self.watchers.remove(callback)

    def change(self, **changes):
        self.picture = a_view(a_node(**changes))
        for watcher in tuple(self.watchers):
            watcher()


class Program:
    """A program connected to the control socket."""

    def __init__(self, factory):
        self.protocol = factory.buildProtocol(None)
        self.transport = LiveTransport()
        self.transport.protocol = self.protocol
        self.protocol.makeConnection(self.transport)

    def send(self, data):
        self.protocol.dataReceived(data)
        return self.heard()

    def ask(self, command, **fields):
        return self.send(json.dumps({"command": command, **fields}).encode() + b"\n")

    def heard(self):
        data = self.transport.value()
        self.transport.clear()
        assert data == b"" or data.endswith(b"\n")
        return [json.loads(line) for line in data.splitlines()]

    @property
    def is_connected(self):
        return self.transport.connected


@pytest.fixture
def clock():
    """Time that a test moves."""
    return Clock()


@pytest.fixture
def commands():
    """A daemon that notes what it is told."""
    return StubCommands()


@pytest.fixture
def factory(commands, clock):
    """The factory of the socket."""
    return ControlFactory(commands, clock)


@pytest.fixture
def program(factory):
    """A connected program."""
    return Program(factory)


def test_readings_are_the_bodies_of_http(program, commands):
    """status, nodes and node answer what the HTTP service serves."""
    view = commands.view()
    assert [{"ok": True, "data": status_body(view)}] == program.ask("status")
    assert [{"ok": True, "data": nodes_body(view)}] == program.ask("nodes")
    assert [{"ok": True, "data": node_body(view.nodes[0])}] == program.ask("node", host=HOST.upper())
    assert commands.done == []


def test_only_the_own_user_and_root_may_ask(commands, clock):
    """Whoever else could open the socket is told no and hears nothing more."""
    program = Program(ControlFactory(commands, clock, lambda _transport: False))
    (refused,) = program.heard()
    assert "only the user of the daemon" in refused["error"]
    assert program.ask("stop") == []
    assert commands.done == []


def test_a_backup_is_asked_of_the_daemon(program, commands):
    """It answers where its copy lies."""
    assert program.ask("backup") == [
        {"ok": True, "data": {"directory": "/somewhere", "files": ["registry.db"]}}
    ]
    assert commands.done == ["backup"]


def test_a_list_is_told_with_its_reasons(program, commands):
    """Who is in, who is not and why; a name that is no list is refused with those that are."""
    commands.documents.keep("esgf_azs.xml", b"<azs_whitelist/>")
    (answer,) = program.ask("list", name="esgf_azs.xml")
    assert set(answer["data"]) == {"name", "service", "listed", "left_out"}
    for name in ("nope.xml", "registration.xml", "", 7):
        (refused,) = program.ask("list", name=name)
        assert refused["error"].endswith("there are: esgf_azs.xml")


def test_the_past_is_asked_as_over_http(program, commands):
    """history, differences, registration and at= answer the bodies of HTTP; what cannot be told is refused."""
    (answer,) = program.ask("history", host=HOST, since="yesterday", limit="5")
    assert answer["data"]["changes"][0]["summary"] == "is up, was unreachable"
    assert commands.past.wishes[0].limit == 5
    (answer,) = program.ask("differences", **{"from": "2023-11-13"})
    assert answer["data"]["from"] == "2023-11-13T00:00:00.000Z"
    assert program.ask("nodes", at="2023-11-13") == program.ask("nodes")
    assert program.ask("registration", at="1970-01-01T00:00:01Z")[0]["data"]["xml"].endswith("at='1000'/>")
    (refused,) = program.ask("node", host=HOST, at="soon")
    assert "yesterday 14:00" in refused["error"]
    commands.past.fault = PastError("the disk is away")
    assert program.ask("nodes", at="now") == [{"ok": False, "error": "the disk is away"}]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"status", "a request is one line of JSON"),
        (b"\xff\xfe\x00", "a request is one line of JSON"),
        (b"[" * 60_000, "a request is one line of JSON"),
        (b"1" * 10_000, "a request is one line of JSON"),
        (b'"status"', "a request is a JSON object"),
        (b"null", "a request is a JSON object"),
        (b"{}", "a request is a JSON object"),
        (b'{"command": ["status"]}', "a request is a JSON object"),
        (b'{"command": "sta\\ntus"}', "unknown command 'sta\\ntus'; there are: status, nodes,"),
        (b'{"command": "node"}', "this command needs a host"),
        (b'{"command": "node", "host": 7}', "this command needs a host"),
        (b'{"command": "node", "host": "x.example.org"}', "no node 'x.example.org' in this federation"),
    ],
)
def test_bad_requests_get_one_line_and_the_next_is_answered(program, line, expected):
    """A wrong request is told what is wrong, and does no harm to the next."""
    (refusal,) = program.send(line + b"\n")
    assert (refusal["ok"], refusal["error"].startswith(expected)) == (False, True)
    assert {"ok", "error"} == set(refusal)
    assert "\n" not in refusal["error"]
    assert program.ask("status")[0]["ok"]


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.sampled_from([b'{"command": "', b"status", b"node", b'", "host": ', b'"}', b"\n", b"[", b"1"]),
        ),
        max_size=30,
    )
)
def test_any_bytes_get_answers_of_the_protocol(pieces):
    """Whatever comes, every line out is an answer, and the daemon was told to do nothing."""
    commands = StubCommands()
    program = Program(ControlFactory(commands, Clock()))
    answers = program.send(b"".join(pieces) + b"\n")
    assert [answer for answer in answers if set(answer) not in ({"ok", "data"}, {"ok", "error"})] == []
    assert commands.done == []


def test_line_beyond_the_bound_ends_the_connection(program):
    """A line of 64 KiB is read, one byte more is not."""
    padded = json.dumps({"command": "status"}).encode()
    assert program.send(padded.ljust(LINE_BYTES) + b"\n")[0]["ok"]
    (refusal,) = program.send(b" " * (LINE_BYTES + 1))
    assert f"a request is one line of at most {LINE_BYTES} bytes" == refusal["error"]
    assert not program.is_connected


def test_bytes_one_by_one_and_several_lines_at_once(program):
    """How the kernel cuts the bytes does not matter; empty lines are nothing."""
    line = b'{"command": "status"}\r\n'
    one_by_one = [answer for byte in line for answer in program.send(bytes([byte]))]
    assert one_by_one * 2 == program.send(line + b"\n\r\n" + line)


def test_reload_answers_when_it_is_done(program, commands):
    """A reload answers with what changed, and later requests wait for it."""
    assert program.ask("reload") == []
    assert program.ask("node", host="nobody") == []
    commands.reloaded.callback({"changed": ["esgf.properties"], "findings": []})
    reload, node = program.heard()
    assert reload == {"ok": True, "data": {"changed": ["esgf.properties"], "findings": []}}
    assert not node["ok"]


def test_the_daemon_looks_at_its_tasks_when_told(program, commands):
    """What ``task submit`` says when it has handed in."""
    assert program.ask("wake-tasks") == [{"ok": True, "data": {}}]
    assert commands.done == ["wake-tasks"]


def test_refusals_of_the_daemon_are_one_line(program, commands, log):
    """A CommandError is told as it is, and is no error of the program."""
    commands.reloaded = fail(CommandError("node.toml: unknown key\n'seds'"))
    assert program.ask("reload") == [{"ok": False, "error": "node.toml: unknown key 'seds'"}]
    assert log == []


def test_failures_of_ours_are_told_and_logged(program, commands, log):
    """A bug answers too, in one line; the traceback is in the log."""
    commands.reloaded = fail(RuntimeError("broken\nTraceback"))
    assert program.ask("reload") == [{"ok": False, "error": "internal error: RuntimeError: broken Traceback"}]
    commands.reloaded = succeed({"changed": object()})
    (refusal,) = program.ask("reload")
    assert refusal["error"] == "internal error: the answer cannot be sent; the log says more"
    assert [RuntimeError, TypeError] == [event["log_failure"].type for event in log]
    assert program.ask("status")[0]["ok"]


def test_leave_answers_when_the_peers_know(program, commands):
    """A leave answers once it is done."""
    assert program.ask("leave") == []
    commands.left.callback(None)
    assert program.heard() == [{"ok": True, "data": {}}]
    assert commands.done == ["leave"]


def test_stop_answers_before_the_daemon_stops(program, commands, clock):
    """The answer is out and the connection closed before stop is called."""
    assert program.ask("stop") == [{"ok": True, "data": {}}]
    assert commands.done == []
    clock.advance(0)
    assert (commands.done, program.is_connected) == (["stop"], False)
    clock.advance(10)
    assert commands.done == ["stop"]


def test_stop_does_not_wait_for_a_program_that_does_not_read(program, commands, clock):
    """A connection that cannot be closed in order is cut off after a second."""
    program.transport.loseConnection = lambda: None
    program.ask("stop")
    clock.advance(0)
    del program.transport.loseConnection
    clock.advance(STOP_AFTER_S)
    assert (commands.done, program.transport.aborting) == (["stop"], True)


def test_requests_waiting_are_bounded(program):
    """A program that asks and asks while one answer is outstanding is cut off."""
    program.ask("reload")
    for _ in range(WAITING_LINES):
        assert program.ask("status") == []
    assert [f"more than {WAITING_LINES} requests wait for an answer"] == [
        answer["error"] for answer in program.ask("status")
    ]
    assert not program.is_connected


def test_answers_wait_for_a_program_that_does_not_read(program):
    """No answer is made while the last one is not taken; none is lost."""
    program.protocol.transport.producer.pauseProducing()
    assert program.ask("status") + program.ask("nodes") == []
    program.transport.producer.resumeProducing()
    assert [dict, list] == [type(answer["data"]) for answer in program.heard()]


def test_programs_are_bounded_and_places_come_back(factory):
    """One program too many is told so; one that leaves makes room."""
    programs = [Program(factory) for _ in range(CLIENTS)]
    late = Program(factory)
    assert [f"{CLIENTS} programs are connected already; close one"] == [
        line["error"] for line in late.heard()
    ]
    assert not late.is_connected
    programs[0].transport.loseConnection()
    assert Program(factory).ask("status")[0]["ok"]


def test_watch_begins_with_everything_then_tells_events(program, commands):
    """The first line is the whole picture; each event is one line with name, id and data."""
    view = commands.view()
    assert [{"ok": True, "data": {"status": status_body(view), "nodes": nodes_body(view)}}] == program.ask(
        "watch"
    )
    commands.events.publish("node-status", {"host": HOST, "status": "suspect"})
    assert program.heard() == [{"event": "node-status", "id": 1, "data": {"host": HOST, "status": "suspect"}}]


def test_watch_tells_the_status_at_most_ten_times_a_second(program, commands, clock):
    """The first change is told at once, a burst once more at its end, with the last state."""
    program.ask("watch")
    told = []
    for number in range(25):
        commands.change(status=NodeStatus.UP if number < 24 else NodeStatus.SUSPECT)
        told += program.heard()
        clock.advance(STATUS_EVERY_S / 10)
    told += program.heard()
    clock.advance(STATUS_EVERY_S)
    told += program.heard()
    assert len(told) == 4
    assert {"event": "status", "data": status_body(commands.view())} == told[-1]
    clock.advance(10)
    assert program.heard() == []


def test_watch_ends_with_the_connection(program, commands, clock):
    """Nothing of a watch is left behind, not even a status that was to come."""
    program.ask("watch")
    commands.change()
    commands.change()
    program.transport.loseConnection()
    assert (commands.watchers, clock.getDelayedCalls()) == ([], [])
    commands.events.publish("node-status", {})


def test_watch_takes_no_further_command(program, commands):
    """A request behind watch ends the stream instead of being lost in it."""
    program.ask("watch")
    program.send(b"\n")
    assert program.is_connected
    program.ask("stop")
    assert (program.is_connected, commands.done) == (False, [])


def test_watcher_that_never_reads_is_cut_off(program, commands):
    """Beyond a mebibyte unsent the connection is aborted."""
    program.ask("watch")
    program.transport.producer.pauseProducing()
    for _ in range(5):
        commands.events.publish("node-status", {"x": "x" * (UNSENT_BYTES // 4)})
    assert (program.transport.aborting, program.is_connected) == (True, False)
    assert commands.watchers == []


@pytest.mark.parametrize("command", ["nodes", "services"])
def test_a_command_gets_the_whole_list_and_says_so(program, command):
    """Parts of a list are for HTTP; what would not be heeded is refused."""
    (answer,) = program.ask(command, limit="1", offset="abc")
    assert answer["ok"] is False
    assert "limit" in answer["error"]


def test_half_a_character_is_no_host(program):
    """JSON can say what no database takes."""
    (answer,) = program.ask("history", host="\ud800")
    assert answer["ok"] is False
    assert "half a character" in answer["error"]
