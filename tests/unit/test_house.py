"""The order of the house: sizes, docstrings, and no files that break the plugin."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINES_MOST = 450
FOLDERS = ("src", "tests", "benchmarks", "twisted")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def test_the_house_is_found():
    """The walk sees the rooms it is meant to keep."""
    assert len(FILES) > 100


def test_no_file_is_above_450_lines():
    """One noun a file: what grows beyond is split."""
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: size for name, size in sizes.items() if size > LINES_MOST} == {}


@pytest.mark.parametrize("folder", ["twisted", "twisted/plugins"])
def test_the_plugin_folders_are_no_packages(folder):
    """An __init__.py there would hide Twisted or the plugin."""
    assert (ROOT / folder).is_dir()
    assert not (ROOT / folder / "__init__.py").exists()


def test_every_module_says_what_it_is():
    """A file opens with what lives in it."""
    mute = [
        str(path.relative_to(ROOT))
        for path in FILES
        if ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert mute == []


def test_every_test_says_the_rule_it_keeps():
    """A test without a sentence of behaviour is a riddle when it fails."""
    mute = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and ast.get_docstring(node) is None
    ]
    assert mute == []
