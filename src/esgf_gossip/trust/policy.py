"""
What an administrator allows to be certified: ``policy.toml``, and the judgement of a request by it.

Reads and judges; signs nothing. Nothing of a request is taken over unseen: its
names are compared with the policy one by one. Source: docs/trust.md.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from esgf_gossip.trust import names as naming
from esgf_gossip.trust import pem
from esgf_gossip.trust.errors import TrustError, quoted
from esgf_gossip.trust.names import DEFAULT_GROUP, Names

DAYS_DEFAULT: Final = 90
DAYS_MAX: Final = 398

# What a new federation grants on request: plain membership, and the peer groups that ESGF has always had.
FIRST_GROUPS: Final = (DEFAULT_GROUP, "esgf-prod", "esgf-test", "esgf-dev")

_TEMPLATE: Final = """\
# What trust-admin may certify. Names are compared byte for byte.
federation = "{federation}"

# DNS names of nodes must end in one of these (".example.org" or a whole name); empty: any DNS name.
dns_suffixes = []

# Groups and roles a request may ask for. The peer groups a node claims (node.peer.group) are shown as far as
# its certificate grants them. A request that names no group gets the first of the groups.
groups = [{groups}]
roles = [{roles}]

# Longest life of a node certificate.
max_days = 90
"""


def template(federation: str, groups: Sequence[str] = FIRST_GROUPS, roles: Sequence[str] = ()) -> str:
    """Return the text of a federation's first policy; groups and roles are names as ``names.check_name`` takes them."""
    quoted_groups, quoted_roles = (", ".join(f'"{name}"' for name in names) for names in (groups, roles))
    return _TEMPLATE.format(federation=federation, groups=quoted_groups, roles=quoted_roles)


@attrs.frozen
class Policy:
    """What may be certified."""

    federation: str
    dns_suffixes: tuple[str, ...] = ()
    groups: tuple[str, ...] = (DEFAULT_GROUP,)
    roles: tuple[str, ...] = ()
    max_days: int = DAYS_DEFAULT

    def objections(self, requested: Names, days: int) -> list[str]:
        """Say everything in a request that the policy does not allow; empty: nothing."""
        found = []
        if requested.federation != self.federation:
            found.append(f"federation {quoted(requested.federation)} is not {quoted(self.federation)}")
        if self.dns_suffixes:
            found.extend(
                f"{quoted(name)} is outside issuer suffix {', '.join(self.dns_suffixes)}"
                for name in requested.dns
                if not any(_is_within(name, suffix) for suffix in self.dns_suffixes)
            )
        found.extend(_foreign("group", requested.groups, self.groups))
        found.extend(_foreign("role", requested.roles, self.roles))
        if not 1 <= days <= self.max_days:
            found.append(f"{days} days; the policy allows 1 to {self.max_days}")
        return found

    def grant(self, requested: Names, days: int, drop_names: Collection[str] = ()) -> Names:
        """
        Return the names to certify for a request.

        Args:
            requested: the names as requested.
            days: how long the certificate is to live.
            drop_names: DNS names, groups or roles to leave out.

        Raises:
            TrustError: E-POLICY with every objection; E-NAME when what is left is no identity.
        """
        unknown = set(drop_names) - {*requested.dns, *requested.groups, *requested.roles}
        if unknown:
            raise TrustError("E-NAME", f"{quoted(min(unknown))} is not requested", remedy="see cert show")
        kept = attrs.evolve(
            requested,
            dns=_without(requested.dns, drop_names),
            groups=_without(requested.groups, drop_names) or self.groups[:1],
            roles=_without(requested.roles, drop_names),
        )
        granted = naming.collect(kept.dns, kept.uris)
        objections = self.objections(granted, days)
        if objections:
            raise TrustError(
                "E-POLICY",
                "; ".join(objections),
                remedy="leave names out with --drop-name, or change policy.toml",
            )
        return granted


def parse(content: bytes, where: str) -> Policy:
    """
    Read a policy.

    Raises:
        TrustError: E-CONFIG with file and key.
    """
    try:
        table: dict[str, Any] = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrustError("E-CONFIG", f"{where} is not TOML: {error}") from None
    known = {field.name for field in attrs.fields(Policy)}
    for key in table:
        if key not in known:
            raise TrustError(
                "E-CONFIG", f"{where}: unknown key {quoted(key)}", remedy=f"known: {', '.join(sorted(known))}"
            )
    days = table.get("max_days", DAYS_DEFAULT)
    if type(days) is not int or not 1 <= days <= DAYS_MAX:
        raise TrustError("E-CONFIG", f"{where}: max_days must be a number from 1 to {DAYS_MAX}")
    federation = table.get("federation")
    if not isinstance(federation, str):
        raise TrustError("E-CONFIG", f"{where}: federation must be a DNS name")
    groups = _texts(table, "groups", where, (DEFAULT_GROUP,))
    if not groups:
        raise TrustError("E-CONFIG", f"{where}: groups must name at least one group")
    for kind, values in (("group", groups), ("role", _texts(table, "roles", where, ()))):
        for value in values:
            naming.check_name(kind, value)
    suffixes = _texts(table, "dns_suffixes", where, ())
    for suffix in suffixes:
        naming.check_dns(suffix.removeprefix("."))
    return Policy(
        federation=naming.check_dns(federation),
        dns_suffixes=suffixes,
        groups=groups,
        roles=_texts(table, "roles", where, ()),
        max_days=days,
    )


def load(path: Path) -> Policy:
    """
    Read a policy file.

    Raises:
        TrustError: as ``parse``; E-NOTFOUND.
    """
    return parse(pem.read(path), str(path))


def _texts(table: dict[str, Any], key: str, where: str, default: tuple[str, ...]) -> tuple[str, ...]:
    value = table.get(key, list(default))
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TrustError("E-CONFIG", f"{where}: {key} must be a list of texts")
    return tuple(value)


def _is_within(name: str, suffix: str) -> bool:
    return name == suffix.removeprefix(".") or name.endswith("." + suffix.removeprefix("."))


def _foreign(kind: str, requested: Sequence[str], allowed: Sequence[str]) -> list[str]:
    return [f"{kind} {quoted(name)} not allowed for this issuer" for name in requested if name not in allowed]


def _without(texts: Sequence[str], dropped: Collection[str]) -> tuple[str, ...]:
    return tuple(text for text in texts if text not in dropped)
