"""
The commands ``start`` and ``restart``: the daemon in the background, for hosts without systemd.

Only starting and waiting live here; the process that is started is that of ``run``.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import click

from esgf_gossip.cli.control_client import Conversation, NoDaemonError
from esgf_gossip.cli.control_commands import end_daemon
from esgf_gossip.cli.failures import CommandError, ExitCode, error_line
from esgf_gossip.cli.options import common_options, config_option
from esgf_gossip.cli.run import daemon_command
from esgf_gossip.config import load

LOG_NAME: Final = "daemon.log"
DEADLINE_S: Final = 60
DEADLINE_S_MOST: Final = 3600
POLL_S: Final = 0.1
# A daemon that did not come up is asked to end that long, then killed.
END_S: Final = 10.0
# Its last words stand at the end of its log.
WORDS_BYTES: Final = 64 * 1024
CONVERSATION_S: Final = 2.0
# What a service manager gives to the process it started, and to no other.
_OF_A_SERVICE_MANAGER: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS")

_log_option = click.option(
    "--log",
    "log_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"Append the daemon's log to this file; default: {LOG_NAME} in the state folder.",
)
_timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=click.IntRange(1, DEADLINE_S_MOST),
    default=DEADLINE_S,
    show_default=True,
    metavar="SECONDS",
    help="How long the daemon may take until it answers; then it is ended, and the command fails.",
)


@click.command(epilog="Example: esgf-gossip start --config /etc/esgf-gossip/node.toml")
@_log_option
@_timeout_option
@config_option
@common_options
def start(config_path: Path, log_path: Path | None, timeout_s: int) -> None:
    """
    Start the daemon in the background, and wait until it answers.

    One that runs already is left as it is, and that is no error. Where it does not
    come up nothing keeps running, the reason is told, and the exit code is the daemon's: 11: it
    cannot run. Under systemd use systemctl instead.
    """
    path = config_path.absolute()
    socket_path = load(path).control_socket
    process_id = running_process(socket_path)
    if process_id is None:
        start_daemon(path, socket_path, _log_file(log_path, socket_path), timeout_s)
    else:
        click.echo(f"runs already: process {process_id}")


@click.command(epilog="Example: esgf-gossip restart --config /etc/esgf-gossip/node.toml")
@_log_option
@_timeout_option
@config_option
@common_options
def restart(config_path: Path, log_path: Path | None, timeout_s: int) -> None:
    """
    Stop the daemon in good order, if it runs, and start it in the background.

    One that systemd looks after is refused: systemctl restart does that.
    """
    path = config_path.absolute()
    socket_path = load(path).control_socket
    log = _log_file(log_path, socket_path)
    process_id = running_process(socket_path)
    if process_id is not None:
        _refuse_managed(process_id, socket_path)
        # What is surely wrong is told while the old daemon still runs.
        _open_log(log).close()
        end_daemon(path, "stop")
    start_daemon(path, socket_path, log, timeout_s)


def running_process(socket_path: Path) -> int | None:
    """
    Return the id of the process that listens on a control socket, None where nobody does.

    Raises:
        CommandError: somebody may, and cannot be asked.
    """
    try:
        with Conversation(socket_path, CONVERSATION_S) as conversation:
            return conversation.process_id
    except NoDaemonError:
        return None


def start_daemon(config_path: Path, socket_path: Path, log_path: Path, timeout_s: float) -> None:
    """
    Start a daemon that outlives us and the terminal; return once it answers.

    Raises:
        CommandError: it ended, or did not answer in time; nothing keeps running.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _OF_A_SERVICE_MANAGER}
    with _open_log(log_path) as log:
        begin = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            daemon_command(config_path),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # No terminal of ours can reach it, no folder is held in use.
            start_new_session=True,
            cwd="/",
            env=environment,
        )
    click.echo(f"starting; process {process.pid}, log {log_path}", err=True)
    with _ended_on_failure(process):
        for _ in _dots(process, timeout_s):
            if _answers(socket_path, process.pid):
                break
        else:
            code = process.poll()
            if code is not None:
                raise _not_started(code, log_path, begin)
            raise CommandError(
                f"the daemon does not answer after {timeout_s:.0f} s and was ended",
                str(log_path),
                "read that log; where it needs longer give --timeout",
                ExitCode.INTERNAL,
            )
    click.echo(f"started: process {process.pid}")


def _answers(socket_path: Path, process_id: int) -> bool:
    """Tell whether this very process serves; the socket alone is there before ports and database are open."""
    try:
        with Conversation(socket_path, CONVERSATION_S) as conversation:
            if conversation.process_id != process_id:
                return False
            conversation.ask("status")
    except CommandError:
        return False
    return True


def _dots(process: subprocess.Popen[bytes], timeout_s: float) -> Iterator[None]:
    """Pass the time while a process lives, up to the deadline; on a terminal a dot a second shows it."""
    is_watched = sys.stderr.isatty()
    per_dot = round(1 / POLL_S)
    for turn in range(1, round(timeout_s / POLL_S) + 1):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL_S)
            break
        yield
        if is_watched and turn % per_dot == 0:
            click.echo(".", nl=False, err=True)
    if is_watched:
        click.echo(err=True)


@contextlib.contextmanager
def _ended_on_failure(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End a process where its start fails, Ctrl-C included: a half started daemon must not be found later."""
    try:
        yield
    except BaseException:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
    # It is not ours any more: without this Python would warn that it still runs.
    process.returncode = 0


def _not_started(code: int, log_path: Path, begin: int) -> CommandError:
    words = [line for line in _words(log_path, begin) if line.strip()]
    prefix = error_line("esgf-gossip", "")
    told = [line.removeprefix(prefix) for line in words if line.startswith(prefix)]
    reason = told[-1] if told else (words[-1] if words else f"it ended with {code}")
    known = code in ExitCode.__members__.values()
    return CommandError(
        f"the daemon did not start: {reason}",
        str(log_path),
        "" if told else "read that log",
        ExitCode(code) if known and code else ExitCode.INTERNAL,
    )


def _words(log_path: Path, begin: int) -> list[str]:
    """Return the last lines that were written to a log since ``begin``."""
    with contextlib.suppress(OSError), log_path.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(begin, size - WORDS_BYTES))
        return log.read(WORDS_BYTES).decode(errors="replace").splitlines()
    return []


def _log_file(named: Path | None, socket_path: Path) -> Path:
    if named is not None:
        return named.absolute()
    # The daemon makes the folder likewise.
    socket_path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    return socket_path.parent / LOG_NAME


def _open_log(path: Path) -> BinaryIO:
    """
    Open a log for appending; it is made readable for its owner and group. A link is not followed.

    Raises:
        CommandError: it is no file that can be written.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o640)
    except OSError as error:
        raise CommandError(
            f"the log cannot be written ({error.strerror})",
            str(path),
            "give another with --log",
            ExitCode.FILES,
        ) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode) and str(path) != os.devnull:
        os.close(descriptor)
        raise CommandError("the log is no file", str(path), "give another with --log", ExitCode.FILES)
    return os.fdopen(descriptor, "ab", buffering=0)


def _refuse_managed(process_id: int, socket_path: Path) -> None:
    """Refuse to take a daemon away from the service manager that started it, and would start it again."""
    with contextlib.suppress(OSError):
        environment = Path(f"/proc/{process_id}/environ").read_bytes().split(b"\0")
        if any(setting.startswith(b"NOTIFY_SOCKET=") for setting in environment):
            raise CommandError(
                "a service manager looks after this daemon",
                str(socket_path),
                "use: systemctl restart esgf-gossip",
                ExitCode.REFUSED,
            )
