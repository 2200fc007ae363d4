"""
The command for metadata documents that projects share: doc put, get, list, history, delete.

Only question, answer and print live here; the daemon decides. No Twisted.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from esgf_gossip.cli.control_client import ControlClient
from esgf_gossip.cli.failures import CommandError, ExitCode
from esgf_gossip.cli.options import common_options, config_option, json_option, read_input
from esgf_gossip.cli.tables import local_text, print_json, print_table, size_text, text_of
from esgf_gossip.config import load
from esgf_gossip.documents.leaves import BODY_BYTES
from esgf_gossip.documents.names import DocumentNameError, parse_name
from esgf_gossip.files import replace_file
from esgf_gossip.web.questions import VERSIONS_MOST, VERSIONS_USUAL

# Of a version in a table; enough to name it by.
SHORT = 12


class DocumentArgument(click.ParamType):
    """``PROJECT/APPLICATION/NAME``."""

    name = "document"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check a name."""
        try:
            return str(parse_name(str(value)))
        except DocumentNameError as error:
            self.fail(str(error), param, ctx)


def document_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the name of a document; the command gets ``document``."""
    return click.argument("document", type=DocumentArgument(), metavar="PROJECT/APPLICATION/NAME")(command)


def writing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--if-match`` and ``--merge``."""
    if_match = click.option(
        "--if-match",
        default="",
        metavar="VERSION",
        help="Only while this is the newest version, named by 8 digits of its id or more; none: only while there "
        "is no such document.",
    )
    merge = click.option(
        "--merge", is_flag=True, help="Follow all versions of a conflict, and so end it, on every node."
    )
    return if_match(merge(command))


@click.group(
    epilog="Example: esgf-gossip doc put CMIP6/publisher/esg.ini esg.ini --config /etc/esgf-gossip/node.toml"
)
@common_options
def doc() -> None:
    """
    Read and write metadata documents that the nodes of a federation share.

    A document is named PROJECT/APPLICATION/NAME, has at most 64 KiB, and keeps all its versions. Who may write those of
    a project, its node's certificate says: the role document-writer.PROJECT, in lower case.
    """


@doc.command("put", epilog="Example: esgf-gossip doc put CMIP6/publisher/esg.ini esg.ini --if-match 5f0c11d2")
@document_argument
@click.argument("file", type=click.Path(path_type=Path))
@writing_options
@config_option
@json_option
@common_options
def put(
    document: str, file: Path, if_match: str, config_path: Path, *, merge: bool, json_output: bool
) -> None:
    """
    Write a new version of a document from FILE, or from standard input where FILE is "-".

    Two nodes that write without knowing of each other make a conflict: both versions stay until somebody has read both and
    puts what shall follow them, with --merge.
    """
    daemon = ControlClient(load(config_path).control_socket)
    content = read_input(file, BODY_BYTES)
    if len(content) > BODY_BYTES:
        raise CommandError(
            f"a document has at most {BODY_BYTES} bytes", str(file), "cut it into several", ExitCode.USAGE
        )
    encoded = base64.b64encode(content).decode()
    answer = daemon.ask("document-put", document=document, base64=encoded, if_match=if_match, merge=merge)
    _tell_written(document, answer, json_output=json_output)


@doc.command("delete", epilog="Example: esgf-gossip doc delete CMIP6/publisher/esg.ini")
@document_argument
@writing_options
@config_option
@json_option
@common_options
def delete(document: str, if_match: str, config_path: Path, *, merge: bool, json_output: bool) -> None:
    """Delete a document: a version without content, which can be followed by another; its history stays."""
    daemon = ControlClient(load(config_path).control_socket)
    answer = daemon.ask("document-delete", document=document, if_match=if_match, merge=merge)
    _tell_written(document, answer, json_output=json_output)


def _tell_written(document: str, answer: Mapping[str, Any], *, json_output: bool) -> None:
    if json_output:
        print_json(answer)
    else:
        click.echo(text_of(answer.get("version")))
    if answer.get("changed") is False:
        click.echo(f"esgf-gossip: {document} says that already; nothing was written", err=True)
    if answer.get("conflict") is True:
        click.echo(
            f"esgf-gossip: {document} had more versions in conflict than one can follow; --merge once more",
            err=True,
        )


@doc.command("get", epilog="Example: esgf-gossip doc get CMIP6/publisher/esg.ini --out esg.ini")
@document_argument
@click.argument("wanted", default="", metavar="[VERSION]")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write it into this file, in one step."
)
@config_option
@json_option
@common_options
def get(document: str, wanted: str, out: Path | None, config_path: Path, *, json_output: bool) -> None:
    """
    Print a document as it is, or write it into a file.

    VERSION is the beginning of a version's id, 8 digits or more, as doc history shows it. Of a conflict one has to be named.
    With --json the content is in base64.
    """
    daemon = ControlClient(load(config_path).control_socket)
    answer = daemon.ask("document-content", document=document, version=wanted)
    content = base64.b64decode(text_of(answer.get("base64")))
    if out is not None:
        replace_file(out, content)
        click.echo(f"esgf-gossip: wrote {len(content)} bytes to {out}", err=True)
    elif json_output:
        print_json(answer)
    else:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()


@doc.command("list", epilog="Example: esgf-gossip doc list CMIP6/publisher")
@click.argument("within", default="", metavar="[PROJECT[/APPLICATION[/NAME]]]")
@click.option("--refused", is_flag=True, help="Show in their place what does not count, and why.")
@config_option
@json_option
@common_options
def list_documents(within: str, config_path: Path, *, refused: bool, json_output: bool) -> None:
    """List the documents, all or those of a project or an application: those in conflict first, deleted ones last."""
    daemon = ControlClient(load(config_path).control_socket)
    answer = daemon.ask("documents-refused" if refused else "documents")
    if within:
        inside = f"{within.rstrip('/')}/"
        answer = [one for one in answer if f"{text_of(one.get('document'))}/".startswith(inside)]
    if json_output:
        print_json(answer)
    elif refused:
        rows = [(one.get("author"), one.get("document"), one.get("reason")) for one in answer]
        print_table(("author", "document", "reason"), rows, none="nothing is refused")
    else:
        rows = [_row(one) for one in sorted(answer, key=_place)]
        columns = ("document", "state", "version", "author", "written", "size")
        print_table(columns, rows, least=("size", "written", "author"), none="no document yet")


def _place(one: Mapping[str, Any]) -> tuple[bool, bool, str]:
    return not one.get("conflict"), bool(one.get("deleted")), text_of(one.get("document"))


def _row(one: Mapping[str, Any]) -> tuple[Any, ...]:
    heads = one.get("heads") or [{}]
    state = "deleted" if one.get("deleted") else "current"
    if one.get("conflict"):
        state = f"conflict of {text_of(one.get('heads_total'))}"
    return (
        one.get("document"),
        state,
        text_of(heads[0].get("version"))[:SHORT],
        ", ".join(text_of(head.get("author")) for head in heads),
        local_text(heads[0].get("at")),
        size_text(heads[0].get("size_bytes")),
    )


@doc.command("history", epilog="Example: esgf-gossip doc history CMIP6/publisher/esg.ini --limit 10")
@document_argument
@click.option(
    "--limit",
    type=click.IntRange(1, VERSIONS_MOST),
    default=VERSIONS_USUAL,
    show_default=True,
    help="At most so many, the newest.",
)
@config_option
@json_option
@common_options
def history(document: str, limit: int, config_path: Path, *, json_output: bool) -> None:
    """Show the versions of a document, the newest first, and which each follows; times are their authors' clocks."""
    daemon = ControlClient(load(config_path).control_socket)
    answer = daemon.ask("document-history", document=document, limit=str(limit))
    if json_output:
        print_json(answer)
        return
    rows = [
        (
            text_of(one.get("version"))[:SHORT],
            one.get("generation"),
            one.get("author"),
            local_text(one.get("at")),
            "deleted" if one.get("deletion") else size_text(one.get("size_bytes")),
            ", ".join(text_of(parent)[:SHORT] for parent in one.get("parents") or []),
        )
        for one in answer.get("versions") or []
    ]
    print_table(("version", "generation", "author", "written", "size", "follows"), rows, least=("written",))
    more = int(answer.get("versions_total") or 0) - len(rows)
    if more > 0:
        click.echo(f"esgf-gossip: {more} earlier ones are left out; raise --limit", err=True)
