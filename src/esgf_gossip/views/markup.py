"""
How a text stands in the documents we write: escaped, in double quotes.

Only that; which texts may stand there is ``esgf.reader_rules``' work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'


def escaped(text: str) -> str:
    """Escape a text for element content and for attribute values in double quotes."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def attributes(values: Mapping[str, str | None]) -> str:
    """Write attributes, each after a blank; those that are None are left out."""
    return "".join(f' {name}="{escaped(value)}"' for name, value in values.items() if value is not None)
