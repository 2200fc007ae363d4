"""
``esgf.properties``: bytes to an ordered mapping that remembers its lines.

Only the syntax of the file lives here; what a key means is its neighbours'
business. Java syntax (``java.util.Properties.load``), with one difference: the
bytes are UTF-8, as they are in practice, and Latin-1 only where they are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import attrs
import javaproperties

# Real files are 5 KB with 120 keys; these bounds stop a wrong file (a log, a disk image) early.
FILE_BYTES: Final = 1024 * 1024
KEYS: Final = 4096
KEY_CHARACTERS: Final = 256
VALUE_CHARACTERS: Final = 16 * 1024


class PropertiesError(ValueError):
    """Report a properties file that cannot be read: file, line or key, what to do, in one line."""


@attrs.frozen
class Properties(Mapping[str, str]):
    """
    Keys and values in the order of the file; the last of several equal keys counts.

    Values are kept character for character, trailing blanks included, as Java does.
    ``name`` is the file as messages call it.
    """

    name: str
    _values: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    _lines: Mapping[str, int] = attrs.field(factory=dict, repr=False, eq=False)

    def __getitem__(self, key: str) -> str:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def place(self, key: str) -> str:
        """Name the place of a key for a message: ``file:line: key``, without the line where it is not set."""
        line = self._lines.get(key)
        return f"{self.name}: {key}" if line is None else f"{self.name}:{line}: {key}"


def decode_text(content: bytes) -> str:
    """Decode the text of a site's file: UTF-8 with or without a byte order mark, else Latin-1, which never fails."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("iso-8859-1")


def parse_properties(content: bytes, name: str = "esgf.properties") -> Properties:
    """
    Read a properties file.

    Args:
        content: the whole file.
        name: how messages call the file.

    Raises:
        PropertiesError: too large, too many or too long keys or values, or a broken Unicode escape.
    """
    if len(content) > FILE_BYTES:
        raise PropertiesError(
            f"{name}: {len(content)} bytes, at most {FILE_BYTES} can be read; is it the right file?"
        )
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    line = 1
    elements = javaproperties.parse(decode_text(content))
    while True:
        try:
            element = next(elements, None)
        except javaproperties.InvalidUEscapeError as error:
            raise PropertiesError(
                f"{name}: at or after line {line}: {error}; write \\u and four hex digits"
            ) from None
        if element is None:
            break
        if isinstance(element, javaproperties.KeyValue):
            _check(element.key, element.value, f"{name}:{line}")
            values[element.key] = element.value
            lines[element.key] = line
            if len(values) > KEYS:
                raise PropertiesError(f"{name}:{line}: more than {KEYS} keys; is it the right file?")
        line += _line_breaks(element.source)
    return Properties(name, values, lines)


def _check(key: str, value: str, place: str) -> None:
    if len(key) > KEY_CHARACTERS:
        raise PropertiesError(
            f"{place}: a key of {len(key)} characters, at most {KEY_CHARACTERS} are allowed"
        )
    if len(value) > VALUE_CHARACTERS:
        shown = key.encode("ascii", "backslashreplace").decode()
        raise PropertiesError(
            f"{place}: {shown}: a value of {len(value)} characters, at most {VALUE_CHARACTERS} are allowed"
        )
    # \ud800 alone is legal in Java's UTF-16 and in no encoding that leaves the host.
    if any("\ud800" <= character <= "\udfff" for character in key + value):
        shown = key.encode("ascii", "backslashreplace").decode()
        raise PropertiesError(
            f"{place}: {shown}: half of a surrogate pair (\\ud800 to \\udfff); write both halves"
        )


def _line_breaks(source: str) -> int:
    return source.replace("\r\n", "\n").replace("\r", "\n").count("\n")
