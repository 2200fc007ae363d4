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
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NewType, get_args, get_origin

import attrs
import cattrs

from esgf_gossip.addresses import (
    EVERY_ADDRESS,
    check_host,
    format_address,
    parse_accepted,
    parse_dial,
    parse_listen,
    shown,
)
from esgf_gossip.files import read_file
from esgf_gossip.views.lists_xml import DROP_DOWN, LISTS, SHARD_FORMS

DEFAULT_PATH: Final = Path("/etc/esgf-gossip/node.toml")
OUTPUT_FILES: Final = ("registration.xml", *LISTS)

# No node.toml comes near; larger is another file, named by mistake.
FILE_BYTES: Final = 1024 * 1024

# More often is a load, less often news of yesterday.
PROBE_EVERY_S: Final = (1, 3600)

_KINDS: Final = {str: "a text in quotes", int: "a number", bool: "true or false", list: "a list"}

# What a text in the file stands for; PropertyName is a key of esgf.properties, AcceptedHost what a Host header
# may say, without port or brackets. DialAddress has a port to connect to, ContactAddress may have 0: cannot be.
HostName = NewType("HostName", str)
AcceptedHost = NewType("AcceptedHost", str)
PropertyName = NewType("PropertyName", str)
OutputName = NewType("OutputName", str)
ListName = NewType("ListName", str)
Seconds = NewType("Seconds", int)
ShardForm = NewType("ShardForm", str)
CommandLine = NewType("CommandLine", tuple[str, ...])
ListenAddress = NewType("ListenAddress", tuple[str, int])
DialAddress = NewType("DialAddress", tuple[str, int])
ContactAddress = NewType("ContactAddress", tuple[str, int])


class ConfigError(Exception):
    """Report what is wrong in node.toml, where, and what to do: one line, for the operator."""

    def __init__(self, what: str, where: str, remedy: str) -> None:
        super().__init__("; ".join(" ".join(part.split()) for part in (what, where, remedy)))
        self.what: Final = what
        self.where: Final = where
        self.remedy: Final = remedy


@attrs.frozen
class NodeTable:
    """``[node]``: who this node is; ``state`` is the folder of its database and control socket."""

    host: HostName = attrs.field()
    federation: HostName = attrs.field()
    state: Path = attrs.field(metadata={"default": "state"})


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
    files: tuple[OutputName, ...] = attrs.field(metadata={"default": list(OUTPUT_FILES)})
    shard_form: ShardForm = attrs.field(metadata={"default": SHARD_FORMS[0]})
    drop_down: tuple[ListName, ...] = attrs.field(metadata={"default": list(DROP_DOWN)})


@attrs.frozen
class HttpTable:
    """``[http]``: the read-only HTTP resource; ``listen = ""`` switches it off (None)."""

    listen: ListenAddress | None = attrs.field(metadata={"default": "127.0.0.1:8950"})
    hosts: tuple[AcceptedHost, ...] = attrs.field(metadata={"default": None})


@attrs.frozen
class ServicesTable:
    """``[services]``: whether the node probes its own services, and how often, in seconds."""

    probe: bool = attrs.field(metadata={"default": False})
    probe_every_s: Seconds = attrs.field(metadata={"default": 60})


@attrs.frozen
class MetricsTable:
    """``[metrics]``: where download numbers come from; ``""`` for a path means none."""

    data_users: Path | None = attrs.field(metadata={"default": ""})


@attrs.frozen
class ReservedTable:
    """A table whose keys come with a later version; today it must be empty."""


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
    documents: ReservedTable = ReservedTable()
    tasks: ReservedTable = ReservedTable()
    tracking: ReservedTable = ReservedTable()

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
    converter = _converter(path.parent)
    filled = _with_defaults(document)
    tables = {name: _structured(converter, name, filled[name], path) for name in _TABLES}
    config = Config(**tables)
    _refuse_one_port(config, path)
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


def _parse_output(text: str) -> str:
    if text not in OUTPUT_FILES:
        raise ValueError(f"this version writes no {shown(text)}: choose among {', '.join(OUTPUT_FILES)}")
    return text


def _parse_list(text: str) -> str:
    if text not in LISTS:
        raise ValueError(f"{shown(text)} is no list: choose among {', '.join(LISTS)}")
    return text


def _parse_shard_form(text: str) -> str:
    if text not in SHARD_FORMS:
        raise ValueError(f"{shown(text)} is no form of a shard: choose among {', '.join(SHARD_FORMS)}")
    return text


def _converter(folder: Path) -> cattrs.Converter:
    """Make the converter of one load: strict, for cattrs alone would take "7" for 7 and 1 for true."""
    converter = cattrs.Converter()

    def strictly(kind: type, value: Any) -> Any:
        if type(value) is not kind:
            found = _KINDS.get(type(value), "something else")
            raise TypeError(f"has {found} where {_KINDS[kind]} belongs: write {_KINDS[kind]}")
        return value

    def text(parse: Callable[[str], Any]) -> Callable[[Any, Any], Any]:
        return lambda value, _: parse(strictly(str, value))

    def a_path(value: str) -> Path:
        if not value or "\0" in value:
            raise ValueError("is not a path: write the name of a file or folder")
        # abspath, not resolve: what a symlink points to may change while we run.
        return Path(os.path.abspath(folder / value))  # noqa: PTH100

    def many(kind: Any) -> Callable[[Any, Any], tuple[Any, ...]]:
        item = converter.get_structure_hook(get_args(kind)[0])

        def check(value: Any, _: Any) -> tuple[Any, ...]:
            # dict: the first of equal items stays, in its place.
            return tuple(dict.fromkeys(item(each, None) for each in strictly(list, value)))

        return check

    def or_none(parse: Callable[[str], Any]) -> Callable[[Any, Any], Any]:
        return text(lambda value: None if value == "" else parse(value))

    def seconds(value: Any, _: Any) -> int:
        if not PROBE_EVERY_S[0] <= strictly(int, value) <= PROBE_EVERY_S[1]:
            raise ValueError(f"is {value}: write a number from {PROBE_EVERY_S[0]} to {PROBE_EVERY_S[1]}")
        return int(value)

    def a_property(value: str) -> str:
        if not value.strip():
            raise ValueError("has an empty text in it: write the name of a property")
        return value

    def a_command(value: Any, _: Any) -> tuple[str, ...]:
        words = tuple(strictly(str, word) for word in strictly(list, value))
        if any("\0" in word for word in words):
            raise ValueError("has a NUL character in it: write program and arguments, each in quotes")
        if words and not words[0].startswith("/"):
            raise ValueError(
                f"{shown(words[0])} is no absolute path: write that of a program, then its arguments"
            )
        return words

    converter.register_structure_hook(bool, lambda value, _: strictly(bool, value))
    converter.register_structure_hook(Path, text(a_path))
    converter.register_structure_hook(Path | None, or_none(a_path))
    converter.register_structure_hook(HostName, text(check_host))
    converter.register_structure_hook(ListenAddress, text(parse_listen))
    converter.register_structure_hook(ListenAddress | None, or_none(parse_listen))
    converter.register_structure_hook(ContactAddress, text(lambda value: parse_dial(value, 0)))
    converter.register_structure_hook(DialAddress, text(lambda value: parse_dial(value, 1)))
    converter.register_structure_hook(OutputName, text(_parse_output))
    converter.register_structure_hook(ShardForm, text(_parse_shard_form))
    converter.register_structure_hook(ListName, text(_parse_list))
    converter.register_structure_hook(Seconds, seconds)
    converter.register_structure_hook(AcceptedHost, text(parse_accepted))
    converter.register_structure_hook(PropertyName, text(a_property))
    converter.register_structure_hook(CommandLine, a_command)
    converter.register_structure_hook_factory(lambda kind: get_origin(kind) is tuple, many)
    return converter


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
    gossip, http = config.gossip.listen, config.http.listen
    overlap = http is not None and (
        gossip[0] == http[0] or not EVERY_ADDRESS.isdisjoint((gossip[0], http[0]))
    )
    if http is not None and overlap and gossip[1] == http[1]:
        what = f"'listen' takes port {http[1]}, which [gossip] listen takes too"
        raise ConfigError(what, f"{path} [http]", "give one of them another port")


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
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], int):
        return toml_string(format_address(value))
    return "[" + ", ".join(_toml_value(item) for item in value) + "]"
