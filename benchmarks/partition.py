"""
A federation cut in two by a firewall: a conflict made meanwhile is the same everywhere after healing, one merge ends it.

Run as root: python benchmarks/partition.py [--nodes 13]. Two network namespaces joined by a cable of the kernel; nft
drops what goes to or comes from the gossip ports. Nothing leaves the namespaces. Ends with 1 and the reason where
something does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import esgf_gossip.demo.processes as demo
from esgf_gossip.cli.failures import CommandError
from federations import ask, has_one_root, wait

DOCUMENT = "CMIP6/publisher/facets.ini"
HERE, THERE = "10.77.0.1", "10.77.0.2"
GOSSIP_PORT = 18_951
_INSIDE = "ESGF_GOSSIP_PARTITION_INSIDE"


def sh(*command: str, text: str | None = None) -> None:
    """Run a command; its failure is ours."""
    subprocess.run(command, check=True, input=text, text=True)


@contextmanager
def far_namespace() -> Iterator[int]:
    """Give the process id of a second network namespace, joined to ours by a cable."""
    holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    try:
        ours = os.readlink("/proc/self/ns/net")
        wait("the second namespace is there", lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != ours)
        enter = ("nsenter", "-t", str(holder.pid), "-n")
        sh("ip", "link", "set", "lo", "up")
        sh("ip", "link", "add", "cable0", "type", "veth", "peer", "name", "cable1")
        sh("ip", "link", "set", "cable1", "netns", str(holder.pid))
        sh("ip", "address", "add", f"{HERE}/24", "dev", "cable0")
        sh("ip", "link", "set", "cable0", "up")
        sh(*enter, "ip", "link", "set", "lo", "up")
        sh(*enter, "ip", "address", "add", f"{THERE}/24", "dev", "cable1")
        sh(*enter, "ip", "link", "set", "cable1", "up")
        yield holder.pid
    finally:
        holder.kill()
        holder.wait()


def cut(ports: Sequence[int]) -> None:
    """Drop all that goes over the cable to or from a gossip port, also of connections that stand."""
    numbers = ", ".join(str(port) for port in ports)
    rules = [f"tcp {side} {{ {numbers} }} drop" for side in ("dport", "sport")]
    chains = [
        f'chain {hook} {{\ntype filter hook {hook} priority 0; policy accept;\n{name} "cable0" jump cut\n}}'
        for hook, name in (("input", "iifname"), ("output", "oifname"))
    ]
    lines = ["table inet partition {", "chain cut {", *rules, "}", *chains, "}", ""]
    sh("nft", "-f", "-", text="\n".join(lines))


def heal() -> None:
    """Let everything through again."""
    sh("nft", "delete", "table", "inet", "partition")


class Halves:
    """A demo federation whose second half lives in another namespace."""

    def __init__(self, directory: Path, count: int, far: int) -> None:
        self.federation = demo.DemoFederation(directory, count)
        hosts = self.federation.hosts
        # The last of the demo may not write documents; both halves have writers.
        self.near, self.far = hosts[: (count + 1) // 2], hosts[(count + 1) // 2 :]
        self.ports = {host: GOSSIP_PORT + place for place, host in enumerate(hosts)}
        command = demo.daemon_command

        def daemon_command(path: Path) -> list[str]:
            enter = ["nsenter", "-t", str(far), "-n"] if path.parent.name in self.far else []
            return [*enter, *command(path)]

        demo.daemon_command = daemon_command

    def address(self, host: str) -> str:
        """Return where a node listens for its peers."""
        return f"{HERE if host in self.near else THERE}:{self.ports[host]}"

    def prepare(self) -> None:
        """Lay out all nodes, each listening on the address of its half."""
        self.federation.prepare()
        seeds = ", ".join(json.dumps(self.address(host)) for host in (self.near[0], self.far[0]))
        for host in self.federation.hosts:
            path = self.federation.config_path(host)
            lines: list[str] = []
            table = ""
            for line in path.read_text().splitlines():
                key = line.partition("=")[0].strip()
                table = line if line.startswith("[") else table
                if table == "[gossip]" and key in ("listen", "advertise"):
                    line = f"{key} = {json.dumps(self.address(host))}"
                elif table == "[gossip]" and key == "seeds":
                    line = f"seeds = [{seeds}]"
                lines.append(line)
            path.write_text("\n".join([*lines, ""]))

    def put(self, host: str, text: str, *, merge: bool = False) -> Any:
        """Write the document on a node."""
        content = b64encode(text.encode()).decode()
        return self.federation.control(host).ask(
            "document-put", document=DOCUMENT, base64=content, if_match="", merge=merge
        )

    def heads(self) -> set[str]:
        """Return the different pictures of the document that nodes show: its heads in their order."""
        found = set()
        for host in self.federation.hosts:
            documents = ask(self.federation, host, "documents") or []
            documents = documents.get("documents", []) if isinstance(documents, dict) else documents
            heads = [one["heads"] for one in documents if one["document"] == DOCUMENT]
            found.add(json.dumps([head["version"] for head in heads[0]] if heads else []))
        return found


def play(count: int) -> dict[str, Any]:
    """Play it once; return what was measured."""
    told: dict[str, Any] = {"nodes": count}
    with tempfile.TemporaryDirectory(prefix="partition-") as folder, far_namespace() as far:
        halves = Halves(Path(folder), count, far)
        with halves.federation as federation:
            halves.prepare()
            federation.start_all()
            told["converge_s"] = wait("one root over both halves", lambda: has_one_root(federation))
            halves.put(halves.near[0], "before the cut")
            wait("all hold the first version", lambda: len(halves.heads()) == 1 and halves.heads() != {"[]"})
            without = federation.hosts[-1]
            try:
                halves.put(without, "without the role")
                raise SystemExit(f"{without} has no role, and may write")
            except CommandError as error:
                told["refused"] = str(error)[:100]
            cut(sorted(halves.ports.values()))
            told["noticed_s"] = wait(
                "both halves miss the other",
                lambda: all(
                    (ask(federation, host, "status") or {"nodes": {}})["nodes"].get("unreachable")
                    == len(other)
                    for host, other in ((halves.near[0], halves.far), (halves.far[0], halves.near))
                ),
            )
            halves.put(halves.near[0], "said here")
            halves.put(halves.far[0], "said there")
            wait("each half holds its own word", lambda: len(halves.heads()) == 2)
            heal()
            told["conflict_s"] = wait(
                "one conflict everywhere",
                lambda: len(found := halves.heads()) == 1 and len(json.loads(next(iter(found)))) == 2,
            )
            told["root_s"] = wait("one root after healing", lambda: has_one_root(federation))
            merged = halves.put(halves.far[1], "said together", merge=True)
            told["merged_s"] = wait(
                "one merge ends it everywhere",
                lambda: len(found := halves.heads()) == 1 and len(json.loads(next(iter(found)))) == 1,
            )
            told["version"] = str(merged)[:60]
            told["forked"] = sum(
                node["forked"] for host in federation.hosts for node in ask(federation, host, "nodes") or []
            )
    return told


def main() -> None:
    """Enter a network namespace of our own, then play."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=13)
    arguments = parser.parse_args()
    if os.environ.get(_INSIDE) != "1":
        os.environ[_INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])
    print(json.dumps(play(arguments.nodes)))


if __name__ == "__main__":
    main()
