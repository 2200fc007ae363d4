"""
What Linux says of processes and of the loopback device: text of /proc to numbers.

Parsing is pure; the readers below it read one file each. Nothing is started here.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
from pathlib import Path

import attrs

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


@attrs.frozen
class Traffic:
    """What a device has sent since it exists."""

    bytes: int
    packets: int

    def __sub__(self, earlier: Traffic) -> Traffic:
        return Traffic(self.bytes - earlier.bytes, self.packets - earlier.packets)


def parse_cpu_ticks(stat: str) -> int:
    """
    Return the clock ticks in user and system mode, of all threads, from /proc/PID/stat.

    The name, field two, may hold blanks and parentheses: fields are counted from its last one.
    """
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def parse_rss_kb(status: str) -> int:
    """Return the resident memory in kB from /proc/PID/status; 0 for a process that has ended."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) if found else 0


def parse_sent(net_dev: str, device: str = "lo") -> Traffic:
    """
    Return what a device has sent, from /proc/net/dev.

    Raises:
        ValueError: there is no such device.
    """
    for line in net_dev.splitlines():
        name, colon, numbers = line.partition(":")
        if colon and name.strip() == device:
            fields = numbers.split()
            return Traffic(int(fields[8]), int(fields[9]))
    raise ValueError(f"no device {device} in /proc/net/dev")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds a process has used; counted in ticks of 10 ms."""
    return parse_cpu_ticks(Path(f"/proc/{pid}/stat").read_text()) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process in MB of 1024 kB."""
    return parse_rss_kb(Path(f"/proc/{pid}/status").read_text()) / 1024


def sent_on_loopback() -> Traffic:
    """
    Return what this network namespace sent over loopback.

    Not from /sys/class/net: that shows the namespace in which /sys was mounted.
    """
    return parse_sent(Path("/proc/self/net/dev").read_text())


def die_with_parent() -> None:
    """Between fork and exec: let the kernel kill us when the thread that started us ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
