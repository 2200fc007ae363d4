"""node.toml: what it may say, what it means, and how a fault in it is told."""

from __future__ import annotations

import tomllib
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esgf_gossip.addresses import check_host, format_address, parse_address
from esgf_gossip.config import (
    FILE_BYTES,
    Config,
    ConfigError,
    from_document,
    load,
    to_toml,
    toml_string,
)
from esgf_gossip.config_values import USUAL_FILES
from helpers.config import FEDERATION, HOST, a_config, a_document, a_node_toml

FOLDER = Path("/srv/node")


def the_fault(document) -> str:
    """Give the one line that a document is refused with."""
    with pytest.raises(ConfigError) as caught:
        from_document(document, FOLDER / "node.toml")
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_two_keys_are_enough():
    """A node.toml of host and federation gets every default, with absolute paths."""
    config = a_config(FOLDER)
    assert (config.node.host, config.node.federation, config.node.state) == (
        HOST,
        FEDERATION,
        FOLDER / "state",
    )
    assert (config.gossip.listen, config.gossip.advertise, config.gossip.seeds) == (
        ("::", 8951),
        (HOST, 8951),
        (),
    )
    assert config.trust.directory == FOLDER / "trust"
    assert (config.esgf.properties, config.esgf.config_type) == (
        FOLDER / "esgf.properties",
        FOLDER / "config_type",
    )
    assert (
        config.esgf.groups,
        config.esgf.publish,
        config.esgf.check_app_home,
        config.esgf.host_certificate,
    ) == (None, (), False, None)
    assert (config.outputs.directory, config.outputs.files) == (FOLDER / "state", USUAL_FILES)
    assert (config.http.listen, config.http.hosts) == (("127.0.0.1", 8950), ("127.0.0.1", "localhost", HOST))
    assert config.services.probe is False
    assert config.control_socket == FOLDER / "state" / "control.sock"


def test_load_reads_a_file(tmp_path):
    """Load gives what the file says, paths relative to the folder of the file."""
    path = a_node_toml(
        tmp_path, node={"state": "../var"}, gossip={"seeds": ["B.example.org:1", "[2001:db8::1]:2"]}
    )
    config = load(path)
    assert tmp_path.parent / "var" == config.node.state
    assert config.gossip.seeds == (("b.example.org", 1), ("2001:db8::1", 2))


def test_a_relative_path_is_made_absolute(tmp_path, monkeypatch):
    """The path of node.toml may be relative; what comes out is not."""
    a_node_toml(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert tmp_path / "state" == load(Path("node.toml")).node.state


def test_advertise_follows_the_listen_port():
    """Without advertise, others dial the node's name at the port it listens on."""
    assert a_config(FOLDER, gossip={"listen": "0.0.0.0:9000"}).gossip.advertise == (HOST, 9000)


def test_advertise_may_have_port_zero():
    """Port 0 says that a node only dials out; nothing else may have it."""
    assert a_config(FOLDER, gossip={"advertise": "x.org:0"}).gossip.advertise == ("x.org", 0)
    assert "write 1 to 65535" in the_fault(a_document(gossip={"seeds": ["x.org:0"]}))
    assert "write 1 to 65535" in the_fault(a_document(gossip={"listen": "127.0.0.1:0"}))


def test_an_empty_http_listen_switches_it_off():
    """An empty listen address is None, and the accepted names do not hold an empty one."""
    http = a_config(FOLDER, http={"listen": ""}).http
    assert (http.listen, http.hosts) == (None, ("localhost", HOST))


def test_outputs_follow_the_state_folder():
    """Without outputs.directory the files go where the state is."""
    assert Path("/var/x") == a_config(FOLDER, node={"state": "/var/x"}).outputs.directory


def test_a_seed_named_twice_counts_once():
    """Equal list items are kept once, the first in its place."""
    seeds = ["a.org:1", "b.org:1", "A.org:1"]
    assert a_config(FOLDER, gossip={"seeds": seeds}).gossip.seeds == (("a.org", 1), ("b.org", 1))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            {"gossip": {"lisen": "x"}},
            "'lisen' is not known; /srv/node/node.toml [gossip]; the nearest known key is 'listen'",
        ),
        ({"node": {"listen": "x"}}, "the nearest known key is 'listen' in [gossip]"),
        ({"node": {"seeds": []}}, "the nearest known key is 'seeds' in [gossip]"),
        ({"gosip": {}}, "[gosip] is not known; /srv/node/node.toml; the nearest known table is [gossip]"),
        (
            {"metrics": {"enabled": True}},
            "'enabled' is not known; /srv/node/node.toml [metrics]; the nearest known key is",
        ),
        (
            {"tracking": {"smpt": ":1"}},
            "/srv/node/node.toml [tracking]; the nearest known key is 'smtp'",
        ),
    ],
)
def test_an_unknown_name_tells_the_nearest_known_one(document, expected):
    """An unknown key or table is refused with file, table and the nearest known name."""
    assert expected in the_fault(a_document(**document))


def test_a_key_outside_of_a_table_is_told():
    """A key above the first table is refused with the key it may have meant."""
    assert (
        the_fault({**a_document(), "host": "x"})
        == "'host' stands in no table; /srv/node/node.toml; the nearest known key is 'host' in [node]"
    )
    assert "'trust' is not a table" in the_fault({**a_document(), "trust": "x"})


@given(
    st.sampled_from(
        [(table.name, key.name) for table in attrs.fields(Config) for key in attrs.fields(table.type)]
    )
)
def test_a_slip_of_the_pen_is_understood(known):
    """A known key with its last two letters changed places is found again."""
    table, key = known
    slip = key[:-2] + key[-1] + key[-2] if key[-1] != key[-2] else key + "x"
    assert f"the nearest known key is '{key}'" in the_fault(a_document(**{table: {slip: "x"}}))


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_unknown_name_is_refused_in_one_line(table, key):
    """Whatever tables and keys there are, the answer is a configuration or one line."""
    text = ""
    try:
        from_document(a_document(**{table: {key: 1}}), FOLDER / "node.toml")
    except ConfigError as error:
        text = str(error)
    assert "\n" not in text


@pytest.mark.parametrize("key", ["host", "federation"])
def test_a_missing_name_is_told(key):
    """Host and federation have no default."""
    document = a_document()
    del document["node"][key]
    assert f"'{key}' is missing; /srv/node/node.toml [node]; write {key}" in the_fault(document)


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("node", "host", 7),
        ("node", "state", True),
        ("gossip", "listen", 8951),
        ("gossip", "seeds", "a.org:1"),
        ("gossip", "seeds", [1]),
        ("gossip", "seeds", {"a.org": 1}),
        ("services", "probe", 0),
        ("services", "probe", 1),
        ("services", "probe", "false"),
        ("services", "probe_every_s", "60"),
        ("services", "probe_every_s", True),
        ("outputs", "drop_down", "esgf_idp.xml"),
        ("esgf", "check_app_home", 1.0),
        ("esgf", "groups", False),
        ("esgf", "publish", "key"),
        ("http", "listen", 0),
        ("outputs", "files", None),
    ],
)
def test_types_are_strict(table, key, value):
    """No value of another type is bent into the right one."""
    text = the_fault(a_document(**{table: {key: value}}))
    assert f"'{key}' has " in text
    assert f"/srv/node/node.toml [{table}]; write " in text


@pytest.mark.parametrize(
    ("table", "key", "value", "said"),
    [
        ("services", "probe_every_s", 0, "a number from 1 to 3600"),
        ("services", "probe_every_s", 3601, "a number from 1 to 3600"),
        ("outputs", "drop_down", ["registration.xml"], "choose among esgf_idp.xml"),
    ],
)
def test_what_health_makes_of_lists_has_bounds(table, key, value, said):
    """A period out of range and a file that is no list are refused with what may stand there."""
    text = the_fault(a_document(**{table: {key: value}}))
    assert f"'{key}'" in text
    assert said in text


@pytest.mark.parametrize(
    ("table", "key", "value", "expected"),
    [
        ("node", "host", "Node.example.org", "has capital letters"),
        ("node", "host", "192.0.2.1", "is an address, not a DNS name"),
        ("node", "host", "a..b", "is not a DNS name"),
        ("node", "host", "a.", "is not a DNS name"),
        ("node", "host", "", "is not a DNS name"),
        ("node", "host", "a_b.org", "is not a DNS name"),
        ("node", "host", "-a.org", "is not a DNS name"),
        ("node", "host", "é.org", "is not a DNS name"),
        ("node", "host", "a.org\n", "is not a DNS name"),
        ("node", "host", "a" * 64 + ".org", "is not a DNS name"),
        ("node", "host", ".".join(["a" * 60] * 5), "is not a DNS name"),
        ("node", "federation", "esgf://fed", "is not a DNS name"),
        ("node", "state", "", "is not a path"),
        ("gossip", "listen", "node.example.org:8951", "has no IP address"),
        ("gossip", "listen", "::1:8951", "without brackets"),
        ("gossip", "listen", "[::1%lo]:8951", "no IPv6 address"),
        ("gossip", "listen", "300.0.0.1:8951", "no IPv4 address"),
        ("gossip", "listen", "127.0.0.1:65536", "no good port"),
        ("gossip", "listen", "127.0.0.1:+80", "no good port"),
        ("gossip", "listen", "127.0.0.1:٨٠", "no good port"),
        ("gossip", "listen", ":8951", "is not an address"),
        ("gossip", "advertise", "8951", "is not an address"),
        ("gossip", "advertise", "[::]:8951", "cannot be dialled"),
        ("gossip", "seeds", ["ok.org:1", "bad"], "'bad' is not an address"),
        ("http", "hosts", ["http://x"], "is not a DNS name"),
        ("outputs", "files", ["registration.xml", "passwd"], "this version writes no 'passwd'"),
        ("esgf", "publish", [" "], "has an empty text in it"),
        ("http", "listen", "127.0.0.1:8951", "takes port 8951, which [gossip] listen takes too"),
    ],
)
def test_bad_values_are_told(table, key, value, expected):
    """A value that cannot work is refused with its key and the reason."""
    text = the_fault(a_document(**{table: {key: value}}))
    assert expected in text
    assert f"'{key}'" in text
    assert f"/srv/node/node.toml [{table}]; " in text


def test_localhost_is_an_address_to_listen_on():
    """The one name to listen on is localhost."""
    assert a_config(FOLDER, http={"listen": "localhost:80"}).http.listen == ("127.0.0.1", 80)


def test_one_port_on_two_addresses_is_no_contradiction():
    """Gossip and HTTP may have one port number on different addresses."""
    config = a_config(FOLDER, gossip={"listen": "127.0.0.2:80"}, http={"listen": "127.0.0.1:80"})
    assert config.gossip.listen[1] == config.http.listen[1]


NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9](\.[a-z]{2,5}){0,3}", fullmatch=True)
PORTS = st.integers(1, 65535)
ADDRESSES = st.builds(lambda host, port: f"{host}:{port}", NAMES, PORTS) | st.builds(
    lambda address, port: format_address((str(address), port)), st.ip_addresses(), PORTS
).filter(lambda text: not text.startswith(("0.0.0.0:", "[::]:")))
PATHS = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=20
)


@given(NAMES, PATHS, st.lists(ADDRESSES, max_size=4), st.booleans(), PORTS, st.lists(NAMES, max_size=3))
def test_what_is_shown_reads_back(host, state, seeds, probe, port, publish):
    """The effective configuration, printed as TOML, reads back to an equal one."""
    config = a_config(
        FOLDER,
        node={"host": host, "state": state},
        gossip={"seeds": seeds, "listen": f"[::1]:{port}"},
        services={"probe": probe},
        esgf={"publish": publish, "groups": state},
        http={"listen": ""},
    )
    assert config == from_document(tomllib.loads(to_toml(config)), Path("/elsewhere/node.toml"))


@given(st.text(st.characters(blacklist_categories=["Cs"])))
def test_any_text_can_be_quoted(text):
    """A quoted text is TOML for the same text."""
    assert {"a": text} == tomllib.loads(f"a = {toml_string(text)}")


@given(ADDRESSES)
def test_addresses_print_as_they_parse(text):
    """An address parsed and printed is the same address."""
    assert parse_address(text) == parse_address(format_address(parse_address(text)))


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_a_reason(text):
    """Parsing an address or a name ends in a value or a ValueError with a reason, whatever the text."""
    for read in (parse_address, check_host):
        reason = None
        try:
            read(text)
        except ValueError as error:
            reason = str(error)
        assert reason is None or ": write " in reason


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[node\n", "the file is not TOML"),
        (b"\xff\xfe", "byte 0 is not UTF-8"),
        (b"#" * (FILE_BYTES + 1), "the file is larger than"),
    ],
)
def test_a_file_that_is_no_toml_is_told(tmp_path, content, expected):
    """What is no TOML is refused with the path and the place."""
    path = tmp_path / "node.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=expected) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    """A missing file and a folder are refused with the system's reason."""
    with pytest.raises(ConfigError, match="cannot be read \\(No such file"):
        load(tmp_path / "node.toml")
    with pytest.raises(ConfigError, match="cannot be read \\(Is a directory"):
        load(tmp_path)


def test_the_configuration_is_immutable():
    """Nobody changes a configuration that others hold."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        a_config(FOLDER).node.host = "x"


def test_a_hook_keeps_every_word(tmp_path: Path) -> None:
    """Program and arguments stay as they are written, repeated ones too, and are printed so."""
    words = ["/usr/bin/env", "-u", "A", "-u", "A"]
    config = from_document(a_document(trust={"secret_hook": words}), tmp_path / "node.toml")
    assert list(config.trust.secret_hook) == words
    assert from_document(tomllib.loads(to_toml(config)), tmp_path / "node.toml") == config


@pytest.mark.parametrize(
    ("hook", "says"),
    [
        (["hook.sh"], "is no absolute path"),
        ([""], "is no absolute path"),
        (["/x", "a\0b"], "has a NUL character in it"),
        (["/x", 3], "has a number where a text in quotes belongs"),
        ("/x", "has a text in quotes where a list belongs"),
    ],
)
def test_a_hook_is_a_program_and_its_arguments(tmp_path: Path, hook: object, says: str) -> None:
    """What could not be run, or would be looked for anywhere, is refused with the key."""
    with pytest.raises(ConfigError, match=says) as caught:
        from_document(a_document(trust={"secret_hook": hook}), tmp_path / "node.toml")
    assert "'secret_hook'" in str(caught.value)


def test_the_folder_of_tasks_lies_in_the_state_folder_unless_it_is_named():
    """It follows node.state; an empty text switches the queue off; what is no account's name is told."""
    assert a_config(FOLDER, node={"state": "/var/x"}).tasks.directory == Path("/var/x/tasks")
    assert a_config(FOLDER, tasks={"directory": "spool"}).tasks.directory == FOLDER / "spool"
    assert a_config(FOLDER, tasks={"directory": ""}).tasks.directory is None
    assert "'users': 'a b' is no user" in the_fault(a_document(tasks={"users": ["a b"]}))
    assert "'attempts': is 0" in the_fault(a_document(tasks={"attempts": 0}))


def test_documents_name_projects_files_and_a_hook(tmp_path: Path) -> None:
    """The table is read, relative paths are those beside the file, and what is shown reads back."""
    path = a_node_toml(tmp_path)
    path.write_text(
        f'{path.read_text()}\n[documents]\nprojects = ["CMIP6"]\nhook = ["/bin/true"]\n'
        '[documents.export]\n"CMIP6/publisher/esg.ini" = "esg.ini"\n"CMIP6/a/b" = "/srv/b"\n'
    )
    documents = load(path).documents
    assert (documents.projects, documents.hook) == (("CMIP6",), ("/bin/true",))
    assert {str(name): str(file) for name, file in documents.export.items()} == {
        "CMIP6/publisher/esg.ini": str(tmp_path / "esg.ini"),
        "CMIP6/a/b": "/srv/b",
    }
    shown = to_toml(load(path))
    assert from_document(tomllib.loads(shown), path) == load(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('projects = ["a/b"]', "is no project"),
        ("export = []", "has a list where a table such as"),
        ('export = { "a/b" = "x" }', "write PROJECT/APPLICATION/NAME"),
        ('export = { "A/b/c" = 1 }', "has a number where a text in quotes belongs"),
        ('export = { "A/b/c" = "x", "A/b/d" = "./x" }', "two documents into one file"),
        ('hook = ["true"]', "is no absolute path"),
    ],
)
def test_a_wrong_table_of_documents_is_told(tmp_path: Path, text: str, says: str) -> None:
    """One line: what, where."""
    path = a_node_toml(tmp_path)
    path.write_text(f"{path.read_text()}\n[documents]\n{text}\n")
    with pytest.raises(ConfigError, match=says) as caught:
        load(path)
    assert f"{path} [documents]" in str(caught.value)
    assert "\n" not in str(caught.value)
