"""Metadata documents between real daemons: a conflict of two writers, its end, and a writer without the role."""

import hashlib
import json
import subprocess
import sys
from contextlib import closing

from esgf_gossip.config import load
from esgf_gossip.core.log_effects import PersistLeaves
from esgf_gossip.core.logs import Log
from esgf_gossip.core.merkle import Tree
from esgf_gossip.documents.leaves import LOG
from esgf_gossip.documents.names import parse_name
from esgf_gossip.storage.database import FILE_NAME, Database
from helpers.daemons import a_federation_of_processes, all_equal, eventually, fetch, fetch_json
from helpers.writers import put_leaves

NAME = "CMIP6/publisher/facets.ini"
PATH = f"/api/v1/documents/{NAME}"


def doc(federation, host, *arguments, content=None):
    """Run the command doc on a node; return exit code, output and what it said."""
    command = [
        sys.executable,
        "-m",
        "esgf_gossip.cli.main",
        "doc",
        *arguments,
        "--config",
        federation.config_path(host),
    ]
    done = subprocess.run(command, input=content, capture_output=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr.decode()


def heads(federation, host):
    """Return the heads of the document as a node serves them, none while it does not."""
    try:
        status, _, body = fetch(federation.http_url(host), PATH)
    except OSError:
        return []
    return json.loads(body)["heads"] if status == 200 else []


def texts(federation, host):
    """Return what the heads say."""
    return [head["text"] for head in heads(federation, host)]


def refusals(federation, host):
    """Return what a node refuses, None while it does not answer."""
    try:
        return fetch_json(federation.http_url(host), "/api/v1/documents/refused")
    except OSError:
        return None


def forge(config_path, author):
    """Put a version into the log on the disk of a node that does not run: its daemon signs it when it starts."""
    leaves = tuple(put_leaves(parse_name(NAME), b"forged\n"))
    with closing(Database(load(config_path).node.state / FILE_NAME)) as database:
        database.apply([PersistLeaves(author, LOG, Log(1, Tree().extended(leaves), None), 0, leaves)])


def test_a_conflict_is_visible_everywhere_and_one_merge_ends_it(tmp_path):
    """Two that cannot hear each other write; all show both in one order; one merge ends it on every node, and in its file."""
    with a_federation_of_processes(tmp_path, 4) as federation:
        one, other, reader, without = federation.hosts
        config = federation.config_path(reader)
        hook = 'hook = ["/bin/sh", "-c", "echo $ESGF_GOSSIP_DOCUMENT_EVENT >> told"]\n'
        config.write_text(
            f'{config.read_text()}\n[documents]\nexport = {{ "{NAME}" = "facets.ini" }}\n{hook}'
        )
        assert "documents" in federation.control(reader).ask("reload")["changed"]
        exported = config.parent / "facets.ini"

        code, said, _ = doc(federation, one, "put", NAME, "-", content=b"common\n")
        assert code == 0
        first = said.decode().strip()
        eventually(
            lambda: all(texts(federation, host) == ["common\n"] for host in federation.hosts),
            "it is everywhere",
        )
        eventually(exported.exists, "it is in the file")
        assert exported.read_bytes() == b"common\n"
        eventually((config.parent / "told").exists, "the hook was told")

        # Each alone in the world, they write over the same version.
        for host in federation.hosts:
            federation.kill(host)
        for host, content in ((one, b"of one\n"), (other, b"of the other\n")):
            federation.start(host)
            eventually(lambda host=host: texts(federation, host) == ["common\n"], "it is back")
            code, _, error = doc(federation, host, "put", NAME, "-", "--if-match", first[:8], content=content)
            assert (code, error) == (0, "")
            federation.kill(host)
        for host in federation.hosts:
            federation.start(host)
        both = {"of one\n", "of the other\n"}
        eventually(
            lambda: all(set(texts(federation, host)) == both for host in federation.hosts),
            "both are everywhere",
        )
        assert len({json.dumps(heads(federation, host)) for host in federation.hosts}) == 1
        shown = heads(federation, reader)
        assert {head["author"] for head in shown} == {one, other}
        eventually(lambda: exported.read_text() == shown[0]["text"], "the file holds the first")
        status, _, problem = fetch(federation.http_url(reader), f"{PATH}/content")
        assert status == 409
        assert "in conflict" in json.loads(problem)["detail"]
        page = fetch(federation.http_url(reader), "/metadata", {"Accept": "text/html"})[2].decode()
        assert "conflict of 2" in page

        code, _, error = doc(federation, other, "put", NAME, "-", content=b"mine\n")
        assert code == 4
        assert error.count("\n") == 1
        assert "--merge" in error
        code, said, _ = doc(federation, other, "put", NAME, "-", "--merge", content=b"of both\n")
        assert code == 0
        eventually(
            lambda: all(texts(federation, host) == ["of both\n"] for host in federation.hosts),
            "the merge is everywhere",
        )
        eventually(lambda: exported.read_bytes() == b"of both\n", "the file follows")
        assert heads(federation, one)[0]["version"] == said.decode().strip()
        url = federation.http_url(one)
        _, fields, content = fetch(url, f"{PATH}/content")
        assert content == b"of both\n"
        assert fields["etag"] == f'"{hashlib.sha256(content).hexdigest()}"'
        assert fetch(url, f"{PATH}/content", {"If-None-Match": fields["etag"]})[0] == 304
        assert doc(federation, reader, "get", NAME, first[:12])[1] == b"common\n"

        # The last node's certificate has no role: its own daemon says so, and what it signs all the same counts nowhere.
        code, _, error = doc(federation, without, "put", NAME, "-", content=b"forged\n")
        assert code == 4
        assert "--role document-writer.cmip6" in error
        federation.kill(without)
        forge(config_path=federation.config_path(without), author=without)
        federation.start(without)
        reason = f"the certificate of {without} has not the role document-writer.cmip6"
        for host in federation.hosts:
            refused = [{"author": without, "leaf": 1, "document": NAME, "reason": reason}]
            eventually(
                lambda host=host, refused=refused: refusals(federation, host) == refused, f"{host} refuses it"
            )
            assert texts(federation, host) == ["of both\n"]
        # Whatever else they say of each other meanwhile is on its way for a moment.
        eventually(lambda: all_equal(federation, federation.hosts, 4), "one root over all")
        assert [one["heads_total"] for one in fetch_json(url, "/api/v1/documents")] == [1]
