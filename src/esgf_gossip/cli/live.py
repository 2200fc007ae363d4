"""
The federation on a terminal, kept in step: the table of nodes and the last events, drawn in their place.

Only drawing and waiting live here; facts come over the control socket.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NoReturn

from esgf_gossip.cli.control_client import ControlClient, Conversation
from esgf_gossip.cli.failures import printable
from esgf_gossip.cli.tables import STYLES, span_text, text_of, worst_first

# However much happens, the table is asked for and drawn no more often.
DRAW_EVERY_S: Final = 0.25
# Ages go on without an event.
TICK_S: Final = 5.0
EVENTS_KEPT: Final = 8
# What the head, the summary and the frame take of the terminal.
OTHER_LINES: Final = 8
# Status, since and the frame.
_OTHER_CHARACTERS: Final = 11 + 8 + 13


class LiveFederation:
    """What is drawn: the newest answers and the last events."""

    def __init__(self, picture: Mapping[str, Any]) -> None:
        self.status: Mapping[str, Any] = picture.get("status", {})
        self.nodes: list[Mapping[str, Any]] = list(picture.get("nodes") or [])
        self.events: deque[str] = deque(maxlen=EVENTS_KEPT)

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take one line of the conversation."""
        data = event.get("data") or {}
        if event.get("event") == "status":
            self.status = data
            return
        self.events.append(
            printable(f"{time.strftime('%H:%M:%S')}  {words_of(str(event.get('event')), data)}")
        )

    def drawn(self, height: int, width: int) -> Any:
        """Return what rich draws, no larger than the terminal; those that need an eye come first."""
        from rich.console import Group  # noqa: PLC0415 - only where a table is drawn
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        counts = self.status.get("nodes") or {}
        summary = Text(
            printable(
                f"{text_of(self.status.get('host'))} of {text_of(self.status.get('federation'))}: {text_of(counts)}; "
                f"root {text_of(self.status.get('root'))[:8]}, {text_of(self.status.get('links'))} links"
            ),
            style="bold",
        )
        table = Table(header_style="bold")
        # Where the terminal is narrow, the short name gives way: a host that is cut cannot be asked about.
        hosts, names = (
            max((len(text_of(node.get(key))) for node in self.nodes), default=0)
            for key in ("host", "short_name")
        )
        has_names = hosts + names + _OTHER_CHARACTERS <= width
        for column in ("host", "status", "since", *(["short name"] if has_names else [])):
            table.add_column(column, no_wrap=column != "host", overflow="ellipsis")
        ordered = worst_first(self.nodes)
        room = max(3, height - OTHER_LINES - len(self.events))
        for node in ordered[:room]:
            status = text_of(node.get("status"))
            table.add_row(
                _name(node.get("host")),
                Text(printable(status), style=STYLES.get(status, "")),
                Text(_age(text_of(node.get("since")))),
                *([_name(node.get("short_name"))] if has_names else []),
            )
        more = Text(f"and {len(ordered) - room} more; esgf-gossip nodes shows all", style="dim")
        return Group(
            summary,
            table,
            *([more] if len(ordered) > room else []),
            *(Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in self.events),
        )


def watch_in_place(daemon: ControlClient, conversation: Conversation, picture: Mapping[str, Any]) -> NoReturn:
    """
    Draw until the user ends it.

    Raises:
        KeyboardInterrupt: the user did.
        CommandError: the daemon has ended, or does not answer.
    """
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    shown = LiveFederation(picture)
    console = Console()
    with Live(
        shown.drawn(console.height, console.width),
        console=console,
        auto_refresh=False,
        vertical_overflow="crop",
    ) as live:
        while True:
            live.update(shown.drawn(console.height, console.width), refresh=True)
            time.sleep(DRAW_EVERY_S)
            # Some may have come with what was read last.
            events = list(conversation.lines_at_hand())
            if not events:
                ready, _, _ = select.select([conversation], [], [], TICK_S)
                if not ready:
                    continue
                conversation.read_more()
                events = list(conversation.lines_at_hand())
            for event in events:
                shown.hear(event)
            shown.nodes = list(daemon.ask("nodes") or [])


def _name(value: Any) -> Any:
    from rich.text import Text  # noqa: PLC0415 - only where a table is drawn

    return Text(printable(text_of(value)), no_wrap=True, overflow="ellipsis")


def words_of(name: str, data: Mapping[str, Any]) -> str:
    """Return an event as a person would say it; one that is not known, as it came."""
    if name == "node-status":
        return f"{text_of(data.get('host'))} is {text_of(data.get('status'))}"
    if name == "service-health":
        return f"{text_of(data.get('host'))}: {text_of(data.get('type'))} is {text_of(data.get('health'))}"
    if name == "digest-accepted":
        return f"{text_of(data.get('origin'))} published digest {text_of(data.get('sequence'))}"
    if name == "document-changed":
        authors = " and ".join(text_of(head.get("author")) for head in data.get("heads") or [])
        state = (
            "is in conflict" if data.get("conflict") else "was deleted" if data.get("deleted") else "changed"
        )
        return f"document {text_of(data.get('document'))} {state}{f' by {authors}' if authors else ''}"
    if name == "dataset-event":
        kind = text_of(data.get("type")).replace("-", " ")
        return f"dataset {text_of(data.get('dataset'))}: {kind} on {text_of(data.get('data_node'))}"
    return f"{name}: {text_of(data)}"


def _age(stamp: str) -> str:
    """Say how long ago a time stamp was, in its largest unit."""
    try:
        return span_text(int(max(0.0, time.time() - datetime.fromisoformat(stamp).timestamp())))
    except ValueError:
        return ""
