"""
The commands of the task queue: submit, list, retry, discard.

They work on the folder, whether a daemon runs or not; one that runs is told to look. No Twisted.
"""

from __future__ import annotations

import heapq
import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import click

from esgf_gossip.cli.control_client import ControlClient
from esgf_gossip.cli.failures import CommandError, ExitCode, printable
from esgf_gossip.cli.options import common_options, config_option, json_option, read_input
from esgf_gossip.cli.tables import local_text, print_json, print_table
from esgf_gossip.config import Config, load
from esgf_gossip.sources.spool import (
    CUR,
    DONE,
    FAILED,
    NEW,
    REASON,
    Found,
    Spool,
    SpoolError,
    new_name,
    shown,
)
from esgf_gossip.storage.task_journal import FILE_NAME, JournalError, read_notes
from esgf_gossip.tasks.actions import ACTIONS, ARGUMENTS
from esgf_gossip.tasks.task import FILE_BYTES, Task, TaskError, parse_task
from esgf_gossip.views.node_json import utc_text

WAKE_TIMEOUT_S: Final = 2.0
LIST_MOST: Final = 100_000
_STATES: Final = {"failed": FAILED, "running": CUR, "waiting": NEW, "done": DONE}


@attrs.frozen
class Place:
    """The queue of one node, as its configuration names it."""

    config: Config
    spool: Spool

    def wake(self) -> bool:
        """Have the daemon look now; tell whether one answered."""
        try:
            ControlClient(self.config.control_socket, WAKE_TIMEOUT_S).ask("wake-tasks")
        except (CommandError, OSError):
            return False
        return True


def _place(config_path: Path) -> Place:
    config = load(config_path)
    folder = config.tasks.directory
    if folder is None:
        raise CommandError(
            "the task queue is switched off",
            str(config_path),
            "set directory under [tasks]",
            ExitCode.REFUSED,
        )
    if not folder.is_dir():
        raise CommandError(
            "there is no such folder of tasks",
            str(folder),
            "start the daemon once: it makes it",
            ExitCode.FILES,
        )
    # Whoever may see the folder may read what lies in it: whose files the daemon takes is its own affair.
    return Place(config, _EveryOwner(folder))


class _EveryOwner(Spool):
    """The folder as an administrator sees it: files of every owner are shown."""

    def is_accepted(self, owner: int) -> bool:  # noqa: ARG002 - whoever it is
        """Accept every owner."""
        return True


@click.group(epilog="Example: esgf-gossip task list --state failed")
@common_options
def task() -> None:
    """Hand in tasks for the daemon, see how they stand, try them again or throw them away."""


@task.command(
    epilog="Actions: "
    + "; ".join(f"{name}: {action.about}" for name, action in ACTIONS.items())
    + ". Example: esgf-gossip task submit reload.json"
)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@config_option
@json_option
@common_options
def submit(file: Path, config_path: Path, *, json_output: bool) -> None:
    """
    Hand in the task in FILE, or the one on stdin where FILE is "-".

    It is a JSON object with an action, its arguments, and if you like an id and a
    key; see docs/operations.md. Prints the id. Without a daemon the task waits for one.
    Exit code 4: it is no task.
    """
    place = _place(config_path)
    content = read_input(file, FILE_BYTES)
    name = new_name()
    try:
        found = parse_task(content, name, ARGUMENTS)
    except TaskError as error:
        raise CommandError(str(error), str(file), "", ExitCode.REFUSED) from None
    fields = json.loads(content)
    if "id" not in fields:
        found = attrs.evolve(
            found, id=f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(6)}"
        )
    place.spool.submit(name, json.dumps({**fields, "id": found.id}).encode())
    is_told = place.wake()
    if json_output:
        print_json({"id": found.id, "name": name, "daemon": is_told})
    else:
        click.echo(found.id)
    if not is_told:
        click.echo("esgf-gossip: attention: no daemon answers; the task waits for it", err=True)


@task.command("list", epilog="Example: esgf-gossip task list --state failed --json")
@click.option("--state", type=click.Choice(list(_STATES)), help="Only these; without it all but those done.")
@click.option(
    "--limit",
    type=click.IntRange(1, LIST_MOST),
    default=100,
    show_default=True,
    help="At most so many of each state: the oldest that wait, else the newest.",
)
@click.option("--notes", is_flag=True, help="Show the lines that tasks have noted, in place of tasks.")
@config_option
@json_option
@common_options
def list_(state: str | None, limit: int, config_path: Path, *, notes: bool, json_output: bool) -> None:
    """Show the tasks: those that failed and why, those that run, those that wait in their order."""
    if notes and state:
        raise click.UsageError("--notes and --state exclude each other")
    place = _place(config_path)
    if notes:
        _show_notes(place, limit, json_output=json_output)
        return
    counts: dict[str, int] = {}
    rows: list[dict[str, Any]] = []
    for name, folder in _STATES.items():
        counts[name], found = _oldest_or_newest(place.spool, folder, limit)
        if state == name or (state is None and folder != DONE):
            rows.extend(_row(place.spool, name, folder, one) for one in found)
    if json_output:
        print_json({"counts": counts, "tasks": rows})
        return
    click.echo(", ".join(f"{count} {name}" for name, count in counts.items()))
    if rows:
        columns = ("state", "since", "name", "id", "action", "key", "reason")
        print_table(
            columns,
            [
                [local_text(row["since"]) if column == "since" else row[column] for column in columns]
                for row in rows
            ],
        )


def _oldest_or_newest(spool: Spool, folder: str, limit: int) -> tuple[int, list[Found]]:
    count = 0

    def counted() -> Iterator[Found]:
        nonlocal count
        for one in spool.look(folder):
            if not one.name.endswith(REASON):
                count += 1
                yield one

    if folder in (NEW, CUR):
        found = heapq.nsmallest(limit, counted())
    else:
        found = heapq.nlargest(limit, counted(), key=lambda one: one.moved_ns)
    return count, found


def _row(spool: Spool, state: str, folder: str, found: Found) -> dict[str, Any]:
    read = _read(spool, folder, found.name)
    since_ns = found.written_ns if folder in (NEW, CUR) else found.moved_ns
    return {
        "name": shown(found.name),
        "state": state,
        "since": utc_text(since_ns // 10**6),
        "id": "" if read is None else read.id,
        "action": "" if read is None else read.action,
        "key": "" if read is None else read.key,
        "reason": spool.reason(folder, found.name) if folder in (DONE, FAILED) else "",
    }


def _read(spool: Spool, folder: str, name: str) -> Task | None:
    try:
        return parse_task(spool.read(folder, name, FILE_BYTES), name, ARGUMENTS)
    except (OSError, SpoolError, TaskError):
        return None


def _show_notes(place: Place, limit: int, *, json_output: bool) -> None:
    try:
        notes = read_notes(place.config.node.state / FILE_NAME, limit)
    except JournalError as error:
        raise CommandError(str(error), "", "", ExitCode.FILES) from None
    rows = [{"at": utc_text(note.at_ms), "id": note.id, "text": note.text} for note in notes]
    if json_output:
        print_json(rows)
    else:
        print_table(("when", "id", "note"), [(local_text(row["at"]), row["id"], row["text"]) for row in rows])


_NAMES: Final = click.argument("names", nargs=-1, metavar="[NAME]...")
_ALL: Final = click.option("--all", "everything", is_flag=True, help="All that failed.")


@task.command(epilog="Example: esgf-gossip task retry --all")
@_NAMES
@_ALL
@config_option
@json_option
@common_options
def retry(names: Sequence[str], config_path: Path, *, everything: bool, json_output: bool) -> None:
    """
    Hand in again what failed: by the name of the file or the id, as list shows them.

    It comes in the place that its time gives it. Exit code 5: no such task failed.
    """
    place = _place(config_path)

    def work(folder: str, name: str) -> None:
        del folder
        try:
            place.spool.retry(name)
        except FileExistsError:
            raise CommandError(
                f"another task waits under the name {name!r}", "", "let it be done first", ExitCode.EXISTS
            ) from None

    moved = _each(place, names, (FAILED,), work, everything=everything)
    if moved:
        place.wake()
    _tell("handed in again", moved, json_output=json_output)


@task.command(epilog="Example: esgf-gossip task discard 20260102T030405Z-9f2c6a1b04de")
@_NAMES
@_ALL
@config_option
@json_option
@common_options
def discard(names: Sequence[str], config_path: Path, *, everything: bool, json_output: bool) -> None:
    """
    Throw tasks away, those that failed or wait: by the name of the file or the id, as list shows them.

    Exit code 4: it runs, or is a folder with something in it; 5: there is no such task.
    """
    place = _place(config_path)

    def work(folder: str, name: str) -> None:
        if folder == CUR:
            raise CommandError(
                f"the task {name!r} was begun", "", "wait until it has ended", ExitCode.REFUSED
            )
        try:
            place.spool.discard(folder, name)
        except OSError as error:
            raise CommandError(
                f"{name!r} cannot be removed: {error.strerror}",
                str(place.spool.path / folder),
                "",
                ExitCode.REFUSED,
            ) from None

    _tell(
        "discarded",
        _each(place, names, (FAILED, NEW, CUR), work, everything=everything),
        json_output=json_output,
    )


def _each(
    place: Place,
    names: Sequence[str],
    folders: Sequence[str],
    work: Callable[[str, str], None],
    *,
    everything: bool,
) -> list[str]:
    """Do something with every task that is named, or with all that failed; return the names of their files."""
    if bool(names) == everything:
        raise click.UsageError("name one or more tasks, or say --all")
    if everything:
        found = [(FAILED, one.name) for one in place.spool.look(FAILED) if not one.name.endswith(REASON)]
    else:
        # All of them first: a typing error in the last changes nothing.
        found = [_find(place.spool, name, folders) for name in names]
    for folder, name in found:
        work(folder, name)
    return [name for _, name in found]


def _find(spool: Spool, wanted: str, folders: Sequence[str]) -> tuple[str, str]:
    is_name = "/" not in wanted and "\0" not in wanted and not wanted.startswith(".")
    for folder in folders:
        if is_name and not wanted.endswith(REASON) and spool.holds(folder, wanted):
            return folder, wanted
    for folder in folders:
        for one in spool.look(folder):
            read = None if one.name.endswith(REASON) else _read(spool, folder, one.name)
            if read is not None and read.id == wanted:
                return folder, one.name
    raise CommandError(
        f"there is no task {wanted[:128]!r}", str(spool.path), "see esgf-gossip task list", ExitCode.NOT_FOUND
    )


def _tell(what: str, names: Sequence[str], *, json_output: bool) -> None:
    told = [shown(name) for name in names]
    if json_output:
        print_json(told)
        return
    for name in told:
        click.echo(printable(f"{what}: {name}"))
    if not told:
        click.echo("nothing failed")
