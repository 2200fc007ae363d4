"""
What ``check`` looks at: each function here gives the findings of one part of a node.

Nothing is started or written, and no node is dialled; a daemon that runs is asked what it finds wrong, and databases
whether they answer; ports are bound for a moment to see that they are free. How findings are printed: ``esgf_gossip.cli.check``.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import time
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import attrs

from esgf_gossip.addresses import format_address
from esgf_gossip.cli.control_client import ControlClient
from esgf_gossip.cli.failures import CommandError
from esgf_gossip.config import Config
from esgf_gossip.sources.spool import user_number

# A daemon that takes longer has something to mend.
ANSWER_S: Final = 2.0


class Level(IntEnum):
    """How bad a finding is; its value is the exit code of ``check``."""

    GOOD = 0
    ATTENTION = 10
    CRITICAL = 11


@attrs.frozen
class Finding:
    """One line of ``check``: how bad, which part of the node, what and what to do."""

    level: Level
    part: str
    text: str


def all_findings(config: Config) -> Iterator[Finding]:
    """Look at every part of a node."""
    daemon = ControlClient(config.control_socket, ANSWER_S)
    runs = daemon.is_answering()
    if runs:
        yield Finding(Level.GOOD, "daemon", f"runs; it answers on {config.control_socket}")
        yield from _of_daemon(daemon)
    yield from _addresses(config)
    yield from _folders(config)
    yield from _task_users(config)
    yield from _trust(config)
    yield from _site(config)
    yield from _metrics(config)
    yield from _tracking(config)
    yield from _data_roots(config)
    yield from _documents(config)
    yield from _database(config)
    if not runs:
        # The ports of a running daemon are taken, by itself, and it says what it finds in the database.
        yield from _tracking_database(config)
        yield from _ports(config)


def _of_daemon(daemon: ControlClient) -> Iterator[Finding]:
    """Give what the daemon itself finds wrong: what only shows when databases and disks are used."""
    try:
        answer = daemon.ask("status")
    except CommandError as error:
        yield Finding(Level.ATTENTION, "daemon", f"does not say how it is: {error}")
        return
    for part in ("storage", "history", "documents", "datasets"):
        if text := answer.get(f"{part}_error"):
            yield Finding(Level.ATTENTION, part, str(text))
    for part, text in answer.get("tracking", {}).get("faults", {}).items():
        yield Finding(Level.ATTENTION, f"tracking: {part}", str(text))


def _addresses(config: Config) -> Iterator[Finding]:
    listen, (host, port) = config.gossip.listen, config.gossip.advertise
    if _is_loopback(host) and not _is_loopback(listen[0]):
        yield Finding(
            Level.ATTENTION,
            "gossip",
            f"advertise is {format_address((host, port))}, which others dial on their own machine; "
            f"write the name at which they reach this node",
        )
    if port == 0:
        yield Finding(Level.GOOD, "gossip", "advertise has port 0: this node only dials out")
    elif _is_loopback(listen[0]) and not _is_loopback(host):
        yield Finding(
            Level.ATTENTION,
            "gossip",
            f"listen is {format_address(listen)}, where only this machine connects, but advertise is "
            f"{format_address((host, port))}; write another [gossip] listen unless something forwards there",
        )
    elif port != listen[1]:
        text = f"others dial port {port}, this node listens on {listen[1]}: see that something forwards"
        yield Finding(Level.GOOD, "gossip", text)
    if not config.gossip.seeds:
        yield Finding(
            Level.ATTENTION,
            "gossip",
            "seeds is empty: this node waits until another dials it; name one or two nodes unless it is the first",
        )
    if config.http.listen is not None and not _is_loopback(config.http.listen[0]):
        yield Finding(
            Level.ATTENTION,
            "http",
            f"listen is {format_address(config.http.listen)}: anybody who reaches it may read; "
            "put a web server with TLS before it, or listen on 127.0.0.1",
        )


def _folders(config: Config) -> Iterator[Finding]:
    folders = {"state": config.node.state, "outputs": config.outputs.directory}
    if config.tasks.directory is not None:
        folders["tasks"] = config.tasks.directory
    for part, folder in folders.items():
        nearest = next((parent for parent in (folder, *folder.parents) if parent.exists()), Path("/"))
        if folder.exists() and not folder.is_dir():
            yield Finding(Level.CRITICAL, part, f"{folder} is not a folder; name another in node.toml")
        elif not os.access(nearest, os.W_OK | os.X_OK):
            yield Finding(Level.CRITICAL, part, f"{nearest} is not writable for this user; chown or chmod it")
        elif nearest == folder and folder.stat().st_mode & 0o002:
            yield Finding(Level.ATTENTION, part, f"{folder} is writable for everybody; chmod o-w {folder}")


def _task_users(config: Config) -> Iterator[Finding]:
    for user in config.tasks.users:
        try:
            user_number(user)
        except KeyError:
            text = f"users: this host has no user {user}, so its files are refused; correct the name"
            yield Finding(Level.ATTENTION, "tasks", text)


def _trust(config: Config) -> Iterator[Finding]:
    from esgf_gossip.trust.errors import TrustError  # noqa: PLC0415 - brings cryptography
    from esgf_gossip.trust.material import TrustMaterial  # noqa: PLC0415

    now_ms = time.time_ns() // 1_000_000
    node = config.node
    try:
        material = TrustMaterial.load(
            config.trust.directory, host=node.host, federation=node.federation, now_ms=now_ms
        )
        for finding in material.findings(now_ms):
            level = Level.CRITICAL if finding.level == "critical" else Level.ATTENTION
            yield Finding(level, "trust", finding.text)
    except TrustError as error:
        yield Finding(Level.CRITICAL, "trust", str(error))


def _site(config: Config) -> Iterator[Finding]:
    from esgf_gossip.esgf.site_data import SiteError  # noqa: PLC0415 - check and run alone need it
    from esgf_gossip.own_site import read_own_site  # noqa: PLC0415

    try:
        site = read_own_site(config)
    except SiteError as error:
        yield Finding(Level.CRITICAL, "site", str(error))
        return
    for finding in site.findings:
        yield Finding(Level.ATTENTION, "site", str(finding))
    yield from _groups(config, site.registration.peer_groups)


def _data_roots(config: Config) -> Iterator[Finding]:
    from esgf_gossip.sources.roots import find_fault  # noqa: PLC0415 - check and run alone need it

    fault = find_fault(config.services.data_roots)
    if fault:
        text = f"data_roots: {fault}; while it is so, ThreddsService and GridFTPService are told to be down"
        yield Finding(Level.ATTENTION, "services", text)
    if config.services.data_roots and not config.services.probe:
        yield Finding(Level.ATTENTION, "services", "data_roots are looked at only with probe = true")


def _documents(config: Config) -> Iterator[Finding]:
    for name, path in config.documents.export.items():
        if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
            text = f"{path}, the file of {name}, cannot be written: {path.parent} is no folder this user may write in"
            yield Finding(Level.ATTENTION, "documents", text)
        elif config.documents.projects and name.project not in config.documents.projects:
            text = f"{name} is to be written into a file, but projects leaves {name.project} out; name it there too"
            yield Finding(Level.ATTENTION, "documents", text)
    hook = config.documents.hook
    if hook and not os.access(hook[0], os.X_OK):
        text = f"hook: {hook[0]} is no program that this user may run"
        yield Finding(Level.ATTENTION, "documents", text)
    if hook and not config.documents.export:
        yield Finding(
            Level.ATTENTION, "documents", "hook runs after a file was written, and export names none"
        )


def _tracking(config: Config) -> Iterator[Finding]:
    from esgf_gossip.cli.tracking_findings import tracking_faults  # noqa: PLC0415 - brings what it looks at

    for text in tracking_faults(config):
        yield Finding(Level.ATTENTION, "tracking", text)


def _tracking_database(config: Config) -> Iterator[Finding]:
    from esgf_gossip.cli.tracking_findings import database_fault  # noqa: PLC0415 - brings what it looks at

    if fault := database_fault(config.tracking):
        yield Finding(Level.ATTENTION, "tracking", fault)


def _metrics(config: Config) -> Iterator[Finding]:
    from esgf_gossip.sources.gauge import SourceError  # noqa: PLC0415 - check and run alone need it
    from esgf_gossip.sources.host import read_host  # noqa: PLC0415
    from esgf_gossip.sources.metrics_files import read_data_users, read_own  # noqa: PLC0415
    from esgf_gossip.sources.postgres import ask  # noqa: PLC0415

    metrics = config.metrics
    secret = metrics.password_file
    if secret is not None and secret.exists() and secret.stat().st_mode & 0o077:
        text = f"password_file {secret} can be read by others; chmod 600 {secret}"
        yield Finding(Level.ATTENTION, "metrics", text)
    try:
        if metrics.database is not None or metrics.data_users is not None:
            said = (
                ask(metrics.database, metrics.password_file)
                if metrics.data_users is None
                else read_data_users(metrics.data_users)
            )
            counts = said.metrics.numbers() if said.metrics else {}
            if said.groups is not None:
                counts["groups"] = len(said.groups)
            text = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items())
            yield Finding(Level.GOOD, "metrics", text or "no numbers")
        read_own(metrics.files)
        if metrics.resources:
            read_host(metrics.storage, metrics.compute)
    except SourceError as error:
        yield Finding(Level.ATTENTION, "metrics", str(error))


def _groups(config: Config, claimed: Sequence[str]) -> Iterator[Finding]:
    from esgf_gossip.trust.errors import TrustError  # noqa: PLC0415 - brings cryptography
    from esgf_gossip.trust.material import TrustMaterial  # noqa: PLC0415

    node = config.node
    with contextlib.suppress(TrustError):  # that is a finding of its own
        granted = TrustMaterial.load(
            config.trust.directory,
            host=node.host,
            federation=node.federation,
            now_ms=time.time_ns() // 1_000_000,
            may_be_late=True,
        ).names.groups
        for name in claimed:
            if name not in granted:
                yield Finding(
                    Level.ATTENTION,
                    "site",
                    f"node.peer.group names {name[:80]!r}, which the certificate does not grant: nobody sees it; ask "
                    "for it with trust-admin cert request --same-key and --group for each, or leave it out",
                )


def _database(config: Config) -> Iterator[Finding]:
    from esgf_gossip.storage.database import FILE_NAME, find_fault  # noqa: PLC0415 - brings the core

    fault = find_fault(config.node.state / FILE_NAME)
    if fault:
        yield Finding(Level.CRITICAL, "database", fault)


def _ports(config: Config) -> Iterator[Finding]:
    listens = {"gossip": config.gossip.listen, "http": config.http.listen, "tracking": config.tracking.listen}
    for part, address in listens.items():
        if address is None:
            continue
        reason = bind_error(address)
        if reason:
            text = f"listen {format_address(address)}: {reason}; stop what uses it, or write another address"
            yield Finding(Level.CRITICAL, part, text)


def bind_error(address: tuple[str, int]) -> str:
    """Bind an address for a moment; returns why that fails, or an empty text."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as trial:
            # As the daemon will: a port in TIME_WAIT is free.
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        known = {errno.EADDRINUSE: "the port is in use", errno.EACCES: "this user may not bind that port"}
        return known.get(error.errno or 0, error.strerror or "cannot be bound")
    return ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def as_json(finding: Finding) -> dict[str, Any]:
    """Give a finding as ``check --json`` prints it."""
    return {"level": finding.level.name.lower(), "part": finding.part, "text": finding.text}
