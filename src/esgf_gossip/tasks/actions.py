"""
What a task can have done: one entry for each action.

An action takes the daemon and its checked arguments. What it returns, at once or later, is None, where it has done
what it does and may do it again without harm, or a ``Write`` into the tasks' own database, which takes effect in
one step with the note that the task is done, so exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from esgf_gossip.dataset_errors import DatasetError
from esgf_gossip.document_desk import FAULTY, MISSING, DocumentError
from esgf_gossip.documents.names import parse_name
from esgf_gossip.esgf.health import REASON_CHARACTERS
from esgf_gossip.esgf.maintenance import Maintenance, MaintenanceError
from esgf_gossip.tasks.task import text
from esgf_gossip.tracking.events import REASON_CHARACTERS as DATASET_REASON_CHARACTERS
from esgf_gossip.tracking.events import VERSIONS, EventType
from esgf_gossip.tracking.identity import make_dataset, parse_dataset, parse_record
from esgf_gossip.views.node_json import stamp_ms

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from esgf_gossip.dataset_keeper import DatasetKeeper
    from esgf_gossip.document_keeper import DocumentKeeper
    from esgf_gossip.storage.task_journal import Transaction

NOTE_CHARACTERS: Final = 2000
NAME_CHARACTERS: Final = 500
INSTANT_CHARACTERS: Final = 40
# A task that takes longer is taken for stuck and given up for this time.
TIMEOUT_S: Final = 60.0


class TaskRefusedError(Exception):
    """Say in one line why an action will not do a task, now or later: it is not tried again."""


class TryAgainError(Exception):
    """Say in one line why a task cannot be done now."""


class Daemon(Protocol):
    """What tasks may have done."""

    def reload(self) -> Deferred[dict[str, Any]]:
        """Read properties, trust and configuration again."""

    def now_ms(self) -> int:
        """Return Unix milliseconds."""

    def announce(self, window: Maintenance | None) -> None:
        """Announce a window of planned downtime, or that there is none."""

    @property
    def metadata(self) -> DocumentKeeper:
        """The metadata documents."""

    @property
    def datasets(self) -> DatasetKeeper:
        """The events of datasets."""

    def rebuild_lists(self) -> Sequence[str]:
        """Write all output files anew; return which could not be written, and why."""


@attrs.frozen
class Nothing:
    """No arguments."""


@attrs.frozen
class Note:
    """What ``note`` takes."""

    text: str = attrs.field(validator=text(NOTE_CHARACTERS))


def _instant(_arguments: Any, field: attrs.Attribute[Any], value: Any) -> None:
    """Check a time: RFC 3339, not ``2h from now``, for a task that is done again must mean the same."""
    text(INSTANT_CHARACTERS)(_arguments, field, value)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"'{field.name}' is no time with its zone; write such as 2026-11-27T18:00:00Z")


@attrs.frozen
class Window:
    """What ``maintenance`` takes."""

    until: str = attrs.field(validator=_instant)
    reason: str = attrs.field(default="planned", validator=text(REASON_CHARACTERS))


def _document(_arguments: Any, field: attrs.Attribute[Any], value: Any) -> None:
    """Check the name of a document."""
    text(NAME_CHARACTERS)(_arguments, field, value)
    parse_name(value)


def _reason(_arguments: Any, field: attrs.Attribute[Any], value: Any) -> None:
    """Check a line that may be empty."""
    if value != "":
        text(DATASET_REASON_CHARACTERS)(_arguments, field, value)


def _content(_arguments: Any, field: attrs.Attribute[Any], value: Any) -> None:
    """Check a text that may be of many lines."""
    if not isinstance(value, str):
        raise TypeError(f"'{field.name}' is no text; write it in quotes")


def _yes_or_no(_arguments: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"'{field.name}' is not true or false")


@attrs.frozen
class Put:
    """What ``put-document`` takes."""

    document: str = attrs.field(validator=_document)
    text: str = attrs.field(validator=_content, repr=False)
    merge: bool = attrs.field(default=False, validator=_yes_or_no)


@attrs.frozen
class Gone:
    """What ``delete-document`` takes."""

    document: str = attrs.field(validator=_document)


def _dataset(_arguments: Any, field: attrs.Attribute[Any], value: Any) -> None:
    """Check the name of a dataset version, or of one copy of it."""
    text(NAME_CHARACTERS)(_arguments, field, value)
    parse_record(value) if "|" in value else parse_dataset(value)


def _versions(arguments: Any, field: attrs.Attribute[Any], value: Any) -> None:
    """Check a list of versions."""
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise TypeError(f"'{field.name}' is no list of versions; write such as [\"20190308\"]")
    if len(value) > VERSIONS:
        raise ValueError(f"'{field.name}' has more than {VERSIONS} versions")
    for one in value:
        make_dataset(parse_dataset(arguments.dataset).master_id, one)


@attrs.frozen
class Said:
    """What ``publish-dataset`` and ``reinstate-dataset`` take; the usual data node where the name has none."""

    dataset: str = attrs.field(validator=_dataset)


@attrs.frozen
class Newer:
    """What ``new-version-dataset`` takes."""

    dataset: str = attrs.field(validator=_dataset)
    supersedes: list[str] = attrs.field(factory=list, validator=_versions)


@attrs.frozen
class Retracted:
    """What ``retract-dataset`` takes."""

    dataset: str = attrs.field(validator=_dataset)
    reason: str = attrs.field(default="", validator=_reason)


Write = Callable[["Transaction"], None]


@attrs.frozen
class Action:
    """
    One action.

    Args:
        about: what it does, for ``task submit --help``.
        arguments: attrs class of what it takes; its validators raise TypeError or ValueError with a whole sentence.
        run: does it; a ``TaskRefusedError`` is final, any other exception is tried again.
        timeout_s: how long it may take.
    """

    about: str
    arguments: type
    run: Callable[[Daemon, Any], Deferred[Write | None] | Write | None]
    timeout_s: float = TIMEOUT_S


def _reload(daemon: Daemon, _arguments: Nothing) -> Deferred[Write | None]:
    def judge(outcome: Mapping[str, Any]) -> None:
        if outcome["refused"]:
            raise TaskRefusedError("; ".join(outcome["refused"]))

    return daemon.reload().addCallback(judge)


def _rebuild_lists(daemon: Daemon, _arguments: Nothing) -> None:
    errors = daemon.rebuild_lists()
    if errors:
        raise TryAgainError("; ".join(errors))


def _maintenance(daemon: Daemon, arguments: Window) -> None:
    ends_ms, now_ms = stamp_ms(arguments.until), daemon.now_ms()
    if ends_ms <= now_ms:
        daemon.announce(None)
        return
    try:
        daemon.announce(Maintenance(now_ms, ends_ms, arguments.reason))
    except MaintenanceError as error:
        raise TaskRefusedError(str(error)) from None


def _put_document(daemon: Daemon, arguments: Put) -> None:
    # Done again it writes nothing: the document says that already.
    _write_document(daemon, arguments.document, arguments.text.encode(), merge=arguments.merge)


def _delete_document(daemon: Daemon, arguments: Gone) -> None:
    _write_document(daemon, arguments.document, None)


def _write_document(daemon: Daemon, name: str, body: bytes | None, *, merge: bool = False) -> None:
    try:
        daemon.metadata.desk.put(parse_name(name), body, merge=merge)
    except DocumentError as error:
        if body is None and error.status == MISSING:
            return
        kind = TryAgainError if error.status == FAULTY else TaskRefusedError
        raise kind(str(error)) from None


def _say(kind: EventType) -> Callable[[Daemon, Any], Deferred[Write | None]]:
    """Return what says something of a dataset; done again it says nothing, for it is so already."""

    def run(daemon: Daemon, arguments: Any) -> Deferred[Write | None]:
        # Brings the tracker with it: for the daemon that does a task, not for the command that hands one in.
        from esgf_gossip.tracking.hand import Word  # noqa: PLC0415

        dataset = parse_dataset(arguments.dataset)
        word = Word(
            kind,
            dataset,
            arguments.dataset.partition("|")[2].lower(),
            daemon.now_ms(),
            getattr(arguments, "reason", ""),
            tuple(
                sorted(
                    (one.removeprefix("v") for one in getattr(arguments, "supersedes", ())),
                    key=int,
                    reverse=True,
                )
            ),
            "task",
        )
        return daemon.datasets.say(word).addCallbacks(lambda _written: None, _unsaid)

    return run


def _unsaid(failure: Failure) -> None:
    failure.trap(DatasetError)
    raise (TryAgainError if failure.value.status == FAULTY else TaskRefusedError)(
        str(failure.value)
    ) from None


def _note(_daemon: Daemon, arguments: Note) -> Write:
    return lambda transaction: transaction.add_note(arguments.text)


ACTIONS: Final[Mapping[str, Action]] = {
    "reload": Action("read properties, trust and configuration again", Nothing, _reload),
    "rebuild-lists": Action("write all output files anew", Nothing, _rebuild_lists),
    "maintenance": Action(
        "announce planned downtime up to the time 'until', or with a time that has passed its end",
        Window,
        _maintenance,
    ),
    "put-document": Action(
        "write 'text' as the new version of a metadata document, over a conflict with 'merge'",
        Put,
        _put_document,
    ),
    "delete-document": Action("delete a metadata document", Gone, _delete_document),
    "publish-dataset": Action(
        "say that a dataset version is published here", Said, _say(EventType.PUBLISHED)
    ),
    "new-version-dataset": Action(
        "say that a dataset version replaces those in 'supersedes', or all before it",
        Newer,
        _say(EventType.NEW_VERSION),
    ),
    "retract-dataset": Action(
        "say that a dataset version is retracted, for 'reason'", Retracted, _say(EventType.RETRACTED)
    ),
    "reinstate-dataset": Action(
        "say that a retracted dataset version is good again", Said, _say(EventType.REINSTATED)
    ),
    "note": Action("keep the line 'text' beside the record of what was done", Note, _note),
}
ARGUMENTS: Final[Mapping[str, type]] = {name: action.arguments for name, action in ACTIONS.items()}
