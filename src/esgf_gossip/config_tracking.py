"""The table ``[tracking]`` of node.toml: where events and downloads come from, who is told, how."""

from __future__ import annotations

from pathlib import Path

import attrs

from esgf_gossip.config_values import (
    SMTP_SECURITY,
    AllowedNetwork,
    DatabaseAddress,
    Days,
    DialAddress,
    HostName,
    ListenAddress,
    MailAddress,
    MailRate,
    Minutes,
    Recipients,
    SmtpSecurity,
    TopicName,
    WebAddress,
    Word,
)


@attrs.frozen
class TrackingTable:
    """
    ``[tracking]``: dataset events, downloads and mail; every part is off until what it needs is named.

    ``data_nodes`` and ``homes``: None stands for this node's host alone.
    """

    # The port of the writers: index proxy, events by POST, unsubscribing. With a certificate it speaks HTTPS.
    listen: ListenAddress | None = attrs.field(metadata={"default": ""})
    certificate: Path | None = attrs.field(metadata={"default": ""})
    key: Path | None = attrs.field(metadata={"default": ""})
    public_url: WebAddress | None = attrs.field(metadata={"default": ""})
    # Events in.
    data_nodes: tuple[HostName, ...] = attrs.field(metadata={"default": None})
    publishers: tuple[AllowedNetwork, ...] = attrs.field(metadata={"default": ["127.0.0.0/8", "::1/128"]})
    tokens_file: Path | None = attrs.field(metadata={"default": ""})
    index: WebAddress | None = attrs.field(metadata={"default": ""})
    index_certificates: Path | None = attrs.field(metadata={"default": ""})
    index_poll_minutes: Minutes = attrs.field(metadata={"default": 60})
    spool: Path | None = attrs.field(metadata={"default": ""})
    kafka: tuple[DialAddress, ...] = attrs.field(metadata={"default": []})
    kafka_topics: tuple[TopicName, ...] = attrs.field(metadata={"default": []})
    errata: WebAddress | None = attrs.field(metadata={"default": ""})
    # Who downloaded: the site's database by a role that only reads, and the projection of it.
    database: DatabaseAddress | None = attrs.field(metadata={"default": ""})
    password_file: Path | None = attrs.field(metadata={"default": ""})
    access_logs: tuple[Path, ...] = attrs.field(metadata={"default": []})
    projection: DatabaseAddress | None = attrs.field(metadata={"default": ""})
    projection_password_file: Path | None = attrs.field(metadata={"default": ""})
    keep_days: Days = attrs.field(metadata={"default": 1825})
    # Who they are.
    homes: tuple[HostName, ...] = attrs.field(metadata={"default": None})
    users_file: Path | None = attrs.field(metadata={"default": ""})
    cog_database: DatabaseAddress | None = attrs.field(metadata={"default": ""})
    cog_password_file: Path | None = attrs.field(metadata={"default": ""})
    identity_providers: bool = attrs.field(metadata={"default": True})
    address_days: Days = attrs.field(metadata={"default": 7})
    fallback_minutes: Minutes = attrs.field(metadata={"default": 360})
    # Telling them.
    smtp: DialAddress | None = attrs.field(metadata={"default": ""})
    smtp_security: SmtpSecurity = attrs.field(metadata={"default": SMTP_SECURITY[0]})
    smtp_user: Word | None = attrs.field(metadata={"default": ""})
    smtp_password_file: Path | None = attrs.field(metadata={"default": ""})
    sender: MailAddress | None = attrs.field(metadata={"default": ""})
    dkim_key: Path | None = attrs.field(metadata={"default": ""})
    dkim_selector: Word | None = attrs.field(metadata={"default": ""})
    quiet_minutes: Minutes = attrs.field(metadata={"default": 60})
    max_delay_minutes: Minutes = attrs.field(metadata={"default": 1440})
    rate_per_s: MailRate = attrs.field(metadata={"default": 10})
    domain_rate_per_s: MailRate = attrs.field(metadata={"default": 2})
    hold_above: Recipients = attrs.field(metadata={"default": 1000})
    max_age_days: Days = attrs.field(metadata={"default": 30})
    mta_log: Path | None = attrs.field(metadata={"default": ""})
    dry_run: bool = attrs.field(metadata={"default": False})
