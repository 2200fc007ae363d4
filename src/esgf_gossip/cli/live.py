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
from esgf_gossip.cli.tables import STYLES, text_of, worst_first

# However much happens, the table is asked for and drawn no more often.
DRAW_EVERY_S: Final = 0.25
# Ages go on without an event.
TICK_S: Final = 5.0
EVENTS_KEPT: Final = 8
# What the head, the summary and the frame take of the terminal.
OTHER_LINES: Final = 8


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
        self.events.append(printable(f"{time.strftime('%H:%M:%S')}  {_said(str(event.get('event')), data)}"))

    def drawn(self, height: int) -> Any:
        """Return what rich draws, no higher than the terminal; those that need an eye come first."""
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
        # Status and age are what is looked for: where the terminal is narrow, names give way.
        for column, gives_way in (("host", True), ("status", False), ("since", False), ("short name", True)):
            table.add_column(column, no_wrap=not gives_way)
        ordered = worst_first(self.nodes)
        room = max(3, height - OTHER_LINES - len(self.events))
        for node in ordered[:room]:
            status = text_of(node.get("status"))
            table.add_row(
                _name(node.get("host")),
                Text(printable(status), style=STYLES.get(status, "")),
                Text(_age(text_of(node.get("since")))),
                _name(node.get("short_name")),
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
        shown.drawn(console.height), console=console, auto_refresh=False, vertical_overflow="crop"
    ) as live:
        while True:
            live.update(shown.drawn(console.height), refresh=True)
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


def _said(name: str, data: Mapping[str, Any]) -> str:
    """Say an event as a person would; one that is not known, as it came."""
    if name == "node-status":
        return f"{text_of(data.get('host'))} is {text_of(data.get('status'))}"
    if name == "service-health":
        return f"{text_of(data.get('host'))}: {text_of(data.get('type'))} is {text_of(data.get('health'))}"
    if name == "digest-accepted":
        return f"{text_of(data.get('origin'))} published digest {text_of(data.get('sequence'))}"
    return f"{name}: {text_of(data)}"


def _age(stamp: str) -> str:
    """Say how long ago a time stamp was, in its largest unit."""
    try:
        seconds = max(0.0, time.time() - datetime.fromisoformat(stamp).timestamp())
    except ValueError:
        return ""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
