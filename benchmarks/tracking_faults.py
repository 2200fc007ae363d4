"""Checks of the tracking campaign in which nodes are cut off, gone, or killed: who is told, and how often."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

from partition import HERE, THERE, cut, far_namespace, heal
from tracking_stage import (
    COPIES,
    HOME,
    MASTER,
    NODES,
    ORIGINAL,
    PLAIN_COMMAND,
    SMALL_HOME,
    VERSION,
    Stage,
    address,
    once_each,
    stay_quiet,
)

# CLONE_NEWNET of Linux.
_NETWORK = 0x40000000
# What the protocol gives claims of others to arrive, and a turn.
FALLBACK_S = 4 * 3600.0


def home_down(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The home node is gone before the retraction: one stand-in tells each user; the home, back again, tells nobody anew."""
    dataset = MASTER.format("tas")
    names = [f"user{number}" for number in range(6)]
    settings = {"fallback_minutes": "1", "quiet_minutes": "0"}
    others = [ORIGINAL, *COPIES, SMALL_HOME]

    def hasty(path: Path) -> list[str]:
        helper = Path(__file__).resolve().parents[1] / "tests" / "helpers" / "hasty_daemon.py"
        env = ["/usr/bin/env", f"SETTLE_S={options.settle_s}"]
        return [*env, sys.executable, "-P", str(helper), "run", "--config", str(path)]

    commands = {} if options.settle_s is None else dict.fromkeys(range(NODES), hasty)
    with Stage(folder, commands=commands, settings=settings) as stage:
        stage.configure(HOME, quiet_minutes=str(options.home_quiet_minutes))
        for name in names:
            # As a site that has a copy of the accounts.
            stage.add_user(name, HOME, known_at=(ORIGINAL, *COPIES))
        stage.begin()
        stage.lay_out_dataset(dataset)
        # Each user at two nodes, so that two claim him; some at his home too.
        for place, name in enumerate(names):
            for number in {(ORIGINAL, *COPIES)[place % 3], (ORIGINAL, *COPIES)[(place + 1) % 3]}:
                stage.fetch(number, [name], dataset)
            if place % 2:
                stage.fetch(HOME, [name], dataset)
        stage.federation.kill(stage.hosts[HOME])
        begun_s = time.monotonic()
        stage.retract(ORIGINAL, dataset)
        stage.wait_for_status("retracted", dataset, numbers=others)
        stage.wait_for_mails(len(names), FALLBACK_S)
        stood_in_s = time.monotonic() - begun_s
        stay_quiet(options.quiet_s)
        before = stage.addresses()
        stage.federation.start(stage.hosts[HOME])
        back_s = time.monotonic()
        stage.converge()
        stage.wait_for_status("retracted", dataset)
        knows_s = time.monotonic() - back_s
        # Its quiet period, and as long again as a mail needs.
        stay_quiet(60.0 * options.home_quiet_minutes + 60.0 + options.quiet_s)
        after = stage.addresses()
        # Of its own downloads; it must have learnt from the claims that these users are told.
        matched = stage.ask(HOME, "status")["tracking"]["matching"]["matches"]
        waited_s = time.monotonic() - back_s
        stage.keep_logs(options.keep, "home-down")
    return {
        "users": len(names),
        "mails_of_stand_ins": sum(before.values()),
        "stood_in_s": round(stood_in_s, 1),
        "home_knows_of_it_s": round(knows_s, 1),
        "watched_after_return_s": round(waited_s, 1),
        "matched_at_home_after_return": matched,
        "mails_after_return": sum(after.values()) - sum(before.values()),
        "told_twice": sum(count > 1 for count in after.values()),
        "holds": before == after == once_each(names) and matched == len(names) // 2,
    }


def partition(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run ``partition_inside`` where a network is nobody else's."""
    command = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"]), sys.executable]
    command += [str(Path(__file__).with_name("tracking_campaign.py")), "--inside", str(folder)]
    command += ["--partition-s", str(options.partition_s), "--quiet-s", str(options.quiet_s)]
    command += [] if options.keep is None else ["--keep", str(options.keep)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout:
        raise AssertionError(f"in the namespace: {done.stderr.strip()[-500:]}")
    outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return outcome


def partition_inside(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The node of the original is cut off, retracts, and is joined again: each user has one mail."""
    dataset = MASTER.format("tas")
    names = [f"user{number}" for number in range(6)]
    rest = [number for number in range(NODES) if number != ORIGINAL]
    with far_namespace() as far:

        def far_command(path: Path) -> list[str]:
            return ["nsenter", "-t", str(far), "-n", *PLAIN_COMMAND(path)]

        settings = {"fallback_minutes": "1"}
        with Stage(folder, commands={ORIGINAL: far_command}, settings=settings) as stage:
            gossip = [stage.federation.node(host).gossip_port for host in stage.hosts]
            for host in stage.hosts:
                path = stage.federation.config_path(host)
                text = path.read_text()
                for number, port in enumerate(gossip):
                    own = THERE if number == ORIGINAL else HERE
                    text = text.replace(f'"127.0.0.1:{port}"', f'"{own}:{port}"')
                path.write_text(text)
            for place, name in enumerate(names):
                # The node that will be cut off could write to all of them itself, and must not.
                stage.add_user(name, SMALL_HOME if place == 0 else HOME, known_at=(ORIGINAL,))
            with far_services(stage, far):
                stage.around[ORIGINAL] = lambda: inside(far)
                stage.begin()
                stage.lay_out_dataset(dataset)
                # Half of them only from the node that is cut off.
                stage.fetch(ORIGINAL, names, dataset)
                stage.fetch(COPIES[0], names[::2], dataset)
                cut(sorted(gossip))
                stage.wait_until(
                    lambda: ((stage.ask(HOME, "status") or {}).get("nodes") or {}).get("unreachable") == 1,
                    "the node is missed",
                )
                stage.retract(ORIGINAL, dataset)
                stage.wait_for_status("retracted", dataset, numbers=[ORIGINAL])
                time.sleep(options.partition_s)
                meanwhile = [stage.status(number, dataset) for number in rest].count("current")
                mails_meanwhile = len(stage.mails())
                shown = Counter(node["status"] for node in stage.ask(ORIGINAL, "nodes"))
                heal()
                begun_s = time.monotonic()
                knows_s = stage.wait_for_status("retracted", dataset)
                stage.wait_until(lambda: len(stage.addresses()) >= len(names), "every user is told")
                told_s = time.monotonic() - begun_s
                stay_quiet(options.quiet_s)
                found = stage.addresses()
                stood_in = claims_of(stage, ORIGINAL), len(list((folder / "far mail").glob("*.eml")))
                stage.keep_logs(options.keep, "partition")
    return {
        "users": len(names),
        "cut_off_s": options.partition_s,
        "nodes_that_did_not_know": meanwhile,
        "mails_meanwhile": mails_meanwhile,
        "shown_by_the_cut_off_node": dict(shown),
        "claims_and_mails_of_it": stood_in,
        "healed_to_known_everywhere_s": round(knows_s, 1),
        "healed_to_last_mail_s": round(told_s, 1),
        "mails": sum(found.values()),
        "holds": meanwhile == len(rest)
        and mails_meanwhile == 0
        and stood_in == (0, 0)
        and found == once_each(names),
    }


def claims_of(stage: Stage, number: int) -> int:
    """Count the claims of a node that it holds itself."""
    path = stage.places[number].folder / "state" / "tracking.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        query = "SELECT count(*) FROM claim WHERE origin = ?"
        return int(connection.execute(query, [stage.hosts[number]]).fetchone()[0])


@contextmanager
def far_services(stage: Stage, far: int) -> Iterator[None]:
    """Run an index for the node in the other namespace, on the port it has here; no mail goes through there."""
    services = stage.federation.services
    assert services is not None
    command = ["nsenter", "-t", str(far), "-n", *services.command()[:-1], str(stage.folder / "far mail")]
    process = subprocess.Popen(command)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def inside(far: int) -> Iterator[None]:
    """Open sockets in the network namespace of another process meanwhile."""
    with Path("/proc/self/ns/net").open("rb") as ours, Path(f"/proc/{far}/ns/net").open("rb") as theirs:
        _enter(theirs.fileno())
        try:
            yield
        finally:
            _enter(ours.fileno())


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _NETWORK):
        raise OSError(ctypes.get_errno(), "setns")


def kill(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All daemons are killed at random while datasets come and go: every user is told of each of his, hardly one twice."""
    random = Random(options.seed)
    datasets = [MASTER.format(f"var{number}") for number in range(options.datasets)]
    names = [f"user{number}" for number in range(options.users)]
    # A publisher at each of three nodes; each dataset has some users, each fetches at one or two nodes.
    holders = (ORIGINAL, *COPIES)
    wanted: Counter[tuple[str, str]] = Counter()
    with Stage(folder, settings={"domain_rate_per_s": "10", "rate_per_s": "10"}) as stage:
        for place, name in enumerate(names):
            stage.add_user(name, SMALL_HOME if place % 4 == 0 else HOME)
        stage.begin()
        plans = []
        for place, dataset in enumerate(datasets):
            chosen = random.sample(names, options.users_of_each)
            wanted.update((address(name), dataset) for name in chosen)
            plans.append((holders[place % 3], holders[(place + 1) % 3], dataset, chosen))
        failures: list[BaseException] = []
        # So that the kills fall among it.
        pace = Random(options.seed + 1)

        def work() -> None:
            try:
                for original, copy, dataset, chosen in plans:
                    time.sleep(pace.uniform(0.0, 3.0))
                    stage.publish(original, dataset)
                    stage.publish(copy, dataset, is_replica=True)
                    stage.fetch(original, chosen[::2], dataset)
                    stage.fetch(copy, chosen, dataset)
                for original, _, dataset, _ in plans:
                    time.sleep(pace.uniform(0.0, 3.0))
                    stage.retract(original, dataset)
            except BaseException as error:  # noqa: BLE001 - told in the thread that waits
                failures.append(error)

        worker = threading.Thread(target=work)
        worker.start()
        kills = 0
        after = 0
        # Also while mails go out; daemons end with the thread that started them, so that is this one.
        while worker.is_alive() or kills < options.kills or after < options.kills // 2:
            time.sleep(random.uniform(0.5, 6.0))
            stage.restart(random.randrange(NODES))
            kills += 1
            after += not worker.is_alive()
        worker.join()
        if failures:
            raise AssertionError(f"the story stops: {failures[0]}")
        begun_s = time.monotonic()
        stage.converge()

        def told() -> Counter[tuple[str, str]]:
            # A mail that came again, as it was, is one: with the same Message-ID.
            once = {str(mail["message-id"]): mail for mail in stage.mails()}.values()
            return Counter(
                (str(mail["to"]), dataset)
                for mail in once
                for text in [mail.get_body(("plain",)).get_content()]
                for dataset in datasets
                if f"{dataset}.v{VERSION}" in text
            )

        # Who was not told is counted below.
        with suppress(AssertionError):
            stage.wait_until(lambda: not wanted - told(), "every user is told of everything")
        told_s = time.monotonic() - begun_s
        stay_quiet(options.quiet_s)
        found = told()
        letters = [str(one["message-id"]) for one in stage.mails()]
        stage.keep_logs(options.keep, "kill")
    again = len(letters) - len(set(letters))
    return {
        "kills": kills,
        "kills_while_data_came_and_went": kills - after,
        "datasets": len(datasets),
        "users_and_datasets": len(wanted),
        "mails": len(letters),
        "lost": sum((wanted - found).values()),
        "told_twice": sum((found - wanted).values()),
        "mails_sent_again_with_the_same_id": again,
        "last_kill_to_last_mail_s": round(told_s, 1),
        "holds": found == wanted and again <= kills and kills - after >= options.kills // 2,
    }
