"""What the benchmarks read: /proc, server-sent events, the log of serf."""

from __future__ import annotations

import os

import pytest

from gossip_bench.processes import (
    Traffic,
    cpu_s,
    parse_cpu_ticks,
    parse_rss_kb,
    parse_sent,
    rss_mb,
    sent_on_loopback,
)
from gossip_bench.serf_agents import parse_event
from gossip_bench.server_sent import EventParser, StreamRefusedError

NET_DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:  1280      10    0    0    0     0          0         0     2560      20    0    0    0     0       0          0
  eth0: 999 9 0 0 0 0 0 0 111 1 0 0 0 0 0 0
"""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: esgf-gossip events\n\n"
EVENT = b'event: node-status\ndata: {"host":"a.example.org","status":"up"}\nid: 7\n\n'


def test_cpu_is_user_and_system_time_whatever_the_name_of_the_program():
    """The name stands in parentheses and may hold some itself."""
    assert parse_cpu_ticks("7 (a) b (c)) S 1 7 7 0 -1 4194304 1 2 3 4 150 25 0 0 20 0 1 0 1 1 1") == 175


def test_resident_memory_is_read_in_kb():
    """Only VmRSS counts; a process that has ended has none."""
    assert parse_rss_kb("Name:\tpython\nVmHWM:\t  999 kB\nVmRSS:\t   61440 kB\n") == 61440
    assert parse_rss_kb("Name:\tpython\nState:\tZ (zombie)\n") == 0


def test_what_a_device_sent_is_the_second_half_of_its_line():
    """Bytes and packets of transmission, of the device that is asked for."""
    assert parse_sent(NET_DEV) == Traffic(2560, 20)
    assert parse_sent(NET_DEV, "eth0") == Traffic(111, 1)


def test_a_device_that_is_not_there_is_an_error():
    """Never zero bytes."""
    with pytest.raises(ValueError, match="no device wlan0"):
        parse_sent(NET_DEV, "wlan0")


def test_traffic_of_a_window_is_a_difference():
    """Counters only rise."""
    assert Traffic(100, 5) - Traffic(40, 2) == Traffic(60, 3)


def test_this_process_can_be_read():
    """The parsers fit the kernel that runs here."""
    assert cpu_s(os.getpid()) > 0
    assert rss_mb(os.getpid()) > 1
    assert sent_on_loopback().bytes >= 0


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_events_come_out_however_the_bytes_come_in(size):
    """Cut anywhere, the same events."""
    parser = EventParser()
    data = ANSWER + EVENT + b": heartbeat\n\n" + EVENT
    events = [
        event for start in range(0, len(data), size) for event in parser.feed(data[start : start + size])
    ]
    assert events == [("node-status", {"host": "a.example.org", "status": "up"})] * 2


def test_a_stream_is_open_with_its_first_block_and_not_with_its_head():
    """From then on the daemon has subscribed us, and no event is missed."""
    parser = EventParser()
    head, blocks = ANSWER[:-24], ANSWER[-24:]
    assert list(parser.feed(head)) == []
    assert not parser.is_open
    assert list(parser.feed(blocks)) == []
    assert parser.is_open


def test_an_answer_that_is_no_stream_is_refused():
    """64 clients listen already, say."""
    with pytest.raises(StreamRefusedError, match="503"):
        list(EventParser().feed(b"HTTP/1.1 503 Service Unavailable\r\n\r\n{}"))


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (b"2026/11/26 00:30:12 [INFO] serf: EventMemberUpdate: n0003", ("Update", "n0003")),
        (b"    2026/11/26 00:30:12 [INFO] serf: EventMemberJoin: n0001 127.0.1.12", ("Join", "n0001")),
        (b"[INFO] serf: EventMemberLeave (forced): n0001 127.0.1.12", ("Leave", "n0001")),
        (b"[INFO] serf: EventMemberFailed: n0002 127.0.1.13", ("Failed", "n0002")),
        (b"[INFO] agent: Received event: member-join", None),
    ],
)
def test_serf_tells_changes_of_its_table_in_its_log(line, event):
    """Not the events of its handlers, which come a second later."""
    assert parse_event(line) == event
