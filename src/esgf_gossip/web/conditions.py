"""
The two negotiations of RFC 9110 we take part in: If-None-Match and Accept-Encoding.

Pure functions of header text. Nothing a client sends here is an error: what
cannot be read is taken as not said.
"""

from __future__ import annotations

import re
from typing import Final

_TAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_QUALITY: Final = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


def is_none_match(field: str, etag: str) -> bool:
    """
    Tell whether ``If-None-Match`` names the tag, by weak comparison (section 13.1.2).

    Args:
        field: the header, lists joined by commas; empty when absent.
        etag: a strong tag of ours with its quotes.
    """
    # A tag may hold commas, so the list is searched, not split.
    return field.strip() == "*" or etag in _TAG.findall(field)


def prefers_gzip(field: str) -> bool:
    """
    Tell whether ``Accept-Encoding`` takes gzip and likes it as much as plain (section 12.5.3).

    Args:
        field: the header, lists joined by commas; empty when absent.
    """
    weights = _weights(field)
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    # Plain is always acceptable when unnamed, but only a named weight competes.
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


def _weights(field: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for item in field.split(","):
        coding, *parameters = (part.strip().lower() for part in item.split(";"))
        if coding:
            weights[coding] = _weight(parameters)
    return weights


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            value = value.strip()
            # An unreadable weight is no permission.
            return float(value) if _QUALITY.fullmatch(value) else 0.0
    return 1.0
