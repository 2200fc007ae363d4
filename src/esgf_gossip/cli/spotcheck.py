"""
The command ``spotcheck``: would a real reader break on this registration.xml?

Only fetching and printing live here; the rules: ``esgf_gossip.esgf.spotcheck``.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

import attrs
import click

from esgf_gossip.cli.failures import CommandError, ExitCode, printable
from esgf_gossip.cli.options import common_options, json_option
from esgf_gossip.cli.tables import print_json
from esgf_gossip.esgf.spotcheck import ACME, DASHBOARD, DOCUMENT_BYTES, SPOTCHECK, Breakage
from esgf_gossip.esgf.spotcheck import spotcheck as breakages
from esgf_gossip.files import read_file

TIMEOUT_S: Final = 10.0
# What readers wait: acme-web-fe and esgf-spotcheck.
IMPATIENT_S: Final = 0.1
PATIENT_S: Final = 3.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for an answer, as the dashboard does."""

    def redirect_request(self, *_: Any) -> None:
        """Follow nothing."""


@click.command(
    epilog="Example: esgf-gossip spotcheck /esg/config/registration.xml; "
    "esgf-gossip spotcheck http://localhost:8950/registration.xml"
)
@click.argument("place", metavar="URL|FILE")
@json_option
@common_options
def spotcheck(place: str, *, json_output: bool) -> int:
    """
    Say which real reader would break on a registration.xml, and where.

    Takes any document, of this program or another. Exit code: 0 every reader takes it, 10 some would not.
    """
    is_url = place.startswith(("http://", "https://"))
    document, found = _fetched(place) if is_url else (_read(Path(place)), [])
    if document is not None:
        found.extend(breakages(document))
    if json_output:
        print_json({"place": place, "findings": [attrs.asdict(one) for one in found]})
    else:
        for one in found:
            click.echo(printable(f"rule {one.rule}: {one.where}: {one.text} ({one.readers})"))
        if not found:
            click.echo("good: every known reader takes it")
    return ExitCode.ATTENTION if found else ExitCode.DONE


def _read(path: Path) -> bytes:
    try:
        content = read_file(path, DOCUMENT_BYTES + 1)
    except OSError as error:
        raise CommandError(
            "cannot be read",
            f"{path}: {error.strerror}",
            "name a file, or a URL that begins with http://",
            ExitCode.FILES,
        ) from None
    return _bounded(content, str(path))


def _fetched(url: str) -> tuple[bytes | None, list[Breakage]]:
    """Fetch as the readers do: no redirect, and the time it took."""
    # No proxy of the environment: readers have none, and what it says is not what they see.
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
    started_s = time.monotonic()
    try:
        with opener.open(url, timeout=TIMEOUT_S) as answer:
            content = answer.read(DOCUMENT_BYTES + 1)
    except urllib.error.HTTPError as error:
        text = f"answers {error.code}; readers follow no redirect and take what comes for the document"
        return None, [Breakage(10, "server", text, f"{DASHBOARD}, {ACME}")]
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise CommandError(
            "cannot be fetched", f"{url}: {reason}", "see that it is served", ExitCode.FILES
        ) from None
    took_s = time.monotonic() - started_s
    found = []
    if took_s > IMPATIENT_S:
        readers = f"{ACME}, {SPOTCHECK}" if took_s > PATIENT_S else ACME
        found.append(Breakage(10, "server", f"took {took_s:.1f} s", readers))
    if url.startswith("https://"):
        found.append(
            Breakage(10, "server", "is asked over TLS; old readers speak plain http only", SPOTCHECK)
        )
    return _bounded(content, url), found


def _bounded(content: bytes, place: str) -> bytes:
    if len(content) > DOCUMENT_BYTES:
        raise CommandError(
            "is too large for a registration.xml", place, "is it the right one?", ExitCode.USAGE
        )
    return content
