"""Checks of the tracking campaign on a federation that is whole: who is told, by which ways, and what nobody may hear."""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from random import Random
from typing import Any

import attrs

from esgf_gossip.demo.site_calls import ask, checksum, file_names, file_path, openid, publish
from esgf_gossip.demo.story import USERS, Story, write_users
from helpers.daemons import eventually, fetch
from helpers.stac import RETRACT, a_patch, a_post, an_asset
from tracking_stage import (
    COPIES,
    DEADLINE_S,
    HOME,
    MASTER,
    NODES,
    ORIGINAL,
    SMALL_HOME,
    VERSION,
    Stage,
    once_each,
    stay_quiet,
)

HELPERS = Path(__file__).resolve().parents[1] / "tests" / "helpers"
NEXT_VERSION = "20260302"


def _play_story(stage: Stage) -> Story:
    services = stage.federation.services
    assert services is not None
    write_users(stage.places)
    stage.begin()
    story = Story(stage.places, services.mailbox_url, services.recipients, lambda _: None)

    def is_over() -> bool:
        story.step()
        return story.is_over

    eventually(is_over, "the story comes true", DEADLINE_S)
    return story


def _concerned() -> Counter[str]:
    return Counter(user.address for user in USERS if user.is_concerned)


def story(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The story of the demo: each user who holds what is retracted has one mail, and nobody else."""
    with Stage(folder) as stage:
        told = _play_story(stage)
        stay_quiet(options.quiet_s)
        found, wanted = stage.addresses(), _concerned()
    return {
        "users": len(USERS),
        "concerned": len(wanted),
        "with_one_mail": sum(found[one] == 1 for one in wanted),
        "mails_to_others": sum((found - wanted).values()),
        "retraction_to_last_mail_s": told.report()["retracted_to_mails_s"],
        "holds": found == wanted,
    }


def forged(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Another member says that data is retracted: refused by its own daemon, and by all others where it lies."""
    dataset = MASTER.format("tas")
    liar, names = SMALL_HOME, [f"user{number}" for number in range(5)]

    def lying(path: Path) -> list[str]:
        return [sys.executable, "-P", str(HELPERS / "forging_daemon.py"), "run", "--config", str(path)]

    with Stage(folder, commands={liar: lying}) as stage:
        for name in names:
            stage.add_user(name, HOME)
        stage.begin()
        stage.lay_out_dataset(dataset)
        for number in (ORIGINAL, *COPIES):
            stage.fetch(number, names, dataset)
        version, owner = f"{dataset}.v{VERSION}", stage.hosts[ORIGINAL]
        honest = [
            stage.cli(COPIES[0], "dataset", "retract", version, "--data-node", owner),
            stage.cli(COPIES[0], "dataset", "retract", version),
        ]
        later, replaces = f"{dataset}.v{NEXT_VERSION}", ("--supersedes", VERSION, "--json")
        lies = [
            stage.cli(liar, "dataset", "retract", version, "--data-node", owner, "--json"),
            stage.cli(liar, "dataset", "retract", version, "--json"),
            stage.cli(liar, "dataset", "new-version", later, *replaces, "--data-node", owner),
            stage.cli(liar, "dataset", "new-version", later, *replaces),
        ]
        said = [one for done in lies for one in json_of(done)]
        judges = [number for number in range(NODES) if number != liar]

        def quarantined(number: int) -> list[dict[str, Any]]:
            found = stage.ask(number, "dataset-quarantine") or []
            return [one for one in found if one["origin"] == stage.hosts[liar]]

        eventually(
            lambda: all(len(quarantined(number)) >= len(said) for number in judges),
            "all have judged",
            DEADLINE_S,
        )
        stay_quiet(options.quiet_s)
        held = [len(quarantined(number)) for number in judges]
        counted = [stage.status(number, dataset) for number in judges].count("current")
        mails = len(stage.mails())
        # Said a minute after its claim, which the liar contests: two people let the truth go.
        stage.retract(ORIGINAL, dataset)
        stage.wait_until(lambda: _listed(stage, version).get("state") == "held", "the truth is held")
        stay_quiet(options.quiet_s)
        before_release = len(stage.mails())
        for who in ("ann", "bob"):
            change = _listed(stage, version)["change"]
            stage.ask(HOME, "notify-release", change=change, who=who, confirm=True)
        stage.wait_for_mails(len(names))
        stay_quiet(options.quiet_s)
        after = stage.addresses()
        reasons = sorted({one["quarantine"] for one in quarantined(ORIGINAL)})
    return {
        "honest_refused": sum(one.returncode != 0 for one in honest),
        "lies_in_the_log": len(said),
        "quarantined_by_each": held,
        "still_current_at": counted,
        "mails_of_lies": mails,
        "mails_of_the_truth_before_release": before_release,
        "mails_of_the_truth": sum(after.values()),
        "reasons": reasons,
        "holds": all(one.returncode for one in honest)
        and len(said) >= len(lies)
        and set(held) == {len(said)}
        and counted == len(judges)
        and mails == before_release == 0
        and after == once_each(names),
    }


def _listed(stage: Stage, dataset: str) -> dict[str, Any]:
    """Return how the change of a version stands at the home; empty: nobody was matched yet."""
    found = stage.ask(HOME, "notify-list", limit=9) or []
    return next((dict(one) for one in found if one["dataset"] == dataset), {})


def squatted(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """A member claims what another's catalog knows quietly, and retracts it: nobody is mailed. What nobody serves is mailed."""
    served, unserved = MASTER.format("tas"), MASTER.format("pr")
    squatter, names = SMALL_HOME, [f"user{number}" for number in range(5)]
    with Stage(folder) as stage:
        stage.configure(HOME, quiet_minutes="1")
        for name in names:
            stage.add_user(name, HOME)
        stage.begin()
        owner, services = stage.places[ORIGINAL], stage.federation.services
        assert services is not None
        # Past the proxy and before the first look through the index, as data from before tracking.
        beside = attrs.evolve(owner, tracking_port=services.index)
        publish(beside, served, VERSION, is_replica=False)
        stage.configure(ORIGINAL, index_poll_minutes="1", data_nodes=json.dumps([owner.host]))
        stage.restart(ORIGINAL)
        stage.converge()
        stage.wait_until(lambda: _copies(owner.folder, served), "the catalog knows it")
        for master_id in (served, unserved):
            for number in (ORIGINAL, *COPIES):
                stage.fetch(number, names, master_id)
        quietly = stage.status(HOME, served)
        begun_s = time.monotonic()
        for master_id in (served, unserved):
            done = stage.cli(squatter, "dataset", "retract", f"{master_id}.v{VERSION}", "--json")
            json_of(done)
        version = f"{served}.v{VERSION}"
        stage.wait_until(lambda: _listed(stage, version).get("state") == "held", "it is held at home")
        held_s = time.monotonic() - begun_s
        stage.wait_for_mails(len(names))
        stay_quiet(options.quiet_s)
        letters = stage.letters()
        fault = (stage.ask(HOME, "status") or {})["tracking"]["faults"].get("held", "")
        told, alarm = (
            _listed(stage, version),
            (stage.ask(ORIGINAL, "status") or {})["datasets"]["foreign_claims"],
        )
    return {
        "before": quietly,
        "held_by": told["held_by"],
        "held_after_s": round(held_s, 1),
        "users": told["recipients"],
        "alarm_at_the_owner": alarm,
        "fault_at_home": fault,
        "mails_of_what_is_served": sum(version in text for _, _, text in letters),
        "mails_of_what_nobody_serves": sum(f"{unserved}.v" in text for _, _, text in letters),
        "holds": quietly == "unknown"
        and told["recipients"] == len(names)
        and alarm == 1
        and bool(fault)
        and not any(version in text for _, _, text in letters)
        and len(letters) == len(names),
    }


def _copies(folder: Path, master_id: str) -> int:
    """Return how many copies of a dataset the catalog of a node knows."""
    found = 0
    for path in folder.rglob("tracking.db"):
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            query = "SELECT count(*) FROM copy WHERE master_id = ?"
            found += connection.execute(query, (master_id,)).fetchone()[0]
    return found


def json_of(done: Any) -> list[dict[str, Any]]:
    """Return what a command wrote into the log."""
    if done.returncode:
        raise AssertionError(f"the liar's own command line refuses: {done.stderr.strip()}")
    return list(json.loads(done.stdout)["written"])


def late_joiner(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """A node starts when all is over, with downloads of its own: it learns all and mails nobody."""
    dataset, other = MASTER.format("tas"), MASTER.format("pr")
    names, late = [f"user{number}" for number in range(5)], NODES
    with Stage(folder, NODES + 1) as stage:
        for name in names:
            stage.add_user(name, HOME)
        stage.add_user("otherwise", HOME)
        stage.begin()
        stage.lay_out_dataset(dataset)
        stage.publish(ORIGINAL, other)
        stage.fetch(COPIES[0], names, dataset)
        # At the late node the same users have files of it, one has files of what is not retracted.
        stage.fetch(late, names, dataset)
        stage.fetch(late, ["otherwise"], other)
        stage.retract(ORIGINAL, dataset)
        stage.wait_for_mails(len(names))
        begun_s = time.monotonic()
        stage.federation.start(stage.hosts[late])
        everybody = range(NODES + 1)
        stage.converge(everybody)
        converged_s = time.monotonic() - begun_s
        stage.wait_for_status("retracted", dataset, numbers=everybody)
        knows_s = time.monotonic() - begun_s

        def taken_home() -> int:
            state = (stage.ask(late, "status") or {}).get("tracking") or {}
            return int(state.get("homeward", {}).get("taken", 0))

        # Its own log names users who hold it: their home hears of them, and has told them already.
        stage.wait_until(lambda: taken_home() >= len(names), "the late node brings its matches home")
        brought = taken_home()
        stay_quiet(options.quiet_s)
        found = stage.addresses()
    return {
        "mails_before": len(names),
        "converged_s": round(converged_s, 1),
        "knows_of_it_s": round(knows_s, 1),
        "brought_home_by_it": brought,
        "mails_after": sum(found.values()) - len(names),
        "holds": found == once_each(names),
    }


def sources(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One story told by four sources, in changing order: each change is one event and one mail."""
    dataset, names = MASTER.format("tas"), [f"user{number}" for number in range(5)]
    random = Random(options.seed)
    token = "campaign" * 8
    with Stage(folder) as stage:
        for name in names:
            stage.add_user(name, HOME)
        node = stage.places[ORIGINAL]
        (node.folder / "tokens").touch(mode=0o600)
        (node.folder / "tokens").write_text(f"{token}\n")
        stage.configure(ORIGINAL, tokens_file='"tokens"', spool='"spool"')
        stage.begin()
        handed_in = 0

        def post(message: Any) -> None:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            ask(node, node.tracking_port, "/events", json.dumps(message), headers, HTTPStatus.ACCEPTED)

        def drop(message: Any) -> None:
            nonlocal handed_in
            handed_in += 1
            name = f"event-{handed_in}"
            (node.folder / "spool" / "tmp" / name).write_text(json.dumps(message))
            (node.folder / "spool" / "tmp" / name).rename(node.folder / "spool" / "new" / name)
            eventually((node.folder / "spool" / "done" / name).exists, "the spool is read", DEADLINE_S)

        def by_hand(*words: str) -> None:
            done = stage.cli(ORIGINAL, "dataset", *words)
            if done.returncode:
                raise AssertionError(f"dataset {' '.join(words)}: {done.stderr.strip()}")

        def now(message: Any) -> Any:
            message["metadata"]["time"] = datetime.now(UTC).replace(tzinfo=None).isoformat()
            message["metadata"]["event_id"] = f"{random.getrandbits(128):032x}"
            return message

        def an_item(version: str) -> Any:
            assets = {
                name: an_asset(
                    node.host,
                    href=f"https://{node.host}{file_path(dataset, version, name)}",
                    # The same digest as the record of the index has.
                    **{"file:checksum": f"1220{checksum(version)}"},
                )
                for name in file_names(dataset)
            }
            return now(a_post(f"{dataset}.v{version}", assets))

        def a_retraction(version: str) -> Any:
            return now(a_patch(RETRACT, f"{dataset}.v{version}"))

        def tell(*ways: Any) -> None:
            order = list(ways)
            random.shuffle(order)
            for way in order:
                way()

        def publish(version: str, *word: str) -> None:
            tell(
                lambda: stage.publish(ORIGINAL, dataset, version),
                lambda: post(an_item(version)),
                lambda: drop(an_item(version)),
                lambda: by_hand(*word, f"{dataset}.v{version}"),
            )

        publish(VERSION, "publish")
        stage.fetch(ORIGINAL, names, dataset)
        stage.wait_for_status("current", dataset)
        publish(NEXT_VERSION, "new-version")
        stage.wait_for_mails(len(names))
        updates = stage.addresses()
        tell(
            lambda: stage.retract(ORIGINAL, dataset),
            lambda: post(a_retraction(VERSION)),
            lambda: drop(a_retraction(VERSION)),
            lambda: by_hand("retract", f"{dataset}.v{VERSION}"),
        )
        stage.wait_for_mails(2 * len(names))
        stay_quiet(options.quiet_s)
        total = stage.addresses()
        events = [
            Counter(one["type"] for one in stage.ask(number, "dataset-events", limit="1000")["events"])
            for number in range(NODES)
        ]
    wanted = {"published": 1, "new-version": 1, "retracted": 1}
    return {
        "calls": 12,
        "events": dict(events[ORIGINAL]),
        "nodes_that_say_the_same": sum(one == events[ORIGINAL] for one in events),
        "mails_of_the_new_version": sum(updates.values()),
        "mails_of_the_retraction": sum((total - updates).values()),
        "holds": all(one == wanted for one in events)
        and updates == once_each(names)
        and total - updates == once_each(names),
    }


def privacy(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What daemons say to each other, write and show: no address, and no OpenID but to its home."""
    tap = folder / "tap"

    def tapped(path: Path) -> list[str]:
        env = ["/usr/bin/env", f"TAP_FOLDER={tap / path.parent.name}"]
        return [*env, sys.executable, "-P", str(HELPERS / "tapped_daemon.py"), "run", "--config", str(path)]

    with Stage(folder, commands=dict.fromkeys(range(NODES), tapped)) as stage:
        _play_story(stage)
        stay_quiet(options.quiet_s)
        shown = [
            fetch(f"http://127.0.0.1:{place.http_port}", path)[2]
            for place in stage.places
            for path in (
                "/metrics",
                "/api/v1/nodes",
                "/api/v1/datasets/events",
                "/api/v1/datasets/quarantine",
            )
        ]
        status = [json.dumps(stage.ask(number, "status")).encode() for number in range(NODES)]
        mails = stage.addresses()
        homes = {
            openid(stage.places[user.home], name): stage.hosts[user.home]
            for user in USERS
            for name in user.openids
        }
    said = {path: path.read_bytes() for path in tap.glob("*/to-*")}
    logs = [path.read_bytes() for path in (folder / "demo").glob("nodes/*/daemon.log")]
    addresses = [user.address for user in USERS]
    found = {
        "bytes_captured": sum(map(len, said.values())),
        "streams": len(said),
        "addresses_said": _count(addresses, said.values()),
        "openids_said_to_home": sum(
            text.count(one.encode())
            for path, text in said.items()
            for one, home in homes.items()
            if path.name == f"to-{home}"
        ),
        "openids_said_to_others": sum(
            text.count(one.encode())
            for path, text in said.items()
            for one, home in homes.items()
            if path.name != f"to-{home}"
        ),
        "in_logs": _count([*addresses, *homes], logs),
        "in_metrics_and_pages": _count([*addresses, *homes], [*shown, *status]),
    }
    zeros = ("addresses_said", "openids_said_to_others", "in_logs", "in_metrics_and_pages")
    return {
        **found,
        "holds": not any(found[name] for name in zeros)
        and found["openids_said_to_home"] > 0
        and found["streams"] >= NODES * (NODES - 1)
        and mails == _concerned(),
    }


def _count(words: Any, texts: Any) -> int:
    return sum(text.count(word.encode()) for word in words for text in texts)
