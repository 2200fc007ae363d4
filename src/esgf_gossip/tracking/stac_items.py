"""
The copies of a dataset that a STAC item, or a patch of one, tells of: which node serves which files.

Pure. An item has one asset for each file; an asset names its node and, below ``alternate``, the nodes of its replicas.
What only describes a file (checksum, size) is left out where it makes no sense: an event is worth more than it.
Source: docs/tracking.md, "STAC messages".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import attrs

from esgf_gossip.core.packing import HOST
from esgf_gossip.tracking.sightings import SeenFile

ASSETS: Final = 20_000
# Of one item; a replica of everything is on some ten nodes.
NODES: Final = 100
NAME_CHARACTERS: Final = 255
URL_CHARACTERS: Final = 2000
TRACKING_ID_CHARACTERS: Final = 128
SIZE_MOST: Final = 2**63 - 1
# What stands for many files together: an index over them, no file that anybody's dataset consists of.
AGGREGATE: Final = "reference_file"

_SHOWN_CHARACTERS: Final = 80
_URL: Final = re.compile(rf"(https?|globus|gsiftp|s3|ftp):[!-~]{{1,{URL_CHARACTERS}}}", re.IGNORECASE)
# Multihash: the code of the function and the length of the digest, then the digest.
_MULTIHASHES: Final = {"1220": 64, "1114": 40, "1340": 128, "d50110": 32}
_HEX: Final = re.compile(r"[0-9a-f]+")
_PLAIN: Final = frozenset({32, 40, 64, 128})


class StacError(ValueError):
    """Report in one line why a message is none that says something of a dataset: what is wrong, and where."""


@attrs.define
class Copies:
    """
    What a message says of copies: files by node.

    ``originals``: of what stands in the assets themselves; ``replicas``: below ``alternate``; ``removed``: nodes
    whose replica is no more.
    """

    originals: dict[str, dict[str, SeenFile]] = attrs.field(factory=dict)
    replicas: dict[str, dict[str, SeenFile]] = attrs.field(factory=dict)
    removed: set[str] = attrs.field(factory=set)

    def add_assets(self, assets: Mapping[str, Any]) -> None:
        """
        Take all assets of an item.

        Raises:
            StacError: one is none.
        """
        if len(assets) > ASSETS:
            raise StacError(f"has more than {ASSETS} assets")
        for name, asset in assets.items():
            self.add_asset(name, asset)

    def add_asset(self, name: str, asset: Any) -> None:
        """
        Take one asset, with the replicas it names.

        Raises:
            StacError: it is none.
        """
        asset = mapping(asset, f"asset {shown(name)}")
        node = _node(asset)
        if node and _is_data(name, asset):
            self._note(self.originals, node, _file(name, asset))
        alternates = asset.get("alternate")
        if alternates is not None:
            self.add_alternates(name, alternates, asset)

    def add_alternates(self, name: str, alternates: Any, asset: Mapping[str, Any]) -> None:
        """
        Take the replicas of one asset, by node; ``asset`` describes the file as far as it is known.

        Raises:
            StacError: they are none.
        """
        alternates = mapping(alternates, f"alternate of asset {shown(name)}")
        for node, alternate in alternates.items():
            self.add_alternate(name, node, alternate, asset)

    def add_alternate(self, name: str, key: str, alternate: Any, asset: Mapping[str, Any]) -> None:
        """
        Take one replica of one asset.

        Raises:
            StacError: it is none, or names no node.
        """
        alternate = mapping(alternate, f"alternate {shown(key)} of asset {shown(name)}")
        node = _host(alternate.get("alternate:name")) or _host(key) or _url_host(alternate.get("href"))
        if not node:
            raise StacError(f"alternate {shown(key)} of asset {shown(name)} names no data node")
        self.removed.discard(node)
        is_data = _is_data(name, asset or alternate)
        self._note(self.replicas, node, _file(name, {**asset, **alternate}) if is_data else None)

    def remove_alternate(self, key: str) -> None:
        """
        Note that a node has no replica any more.

        Raises:
            StacError: it is no node.
        """
        node = _host(key)
        if not node:
            raise StacError(f"{shown(key)} is removed, which is no data node")
        self.replicas.pop(node, None)
        self.removed.add(node)
        self._bound()

    def _note(self, copies: dict[str, dict[str, SeenFile]], node: str, file: SeenFile | None) -> None:
        files = copies.setdefault(node, {})
        if file is not None:
            files[file.name] = file
        self._bound()

    def _bound(self) -> None:
        if len(self.originals) + len(self.replicas) + len(self.removed) > NODES:
            raise StacError(f"names more than {NODES} data nodes")


def mapping(value: Any, what: str) -> Mapping[str, Any]:
    """
    Return a value that must be a JSON object.

    Raises:
        StacError: it is something else.
    """
    if type(value) is not dict:
        raise StacError(f"{what} is {kind(value)}, not an object")
    return value


def kind(value: Any) -> str:
    """Say what kind of JSON value it is."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "missing"}
    return names.get(type(value), "a number")


def shown(text: str) -> str:
    """Return a name as it may stand in an error: short, one line; what could be an address of mail is left out."""
    return "(left out)" if "@" in text else repr(text[:_SHOWN_CHARACTERS])


def checksum_of(value: Any) -> str:
    """Return the digest of a multihash, or of a plain one, as lower-case hex; "" where it is none that is known."""
    text = value.lower() if type(value) is str else ""
    for prefix, digits in _MULTIHASHES.items():
        if text.startswith(prefix) and len(text) == len(prefix) + digits and _HEX.fullmatch(text):
            return text[len(prefix) :]
    return text if len(text) in _PLAIN and _HEX.fullmatch(text) else ""


def _file(name: str, asset: Mapping[str, Any]) -> SeenFile | None:
    href = asset.get("href")
    url = href if type(href) is str and _URL.fullmatch(href) else ""
    file_name = (_base_name(url) or name).rpartition("/")[2]
    if not file_name or len(file_name) > NAME_CHARACTERS or not file_name.isprintable():
        return None
    size = asset.get("file:size")
    return SeenFile(
        file_name,
        (url,) if url else (),
        checksum_of(asset.get("file:checksum")),
        size if type(size) is int and 0 <= size <= SIZE_MOST else None,
        _tracking_id(asset),
    )


def _tracking_id(asset: Mapping[str, Any]) -> str:
    """Return the field of whatever project (``cmip6:tracking_id``)."""
    for key, value in asset.items():
        if key.rpartition(":")[2] == "tracking_id" and type(value) is str:
            return value if len(value) <= TRACKING_ID_CHARACTERS and value.isprintable() else ""
    return ""


def _is_data(name: str, asset: Mapping[str, Any]) -> bool:
    roles = asset.get("roles")
    return name != AGGREGATE and (type(roles) is not list or not roles or "data" in roles)


def _node(asset: Mapping[str, Any]) -> str:
    return _host(asset.get("alternate:name")) or _url_host(asset.get("href"))


def _host(value: Any) -> str:
    """Return a host name in lower case; "" where it is none. A word without a dot is a name for people."""
    host = value.lower() if type(value) is str else ""
    return host if "." in host and HOST.fullmatch(host) else ""


def _url_host(href: Any) -> str:
    return _host(next(_parts(href, "hostname"), None))


def _base_name(url: str) -> str:
    return unquote(next(_parts(url, "path"), "").rpartition("/")[2])


def _parts(url: Any, part: str) -> Iterator[Any]:
    """Give one part of a URL; nothing where it is none that can be read."""
    if type(url) is str and _URL.fullmatch(url):
        try:
            yield getattr(urlsplit(url), part)
        except ValueError:
            return
