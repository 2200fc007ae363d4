"""What ``check`` looks at in ``[tracking]``: files and their modes, certificates, keys, optional libraries."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from esgf_gossip.cli.failures import printable
from esgf_gossip.config import Config
from esgf_gossip.config_tracking import TrackingTable, is_on


def tracking_faults(config: Config) -> Iterator[str]:
    """Give a line for each thing in ``[tracking]`` that will not work, the worst kind first."""
    table = config.tracking
    if not is_on(table):
        return
    yield from _of_trust(config)
    yield from _of_extras(table)
    secrets = {
        "tokens_file": table.tokens_file,
        "users_file": table.users_file,
        "password_file": table.password_file,
        "projection_password_file": table.projection_password_file,
        "cog_password_file": table.cog_password_file,
        "smtp_password_file": table.smtp_password_file,
        "dkim_key": table.dkim_key,
    }
    for key, path in secrets.items():
        if path is not None:
            yield from _of_secret(key, path)
    for path in table.access_logs:
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            yield f"access_logs {path}: {error.strerror}; correct it, or let the daemon's user read it"
    if table.smtp is not None and not (table.database or table.users_file or table.cog_database):
        yield (
            "smtp is there, but nothing that knows addresses: name database, users_file or cog_database, or only "
            "identity providers are asked"
        )
    if (table.database or table.access_logs) and table.listen is None and table.index is None:
        yield "downloads are read, but no source of events of this site is named: it tells of those of others alone"


def database_fault(table: TrackingTable) -> str:
    """Ask the database of downloads for a row; return why that fails, or an empty text. Blocks for some seconds."""
    from esgf_gossip.sources.access_log import AccessLog  # noqa: PLC0415 - who has no database needs it not
    from esgf_gossip.sources.gauge import SourceError  # noqa: PLC0415
    from esgf_gossip.sources.log_position import LogPosition  # noqa: PLC0415

    if table.database is None or table.access_logs:
        # Access logs go before the table.
        return ""
    if not importlib.util.find_spec("psycopg") or (table.password_file and not table.password_file.exists()):
        # That is a finding already.
        return ""
    try:
        AccessLog(table.database, table.password_file, rows=1).read(LogPosition(), 0, is_rechecking=False)
    except SourceError as error:
        return printable(str(error))
    return ""


def _of_trust(config: Config) -> Iterator[str]:
    from esgf_gossip.trust.errors import TrustError  # noqa: PLC0415 - brings cryptography
    from esgf_gossip.trust.web_tls import HostCertificate, ServicePolicy  # noqa: PLC0415

    table = config.tracking
    try:
        if table.certificate is not None and table.key is not None:
            HostCertificate(table.certificate, table.key)
        if table.index_certificates is not None:
            ServicePolicy(table.index_certificates)
    except (TrustError, OSError) as error:
        yield printable(str(error))
    if table.dkim_key is not None and table.dkim_selector is not None and table.sender is not None:
        from esgf_gossip.tracking.mail_signing import SigningError, make_signer  # noqa: PLC0415

        try:
            make_signer(table.dkim_key, table.dkim_selector, table.sender.rpartition("@")[2])
        except SigningError as error:
            yield printable(str(error))


def _of_extras(table: TrackingTable) -> Iterator[str]:
    wants_postgres = table.database or table.projection or table.cog_database
    for is_wanted, module, extra in (
        (wants_postgres, "psycopg", "postgres"),
        (table.kafka, "confluent_kafka", "kafka"),
    ):
        if is_wanted and importlib.util.find_spec(module) is None:
            yield f"{module} is not installed; pip install 'esgf-gossip[{extra}]'"


def _of_secret(key: str, path: Path) -> Iterator[str]:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        yield f"{key} {path}: {error.strerror}; correct it"
        return
    if mode & 0o007:
        yield f"{key} {path} can be read by others; chmod 600 {path}"
