"""
The names of documents: ``PROJECT/APPLICATION/NAME``, exact characters, and the role that may write them.

No name is ever folded or decoded: what is not exactly in form is refused, so each part is also a safe part
of a path and of a URL. Source: docs/protocol.md, "Logs".
"""

from __future__ import annotations

import re
from typing import Final

import attrs

# Of each of the three parts; a role that names the project still fits into a certificate.
PART_CHARACTERS: Final = 64
ROLE_PREFIX: Final = "document-writer."

_PART: Final = re.compile(rf"[A-Za-z0-9](?:[A-Za-z0-9._-]{{0,{PART_CHARACTERS - 2}}}[A-Za-z0-9])?")
_SHOWN_CHARACTERS: Final = 80


class DocumentNameError(ValueError):
    """Report a text that names no document, in one line: what is wrong and what would be right."""


@attrs.frozen(order=True)
class DocumentName:
    """The name of one document. Sorted by project, application, name."""

    project: str
    application: str
    name: str

    def __str__(self) -> str:
        return f"{self.project}/{self.application}/{self.name}"


def is_part(text: str) -> bool:
    """Tell whether a text may be a project, an application or a name."""
    return _PART.fullmatch(text) is not None


def parse_name(text: str) -> DocumentName:
    """
    Read the name of a document.

    Raises:
        DocumentNameError: it is none.
    """
    parts = text.split("/")
    if len(parts) != 3 or not all(map(is_part, parts)):
        raise DocumentNameError(
            f"{text[:_SHOWN_CHARACTERS]!r} names no document: write PROJECT/APPLICATION/NAME, each of at most "
            f"{PART_CHARACTERS} characters of A-Z, a-z, 0-9, '.', '_', '-', "
            "beginning and ending with a letter or digit"
        )
    return DocumentName(*parts)


def writer_role(project: str) -> str:
    """Return the role whose bearers write a project's documents; roles know no capitals, so projects share one."""
    return ROLE_PREFIX + project.lower()
