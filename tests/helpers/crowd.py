"""
Federations of any size for pages, made from a seed; and one in which every text is an attack.

Views only: no node of it speaks. ``python -m`` of helpers.page_server serves them over HTTP.
"""

from __future__ import annotations

from random import Random
from typing import Any

from esgf_gossip.esgf.health import Health, ServiceHealth
from esgf_gossip.esgf.metrics import Metrics
from esgf_gossip.esgf.registration import Registration
from esgf_gossip.esgf.resources import Resources
from esgf_gossip.storage.list_files import ListFiles
from esgf_gossip.views.federation import FederationView, NodeStatus, NodeView, OwnState
from esgf_gossip.views.history_json import change_body
from esgf_gossip.views.lists_xml import USUAL
from esgf_gossip.views.node_json import utc_text

NOW_MS = 1_795_694_400_000
MINUTE_MS = 60_000
DAY_MS = 86_400_000
PLACES = (
    ("Hamburg", 53.55, 10.0),
    ("Livermore", 37.68, -121.77),
    ("Canberra", -35.28, 149.13),
    ("Beijing", 39.9, 116.4),
    ("Chilton", 51.57, -1.31),
    ("Princeton", 40.34, -74.65),
    ("Tokyo", 35.68, 139.69),
    ("Cape Town", -33.92, 18.42),
    ("Suva", -18.14, 178.44),
    ("Reykjavik", 64.15, -21.94),
)
STATUSES = (
    *[NodeStatus.UP] * 20,
    NodeStatus.SUSPECT,
    NodeStatus.UNREACHABLE,
    NodeStatus.STALE,
    NodeStatus.LEFT,
)
ATTACKS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg/onload=alert(1)>",
    "</title></table><h1>gotcha",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "\u202egnp.exe\u2066\u200b\ufeff",
    "\ud800 half a pair \x00\x1b[31m",
    "W" * 3000,
    "]]>--><!--",
)


def a_crowd(count: int, seed: int = 7) -> list[NodeView]:
    """Return so many nodes; most are up, each tenth is known to be of one city with others."""
    random = Random(seed)
    return [_member(number, random) for number in range(count)]


def _member(number: int, random: Random) -> NodeView:
    host = f"esgf-node{number:03d}.site{number % 40}.example.org"
    city, lat, lon = random.choice(PLACES)
    kinds = random.choice((4, 12, 28, 60, 36))
    properties = {
        "esg.root.id": f"site{number % 40}",
        "node.short.name": f"NODE-{number}",
        "node.long.name": f"Climate data node {number}",
        "node.peer.group": random.choice(("esgf-prod", "esgf-test", "esgf-prod,esgf-test")),
        "node.geolocation.lat": str(round(lat + random.uniform(-4, 4), 2)),
        "node.geolocation.lon": str(round(lon + random.uniform(-4, 4), 2)),
        "node.geolocation.city": city,
        "version": "v1.6.2",
    }
    for kind, path in (
        ("thredds", "thredds"),
        ("gridftp", ""),
        ("index", "esg-search/search"),
        ("idp", "esgf-idp/idp/openidServer.htm"),
        ("las", "las"),
        ("attribute", "esgf-idp/saml/soap/secure/attributeService.htm"),
    ):
        scheme = "gsiftp" if kind == "gridftp" else "https"
        properties[f"{kind}.service.endpoint"] = f"{scheme}://{host}/{path}"
        properties[f"{kind}.service.app.home"] = f"/usr/local/{kind}"
    status = random.choice(STATUSES)
    health = {
        kind: ServiceHealth(Health.DOWN, NOW_MS - random.randrange(DAY_MS), "answers with status 503")
        if random.random() < 0.05
        else ServiceHealth(Health.UP, NOW_MS - random.randrange(9 * DAY_MS))
        for kind in ("IndexService", "OpenIDProvider", "ThreddsService", "GridFTPService")
    }
    return NodeView(
        host=host,
        status=status,
        since_ms=NOW_MS - random.randrange(40 * DAY_MS),
        epoch=1_882_579_200_000_000 + number,
        sequence=random.randrange(1, 5000),
        issued_at_ms=NOW_MS - random.randrange(2 * DAY_MS),
        expires_at_ms=NOW_MS + 5 * DAY_MS,
        contact=(host, 8951),
        registration=Registration(host, kinds, properties),
        registration_issued_at_ms=NOW_MS - 3 * DAY_MS,
        health=health,
        metrics=Metrics(random.randrange(10**6), random.randrange(10**15), random.randrange(9000), None),
        resources=Resources(cores=64, load=12, memory_bytes=2**38, memory_free_bytes=2**37),
    )


def hostile_crowd() -> list[NodeView]:
    """Return nodes that put an attack wherever a stranger may write."""
    found = []
    for number, attack in enumerate(ATTACKS):
        host = f"evil{number}.example.org"
        properties = dict.fromkeys(
            ("esg.root.id", "node.short.name", "node.long.name", "node.peer.group", "version", attack[:90]),
            attack,
        )
        properties |= {"node.geolocation.lat": "10", "node.geolocation.lon": str(number * 30 - 170)}
        properties |= {"node.geolocation.city": attack}
        for kind in ("thredds", "index", "idp", "gridftp", "las"):
            properties[f"{kind}.service.endpoint"] = attack
            properties[f"{kind}.service.app.home"] = attack
        health = {
            kind: ServiceHealth(Health.DOWN, 1, attack[:200]) for kind in ("IndexService", "ThreddsService")
        }
        node = _member(number, Random(number))
        found.append(
            NodeView(
                host=host,
                status=NodeStatus.UP,
                since_ms=2**53,
                epoch=2**53,
                sequence=2**53,
                issued_at_ms=2**53,
                expires_at_ms=0,
                contact=(attack[:60], 1),
                registration=Registration(host, 60, properties),
                registration_issued_at_ms=0,
                registration_error="",
                forked=True,
                groups_refused=(attack,),
                health=health,
                metrics=node.metrics,
            )
        )
    found.append(NodeView("mute.example.org", NodeStatus.UP, 0, 0, 0, 0, 0, ("", 0), None, 0, ATTACKS[0]))
    return found


def crowd_view(
    nodes: list[NodeView], federation: str = "esgf.example", at_ms: int = NOW_MS
) -> FederationView:
    """Return the view of the first node over all of them."""
    own = OwnState(
        host=nodes[0].host if nodes else "lonely.example.org",
        federation=federation,
        version="0.1.0",
        epoch=1_882_579_200_000_000,
        sequence=7,
        links=min(9, max(0, len(nodes) - 1)),
        started_at_ms=at_ms - 3 * DAY_MS,
        certificate_not_after_ms=at_ms + 61 * DAY_MS,
        crl_age_s=3600,
    )
    ordered = tuple(sorted(nodes, key=lambda node: node.host))
    return FederationView(at_ms, bytes(range(32)), own, ordered)


def trust_of(nodes: list[NodeView], issuer: str = "CN=ESGF Issuing CA 1") -> dict[str, Any]:
    """Return a report on trust for them."""
    rows = [
        {
            "host": node.host,
            "issuer": issuer,
            "leaving": node.status is NodeStatus.LEFT,
            "bundle": 3 if number % 17 else 2,
            "crls": {"ab" * 10: 9 if number % 23 else 8},
            "not_after": utc_text(NOW_MS + (number % 90 + 1) * DAY_MS),
            "receipts": [],
            "seal": None,
            "request": None,
        }
        for number, node in enumerate(nodes)
    ]
    own = nodes[0].host if nodes else ""
    return {"host": own, "nodes": rows, "error": "", "hook_error": "", "alarms": [], "findings": []}


def gossip_of(nodes: list[NodeView]) -> dict[str, Any]:
    """Return figures and links to the first few."""
    peers = [
        {
            "host": node.host,
            "dialled": number % 2 == 0,
            "since_s": 4000.0 * number,
            "heard_s": 0.4,
            "round_trip_ms": 12.25 + number,
            "same_root": number != 3,
            "clock_offset_ms": number - 3,
            "waiting_bytes": 0,
            "received_bytes": 123_456 * number,
            "sent_bytes": 99_000,
            "received_messages": 1234,
            "sent_messages": 1200,
        }
        for number, node in enumerate(nodes[1:9])
    ]
    counts = {"digests_accepted": 1234, "digests_refused": 2, "links_opened": 12}
    traffic = {
        "received_bytes": 12_345_678,
        "sent_bytes": 2_345_678,
        "received_messages": 9876,
        "sent_messages": 8765,
    }
    return {
        "counts": counts,
        "traffic": traffic,
        "held": {"digests": len(nodes), "forks": 0, "trust_objects": 3},
        "peers": peers,
    }


def changes_of(nodes: list[NodeView]) -> list[dict[str, Any]]:
    """Return what happened to them, the newest first."""
    found = []
    for number, node in enumerate(nodes[:40]):
        detail = {"status": node.status.value, "before": "suspect"}
        at_ms = NOW_MS - number * 47 * MINUTE_MS
        change = change_body(1000 - number, at_ms, node.host, "status", detail)
        if number % 20 in (1, 2, 13, 16):
            name = "" if node.registration is None else node.registration.short_name
            change |= {"kind": "digest", "epoch": 1, "sequence": number, "summary": f"registration: {name}"}
            change["changes"] = [{"name": "registration.node.short.name", "before": "OLD", "after": name}]
        elif 5 <= number % 20 < 12:
            change |= {"kind": "digest", "epoch": 1, "sequence": number, "summary": "resources: cores_free"}
            change["changes"] = [{"name": "resources.cores_free", "before": number, "after": number + 1}]
        found.append(change)
    return found


def keep_lists(documents: Any, view: FederationView, folder: Any) -> None:
    """Put the lists beside registration.xml into the documents, as a daemon does."""
    lists = ListFiles(folder, USUAL)
    lists.update(view, is_ready=True)
    for name, content in lists:
        documents.keep(name, content)
