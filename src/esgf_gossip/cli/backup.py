"""
The commands ``backup`` and ``restore``: a node as one file, and back.

Only the conversation with the administrator lives here; see ``restoring`` and ``storage.backup_file``.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from esgf_gossip import __version__
from esgf_gossip.cli.control_client import ControlClient, NoDaemonError
from esgf_gossip.cli.failures import CommandError, ExitCode, printable
from esgf_gossip.cli.options import common_options, config_option, json_option
from esgf_gossip.cli.tables import print_json
from esgf_gossip.config import Config, load
from esgf_gossip.files import replace_file
from esgf_gossip.restoring import (
    PresentError,
    Restored,
    parts_of,
    put_back,
    put_node_toml,
    refuse_another_node,
)
from esgf_gossip.storage.backup_file import (
    STATE,
    BackupError,
    Manifest,
    unpack_backup,
    write_backup,
)
from esgf_gossip.storage.database import FILE_NAME, Database, InUseError, StorageError
from esgf_gossip.storage.history_reader import FILE_NAME as HISTORY
from esgf_gossip.storage.state_files import DOWNLOADS, copy_state
from esgf_gossip.views.node_json import utc_text

# A registry of a hundred megabytes is copied in a second; a slow disk takes its time.
COPY_TIMEOUT_S: Final = 3600.0


@click.command(epilog="Example: esgf-gossip backup /backup/node1-2026-11-27.tar.gz")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--no-keys", is_flag=True, help="Leave out what only the daemon may read: the node's keys.")
@click.option(
    "--no-history", is_flag=True, help="Leave out the history and the downloads, which may be large."
)
@config_option
@json_option
@common_options
def backup(file: Path, config_path: Path, *, no_keys: bool, no_history: bool, json_output: bool) -> None:
    """
    Write a backup of this node into FILE, while the daemon runs or not.

    In it: node.toml, registry, history, the journal of tasks, what tracking knows, the files of [esgf], the folder of
    trust. FILE holds the node's private key unless --no-keys is given: it is made readable by its owner alone; keep it so. An existing
    FILE is left untouched.
    """
    config = load(config_path)
    if file.exists():
        raise CommandError(
            "the file is there already", str(file), "name another, or remove it", ExitCode.EXISTS
        )
    manifest = Manifest(
        config.node.host,
        config.node.federation,
        __version__,
        utc_text(time.time_ns() // 10**6),
        {},
    )
    with _databases(config, file.parent) as databases:
        chosen = {
            name: path
            for name, path in databases.items()
            if not (no_history and name in (HISTORY, DOWNLOADS))
        }
        parts = parts_of(config, config_path, with_keys=not no_keys)
        parts |= {f"{STATE}/{name}": path for name, path in chosen.items()}
        with _progress("backup", sum(path.stat().st_size for path in parts.values())) as on_bytes:
            whole = write_backup(file, manifest, parts, on_bytes)
    size_bytes = file.stat().st_size
    if json_output:
        print_json({"file": str(file), "bytes": size_bytes, "parts": sorted(whole.parts)})
        return
    keys = "without keys" if no_keys else "with the node's private key: keep it safe"
    click.echo(f"{printable(str(file))}: {len(whole.parts)} files, {size_bytes / 1e6:.1f} MB, {keys}")


@contextmanager
def _databases(config: Config, room: Path) -> Iterator[Mapping[str, Path]]:
    """Give copies of the databases: by the daemon, who alone can read its registry; without one, by us."""
    try:
        answer = ControlClient(config.control_socket, COPY_TIMEOUT_S).ask("backup")
    except NoDaemonError:
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=room) as folder:
            yield _copied(config.node.state, Path(folder))
        return
    folder = Path(answer["directory"])
    try:
        yield {name: folder / name for name in answer["files"]}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copied(state: Path, folder: Path) -> dict[str, Path]:
    if not (state / FILE_NAME).exists():
        raise CommandError(
            "there is no registry",
            str(state),
            "see [node] state; has this node ever run?",
            ExitCode.NOT_FOUND,
        )
    try:
        with closing(Database(state / FILE_NAME)) as database:
            return {name: folder / name for name in copy_state(state, database, folder, lambda: False)}
    except StorageError as error:
        raise CommandError(str(error), "", "", ExitCode.FILES) from None


@contextmanager
def _progress(what: str, total_bytes: int) -> Iterator[Any]:
    """Show on a terminal how far it is; elsewhere nothing."""
    from rich.console import Console  # noqa: PLC0415 - a hundred milliseconds for the other commands
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn  # noqa: PLC0415

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), DownloadColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total_bytes)
        yield lambda count: progress.update(task, advance=count)


@click.command(epilog="Example: esgf-gossip restore /backup/node1-2026-11-27.tar.gz --replace")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--replace", is_flag=True, help="Move a registry that is there aside.")
@config_option
@json_option
@common_options
def restore(file: Path, config_path: Path, *, replace: bool, json_output: bool) -> None:
    """
    Put a node back as it was in the backup FILE; the daemon must be stopped.

    Nothing is overwritten: what is there already stays, and is named. Started again, the node takes a higher epoch and
    fetches what it missed, so that no other node sees it go back in time.
    """
    place = config_path.absolute().parent
    # Nothing is made before the backup is known to be whole.
    room = next(folder for folder in (place, *place.parents) if folder.is_dir())
    with tempfile.TemporaryDirectory(prefix=".restore-", dir=room) as folder:
        unpacked = Path(folder)
        try:
            manifest = unpack_backup(file, unpacked)
            is_new = not config_path.exists()
            if is_new:
                place.mkdir(mode=0o755, parents=True, exist_ok=True)
                replace_file(config_path.absolute(), put_node_toml(unpacked, config_path), 0o644)
            config = load(config_path)
            refuse_another_node(manifest, config)
            if ControlClient(config.control_socket).is_answering():
                raise InUseError("the daemon is running; stop it first (esgf-gossip stop)")
            done = put_back(unpacked, config, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}", replace=replace)
        except BackupError as error:
            raise CommandError(str(error), "", "nothing was changed", ExitCode.REFUSED) from None
        except PresentError as error:
            raise CommandError(
                str(error), "", "nothing was changed; --replace moves it aside", ExitCode.EXISTS
            ) from None
        except InUseError as error:
            raise CommandError(str(error), "", "", ExitCode.REFUSED) from None
        except StorageError as error:
            raise CommandError(str(error), "", "", ExitCode.FILES) from None
    if is_new:
        done.placed.insert(0, str(config_path))
    _tell(manifest, done, config_path, json_output=json_output)


def _tell(manifest: Manifest, done: Restored, config_path: Path, *, json_output: bool) -> None:
    if json_output:
        print_json(
            {
                "host": manifest.host,
                "made_at": manifest.made_at,
                "placed": done.placed,
                "kept": done.kept,
                "moved": done.moved,
            }
        )
        return
    click.echo(
        printable(f"{manifest.host} as it was {manifest.made_at}, written by version {manifest.version}")
    )
    for words, paths in (
        ("placed", done.placed),
        ("kept, it was there", done.kept),
        ("moved aside", done.moved),
    ):
        for path in paths:
            click.echo(printable(f"  {words}: {path}"))
    click.echo(printable(f"next: esgf-gossip check --config {config_path}, then start the daemon"))
