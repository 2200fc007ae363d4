"""
Break the sending of mails by a real process: kill it, take its server away, give it everything twice; count what arrives.

Prints a figure a line and appends each part to a JSON file. Exit code 1: a claim does not hold.

    .venv/bin/python benchmarks/mail_campaign.py --mails 3000 --kills 41 --users 10000
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from helpers.daemons import eventually
from helpers.mail_server import MailServer, Worker
from helpers.mail_worker import now_ms, take_all
from helpers.mailing import a_change, a_match

LONG_S = 3600.0
BATCH = 500


def fill(worker: Worker, users: int, nodes: str = "a", *, twins: bool = False, seed: int = 1) -> None:
    """Have matches of one change taken: of each user, from each node, of both OpenIDs of some; shuffled."""
    change = a_change(occurred_ms=now_ms())
    matches = [
        (node, a_match(change, user, [f"{node}.nc"], host=f"{node}.example.org"))
        for number in range(users)
        for user in ([f"u{number}", f"u{number}-2"] if twins and number % 10 == 0 else [f"u{number}"])
        for node in nodes
    ]
    if len(nodes) > 1:
        # Four sources, everything once more.
        matches = matches * 2
        Random(seed).shuffle(matches)
    taken = []
    for begin in range(0, len(matches), BATCH):
        part = matches[begin : begin + BATCH]
        taken += [(change, [match for node, match in part if node == one], one) for one in nodes]
    take_all(worker.folder, worker.options, taken)


def verdict(server: MailServer, wanted: int) -> dict[str, Any]:
    """Return what arrived."""
    again, same = server.duplicates()
    arrived = {one.recipient.lower() for one in server.taken}
    return {"mails": wanted, "lost": wanted - len(arrived), "duplicates": again, "same_message_id": same}


def kills(folder: Path, options: argparse.Namespace, *, with_log: bool) -> dict[str, Any]:
    """Kill the process at random, a third of the times between the server's answer and the disk."""
    random = Random(options.seed)
    log = folder / "mail.log" if with_log else None
    begun_s = time.monotonic()
    with MailServer(log) as server:
        worker = Worker(folder / "node", server, {})
        fill(worker, options.mails)
        done, between = 0, 0
        each = options.mails // (options.kills + 1)
        for number in range(options.kills):
            target = len(server.taken) + random.randrange(1, max(each, 2))
            dead = threading.Event()
            kind = number % 3

            def on_taken(
                _taken: Any, target: int = target, dead: threading.Event = dead, kind: int = kind
            ) -> None:
                if len(server.taken) >= target and not dead.is_set():
                    # Before the answer goes out, just after, or a moment later.
                    wait_s = (0.0, random.random() * 0.003, random.random() * 0.05)[kind]
                    process = worker.process
                    if kind == 0:
                        process.kill()
                    else:
                        threading.Timer(wait_s, process.kill).start()
                    dead.set()

            server.on_taken = on_taken
            worker.start()
            eventually(
                lambda worker=worker: worker.process.poll() is not None or worker.states().keys() == {"sent"},
                "it is killed",
                LONG_S,
            )
            done += worker.process.poll() is not None
            worker.kill()
            between += worker.states().get("sending", 0)
        server.on_taken = lambda _taken: None
        worker.start()
        eventually(lambda: worker.states().keys() == {"sent"}, "all are sent", LONG_S)
        worker.stop()
        found = verdict(server, options.mails)
        found |= {
            "kills": done,
            "killed_while_sending": between,
            "mails_a_session": round(len(server.taken) / max(server.sessions, 1)),
            "seconds": round(time.monotonic() - begun_s, 1),
        }
    most = 0 if with_log else done
    holds = found["lost"] == 0 and found["duplicates"] <= most and found["same_message_id"] and done >= 40
    return {
        **found,
        "holds": holds or (options.kills < 40 and found["lost"] == 0 and found["duplicates"] <= most),
    }


def outage(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Take the server away in the middle, for a while, and kill the process meanwhile."""
    mails = min(options.mails, 500)
    with MailServer() as server:
        worker = Worker(folder / "node", server, {"rate_per_s": 100})
        fill(worker, mails)
        worker.start()
        eventually(lambda: len(server.taken) > mails // 3, "some are sent")
        server.stop()
        eventually(lambda: "takes no mail" in worker.fault(), "the fault is said")
        time.sleep(options.outage_s / 2)
        worker.kill()
        worker.start()
        time.sleep(options.outage_s / 2)
        server.start()
        back_s = time.monotonic()
        eventually(lambda: worker.states().keys() == {"sent"}, "all are sent", LONG_S)
        seconds = time.monotonic() - back_s
        eventually(lambda: worker.fault() == "", "the fault ends")
        worker.stop()
        found = verdict(server, mails)
    return {
        **found,
        "outage_s": options.outage_s,
        "seconds_to_go_on": round(seconds, 1),
        "holds": (found["lost"], found["same_message_id"]) == (0, True) and found["duplicates"] <= 1,
    }


def dedup(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Many users at three nodes, everything twice and shuffled, each tenth with two OpenIDs of one address."""
    begun_s = time.monotonic()
    with MailServer() as server:
        worker = Worker(folder / "node", server, {})
        fill(worker, options.users, "abc", twins=True)
        taken_s = time.monotonic() - begun_s
        worker.start()
        eventually(lambda: worker.states().get("sent", 0) >= options.users, "all are sent", LONG_S)
        time.sleep(2)
        worker.stop()
        found = verdict(server, options.users)
        whole = sum(all(f"{node}.nc".encode() in one.content for node in "abc") for one in server.taken)
    seconds = time.monotonic() - begun_s - taken_s
    return {
        **found,
        "matches": (options.users + options.users // 10) * 6,
        "with_files_of_all_nodes": whole,
        "seconds_to_take": round(taken_s, 1),
        "mails_a_second": round(options.users / seconds),
        "holds": (found["lost"], found["duplicates"], whole) == (0, 0, options.users),
    }


def rates(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Count the fullest second at the server, over restarts."""
    limits = {"rate_per_s": 20, "domain_rate_per_s": 2}
    with MailServer() as server:
        worker = Worker(folder / "node", server, limits)
        fill(worker, 300)
        worker.start()
        for part in (60, 120):
            eventually(lambda part=part: len(server.taken) >= part, "some are sent")
            worker.kill()
            worker.start()
        eventually(lambda: worker.states().keys() == {"sent"}, "all are sent", LONG_S)
        worker.stop()
        most = server.most_in_a_second()
        of_domain = server.most_in_a_second(lambda taken: taken.recipient.rpartition("@")[2])
        seconds = server.taken[-1].at_s - server.taken[0].at_s
    del options
    return {
        **limits,
        "most_in_a_second": most,
        "most_of_a_domain": of_domain,
        "mails_a_second": round(300 / seconds, 1),
        "holds": most <= limits["rate_per_s"] and of_domain <= limits["domain_rate_per_s"],
    }


_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
myhostname = mx.example.org
mydestination =
relayhost =
default_transport = discard:
relay_transport = discard:
smtpd_recipient_restrictions = permit_mynetworks, reject
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
alias_maps =
alias_database =
"""


def postfix(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Mail to a real Postfix on loopback that throws everything away, killed ten times, with its own log to reconcile."""
    program = shutil.which("postfix", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None or os.geteuid() != 0:
        return {"skipped": "Postfix is not installed, or this is not root", "holds": True}
    folder.chmod(0o755)
    home = folder / "postfix"
    for name in ("etc", "spool", "data"):
        (home / name).mkdir(parents=True, exist_ok=True)
    shutil.chown(home / "data", "postfix")
    with MailServer() as server:
        port = server.port
    (home / "etc" / "main.cf").write_text(_MAIN.format(folder=home))
    master = (Path("/usr/share/postfix/master.cf.dist")).read_text()
    master = master.replace(
        "smtp      inet  n       -       y       -       -       smtpd",
        f"127.0.0.1:{port} inet n - n - - smtpd",
    )
    services = [line if line.startswith(("#", " ")) else _unchrooted(line) for line in master.splitlines()]
    (home / "etc" / "master.cf").write_text("\n".join(services) + "\n")
    command = [program, "-c", str(home / "etc")]
    subprocess.run([*command, "start"], check=True, capture_output=True)
    mails, killed = min(options.mails, 1000), 0
    random = Random(options.seed)
    try:
        log = home / "mail.log"
        eventually(log.exists, "Postfix writes its log")
        server.log = log
        worker = Worker(folder / "node", server, {"settle_ms": 3000})
        fill(worker, mails)
        for _ in range(10):
            worker.start()
            goal = worker.states().get("sent", 0) + random.randrange(1, mails // 11)
            eventually(lambda goal=goal: worker.states().get("sent", 0) >= goal, "some are sent", LONG_S)
            time.sleep(random.random() * 0.02)
            worker.kill()
            killed += 1
        worker.start()
        eventually(lambda: worker.states().keys() == {"sent"}, "all are sent", LONG_S)
        worker.stop()
        time.sleep(2)
        words = log.read_text().splitlines()
    finally:
        subprocess.run([*command, "stop"], check=False, capture_output=True)
    sent = [line.split("to=<")[1].split(">")[0] for line in words if "status=sent" in line]
    arrived = set(sent)
    return {
        "mails": mails,
        "kills": killed,
        "lost": mails - len(arrived),
        "duplicates": len(sent) - len(arrived),
        "holds": len(arrived) == mails == len(sent),
    }


def _unchrooted(line: str) -> str:
    words = line.split()
    return " ".join([*words[:4], "n", *words[5:]]) if len(words) > 7 else line


PARTS: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "kills": lambda folder, options: kills(folder, options, with_log=False),
    "kills-with-log": lambda folder, options: kills(folder, options, with_log=True),
    "outage": outage,
    "dedup": dedup,
    "rates": rates,
    "postfix": postfix,
}


def main() -> int:
    """Play the parts; 0: every claim holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mails", type=int, default=3000)
    parser.add_argument("--kills", type=int, default=41)
    parser.add_argument("--users", type=int, default=10_000, help="of the part dedup")
    parser.add_argument("--outage-s", type=float, default=20.0, help="600 for the ten minutes of the claim")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", choices=list(PARTS), help="only this one")
    parser.add_argument(
        "--directory", type=Path, help="where to work; a temporary folder where it is left out"
    )
    parser.add_argument("--results", type=Path, help="JSON file to which the results are appended")
    options = parser.parse_args()
    holds = True
    for name, play in PARTS.items():
        if options.part not in (None, name):
            continue
        with tempfile.TemporaryDirectory(prefix="mail-", dir=options.directory) as folder:
            outcome = play(Path(folder), options)
        holds = holds and outcome["holds"]
        for what, figure in outcome.items():
            print(f"{name}: {what} {figure}", flush=True)
        if options.results:
            options.results.parent.mkdir(parents=True, exist_ok=True)
            with options.results.open("a") as file, contextlib.suppress(OSError):
                file.write(json.dumps({"part": name, **outcome}) + "\n")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
