"""The check of the tracking campaign in which the real publisher works against a daemon: what it did arrives as mails."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import publisher_campaign
from esgf_gossip.demo.index_stub import IndexStub
from esgf_gossip.demo.plan import PEER_GROUPS, ROLES
from esgf_gossip.demo.site_calls import log_downloads
from esgf_gossip.trust.authority import Authority
from esgf_gossip.trust.install import install
from esgf_gossip.trust.loopback_certificate import write_loopback_certificate
from esgf_gossip.trust.requests import make_request
from tracking_stage import ORIGINAL, Stage, address, stay_quiet

NODES = 3
HOME = 2
NAME = "plain"
TITLE = "AIRS air temperature"
OLD, NEW = "20200101", "20210101"


class DaemonNode:
    """A daemon of a stage as the publisher sees it, and the index behind it."""

    def __init__(self, stage: Stage, certificate: Path, index: IndexStub) -> None:
        self.address = f"127.0.0.1:{stage.places[ORIGINAL].tracking_port}"
        self.certificate = certificate
        self._stage = stage
        self._index = index

    def received(self) -> list[dict[str, Any]]:
        """Return the requests that reached the index, oldest first."""
        return [
            {
                "method": one.method,
                "target": one.target,
                "content_type": one.content_type,
                "agent": one.agent,
                "body": one.body,
            }
            for one in list(self._index.received)
        ]

    def events(self) -> list[str]:
        """Return what counts at this node: type, version, epoch."""
        found = self._stage.ask(ORIGINAL, "dataset-events", limit="1000")["events"]
        return [f"{one['type']} {one['version']} {one['epoch']}" for one in found]


@contextmanager
def an_index() -> Iterator[tuple[IndexStub, str]]:
    """Run an index in a thread of this process; give it and its URL."""
    from twisted.internet import reactor  # noqa: PLC0415 - only here is one wanted

    stub = IndexStub()
    urls: list[str] = []
    is_up = threading.Event()

    def listen() -> None:
        urls.append(stub.listen(reactor))
        is_up.set()

    reactor.callWhenRunning(listen)
    thread = threading.Thread(target=reactor.run, kwargs={"installSignalHandlers": False}, daemon=True)
    thread.start()
    is_up.wait(60)
    try:
        yield stub, urls[0]
    finally:
        reactor.callFromThread(reactor.stop)
        thread.join(60)


def certify(stage: Stage, number: int, data_node: str) -> None:
    """Give a node a certificate that names a data node too, from the trust root of the demo."""
    directory = stage.federation.directory / "trust"
    authority = Authority.open(directory, directory / "private").unlocked(None)
    node = stage.federation.node(stage.hosts[number])
    now_ms = time.time_ns() // 1_000_000
    trust = node.folder / "trust"
    names = [node.host, data_node]
    request = make_request(trust, node.host, node.federation, names, PEER_GROUPS, ROLES, same_key=True)
    issued = authority.approve(request.pem, fingerprint=request.fingerprint, now_ms=now_ms)
    install(
        trust,
        issued.chain_pem,
        authority.roots(),
        authority.crls(),
        host=node.host,
        federation=node.federation,
        now_ms=now_ms,
        bundles=authority.bundles(),
    )


def publisher(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The real publisher publishes, updates, retracts and deletes: who fetched the first version is told of both."""
    data_node = publisher_campaign.NODE
    with an_index() as (index, url), Stage(folder, NODES) as stage:
        certificate, key = write_loopback_certificate(folder)
        certify(stage, ORIGINAL, data_node)
        own = f"https://127.0.0.1:{stage.places[ORIGINAL].tracking_port}"
        stage.configure(
            ORIGINAL,
            index=f'"{url}"',
            data_nodes=f'["{data_node}"]',
            certificate=f'"{certificate}"',
            key=f'"{key}"',
            public_url=f'"{own}"',
        )
        for name in ("holder", "other"):
            stage.add_user(name, HOME)
        # What the publisher says of its URLs comes after the download, and resolves it.
        path = f"/thredds/fileServer/v{OLD}/ta_{{}}.nc"
        log_downloads(stage.places[ORIGINAL], [stage.openid("holder")], [path.format(1), path.format(2)])
        log_downloads(stage.places[ORIGINAL], [stage.openid("other")], ["/thredds/fileServer/else/pr.nc"])
        stage.begin(range(NODES))
        work = folder / "publisher"
        work.mkdir()
        node = DaemonNode(stage, certificate, index)
        told = publisher_campaign.tell_story(node, work, NAME, TITLE)
        begun_s = time.monotonic()
        version = f"{publisher_campaign.MASTER.format(NAME)}.v"

        def texts() -> str:
            return "\n".join(f"{subject}\n{text}" for _, subject, text in stage.letters())

        stage.wait_until(
            lambda: f"{version}{NEW}" in texts() and "etracted" in texts(), "both changes are told"
        )
        waited_s = time.monotonic() - begun_s
        stay_quiet(options.quiet_s)
        letters = stage.letters()
        stage.keep_logs(options.keep, "publisher")
    return {
        "requests": told["requests"],
        "arrived_identical": told["arrived_identical"],
        "beyond_loopback": told["beyond_loopback"],
        "events": told["events"],
        "mails": [f"{to}: {subject}" for to, subject, _ in letters],
        "story_to_last_mail_s": round(waited_s, 1),
        "holds": told["holds"]
        and {to for to, _, _ in letters} == {address("holder")}
        and 1 <= len(letters) <= 2,
    }
