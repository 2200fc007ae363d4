"""
What the values of node.toml may be: one type for each kind of text, and the hooks that read it.

Source: docs/operations.md, the table of settings. Which key has which kind is ``esgf_gossip.config``'s.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NewType, get_args, get_origin

import cattrs

from esgf_gossip.addresses import check_host, parse_accepted, parse_dial, parse_listen, shown
from esgf_gossip.documents.names import DocumentName, is_part, parse_name
from esgf_gossip.esgf.reader_rules import has_credentials
from esgf_gossip.esgf.resources import ENDPOINT_CHARACTERS
from esgf_gossip.views.lists_xml import LISTS, SHARD_FORMS, USUAL

OUTPUT_FILES: Final = ("registration.xml", *LISTS)
USUAL_FILES: Final = ("registration.xml", *USUAL)

LOG_LEVELS: Final = ("debug", "info", "warn", "error", "critical")
LOG_FORMATS: Final = ("text", "json")

# More often is a load, less often news of yesterday.
PROBE_EVERY_S: Final = (1, 3600)
HISTORY_DAYS: Final = (1, 3650)
ATTEMPTS: Final = (1, 20)
KEPT_TASKS: Final = (1, 100_000)
HISTORY_BYTES: Final = (1024 * 1024, 64 * 1024**3)
MINUTES: Final = (0, 7 * 24 * 60)
DAYS: Final = (1, 3650)
MAIL_RATE: Final = (1, 1000)
RECIPIENTS: Final = (0, 10_000_000)
SMTP_SECURITY: Final = ("none", "starttls", "tls")

# As libpq reads it: a word of its own, a parameter of the URL, or after the user.
_PASSWORD: Final = re.compile(r"(?:^|[\s?&])password\s*=|://[^/@]*:[^/@]*@", re.IGNORECASE)

_KINDS: Final = {
    str: "a text in quotes",
    int: "a number",
    bool: "true or false",
    list: "a list",
    dict: 'a table such as { "PROJECT/APPLICATION/NAME" = "/path/to/file" }',
}

# What a text in the file stands for; PropertyName is a key of esgf.properties, AcceptedHost what a Host header
# may say, without port or brackets. DialAddress has a port to connect to, ContactAddress may have 0: cannot be.
HostName = NewType("HostName", str)
AcceptedHost = NewType("AcceptedHost", str)
PropertyName = NewType("PropertyName", str)
OutputName = NewType("OutputName", str)
ListName = NewType("ListName", str)
Seconds = NewType("Seconds", int)
Attempts = NewType("Attempts", int)
KeptTasks = NewType("KeptTasks", int)
# An account of this host, by name or number.
UserName = NewType("UserName", str)
HistoryDays = NewType("HistoryDays", int)
HistoryBytes = NewType("HistoryBytes", int)
ShardForm = NewType("ShardForm", str)
LogFormat = NewType("LogFormat", str)
# Of everything, or of one area.
LogLevel = NewType("LogLevel", str)
CommandLine = NewType("CommandLine", tuple[str, ...])
# A network in its usual form, such as 10.1.0.0/16.
AllowedNetwork = NewType("AllowedNetwork", str)
# A URL that all members may see.
Endpoint = NewType("Endpoint", str)
# What libpq connects with, without a password.
DatabaseAddress = NewType("DatabaseAddress", str)
# The project of documents; and the file that each of some documents is written into.
ProjectName = NewType("ProjectName", str)
DocumentFiles = NewType("DocumentFiles", Mapping[DocumentName, Path])
# A service to ask, or under which this node is reached; may end in a path.
WebAddress = NewType("WebAddress", str)
# The address of mail, without a name.
MailAddress = NewType("MailAddress", str)
SmtpSecurity = NewType("SmtpSecurity", str)
# Printable, without blanks: a user of an SMTP server, a DKIM selector.
Word = NewType("Word", str)
TopicName = NewType("TopicName", str)
Minutes = NewType("Minutes", int)
Days = NewType("Days", int)
# A second.
MailRate = NewType("MailRate", int)
Recipients = NewType("Recipients", int)
ListenAddress = NewType("ListenAddress", tuple[str, int])
DialAddress = NewType("DialAddress", tuple[str, int])
ContactAddress = NewType("ContactAddress", tuple[str, int])


def _parse_output(text: str) -> str:
    if text not in OUTPUT_FILES:
        raise ValueError(f"this version writes no {shown(text)}: choose among {', '.join(OUTPUT_FILES)}")
    return text


def _parse_list(text: str) -> str:
    if text not in LISTS:
        raise ValueError(f"{shown(text)} is no list: choose among {', '.join(LISTS)}")
    return text


def _parse_log_form(text: str) -> str:
    if text not in LOG_FORMATS:
        raise ValueError(f"{shown(text)} is no form of a log: choose among {', '.join(LOG_FORMATS)}")
    return text


def _parse_log_level(text: str) -> str:
    area, is_area, level = text.rpartition("=")
    if level not in LOG_LEVELS or (is_area and not re.fullmatch(r"[a-z_]{1,40}", area)):
        raise ValueError(
            f"{shown(text)} is no level: write one of {', '.join(LOG_LEVELS)}, or an area with one, such as net=debug"
        )
    return text


def _parse_shard_form(text: str) -> str:
    if text not in SHARD_FORMS:
        raise ValueError(f"{shown(text)} is no form of a shard: choose among {', '.join(SHARD_FORMS)}")
    return text


def _parse_database(text: str) -> str:
    if _PASSWORD.search(text):
        # The text itself stays out of the message.
        raise ValueError("holds a password: write it into a file of mode 600 and name that as password_file")
    if "=" not in text and not text.startswith(("postgresql://", "postgres://")):
        raise ValueError(
            f'{shown(text)} is no address: write "host=... dbname=... user=..." or postgresql://...'
        )
    if "\0" in text:
        raise ValueError("has a NUL character in it: write what psql would take")
    return text


def _parse_endpoint(text: str) -> str:
    if has_credentials(text):
        raise ValueError("holds a user name and password, which all members would see: leave them out")
    if (
        not text.startswith(("http://", "https://"))
        or len(text) > ENDPOINT_CHARACTERS
        or not text.isprintable()
    ):
        raise ValueError(f"{shown(text)} is no address: write https://... of a compute service")
    return text


def _parse_user(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}\$?", text):
        raise ValueError(
            f"{shown(text)} is no user: write the name of an account of this host, or its number"
        )
    return text


def _parse_network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"{shown(text)} is no network: write one such as 10.1.0.0/16 ({error})") from None


def _parse_web_address(text: str) -> str:
    if has_credentials(text):
        raise ValueError("holds a user name and password: leave them out")
    if not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]_-]{1,253}(/[!$-;=?-~]{0,400})?", text):
        raise ValueError(f"{shown(text)} is no address: write https://host or https://host/path")
    return text.rstrip("/")


def _parse_mail_address(text: str) -> str:
    local, _, domain = text.rpartition("@")
    if not re.fullmatch(r"[A-Za-z0-9._+-]{1,64}", local) or not re.fullmatch(r"[A-Za-z0-9.-]{1,253}", domain):
        raise ValueError(f"{shown(text)} is no address of mail: write such as esgf-news@node.example.org")
    return text


def _parse_smtp_security(text: str) -> str:
    if text not in SMTP_SECURITY:
        raise ValueError(f"{shown(text)} is unknown: choose among {', '.join(SMTP_SECURITY)}")
    return text


def _parse_word(text: str) -> str:
    if not re.fullmatch(r"[!-~]{1,254}", text):
        raise ValueError(f"{shown(text)} is not one word: write printable characters without blanks")
    return text


def _parse_topic(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", text):
        raise ValueError(f"{shown(text)} is no topic: write letters, digits, '.', '_' and '-'")
    return text


def _parse_project(text: str) -> str:
    if not is_part(text):
        raise ValueError(
            f"{shown(text)} is no project: write letters, digits, '.', '_' and '-', such as CMIP6"
        )
    return text


def make_converter(folder: Path) -> cattrs.Converter:
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

    def within(least: int, most: int) -> Callable[[Any, Any], int]:
        def number(value: Any, _: Any) -> int:
            if not least <= strictly(int, value) <= most:
                raise ValueError(f"is {value}: write a number from {least} to {most}")
            return int(value)

        return number

    def files(value: Any, _: Any) -> dict[DocumentName, Path]:
        made = {parse_name(name): a_path(strictly(str, path)) for name, path in strictly(dict, value).items()}
        if len(set(made.values())) < len(made):
            raise ValueError("writes two documents into one file: name another file for one of them")
        return made

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
    converter.register_structure_hook(LogFormat, text(_parse_log_form))
    converter.register_structure_hook(LogLevel, text(_parse_log_level))
    converter.register_structure_hook(ShardForm, text(_parse_shard_form))
    converter.register_structure_hook(ListName, text(_parse_list))
    converter.register_structure_hook(Seconds, within(*PROBE_EVERY_S))
    converter.register_structure_hook(HistoryDays, within(*HISTORY_DAYS))
    converter.register_structure_hook(Attempts, within(*ATTEMPTS))
    converter.register_structure_hook(KeptTasks, within(*KEPT_TASKS))
    converter.register_structure_hook(UserName, text(_parse_user))
    converter.register_structure_hook(HistoryBytes, within(*HISTORY_BYTES))
    converter.register_structure_hook(AcceptedHost, text(parse_accepted))
    converter.register_structure_hook(PropertyName, text(a_property))
    converter.register_structure_hook(DatabaseAddress | None, or_none(_parse_database))
    converter.register_structure_hook(AllowedNetwork, text(_parse_network))
    converter.register_structure_hook(Endpoint, text(_parse_endpoint))
    converter.register_structure_hook(CommandLine, a_command)
    converter.register_structure_hook(WebAddress | None, or_none(_parse_web_address))
    converter.register_structure_hook(MailAddress | None, or_none(_parse_mail_address))
    converter.register_structure_hook(DialAddress | None, or_none(lambda value: parse_dial(value, 1)))
    converter.register_structure_hook(SmtpSecurity, text(_parse_smtp_security))
    converter.register_structure_hook(Word | None, or_none(_parse_word))
    converter.register_structure_hook(TopicName, text(_parse_topic))
    converter.register_structure_hook(Minutes, within(*MINUTES))
    converter.register_structure_hook(Days, within(*DAYS))
    converter.register_structure_hook(MailRate, within(*MAIL_RATE))
    converter.register_structure_hook(Recipients, within(*RECIPIENTS))
    converter.register_structure_hook(ProjectName, text(_parse_project))
    converter.register_structure_hook(DocumentFiles, files)
    converter.register_structure_hook_factory(lambda kind: get_origin(kind) is tuple, many)
    return converter
