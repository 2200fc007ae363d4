"""Configurations for tests: node.toml written as an operator would, and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from esgf_gossip.config import Config, from_document

HOST = "node1.example.org"
FEDERATION = "fed.example.org"


def a_document(**tables: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Give a parsed node.toml that is good, with the tables given laid over it."""
    document: dict[str, dict[str, Any]] = {"node": {"host": HOST, "federation": FEDERATION}}
    for name, table in tables.items():
        document[name] = {**document.get(name, {}), **table}
    return document


def a_config(folder: Path, **tables: dict[str, Any]) -> Config:
    """Give the configuration of a node whose node.toml would be in ``folder``; nothing is written."""
    return from_document(a_document(**tables), folder / "node.toml")


def a_node_toml(folder: Path, **tables: dict[str, Any]) -> Path:
    """Write a node.toml of strings, lists and booleans into a folder and give its path."""
    lines = []
    for name, table in a_document(**tables).items():
        lines.append(f"[{name}]")
        lines.extend(f"{key} = {_value(value)}" for key, value in table.items())
    path = folder / "node.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_value(name)} = {_value(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return str(value).lower() if isinstance(value, bool) else f'"{value}"'
