"""
The command ``init``: the folder of a new node.

Only writing what does not exist yet lives here: node.toml for a person to read
and change, the folders, the key and the request for a certificate.
"""

from __future__ import annotations

import shlex
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click

from esgf_gossip.addresses import check_host, format_address, parse_address
from esgf_gossip.cli.failures import CommandError, ExitCode
from esgf_gossip.cli.options import common_options, json_option
from esgf_gossip.cli.tables import print_json
from esgf_gossip.config import from_document, toml_string
from esgf_gossip.files import create_file

_SITE_FILES: Final = ("esgf.properties", "config_type")
ESGF_CONFIG: Final = Path("/esg/config")
# esgf.properties may hold passwords; what may leave the host is decided when it is read.
_SITE_FILE_MODE: Final = 0o600
_SITE_FILE_BYTES: Final = 1024 * 1024
# A certificate carries sixteen names; some are left for other DNS names and roles.
_GROUPS_REQUESTED: Final = 10

_NODE_TOML: Final = """\
# The configuration of one node of an ESGF federation, for esgf-gossip.
# Relative paths are relative to this file. See it with all defaults: esgf-gossip check --show --config FILE

[node]
# The one name of this node: equal to esgf.host in esgf.properties and to the name in its certificate.
host = {host}
federation = {federation}
# Database, control socket and, unless [outputs] says otherwise, the files written for other programs.
state = {state}

[gossip]
# Where this node listens for its peers.
{listen}
# Where others reach it, "host:port"; port 0: not at all, this node only dials out.
{advertise}
# Nodes to dial first, "host:port"; two or three are enough. An address to dial, never an identity.
seeds = [{seeds}]

[trust]
# node.key, chain.pem and the folders roots/ and crl/. Nobody but the daemon's user may read the key.
directory = "trust"

[esgf]
# What the site says of itself.
properties = "esgf.properties"
config_type = "config_type"
# Access groups, one a line: name = description.
# groups = "groups.txt"
# Further property keys that may leave this host; everything published is public to all members.
# publish = []

[outputs]
# An ESGF site sets "/esg/config". Default: the state folder.
# directory = "/esg/config"

[http]
# Registration and status for local programs, read-only; "" switches it off.
# listen = "127.0.0.1:8950"
"""


def _checked(check: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def callback(_: click.Context, __: click.Parameter, value: Any) -> Any:
        try:
            if isinstance(value, tuple):
                return tuple(check(item) for item in value)
            return value if value is None else check(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return callback


@click.command(
    epilog="Example: esgf-gossip init /etc/esgf-gossip --federation esgf.example.org "
    "--host node.example.org --seed seed.example.org:8951 --from-esgf /esg/config"
)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--federation", metavar="F", callback=_checked(check_host), help="The federation's name, a DNS name."
)
@click.option(
    "--host",
    metavar="H",
    callback=_checked(check_host),
    help="The node's one name, a DNS name: its esgf.host.",
)
@click.option(
    "--seed",
    "seeds",
    multiple=True,
    metavar="HOST:PORT",
    callback=_checked(parse_address),
    help="A node to dial first; may be repeated. The first node of a federation has none.",
)
@click.option(
    "--advertise",
    metavar="HOST:PORT",
    callback=_checked(lambda text: parse_address(text, 0)),
    help="Where others dial this node; port 0: it only dials out. Default: H:8951. It listens on "
    "[gossip] listen of node.toml, whatever stands here.",
)
@click.option(
    "--from-esgf",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Copy esgf.properties and config_type of an ESGF site from there.",
)
@click.option(
    "--state",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Folder of database and control socket, such as /var/lib/esgf-gossip under systemd. Default: DIR/state.",
)
@json_option
@common_options
def init(
    directory: Path,
    federation: str | None,
    host: str | None,
    seeds: Sequence[tuple[str, int]],
    advertise: tuple[str, int] | None,
    from_esgf: Path | None,
    state: Path | None,
    *,
    json_output: bool,
) -> None:
    """
    Make the folder of a new node: node.toml, state, trust, its key and the request for its certificate.

    Nothing that exists is overwritten. What is missing is asked for where stdin is a terminal, and each answer is
    checked; with --from-esgf the host is that of the site. Run it as the user the daemon will run as: it owns the key.
    """
    is_guided = _is_terminal() and not (federation and host)
    if is_guided and from_esgf is None and _is_site(ESGF_CONFIG):
        from_esgf = ESGF_CONFIG if _confirmed(f"Take over the site's files from {ESGF_CONFIG}?") else None
    copies = _site_files(from_esgf) if from_esgf else {}
    federation = federation or _ask("--federation", "Name of the federation")
    host = host or _ask("--host", "Name of this node (its esgf.host)", _host_of(copies))
    if is_guided and not seeds:
        seeds = _ask_seeds()
    if from_esgf:
        _refuse_other_host(copies["esgf.properties"], from_esgf / "esgf.properties", host)
    directory = directory.absolute()
    state_name = "state" if state is None else str(state.absolute())
    text = node_toml(host, federation, seeds, advertise=advertise, state=state_name)
    for name in ("node.toml", *copies, "trust/node.key"):
        if _exists(directory / name):
            raise CommandError(
                "exists already and is never overwritten",
                str(directory / name),
                "give another DIR",
                ExitCode.EXISTS,
            )
    request = _write(directory, text, copies, host, federation, directory / state_name)
    if json_output:
        print_json(
            {
                "directory": str(directory),
                "config": str(directory / "node.toml"),
                "request": str(request.path),
                "fingerprint": request.fingerprint,
                "fingerprint_words": request.words,
            }
        )
    else:
        _say_next_steps(directory, request, has_site_data=bool(copies))


def node_toml(
    host: str,
    federation: str,
    seeds: Sequence[tuple[str, int]],
    *,
    advertise: tuple[str, int] | None = None,
    listen: tuple[str, int] | None = None,
    state: str = "state",
) -> str:
    """Write a node.toml for people: the keys that differ from node to node, the others as comments."""
    return _NODE_TOML.format(
        host=toml_string(host),
        federation=toml_string(federation),
        state=toml_string(state),
        listen=f"listen = {toml_string(format_address(listen))}" if listen else '# listen = "[::]:8951"',
        advertise=f"advertise = {toml_string(format_address(advertise))}"
        if advertise
        else f'# advertise = "{host}:8951"',
        seeds=", ".join(toml_string(format_address(seed)) for seed in seeds),
    )


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _confirmed(question: str) -> bool:
    return click.confirm(question, default=True, err=True)


def _is_site(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _SITE_FILES)


def _host_of(copies: dict[str, bytes]) -> str | None:
    """Return the esgf.host of the site's files, if they name a good one."""
    from esgf_gossip.esgf.properties import PropertiesError, parse_properties  # noqa: PLC0415 - init alone needs it

    try:
        return check_host(parse_properties(copies.get("esgf.properties", b"")).get("esgf.host", ""))
    except (PropertiesError, ValueError):
        return None


def _ask_seeds() -> tuple[tuple[str, int], ...]:
    """Ask for nodes to dial first until the answer is empty."""
    found: list[tuple[str, int]] = []
    question = "A node to dial first, HOST:PORT (empty: this is the first of the federation)"

    def proof(text: str) -> tuple[str, int] | None:
        if not text.strip():
            return None
        try:
            return parse_address(text.strip())
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    while (
        seed := click.prompt(question, default="", show_default=False, value_proc=proof, err=True)
    ) is not None:
        found.append(seed)
        question = "Another, HOST:PORT (empty: no more)"
    return tuple(found)


def _ask(option: str, question: str, usual: str | None = None) -> str:
    if not _is_terminal():
        if usual is not None:
            return usual
        raise click.UsageError(f"{option} is missing")

    def proof(text: str) -> str:
        try:
            return check_host(text.strip())
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    answer: str = click.prompt(question, default=usual, value_proc=proof, err=True)
    return answer


def _site_files(folder: Path) -> dict[str, bytes]:
    copies = {}
    for name in _SITE_FILES:
        try:
            with (folder / name).open("rb") as file:
                copies[name] = file.read(_SITE_FILE_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            raise CommandError(
                "the site has no such file",
                str(folder / name),
                "give --from-esgf the folder that holds esgf.properties and config_type, or leave it out "
                "and put both into DIR later",
                ExitCode.FILES,
            ) from None
        if len(copies[name]) > _SITE_FILE_BYTES:
            raise CommandError(
                "is too large for a site's file", str(folder / name), "see --from-esgf", ExitCode.USAGE
            )
    return copies


def _refuse_other_host(content: bytes, path: Path, host: str) -> None:
    from esgf_gossip.esgf.properties import PropertiesError, parse_properties  # noqa: PLC0415 - init alone needs it

    try:
        found = parse_properties(content, str(path)).get("esgf.host", "")
    except PropertiesError as error:
        raise CommandError(str(error), "", "", ExitCode.USAGE) from None
    if found != host:
        raise click.UsageError(
            f"--host is {host}, but esgf.host is {found or 'not set'} in {path}: give one name"
        )


def _exists(path: Path) -> bool:
    # A dangling symlink counts: writing would go to where it points.
    return path.is_symlink() or path.exists()


def _write(
    directory: Path, text: str, copies: dict[str, bytes], host: str, federation: str, state: Path
) -> Any:
    from esgf_gossip.trust.errors import TrustError  # noqa: PLC0415 - brings cryptography
    from esgf_gossip.trust.requests import make_request  # noqa: PLC0415

    # What was made of the options must read back, before anything is on disk.
    from_document(tomllib.loads(text), directory / "node.toml")
    directory.mkdir(parents=True, exist_ok=True)
    for folder, mode in ((state, 0o755), (directory / "trust", 0o700)):
        if not folder.is_dir():
            folder.mkdir(mode=mode)
    for name, content in copies.items():
        create_file(directory / name, content, _SITE_FILE_MODE)
    try:
        request = make_request(directory / "trust", host, federation, [host], _peer_groups(copies), [])
    except TrustError as error:
        # Made a moment ago, by us: the next try must not find them in its way.
        for name in copies:
            (directory / name).unlink()
        known = error.exit_code in (ExitCode.REFUSED, ExitCode.EXISTS, ExitCode.FILES)
        raise CommandError(
            error.text, "", "", ExitCode(error.exit_code) if known else ExitCode.INTERNAL
        ) from None
    # Last: a folder with a node.toml is a complete one.
    create_file(directory / "node.toml", text.encode(), 0o644)
    return request


def _peer_groups(copies: dict[str, bytes]) -> tuple[str, ...]:
    """Return the peer groups the site claims that can stand in a certificate: others see only certified ones."""
    from esgf_gossip.esgf.properties import parse_properties  # noqa: PLC0415 - init alone needs it
    from esgf_gossip.esgf.reader_rules import peer_groups  # noqa: PLC0415
    from esgf_gossip.trust.names import can_certify  # noqa: PLC0415

    claimed = peer_groups(parse_properties(copies.get("esgf.properties", b"")).get("node.peer.group", ""))
    return tuple(name for name in dict.fromkeys(claimed) if can_certify(name))[:_GROUPS_REQUESTED]


def _say_next_steps(directory: Path, request: Any, *, has_site_data: bool) -> None:
    # For a shell: the folder may have a blank in its name.
    config = shlex.quote(str(directory / "node.toml"))
    click.echo(f"configuration  {directory / 'node.toml'}")
    click.echo(f"request        {request.path}")
    click.echo(f"fingerprint    {request.fingerprint}")
    click.echo(f"  in words     {request.words}")
    click.echo()
    click.echo("Next:")
    install = f"trust-admin cert install BUNDLE --config {config} --root-fingerprint X"
    steps = [
        "send the request to the administrator of the federation's trust, and tell the fingerprint by voice;",
        f"there: trust-admin cert import {request.path.name}, then trust-admin cert approve ID --fingerprint ...",
        f"here, with the file that comes back and the root's SHA-256 X as you are told it by voice: {install}",
        *([] if has_site_data else [f"put esgf.properties and config_type of the site into {directory}"]),
        f"esgf-gossip check --config {config}",
        f"esgf-gossip run --config {config}",
    ]
    for number, step in enumerate(steps, 1):
        click.echo(f"  {number}. {step}")
