"""
The command for notifications: notify status, list, preview, hold, release, log, export, erase.

Only question, answer and print live here; the daemon decides. No Twisted.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from esgf_gossip.cli.control_client import TIMEOUT_S, ControlClient
from esgf_gossip.cli.failures import CommandError, ExitCode, printable
from esgf_gossip.cli.options import common_options, config_option, json_option
from esgf_gossip.cli.tables import local_text, print_json, print_pairs, print_table, text_of
from esgf_gossip.config import load
from esgf_gossip.views.node_json import utc_text

LIMIT_MOST: Final = 10_000
# Of a change's key in a table; enough to name it by.
SHORT: Final = 12
# An export or an erasure goes through tables of years.
LONG_S: Final = 600.0

_change: Final = click.argument("change", metavar="CHANGE")
_person: Final = click.argument("person", metavar="ADDRESS|OPENID")
_yes: Final = click.option("--yes", is_flag=True, help="Do not ask whether that is meant.")
_limit: Final = click.option(
    "--limit", type=click.IntRange(1, LIMIT_MOST), default=100, show_default=True, help="At most so many."
)


@click.group(epilog="Example: esgf-gossip notify list")
@common_options
def notify() -> None:
    """
    See, hold and release the mails that tell users what happened to datasets they fetched.

    A CHANGE is named by the first 8 digits of its key or more, as list shows it.
    """


@notify.command("status", epilog="Example: esgf-gossip notify status --json")
@config_option
@json_option
@common_options
def status(config_path: Path, *, json_output: bool) -> None:
    """Show how many mails wait, were sent or failed, and what keeps them. Exit code 10: something does."""
    answer = _ask(config_path, "notify-status")
    if json_output:
        print_json(answer)
    else:
        print_pairs(answer)
    if answer.get("fault"):
        raise click.exceptions.Exit(ExitCode.ATTENTION)


@notify.command("list", epilog="Example: esgf-gossip notify list --limit 20")
@_limit
@config_option
@json_option
@common_options
def list_(limit: int, config_path: Path, *, json_output: bool) -> None:
    """Show the changes that users were matched with, newest first, and how many of them were told."""
    answer = _ask(config_path, "notify-list", limit=limit)
    if json_output:
        print_json(answer)
        return
    rows = [
        (
            text_of(one.get("change"))[:SHORT],
            one.get("kind"),
            one.get("dataset"),
            local_text(_stamp(one.get("occurred_ms"))),
            _state(one),
            one.get("recipients"),
            text_of(one.get("persons")),
        )
        for one in answer
    ]
    columns = ("change", "kind", "dataset", "when", "state", "users", "persons")
    print_table(columns, rows, least=("when", "persons"), none="no user was matched with any change")


@notify.command(
    "preview", epilog="Example: esgf-gossip notify preview 1f0c22ab --to https://idp.example.org/openid/jane"
)
@_change
@click.option(
    "--to",
    default="",
    metavar="ADDRESS|OPENID",
    help="As this person would get it; else as somebody made up.",
)
@click.option("--html", is_flag=True, help="Print its HTML part, in place of the plain text.")
@config_option
@json_option
@common_options
def preview(change: str, to: str, config_path: Path, *, html: bool, json_output: bool) -> None:
    """
    Print the mail about a change; nothing is sent.

    It is the mail word for word, but that its links lead nowhere: those that work are the receiver's own.
    Exit code 5: no such change, or it does not concern that person.
    """
    answer = _ask(config_path, "notify-preview", change=change, to=to)
    if json_output:
        print_json(answer)
        return
    said = f"{_state(answer)}, {answer.get('recipients')} users"
    click.echo(printable(f"Change: {answer.get('change')} ({said})"))
    click.echo(printable(f"Subject: {answer.get('subject')}"))
    click.echo("")
    for line in text_of(answer.get("html" if html else "text")).splitlines():
        click.echo(printable(line))


@notify.command("hold", epilog="Example: esgf-gossip notify hold 1f0c22ab")
@_change
@config_option
@json_option
@common_options
def hold(change: str, config_path: Path, *, json_output: bool) -> None:
    """Hold a change: who was not mailed yet is not, until somebody else releases it."""
    _tell_standing(_ask(config_path, "notify-hold", change=change, who=who_asks()), json_output=json_output)


@notify.command("release", epilog="Example: esgf-gossip notify release 1f0c22ab")
@_change
@_yes
@config_option
@json_option
@common_options
def release(change: str, config_path: Path, *, yes: bool, json_output: bool) -> None:
    """
    Release a change that is held.

    Two people are needed: of one that was held because it has very many recipients, or because another node contests
    it, the first asks and the second releases; of one that was held by hand somebody else than who held it.
    """
    seen = _ask(config_path, "notify-preview", change=change, to="")
    if not yes:
        click.echo(printable(f"Change: {seen.get('change')} ({_state(seen)})"), err=True)
        click.echo(printable(f"{seen.get('subject')} - {seen.get('recipients')} users"), err=True)
        click.confirm("Shall they be mailed?", abort=True, err=True)
    answer = _ask(config_path, "notify-release", change=change, who=who_asks(), confirm=True)
    _tell_standing(answer, json_output=json_output)


@notify.command("log", epilog="Example: esgf-gossip notify log --change 1f0c22ab")
@click.option("--change", default="", metavar="CHANGE", help="Only what concerns this change.")
@click.option("--person", default="", metavar="ADDRESS|OPENID", help="Only what concerns this person.")
@_limit
@config_option
@json_option
@common_options
def log(change: str, person: str, limit: int, config_path: Path, *, json_output: bool) -> None:
    """Show the audit: what was matched, held, queued, tried, and what the mail server answered. No address is in it."""
    answer = _ask(config_path, "notify-log", change=change, person=person, limit=limit)
    if json_output:
        print_json(answer)
        return
    rows = [
        (
            local_text(_stamp(one.get("at_ms"))),
            one.get("step"),
            text_of(one.get("change"))[:SHORT],
            text_of(one.get("person"))[:SHORT],
            one.get("mail"),
            one.get("code"),
            one.get("detail"),
        )
        for one in answer
    ]
    print_table(
        ("when", "step", "change", "person", "mail", "code", "detail"),
        rows,
        least=("person",),
        none="nothing",
    )


@notify.command("export", epilog="Example: esgf-gossip notify export jane@example.org > jane.json")
@_person
@config_option
@common_options
def export(person: str, config_path: Path) -> None:
    """Print everything this node knows of a person, as JSON. Exit code 5: it knows nothing of that person."""
    told = _ask(config_path, "notify-export", LONG_S, person=person)
    if not _is_anything(told, person.strip()):
        raise CommandError("nothing is known here of that address or OpenID", "", "", ExitCode.NOT_FOUND)
    print_json(told)


@notify.command("erase", epilog="Example: esgf-gossip notify erase jane@example.org")
@_person
@_yes
@config_option
@json_option
@common_options
def erase(person: str, config_path: Path, *, yes: bool, json_output: bool) -> None:
    """
    Erase everything this node knows of a person.

    What stays is a keyed hash, so that nothing is mailed of what had happened before, and the wish for silence if there
    was one. By an OpenID also downloads are found that no mail was about.
    """
    if not yes:
        click.confirm("It cannot be brought back. Erase?", abort=True, err=True)
    answer = _ask(config_path, "notify-erase", LONG_S, person=person, confirm=True)
    if json_output:
        print_json(answer)
        return
    note = answer.pop("note", "")
    print_pairs(answer)
    if note:
        click.echo(printable(f"esgf-gossip: {text_of(note)}"), err=True)


def who_asks() -> str:
    """Return the user who asks: the one before sudo, for root is no person."""
    name = os.environ.get("SUDO_USER", "") if os.geteuid() == 0 else ""
    try:
        # By the user's number where it can be: $LOGNAME is whatever somebody set.
        return name or _user_name()
    except (OSError, KeyError):
        raise CommandError(
            "it cannot be told who asks", "", "run this as a user that has a name", ExitCode.REFUSED
        ) from None


def _user_name() -> str:
    import pwd  # noqa: PLC0415 - only where somebody asks

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return getpass.getuser()


def _is_anything(told: Any, asked: str) -> bool:
    """Tell whether an export has more in it than empty lists, usual wishes and the OpenID that was asked for."""
    if isinstance(told, Mapping):
        return any(_is_anything(value, asked) for value in told.values())
    if isinstance(told, list):
        return any(_is_anything(value, asked) for value in told)
    return bool(told) and not (told == asked and "://" in asked)


def _state(change: Mapping[str, Any]) -> str:
    """Return how a change stands, and who or what holds it."""
    state, held_by = text_of(change.get("state")), text_of(change.get("held_by"))
    return f"{state}: {held_by}" if state == "held" and held_by else state


def _tell_standing(answer: Mapping[str, Any], *, json_output: bool) -> None:
    if json_output:
        print_json(answer)
        return
    state = text_of(answer.get("state"))
    if state == "held" and answer.get("asked_by"):
        # Said where the state is: who reads only that would take it for refused, or for done.
        state += f": {answer.get('asked_by')} asked for its release; another person must release it now"
    click.echo(printable(f"{text_of(answer.get('change_key'))[:SHORT]} {state}"))


def _ask(config_path: Path, command: str, timeout_s: float = TIMEOUT_S, **fields: Any) -> Any:
    return ControlClient(load(config_path).control_socket, timeout_s).ask(command, **fields)


def _stamp(at_ms: Any) -> str:
    return utc_text(at_ms) if isinstance(at_ms, int) else ""
