"""Write the man pages of all commands, from the commands themselves; run by make man and by the Debian package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click_man.core import generate_man_page

from esgf_gossip import __version__
from esgf_gossip.cli.main import program
from esgf_gossip.cli.trust_admin import program as trust_program


def contexts(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[click.Context]:
    """Yield the context of a command and of all below it."""
    context = click.Context(command, info_name=name, parent=parent)
    yield context
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            if found is not None:
                yield from contexts(found, inner, context)


def page(context: click.Context, date: str) -> str:
    """Return one page: what click-man makes of a command, its list of commands, its example or exit codes."""
    command = context.command
    text = generate_man_page(context, version=__version__, date=date).rstrip("\n")
    if isinstance(command, click.Group):
        # Ours are imported when they are named, so that click-man finds none.
        text = text.partition("\n.SH COMMANDS")[0] + "\n.SH COMMANDS"
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            about = "" if found is None else found.get_short_help_str(limit=200)
            text += f"\n.TP\n\\fB{context.command_path.replace(' ', chr(45))}-{name}\\fP(1)\n{_plain(about)}"
    if command.epilog:
        head, _, rest = command.epilog.partition(": ")
        text += f"\n.SH {head.upper()}\n{_plain(rest)}" if rest else f"\n.SH NOTES\n{_plain(head)}"
    return text + "\n"


def _plain(text: str) -> str:
    """Return a text as roff takes it: no backslash obeyed, no line that begins a request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def write(folder: Path, date: str = "") -> list[Path]:
    """Write one page a command into a folder, dated as given or of today; return the files, sorted."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, command in (("esgf-gossip", program), ("trust-admin", trust_program)):
        for context in contexts(command, name):
            path = folder / f"{context.command_path.replace(' ', '-')}.1"
            path.write_text(page(context, date))
            written.append(path)
    return sorted(written)


if __name__ == "__main__":
    for written_page in write(Path(sys.argv[1]), *sys.argv[2:3]):
        print(written_page)
