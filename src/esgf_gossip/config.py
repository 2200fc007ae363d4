"""
The configuration of a node: node.toml as immutable values, and back.

Only reading, checking and printing of node.toml lives here: no look at the
network, and at no file but node.toml itself (``esgf-gossip check`` does that).
Every key is declared once, as an attribute with its default as one would write
it in the file. The keys are public: /docs/operations.md names them all.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import cattrs

from esgf_gossip.addresses import EVERY_ADDRESS, format_address
from esgf_gossip.config_tracking import TrackingTable, find_gap
from esgf_gossip.config_values import (
    LOG_FORMATS,
    USUAL_FILES,
    AcceptedHost,
    AllowedNetwork,
    Attempts,
    CommandLine,
    ContactAddress,
    DatabaseAddress,
    DialAddress,
    DocumentFiles,
    Endpoint,
    HistoryBytes,
    HistoryDays,
    HostName,
    KeptTasks,
    ListenAddress,
    ListName,
    LogFormat,
    LogLevel,
    OutputName,
    ProjectName,
    PropertyName,
    Seconds,
    ShardForm,
    UserName,
    make_converter,
)
from esgf_gossip.files import read_file
from esgf_gossip.views.lists_xml import DROP_DOWN, SHARD_FORMS

DEFAULT_PATH: Final = Path("/etc/esgf-gossip/node.toml")

# No node.toml comes near; larger is another file, named by mistake.
FILE_BYTES: Final = 1024 * 1024


class ConfigError(Exception):
    """Report what is wrong in node.toml, where, and what to do: one line, for the operator."""

    def __init__(self, what: str, where: str, remedy: str) -> None:
        super().__init__("; ".join(" ".join(part.split()) for part in (what, where, remedy)))
        self.what: Final = what
        self.where: Final = where
        self.remedy: Final = remedy


@attrs.frozen
class NodeTable:
    """``[node]``: who this node is; the folder of its state; how much of the past it keeps; how its log is written."""

    host: HostName = attrs.field()
    federation: HostName = attrs.field()
    state: Path = attrs.field(metadata={"default": "state"})
    history_days: HistoryDays = attrs.field(metadata={"default": 90})
    history_bytes: HistoryBytes = attrs.field(metadata={"default": 256 * 1024 * 1024})
    log_format: LogFormat = attrs.field(metadata={"default": LOG_FORMATS[0]})
    log_levels: tuple[LogLevel, ...] = attrs.field(metadata={"default": ["info"]})


@attrs.frozen
class GossipTable:
    """``[gossip]``: where peers reach this node, and whom it dials first."""

    listen: ListenAddress = attrs.field(metadata={"default": "[::]:8951"})
    advertise: ContactAddress = attrs.field(metadata={"default": None})
    seeds: tuple[DialAddress, ...] = attrs.field(metadata={"default": []})


@attrs.frozen
class TrustTable:
    """``[trust]``: the folder of node.key and all that goes with it; the program to run when a secret has arrived."""

    directory: Path = attrs.field(metadata={"default": "trust"})
    secret_hook: CommandLine = attrs.field(metadata={"default": []})


@attrs.frozen
class EsgfTable:
    """``[esgf]``: what the site says of itself; ``""`` for a path means none."""

    properties: Path = attrs.field(metadata={"default": "esgf.properties"})
    config_type: Path = attrs.field(metadata={"default": "config_type"})
    groups: Path | None = attrs.field(metadata={"default": ""})
    publish: tuple[PropertyName, ...] = attrs.field(metadata={"default": []})
    check_app_home: bool = attrs.field(metadata={"default": False})
    host_certificate: Path | None = attrs.field(metadata={"default": ""})
    excludes: Path | None = attrs.field(metadata={"default": ""})


@attrs.frozen
class OutputsTable:
    """``[outputs]``: which files this node writes, and where."""

    directory: Path = attrs.field(metadata={"default": None})
    files: tuple[OutputName, ...] = attrs.field(metadata={"default": list(USUAL_FILES)})
    shard_form: ShardForm = attrs.field(metadata={"default": SHARD_FORMS[0]})
    drop_down: tuple[ListName, ...] = attrs.field(metadata={"default": list(DROP_DOWN)})
    peer_groups: tuple[PropertyName, ...] = attrs.field(metadata={"default": []})


@attrs.frozen
class HttpTable:
    """``[http]``: the read-only HTTP resource; ``listen = ""`` switches it off (None)."""

    listen: ListenAddress | None = attrs.field(metadata={"default": "127.0.0.1:8950"})
    hosts: tuple[AcceptedHost, ...] = attrs.field(metadata={"default": None})


@attrs.frozen
class ServicesTable:
    """``[services]``: whether the node probes its own services and others', how often, in seconds, and data folders."""

    probe: bool = attrs.field(metadata={"default": False})
    probe_every_s: Seconds = attrs.field(metadata={"default": 60})
    probe_others: bool = attrs.field(metadata={"default": True})
    allow: tuple[AllowedNetwork, ...] = attrs.field(metadata={"default": []})
    data_roots: tuple[Path, ...] = attrs.field(metadata={"default": []})


@attrs.frozen
class MetricsTable:
    """``[metrics]``: where download numbers come from, own numbers, and what of this host is told; ``""`` means none."""

    data_users: Path | None = attrs.field(metadata={"default": ""})
    database: DatabaseAddress | None = attrs.field(metadata={"default": ""})
    password_file: Path | None = attrs.field(metadata={"default": ""})
    files: tuple[Path, ...] = attrs.field(metadata={"default": []})
    resources: bool = attrs.field(metadata={"default": True})
    storage: tuple[Path, ...] = attrs.field(metadata={"default": []})
    compute: tuple[Endpoint, ...] = attrs.field(metadata={"default": []})


@attrs.frozen
class DocumentsTable:
    """``[documents]``: the projects wanted (none named: all), the files documents are written into, whom to tell then."""

    projects: tuple[ProjectName, ...] = attrs.field(metadata={"default": []})
    export: DocumentFiles = attrs.field(metadata={"default": {}})
    hook: CommandLine = attrs.field(metadata={"default": []})


@attrs.frozen
class TasksTable:
    """``[tasks]``: the folder of the task queue (None: there is none), whose files are taken, tries, what is kept."""

    directory: Path | None = attrs.field(metadata={"default": None})
    users: tuple[UserName, ...] = attrs.field(metadata={"default": []})
    attempts: Attempts = attrs.field(metadata={"default": 5})
    keep: KeptTasks = attrs.field(metadata={"default": 1000})
    keep_days: HistoryDays = attrs.field(metadata={"default": 30})


@attrs.frozen
class Config:
    """The effective configuration: every default filled in, every path absolute."""

    node: NodeTable
    gossip: GossipTable
    trust: TrustTable
    esgf: EsgfTable
    outputs: OutputsTable
    http: HttpTable
    services: ServicesTable
    metrics: MetricsTable
    documents: DocumentsTable
    tasks: TasksTable
    tracking: TrackingTable

    @property
    def control_socket(self) -> Path:
        """The UNIX socket of the running daemon; may be longer than the 107 bytes a socket address holds."""
        return self.node.state / "control.sock"


attrs.resolve_types(Config)
_TABLES: Final[Mapping[str, type]] = {field.name: field.type or object for field in attrs.fields(Config)}


def load(path: Path) -> Config:
    """
    Read node.toml.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or says what it may not say.
    """
    path = path.absolute()
    try:
        content = read_file(path, FILE_BYTES + 1)
    except OSError as error:
        remedy = "give a readable node.toml, or make one with esgf-gossip init"
        raise ConfigError(f"the file cannot be read ({error.strerror})", str(path), remedy) from None
    if len(content) > FILE_BYTES:
        raise ConfigError(
            f"the file is larger than {FILE_BYTES} bytes", str(path), "give the path of a node.toml"
        )
    try:
        document = tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise ConfigError(f"byte {error.start} is not UTF-8", str(path), "save the file as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"the file is not TOML: {error}", str(path), 'write key = "value" under a [table]'
        ) from None
    return from_document(document, path)


def from_document(document: Mapping[str, Any], path: Path) -> Config:
    """
    Make the configuration of a parsed TOML document.

    Args:
        document: as tomllib gives it.
        path: where it stands or would stand; relative paths in it are relative to its folder.

    Raises:
        ConfigError: naming file, table and key.
    """
    path = path.absolute()
    _refuse_unknown(document, path)
    for key in ("host", "federation"):
        if key not in document.get("node", {}):
            remedy = f'write {key} = "..." with a DNS name under [node]'
            raise ConfigError(f"'{key}' is missing", f"{path} [node]", remedy)
    converter = make_converter(path.parent)
    filled = _with_defaults(document)
    tables = {name: _structured(converter, name, filled[name], path) for name in _TABLES}
    config = Config(**tables)
    _refuse_one_port(config, path)
    what, remedy = find_gap(config.tracking)
    if what:
        raise ConfigError(what, f"{path} [tracking]", remedy)
    if config.metrics.database is not None and config.metrics.data_users is not None:
        what = "'data_users' and 'database' both give download numbers"
        raise ConfigError(what, f"{path} [metrics]", "keep one of them")
    return config


def to_toml(config: Config) -> str:
    """Print the effective configuration as TOML that ``load`` reads back to an equal one."""
    tables = {name: attrs.asdict(getattr(config, name), recurse=False) for name in _TABLES}
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {_toml_value(value)}\n" for key, value in table.items())
        for name, table in tables.items()
        if table
    )


def toml_string(text: str) -> str:
    """Quote a text as a TOML basic string."""
    # JSON escapes what TOML wants escaped, but for DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _structured(converter: cattrs.Converter, name: str, table: Mapping[str, Any], path: Path) -> Any:
    try:
        return converter.structure(table, _TABLES[name])
    except cattrs.ClassValidationError as group:
        # One line tells one fault; the next run tells the next.
        fault, note = group.group_exceptions()[0][0]
        what, _, remedy = str(fault).partition(": ")
        joint = " " if isinstance(fault, TypeError) else ": "
        raise ConfigError(f"'{note.name}'{joint}{what}", f"{path} [{name}]", remedy) from None


def _with_defaults(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Fill in every default, as the file would have said it; whatever is wrong in it stays wrong."""
    filled = {name: {**_defaults(kind), **document.get(name, {})} for name, kind in _TABLES.items()}
    node, gossip, http, outputs = (filled[name] for name in ("node", "gossip", "http", "outputs"))
    if gossip["advertise"] is None:
        gossip["advertise"] = f"{node['host']}:{str(gossip['listen']).rpartition(':')[2]}"
    if outputs["directory"] is None:
        outputs["directory"] = node["state"]
    if filled["tasks"]["directory"] is None:
        filled["tasks"]["directory"] = f"{node['state']}/tasks"
    for key in ("data_nodes", "homes"):
        if filled["tracking"][key] is None:
            filled["tracking"][key] = [node["host"]]
    if http["hosts"] is None:
        listen = str(http["listen"]).rpartition(":")[0]
        http["hosts"] = [*([listen] if listen else []), "localhost", node["host"]]
    return filled


def _defaults(kind: type) -> dict[str, Any]:
    return {
        field.name: field.metadata["default"] for field in attrs.fields(kind) if "default" in field.metadata
    }


def _refuse_unknown(document: Mapping[str, Any], path: Path) -> None:
    for name, table in document.items():
        if name not in _TABLES and isinstance(table, dict):
            remedy = f"the nearest known table is [{_nearest(name, _TABLES)}]"
            raise ConfigError(f"[{name}] is not known", str(path), remedy)
        if name not in _TABLES:
            remedy = f"the nearest known key is {_nearest_key('', name)}"
            raise ConfigError(f"'{name}' stands in no table", str(path), remedy)
        if not isinstance(table, dict):
            raise ConfigError(f"'{name}' is not a table", str(path), f"write [{name}] on a line of its own")
        for key in table:
            if key not in _keys(name):
                remedy = f"the nearest known key is {_nearest_key(name, key)}"
                raise ConfigError(f"'{key}' is not known", f"{path} [{name}]", remedy)


def _refuse_one_port(config: Config, path: Path) -> None:
    listens = {"gossip": config.gossip.listen, "http": config.http.listen, "tracking": config.tracking.listen}
    taken: dict[str, tuple[str, int]] = {}
    for name, address in listens.items():
        if address is None:
            continue
        for other, (host, port) in taken.items():
            overlap = host == address[0] or not EVERY_ADDRESS.isdisjoint((host, address[0]))
            if overlap and port == address[1]:
                what = f"'listen' takes port {port}, which [{other}] listen takes too"
                raise ConfigError(what, f"{path} [{name}]", "give one of them another port")
        taken[name] = address


def _keys(name: str) -> list[str]:
    return [field.name for field in attrs.fields(_TABLES[name])]


def _nearest_key(name: str, key: str) -> str:
    """Find the key that was meant: of this table if one is close, else of any table."""
    close = difflib.get_close_matches(key, _keys(name) if name else [], 1)
    if close:
        return f"'{close[0]}'"
    everywhere = {known: table for table in reversed(list(_TABLES)) for known in _keys(table)}
    known = _nearest(key, everywhere)
    return f"'{known}' in [{everywhere[known]}]"


def _nearest(word: str, known: Iterable[str]) -> str:
    return difflib.get_close_matches(word, list(known), 1, cutoff=0.0)[0]


def _toml_value(value: Any) -> str:
    if value is None:
        return '""'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str | Path):
        return toml_string(str(value))
    if isinstance(value, Mapping):
        pairs = (f"{toml_string(str(name))} = {_toml_value(item)}" for name, item in value.items())
        return f"{{ {', '.join(pairs)} }}" if value else "{}"
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], int):
        return toml_string(format_address(value))
    return "[" + ", ".join(_toml_value(item) for item in value) + "]"
