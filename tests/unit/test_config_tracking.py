"""The table [tracking]: what stands alone in it and means nothing, and what check says of it."""

import pytest

from esgf_gossip.cli.tracking_findings import tracking_faults
from esgf_gossip.config import ConfigError, from_document
from esgf_gossip.config_tracking import is_on

MAIL = {
    "smtp": "127.0.0.1:25",
    "sender": "news@node1.example",
    "public_url": "https://node1.example:8952",
    "listen": "127.0.0.1:8952",
}


def config_of(tmp_path, **tracking):
    """Return the configuration of a node with this table."""
    node = {"host": "node1.example", "federation": "test.example"}
    return from_document({"node": node, "tracking": tracking}, tmp_path / "node.toml")


def test_nothing_is_on_by_itself(tmp_path):
    """A node without the table follows the log of datasets and no more; it speaks for its own host."""
    config = config_of(tmp_path)
    assert not is_on(config.tracking)
    assert config.tracking.data_nodes == config.tracking.homes == ("node1.example",)
    assert list(tracking_faults(config)) == []
    assert is_on(config_of(tmp_path, **MAIL).tracking)


@pytest.mark.parametrize(
    ("tracking", "expected"),
    [
        ({"certificate": "a.pem"}, "'certificate' stands without 'key'"),
        ({"dkim_selector": "a"}, "'dkim_selector' stands without 'dkim_key'"),
        ({"kafka": ["k.example:9092"]}, "'kafka' stands without 'kafka_topics'"),
        ({"smtp": "127.0.0.1:25"}, "'smtp' stands without 'sender'"),
        ({**MAIL, "listen": ""}, "'smtp' stands without 'listen'"),
        ({"dry_run": True}, "'dry_run' stands without 'sender'"),
        ({**MAIL, "sender": f"{'a' * 31}@b.example"}, "more than 30 characters before the @"),
        ({"tokens_file": "tokens"}, "'tokens_file' stands without 'listen'"),
        ({"quiet_minutes": 90, "max_delay_minutes": 60}, "less than 'quiet_minutes'"),
        ({"data_nodes": []}, "'data_nodes' is empty"),
        ({"listen": "127.0.0.1:8950"}, "which [http] listen takes too"),
        ({"index": "https://user:secret@index.example"}, "holds a user name and password"),
        ({"index": "ftp://index.example"}, "is no address"),
        ({"sender": "news@"}, "is no address of mail"),
        ({"smtp_security": "ssl"}, "choose among none, starttls, tls"),
        ({"publishers": ["everybody"]}, "is no network"),
    ],
)
def test_what_means_nothing_alone_is_refused(tmp_path, tracking, expected):
    """Each error names the table and the key, and no secret."""
    with pytest.raises(ConfigError, match="tracking") as caught:
        config_of(tmp_path, **tracking)
    assert expected in str(caught.value)
    assert "secret" not in str(caught.value)


def test_check_looks_at_files_and_libraries(tmp_path, monkeypatch):
    """Secrets that others read, files that are not there, libraries that are missing are told, a line each."""
    (tmp_path / "users.csv").write_text("")
    (tmp_path / "users.csv").chmod(0o644)
    monkeypatch.setattr("esgf_gossip.cli.tracking_findings.importlib.util.find_spec", lambda _name: None)
    config = config_of(
        tmp_path,
        **MAIL,
        users_file="users.csv",
        access_logs=["gone.log"],
        kafka=["k.example:9092"],
        kafka_topics=["t"],
        certificate="cert.pem",
        key="key.pem",
        dkim_key="dkim.pem",
        dkim_selector="s",
    )
    lines = list(tracking_faults(config))
    for expected in (
        f"users_file {tmp_path}/users.csv can be read by others; chmod 600",
        f"access_logs {tmp_path}/gone.log: No such file",
        "confluent_kafka is not installed; pip install 'esgf-gossip[kafka]'",
        "cert.pem",
        "dkim.pem",
    ):
        assert any(expected in line for line in lines), (expected, lines)
    assert all(len(line.splitlines()) == 1 for line in lines)
