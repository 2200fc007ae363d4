"""
The files of a site: ``esgf.properties``, ``config_type``, the groups, the host certificate, the exclusions.

Only reading lives here; what may leave the host and what is wrong with it is
``esgf.site_data``'s judgement. Called at start and on ``reload``, never by a timer of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from esgf_gossip.esgf.exclusions import FILE_BYTES as EXCLUSIONS_BYTES
from esgf_gossip.esgf.exclusions import Exclusions, ExclusionsError, parse_exclusions
from esgf_gossip.esgf.groups import GROUPS_FILE_BYTES, GroupsError, parse_groups
from esgf_gossip.esgf.node_type import FILE_BYTES as NODE_TYPE_BYTES
from esgf_gossip.esgf.node_type import NodeTypeError, parse_node_type
from esgf_gossip.esgf.properties import FILE_BYTES as PROPERTIES_BYTES
from esgf_gossip.esgf.properties import PropertiesError, parse_properties
from esgf_gossip.esgf.registration import Group, Registration
from esgf_gossip.esgf.registration_reader import DOCUMENT_BYTES, DocumentError, StaticNode, read_document
from esgf_gossip.esgf.services import RULES
from esgf_gossip.esgf.site_data import Finding, SiteData, SiteError, build_registration, find_problems
from esgf_gossip.files import read_file

# openssl's text dump and PEM of a chain are a few ten KB.
CERTIFICATE_BYTES: Final = 256 * 1024


@attrs.frozen
class SiteFiles:
    """
    Where the files of a site are; the keys of ``[esgf]`` in ``node.toml``.

    Args:
        properties: ``esgf.properties``.
        config_type: the file with the number of the node type.
        groups: one group a line, ``name = description``; None: the node has none.
        certificate: text of the host certificate for PEMCert; None: ``NOT_AVAILABLE``.
        excludes: ``esgf_excludes.txt``; None: nobody is left out.
        static: ``registration_static.xml``, nodes without a daemon; None, or where the file is missing: there are none.
    """

    properties: Path
    config_type: Path
    groups: Path | None = None
    certificate: Path | None = None
    excludes: Path | None = None
    static: Path | None = None


@attrs.frozen
class Site:
    """
    A site as its files describe it: what it publishes, what it says, what the administrator should know.

    ``exclusions`` are whom it leaves out of its own files, ``static`` nodes it shows although they run no daemon.
    """

    registration: Registration
    data: SiteData
    findings: tuple[Finding, ...]
    exclusions: Exclusions = attrs.field(factory=Exclusions)
    static: tuple[StaticNode, ...] = ()

    @property
    def properties(self) -> Mapping[str, str]:
        """All of ``esgf.properties``, for programs on this host only."""
        return self.data.properties


def read_site(
    files: SiteFiles,
    host: str,
    *,
    publish: tuple[str, ...] = (),
    check_app_home: bool = False,
    groups: tuple[Group, ...] | None = None,
) -> Site:
    """
    Read the files of a site. Blocks for as long as the disk takes.

    Args:
        files: where they are.
        host: the node's one name; ``esgf.host`` must be equal.
        publish: further property keys that may leave the host (``[esgf] publish``).
        check_app_home: advertise a service only where its ``*.app.home`` path exists, as the Java node manager did.
        groups: groups from another source (the database); None: from the file.

    Raises:
        SiteError: a file is missing, unreadable, not what it should be, or cannot be published.
    """
    try:
        properties = parse_properties(_content(files.properties, PROPERTIES_BYTES), str(files.properties))
        node_type = parse_node_type(_content(files.config_type, NODE_TYPE_BYTES), str(files.config_type))
        if groups is None:
            groups = ()
            if files.groups is not None:
                groups = parse_groups(_content(files.groups, GROUPS_FILE_BYTES), str(files.groups))
        exclusions = Exclusions()
        if files.excludes is not None:
            exclusions = parse_exclusions(_content(files.excludes, EXCLUSIONS_BYTES), str(files.excludes))
        static, passed_over = _static(files.static)
    except (PropertiesError, NodeTypeError, GroupsError, ExclusionsError, DocumentError) as error:
        raise SiteError(str(error)) from None
    data = SiteData(
        host=host,
        properties=properties,
        node_type=node_type,
        groups=groups,
        certificate=_certificate(files.certificate),
        publish=publish,
        absent_homes=_absent_homes(properties) if check_app_home else frozenset(),
        groups_name=str(files.groups or "groups"),
        certificate_name=str(files.certificate or "host certificate"),
    )
    findings = (*find_problems(data), *passed_over)
    return Site(build_registration(data), data, findings, exclusions, static)


def with_groups(site: Site, groups: tuple[Group, ...]) -> Site:
    """
    Return a site with other groups.

    Raises:
        SiteError: they cannot be published.
    """
    data = attrs.evolve(site.data, groups=groups)
    return attrs.evolve(site, registration=build_registration(data), data=data, findings=find_problems(data))


def _content(path: Path, largest: int) -> bytes:
    try:
        content = read_file(path, largest + 1)
    except OSError as error:
        raise SiteError(f"{path}: {_reason(error)}; see [esgf] in node.toml") from None
    if len(content) > largest:
        raise SiteError(f"{path}: more than {largest} bytes; is it the right file?")
    return content


def _static(path: Path | None) -> tuple[tuple[StaticNode, ...], tuple[Finding, ...]]:
    if path is None or not path.exists():
        return (), ()
    nodes, passed_over = read_document(_content(path, DOCUMENT_BYTES), str(path))
    return nodes, tuple(Finding(*line.split(": ", 1)) for line in passed_over)


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _certificate(path: Path | None) -> str:
    if path is None:
        return ""
    return _content(path, CERTIFICATE_BYTES).decode("utf-8", "replace")


def _absent_homes(properties: Mapping[str, str]) -> frozenset[str]:
    return frozenset(rule.home_key for rule in RULES if not _exists(properties.get(rule.home_key, "")))


def _exists(home: str) -> bool:
    try:
        return bool(home) and Path(home).exists()
    except (OSError, ValueError):
        # ValueError: a NUL in the path; a folder we may not look into counts as absent, as in Java.
        return False
