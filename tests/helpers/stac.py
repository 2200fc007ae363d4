"""Messages of the STAC transaction API as publishers and replicators send them, with the parts a test wants changed."""

from __future__ import annotations

import copy
from typing import Any

ITEM = "CMIP6.DCPP.MOHC.HadGEM3-GC31-MM.dcppA-hindcast.s1960-r10i1p1f2.day.huss.gn.v20200417"
ITEM_OF_CMIP7 = (
    "MIP-DRS7.CMIP7.CMIP.CCCma.CanESM5-1.piControl.r1i1p2f1.glb.mon.tas.tavg-h2m-hxy-u.g120.v20190429"
)
FILE = "huss_day_HadGEM3-GC31-MM_dcppA-hindcast_s1960-r10i1p1f2_gn_19601101-19601230.nc"
DIGEST = "d2905b3233e29257f7d4e4b3d18aeb7261c6249c85c943d73b4d028981096e78"
NODE, REPLICA = "data.example.org", "replica.example.net"
PERSON, ADDRESS = "Vorname Nachname", "somebody@publisher.example.org"
# Of the time in the metadata, taken for UTC.
OCCURRED_MS = 1_784_448_852_057
NOW_MS = OCCURRED_MS + 60_000


def a_message(payload: dict[str, Any], event_id: str = "0f" * 16) -> dict[str, Any]:
    """Wrap a payload as the service does, with whoever asked for it."""
    requester = {
        "client_id": "c",
        "iss": "https://auth.example.org",
        "sub": "s",
        "name": PERSON,
        "email": ADDRESS,
    }
    return {
        "metadata": {
            "auth": {"auth_policy_id": None, "requester_data": requester},
            "event_id": event_id,
            "request_id": "r",
            "publisher": {"package": "esgf_publisher", "version": "5.5.3"},
            "time": "2026-07-19T08:14:12.057860",
            "schema_version": "1.0.0",
        },
        "data": {"type": "STAC", "payload": payload},
    }


def an_asset(node: str = NODE, **changes: Any) -> dict[str, Any]:
    """Make the asset of one file."""
    return {
        "href": f"https://{node}/thredds/fileServer/cmip6/{FILE}",
        "roles": ["data"],
        "file:size": 24262076,
        "file:checksum": f"1220{DIGEST}",
        "alternate:name": node,
        "created": "2020-05-27T14:53:17Z",
        "cmip6:tracking_id": "hdl:21.14100/1b37978f-caf6-4e4a-9893-3266a93077a2",
    } | changes


def a_post(
    item_id: str = ITEM, assets: Any = None, event_id: str = "0f" * 16, **properties: Any
) -> dict[str, Any]:
    """Make the message of a publication."""
    item = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": item_id,
        "collection": "CMIP6",
        "properties": {"title": item_id.rpartition(".v")[0], "latest": True, "retracted": False} | properties,
        "assets": {FILE: an_asset()} if assets is None else assets,
    }
    return a_message({"method": "POST", "collection_id": "CMIP6", "item": item}, event_id)


def a_patch(patch: Any, item_id: str = ITEM, event_id: str = "0e" * 16) -> dict[str, Any]:
    """Make the message of a change."""
    payload = {"method": "PATCH", "collection_id": "CMIP6", "item_id": item_id, "patch": copy.deepcopy(patch)}
    return a_message(payload, event_id)


# What a publisher's program sends to retract, and to say that another version took its place.
RETRACT = [
    {"op": "replace", "path": "/properties/latest", "value": False},
    {"op": "replace", "path": "/properties/retracted", "value": True},
    {"op": "replace", "path": "/assets", "value": {}},
]
SUPERSEDE = RETRACT[:1]


def a_replica(node: str = REPLICA, name: str = FILE) -> dict[str, Any]:
    """Make the operation that adds the replica of one file."""
    value = {"href": f"https://{node}/thredds/{name}", "alternate:name": node, "created": "x", "updated": "x"}
    return {"op": "add", "path": f"/assets/{name}/alternate/{node}", "value": value}
