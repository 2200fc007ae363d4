"""The table ``[tracking]`` of node.toml: where events and downloads come from, who is told, how."""

from __future__ import annotations

from pathlib import Path
from typing import Final

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


def is_on(table: TrackingTable) -> bool:
    """Tell whether the table switches anything on beside the log of datasets, which every node follows."""
    return bool(
        table.listen
        or table.index
        or table.spool
        or table.kafka
        or table.errata
        or table.database
        or table.access_logs
        or table.smtp
        or table.dry_run
    )


# What says nothing without the others.
_TOGETHER: Final = (
    ("certificate", "key"),
    ("dkim_key", "dkim_selector"),
    ("smtp_user", "smtp_password_file"),
    ("kafka", "kafka_topics"),
)
# Of what a mail needs beside a server: whom it is from, and where its links lead.
_FOR_MAIL: Final = ("sender", "public_url", "listen")
# The return path of each mail is the sender's, with the number of the mail in it.
SENDER_CHARACTERS: Final = 30


def find_gap(table: TrackingTable) -> tuple[str, str]:
    """Return what is wrong with the table as a whole, and what to do; empty texts where all is well."""
    for names in _TOGETHER:
        missing = [name for name in names if not getattr(table, name)]
        if 0 < len(missing) < len(names):
            said = next(name for name in names if name not in missing)
            return f"'{said}' stands without '{missing[0]}'", f"write {missing[0]} too, or neither"
    mailing = "smtp" if table.smtp else "dry_run" if table.dry_run else ""
    for name in _FOR_MAIL if mailing else ():
        if not getattr(table, name):
            return f"'{mailing}' stands without '{name}'", f"write {name} too: mails need it"
    if table.sender and len(table.sender.partition("@")[0]) > SENDER_CHARACTERS:
        what = f"'sender' has more than {SENDER_CHARACTERS} characters before the @"
        return what, "give a shorter one"
    if table.tokens_file and not table.listen:
        return (
            "'tokens_file' stands without 'listen'",
            "write listen too: nobody can hand in events otherwise",
        )
    if table.max_delay_minutes < table.quiet_minutes:
        return (
            "'max_delay_minutes' is less than 'quiet_minutes'",
            "a mail waits for the quiet, but not longer than that",
        )
    if not table.data_nodes:
        return "'data_nodes' is empty", "name the data nodes this node speaks for, or leave it out"
    return "", ""
