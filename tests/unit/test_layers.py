"""The doors between the rooms: who may import whom. There is no exception list."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"
PACKAGE = "esgf_gossip"

# What each room may import of ours beside itself; net, web and the daemon may import all but demo, cli and sim.
ALLOWED = {
    "core": set(),
    "trust": {"core", "files"},
    "esgf": {"core", "files"},
    "documents": {"core", "files"},
    "views": {"core", "esgf"},
    "storage": {"core", "trust", "esgf", "documents", "views", "files"},
    "sources": {"core", "trust", "esgf", "documents", "views", "files"},
    "tracking": {"core", "trust", "esgf", "documents", "views", "storage", "sources", "files"},
    "sim": {"core"},
    "files": set(),
}
LIBRARIES = set(ALLOWED) - {"files"}
FORBIDDEN_IN_CORE = {
    "OpenSSL",
    "asyncio",
    "cryptography",
    "datetime",
    "logging",
    "os",
    "random",
    "socket",
    "sqlite3",
    "threading",
    "time",
    "twisted",
}


def _module_name(path):
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path):
    """Yield (module, names, at module level) for every import, wherever it stands."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, (), id(node) in top
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module, tuple(alias.name for alias in node.names), id(node) in top


FILES = sorted((SOURCE / PACKAGE).rglob("*.py"))
MODULES = {_module_name(path) for path in FILES}


def _ours(module, names):
    """Return the rooms of ours that an import opens."""
    if module.split(".")[0] != PACKAGE:
        return set()
    parts = module.split(".")
    if len(parts) > 1:
        return {parts[1]}
    return {name for name in names if f"{PACKAGE}.{name}" in MODULES}


def _room(path):
    parts = _module_name(path).split(".")
    return parts[1] if len(parts) > 1 else ""


def _all_imports():
    return [
        (path, _room(path), module, names, top) for path in FILES for module, names, top in _imports(path)
    ]


IMPORTS = _all_imports()


def test_the_walk_sees_the_house():
    """The walk finds the rooms and imports that are known to exist, so an empty one proves nothing."""
    assert {"core", "trust", "esgf", "views", "net", "web", "cli", "sim"} <= {room for _, room, *_ in IMPORTS}
    assert len(IMPORTS) > 300


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_imports_only_rooms_below_it(room):
    """No door leads upwards."""
    wrong = [
        f"{path.name}: {module}"
        for path, own, module, names, _ in IMPORTS
        if own == room and _ours(module, names) - ALLOWED[room] - {room}
    ]
    assert wrong == []


def test_the_core_has_no_clock_no_disk_no_network():
    """Time, randomness and identity come into the core as arguments; Random is only a type there."""
    wrong = [
        f"{path.name}: {module} {names}"
        for path, room, module, names, _ in IMPORTS
        if room == "core"
        and module.split(".")[0] in FORBIDDEN_IN_CORE
        and not (module == "random" and names == ("Random",))
    ]
    assert wrong == []


def test_msgpack_stays_in_one_module():
    """One module of the core knows how bytes look."""
    users = {path.name for path, room, module, *_ in IMPORTS if room == "core" and "msgpack" in module}
    assert {"packing.py"} == users


def test_only_trust_touches_cryptography():
    """Keys and certificates have one door."""
    users = {
        room
        for _, room, module, *_ in IMPORTS
        if module.split(".")[0] in {"cryptography", "OpenSSL", "service_identity"}
    }
    assert {"trust"} == users


def test_libraries_below_the_shell_know_no_twisted_but_trust():
    """Rooms that transform or remember can be used without an event loop; trust hands out TLS contexts."""
    users = {room for _, room, module, *_ in IMPORTS if module.split(".")[0] == "twisted"}
    assert set() == users & {"core", "esgf", "views", "documents", "sim"}


def test_demo_and_cli_are_imported_by_nobody_else():
    """The daemon runs without its demonstration and its command line; the demo starts and asks daemons by it."""
    wrong = [
        f"{path}: {module}"
        for path, room, module, names, _ in IMPORTS
        if (_ours(module, names) & {"cli"} and room not in {"cli", "demo"})
        or (_ours(module, names) & {"demo"} and room not in {"cli", "demo"})
    ]
    assert wrong == []


def test_the_simulator_is_not_part_of_the_daemon():
    """Nothing but sim imports sim."""
    assert [
        str(path) for path, room, m, names, _ in IMPORTS if "sim" in _ours(m, names) and room != "sim"
    ] == []


def test_simulated_time_is_the_only_time_of_the_simulator():
    """Virtual networks know no clock, disk or process; only their command line and its workers do."""
    users = {
        path.name
        for path, room, module, names, _ in IMPORTS
        if room == "sim"
        and module.split(".")[0] in FORBIDDEN_IN_CORE | {"concurrent", "multiprocessing", "pathlib"}
        and not (module == "random" and names == ("Random",))
    }
    assert users <= {"__main__.py", "campaign.py"}


def test_no_module_imports_the_reactor_when_it_is_loaded():
    """Importing the reactor installs it for everybody, so only functions do."""
    wrong = [
        str(path)
        for path, _, module, names, top in IMPORTS
        if top
        and (
            module == "twisted.internet.reactor"
            or (module == "twisted.internet" and "reactor" in names)
            or module == "prometheus_client.twisted"
        )
    ]
    assert wrong == []


def test_core_esgf_views_and_sim_load_without_twisted():
    """What the walk cannot see, a fresh interpreter does: no library drags an event loop in."""
    rooms = ("core", "esgf", "views", "sim")
    modules = sorted(
        name
        for name in MODULES
        if name.split(".")[1:2] and name.split(".")[1] in rooms and not name.endswith("__main__")
    )
    assert len(modules) > 20
    program = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in "
        "('twisted', 'OpenSSL', 'cryptography', 'sqlite3')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
