"""
Reading again what a running daemon may change without a stop: configuration, trust, site data, the log.

Each part that is wrong is told, and what was in force for that part stays.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
from twisted.logger import Logger

from esgf_gossip.config import Config, ConfigError, DocumentsTable, NodeTable, load
from esgf_gossip.core.origin import Origin
from esgf_gossip.esgf.metrics import METRICS
from esgf_gossip.esgf.site_data import SiteError
from esgf_gossip.log_output import LogOutput, LogRule
from esgf_gossip.net.trust_keeper import TrustKeeper
from esgf_gossip.own_site import OwnSite
from esgf_gossip.preparing import trust_place
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.views.judgement import REGISTRATION

# What needs a restart stays as it is until then; so does [node] but for the log, above all the name: a node that
# took another node's name and key without a new start would speak for both.
_AT_START: Final = ("gossip", "http", "outputs", "tasks", "tracking")
_RESTART: Final = "[{}] changed; restart the daemon for it"


@attrs.frozen
class Reload:
    """What a reload came to: parts now in force, what was wrong, what to look at; one line each."""

    changed: list[str] = attrs.field(factory=list)
    refused: list[str] = attrs.field(factory=list)
    findings: list[str] = attrs.field(factory=list)


class Reloading:
    """
    Reads again, and puts into force what is right.

    Args:
        path: of node.toml.
        trust: of this node.
        site: what it says of itself.
        origin: whether it publishes still.
        log_output: how the log is written; None where Twisted's runners write it.
        say: publishes what the site says now.
        take_documents: puts ``[documents]`` into force; tells whether it is another than before.
    """

    log = Logger()

    def __init__(
        self,
        path: Path,
        trust: TrustKeeper,
        site: OwnSite,
        origin: Origin,
        log_output: LogOutput | None,
        say: Callable[[], object],
        take_documents: Callable[[DocumentsTable], bool],
    ) -> None:
        self._path: Final = path
        self._trust: Final = trust
        self._site: Final = site
        self._origin: Final = origin
        self._log_output: Final = log_output
        self._say: Final = say
        self._take_documents: Final = take_documents

    def read(self, config: Config) -> tuple[Config, Reload]:
        """Read everything again; return the configuration in force from now on, and what it came to."""
        outcome = Reload()
        wanted = self._wanted(config, outcome)
        self._read_trust(wanted, outcome)
        config = self._read_site(config, wanted, outcome)
        if self._take_documents(wanted.documents):
            outcome.changed.append("documents")
        if self._origin.publication.stopped:
            outcome.refused.append(f"this node publishes no more: {self._origin.publication.stopped}")
        for line in outcome.refused + outcome.findings:
            self.log.warn("reload: {line}", line=line)
        self.log.info("reloaded; changed: {changed}", changed=", ".join(outcome.changed) or "nothing")
        return config, outcome

    def _wanted(self, config: Config, outcome: Reload) -> Config:
        try:
            wanted = load(self._path)
        except ConfigError as error:
            outcome.refused.append(f"{error}; the configuration in force stays")
            return config
        node = _with_log_of(config.node, wanted.node)
        if self._log_output is not None and node != config.node:
            self._log_output.use(LogRule.read(node.log_format, node.log_levels))
            outcome.changed.append("log")
        if node != wanted.node:
            outcome.findings.append(_RESTART.format("node"))
        outcome.findings.extend(
            _RESTART.format(name) for name in _AT_START if getattr(config, name) != getattr(wanted, name)
        )
        return attrs.evolve(wanted, node=node, **{name: getattr(config, name) for name in _AT_START})

    def _read_trust(self, config: Config, outcome: Reload) -> None:
        try:
            if self._trust.load_again(trust_place(config)):
                outcome.changed.append("trust")
            outcome.findings.extend(note.text for note in self._trust.material.notes)
        except TrustError as error:
            outcome.refused.append(f"{error}; the trust in force stays")

    def _read_site(self, config: Config, wanted: Config, outcome: Reload) -> Config:
        before = self._site.entries()
        try:
            site = self._site.read(wanted)
        except SiteError as error:
            outcome.refused.append(f"{error}; the registration in force stays")
            # What is not of the site comes into force all the same.
            return attrs.evolve(config, node=wanted.node, documents=wanted.documents)
        policy = self._site.policy
        self._site.take(wanted, site)
        self._say()
        outcome.changed.extend(self._site.policy.changed_since(policy))
        outcome.findings.extend(str(finding) for finding in site.findings)
        after = self._site.entries()
        # Health and resources move by themselves; these two by what was read.
        outcome.changed.extend(
            name for name in (REGISTRATION, METRICS) if before.get(name) != after.get(name)
        )
        return wanted


def _with_log_of(node: NodeTable, wanted: NodeTable) -> NodeTable:
    """Return a table with the log of another: how it is written changes at once, all else of it at a start."""
    return attrs.evolve(node, log_format=wanted.log_format, log_levels=wanted.log_levels)
