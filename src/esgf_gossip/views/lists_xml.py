"""
The lists that identity, search and analysis services read: whitelists, attribute services, shards, LAS servers.

Pure: no file, no clock. The rules are those of the Java gleaners with their faults mended, one by one in
docs/formats.md, section 6; judging single texts is ``esgf.reader_rules``' work.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import attrs

from esgf_gossip.esgf import reader_rules
from esgf_gossip.esgf.health import Health
from esgf_gossip.esgf.node_type import NodeType
from esgf_gossip.esgf.reader_rules import one_line
from esgf_gossip.esgf.registration import Registration
from esgf_gossip.esgf.services import DOWNLOAD_PORT, Service
from esgf_gossip.views import markup
from esgf_gossip.views.federation import NodeView

WHITELIST: Final = "http://www.esgf.org/whitelist"
REGISTRY: Final = reader_rules.REGISTRY_NAMESPACE
SHARD_FORMS: Final = ("host:port", "host")

# The administrators' group: one row for the whole file, with an address of its own on each host.
_WHEEL: Final = "wheel"
_WHEEL_SERVICE: Final = "https://localhost/esgf-idp/saml/soap/secure/attributeService.htm"
_WEB_HOST: Final = re.compile(r"https?://([^/:@\s]+)(?::[0-9]{1,5})?(?:/|$)")
_GRIDFTP_HOST: Final = re.compile(r"(?:gsiftp://)?([^/:@\s]+)(?::([0-9]{1,5}))?(?:/|$)")
_OPENID_SERVER: Final = "/idp/openidServer.htm"
# The property with the name of a node's Globus endpoint; a site lists it in [esgf] publish.
GLOBUS_NAME: Final = "globus.endpoint"
_ROOT_WITHIN_BYTES: Final = 512

_Entries = Callable[[Iterable[Registration], str], Iterator[str]]


@attrs.frozen
class ListRule:
    """
    One file: its root element, its namespace, the type whose exclusion empties it, the service it lists.

    ``entries`` makes the lines between of registrations; a node whose ``service`` is down may leave the file.
    ``is_optional``: written where it is asked for, and never empty, which its readers take badly.
    """

    root: str
    namespace: str
    type: NodeType
    service: str
    entries: _Entries
    is_optional: bool = False


# What several nodes of one line come to: the last of theirs.
_LISTED: Final = (Health.DOWN, Health.MAINTENANCE, Health.UP)


def entries(name: str, nodes: Iterable[NodeView], shard_form: str = SHARD_FORMS[0]) -> dict[str, Health]:
    """
    Return the lines of a list, in the order of the hosts, none twice, each with the health of what it stands for.

    Down or in maintenance is only a line all of whose nodes are; what is not known counts as up.

    Args:
        name: one of ``LISTS``.
        nodes: any order; who is stale, left, unreadable or excluded is left out.
        shard_form: one of ``SHARD_FORMS``: whether shards name the port of the index.
    """
    rule = LISTS[name]
    lines: dict[str, Health] = {}
    for node in sorted(nodes, key=lambda node: node.host):
        registration = node.registration
        is_in = node.is_listed and not node.excluded & rule.type and reader_rules.is_host_name(node.host)
        if registration is None or not is_in:
            continue
        health = node.health_of(rule.service).health
        health = Health.UP if health is Health.UNKNOWN else health
        for line in rule.entries([registration], shard_form):
            lines[line] = max(lines.get(line, Health.DOWN), health, key=_LISTED.index)
    return lines


def document(name: str, lines: Iterable[str]) -> bytes:
    """Write the list of these lines; where there is none the root stands alone."""
    rule = LISTS[name]
    return "".join(
        [
            markup.DECLARATION,
            f"<{rule.root}{markup.attributes({'xmlns': rule.namespace or None})}>\n",
            *(f"    {line}\n" for line in lines),
            f"</{rule.root}>\n",
        ]
    ).encode()


def lines_of(content: bytes) -> frozenset[str]:
    """Return the lines of a list that ``document`` wrote; of another program's file, whatever stands there."""
    return frozenset(line.strip() for line in content.decode("utf-8", "replace").splitlines())


def is_list(name: str, document: bytes) -> bool:
    """Tell whether bytes, of another program perhaps, are that list: whole, with the root its readers want."""
    rule = LISTS[name]
    start = f"<{rule.root} " if rule.namespace else f"<{rule.root}>"
    return start.encode() in document[:_ROOT_WITHIN_BYTES] and document.rstrip().endswith(
        f"</{rule.root}>".encode()
    )


def _endpoints(kind: str) -> _Entries:
    def lines(registrations: Iterable[Registration], _shard_form: str) -> Iterator[str]:
        for registration in registrations:
            endpoint = _endpoint(registration, kind)
            if endpoint:
                yield f"<value>{markup.escaped(endpoint)}</value>"

    return lines


def _attribute_services(registrations: Iterable[Registration], _shard_form: str) -> Iterator[str]:
    for registration in registrations:
        service = _endpoint(registration, "AttributeService")
        if not service:
            continue
        registrar = _endpoint(registration, "RegistrationService") or None
        for group in registration.groups:
            name = one_line(group.name)
            if name == _WHEEL:
                yield _attribute(_WHEEL, _WHEEL_SERVICE, "Administrator Group", None)
            elif name.strip() and not reader_rules.is_hidden_group(name):
                yield _attribute(name, service, one_line(group.description), registrar)


def _attribute(name: str, service: str, description: str, registrar: str | None) -> str:
    values = {
        "type": name,
        "attributeService": service,
        "description": description,
        "registrationService": registrar,
    }
    return f"<attribute{markup.attributes(values)}/>"


def _shards(registrations: Iterable[Registration], shard_form: str) -> Iterator[str]:
    for registration in registrations:
        index = _service(registration, "IndexService")
        found = _WEB_HOST.match(_endpoint(registration, "IndexService"))
        if index is None or found is None or not reader_rules.is_host_name(found[1].lower()):
            continue
        port = dict(index.attributes)["port"]
        place = f"{found[1]}:{port}" if shard_form == "host:port" else found[1]
        yield f"<value>{markup.escaped(place)}/solr</value>"


def _las_servers(registrations: Iterable[Registration], _shard_form: str) -> Iterator[str]:
    for registration in registrations:
        endpoint = _endpoint(registration, "LASService")
        if endpoint:
            values = {
                "name": one_line(registration.short_name),
                "url": endpoint,
                "ip": reader_rules.address(registration.ip),
            }
            yield f"<las_server{markup.attributes(values)}/>"


def _known_providers(registrations: Iterable[Registration], _shard_form: str) -> Iterator[str]:
    for registration in registrations:
        # What users choose is the address under which all their identities lie, not that of the protocol.
        base, found, _ = _endpoint(registration, "OpenIDProvider").partition(_OPENID_SERVER)
        name = one_line(registration.long_name or registration.short_name).strip()
        if found and name:
            yield f"<OP><NAME>{markup.escaped(name)}</NAME><URL>{markup.escaped(base)}/openid/</URL></OP>"


def _cogs(registrations: Iterable[Registration], _shard_form: str) -> Iterator[str]:
    for registration in registrations:
        endpoint = _endpoint(registration, "FrontEnd")
        found = _WEB_HOST.match(endpoint)
        name = one_line(registration.short_name).strip()
        # web-fe is the front end that CoG replaced.
        if found and name and "web-fe" not in endpoint and reader_rules.is_host_name(found[1].lower()):
            yield f"<site{markup.attributes({'name': name, 'domain': found[1].lower()})}/>"


def _endpoints_of_globus(registrations: Iterable[Registration], _shard_form: str) -> Iterator[str]:
    for registration in registrations:
        name = one_line(registration.properties.get(GLOBUS_NAME, "")).strip()
        found = _GRIDFTP_HOST.match(_endpoint(registration, "GridFTPService"))
        if name and found and reader_rules.is_host_name(found[1].lower()):
            place = f"{found[1].lower()}:{found[2] or DOWNLOAD_PORT}"
            yield f"<endpoint{markup.attributes({'name': name, 'gridftp': place})}/>"


def _service(registration: Registration, kind: str) -> Service | None:
    return next((service for service in registration.services if service.type == kind), None)


def _endpoint(registration: Registration, kind: str) -> str:
    """Return the endpoint as readers can bear it: they compare it whole, untrimmed; one with a blank inside is none."""
    service = _service(registration, kind)
    text = "" if service is None else reader_rules.endpoint(service.endpoint).strip()
    return "" if re.search(r"\s", text) else text


LISTS: Final = {
    "esgf_idp.xml": ListRule(
        "idp_whitelist", WHITELIST, NodeType.IDP, "OpenIDProvider", _endpoints("OpenIDProvider")
    ),
    "esgf_ats.xml": ListRule(
        "ats_whitelist", WHITELIST, NodeType.IDP, "AttributeService", _attribute_services
    ),
    "esgf_azs.xml": ListRule(
        "azs_whitelist", WHITELIST, NodeType.DATA, "AuthorizationService", _endpoints("AuthorizationService")
    ),
    "esgf_shards.xml": ListRule("shards", WHITELIST, NodeType.INDEX, "IndexService", _shards),
    "las_servers.xml": ListRule("las_servers", REGISTRY, NodeType.COMPUTE, "LASService", _las_servers),
    "esgf_known_providers.xml": ListRule(
        "OPS", "", NodeType.IDP, "OpenIDProvider", _known_providers, is_optional=True
    ),
    "esgf_cogs.xml": ListRule("sites", "", NodeType.INDEX, "FrontEnd", _cogs, is_optional=True),
    "esgf_endpoints.xml": ListRule(
        "endpoints", WHITELIST, NodeType.DATA, "GridFTPService", _endpoints_of_globus, is_optional=True
    ),
}
# Those that every node writes.
USUAL: Final = tuple(name for name, rule in LISTS.items() if not rule.is_optional)
# Nobody can choose a provider that is down, and a dead index would hold up every search.
DROP_DOWN: Final = ("esgf_idp.xml", "esgf_shards.xml")
