"""Task files and their order: what is a task, and which comes next; tasks."""

import json
from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import fail, succeed

from esgf_gossip.dataset_errors import DatasetError
from esgf_gossip.document_desk import DocumentError
from esgf_gossip.tasks.actions import (
    ACTIONS,
    ARGUMENTS,
    Gone,
    Note,
    Nothing,
    Put,
    Said,
    TaskRefusedError,
    TryAgainError,
    Window,
)
from esgf_gossip.tasks.queue import BACKOFF_MOST_S, SIDE_BY_SIDE, Queue, Waiting, backoff_s
from esgf_gossip.tasks.task import DEPTH_MOST, FILE_BYTES, Task, TaskError, parse_task


def test_maintenance_is_announced_up_to_a_time_and_ended_by_one_that_has_passed():
    """Done again it means the same; a window that cannot be is refused for good."""
    told = []
    daemon = SimpleNamespace(now_ms=lambda: 1_800_000_000_000, announce=told.append)
    run = ACTIONS["maintenance"].run
    run(daemon, Window("2027-01-15T10:00:00Z", "new disks"))
    assert (told[-1].begins_ms, told[-1].ends_ms - told[-1].begins_ms) == (1_800_000_000_000, 7_200_000)
    run(daemon, Window("2027-01-15T08:00:00+00:00"))
    assert told[-1] is None
    with pytest.raises(TaskRefusedError, match="longer than 30 days"):
        run(daemon, Window("2027-04-01T00:00:00Z"))
    for wrong in ("tomorrow", "2027-01-15", "2027-01-15T10:00:00", ""):
        with pytest.raises(ValueError, match="'until'"):
            Window(wrong)


def parsed(content):
    """Read a task file called ``f.json``."""
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    return parse_task(content, "f.json", ARGUMENTS)


def test_a_task_says_what_who_and_in_which_order():
    """Fields are read as they are documented; the name of the file stands in for an id."""
    given_id = {"id": "i", "key": "k", "action": "note", "text": "Größe"}
    assert parsed(given_id) == Task("i", "note", "k", Note("Größe"))
    assert parsed({"action": "reload"}) == Task("f.json", "reload", "", Nothing())


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "no JSON"),
        (b"\xff", "byte 0 is not UTF-8"),
        (b" " * (FILE_BYTES + 1), "larger than 65536 bytes"),
        (b"[" * 50_000, "nested deeper"),
        ({"action": "reload", "x": json.loads("[" * DEPTH_MOST + "]" * DEPTH_MOST)}, "nested deeper"),
        (b'{"action": "note", "text": NaN}', "NaN is no JSON"),
        (b'{"action": "note", "text": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"action": "reload", "action": "note"}', "stands twice"),
        ([], "no JSON object"),
        ({}, "'action' is missing"),
        ({"action": "relaod"}, "the nearest known is 'reload'"),
        ({"action": "note"}, "'text' is missing"),
        ({"action": "note", "txt": "x"}, "the nearest known is 'text'"),
        ({"action": "note", "text": 5}, "'text' is no text"),
        ({"action": "note", "text": ""}, "'text' is not 1 to 2000"),
        ({"action": "note", "text": "a\nb"}, "printable"),
        ({"action": "reload", "id": 7}, "'id' is no text"),
        ({"action": "reload", "id": "x" * 129}, "'id' is not 1 to 128"),
        ({"action": "reload", "key": "\x1b[2J"}, "'key' is not 1 to 128"),
    ],
)
def test_what_is_no_task_is_told_in_one_line(content, what):
    """Each fault has its own words."""
    with pytest.raises(TaskError) as caught:
        parsed(content)
    assert what in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(repr).map(str.encode)
)
def test_any_bytes_give_a_task_or_an_error(content):
    """Nothing else is raised, whatever a program writes."""
    with pytest.raises(TaskError):
        parsed(content)


@pytest.mark.parametrize("name", sorted(ACTIONS))
def test_an_action_says_what_it_does(name):
    """The help of submit needs a line of each."""
    assert ACTIONS[name].about
    assert ACTIONS[name].timeout_s > 0


def test_a_reload_that_is_refused_is_final_and_a_disk_is_tried_again():
    """What an administrator must mend is told at once."""
    daemon = SimpleNamespace(reload=lambda: succeed({"refused": ["bad"]}), rebuild_lists=lambda: ["full"])
    caught = []
    ACTIONS["reload"].run(daemon, Nothing()).addErrback(lambda failure: caught.append(failure.value))
    assert [(type(one), str(one)) for one in caught] == [(TaskRefusedError, "bad")]
    with pytest.raises(TryAgainError, match="full"):
        ACTIONS["rebuild-lists"].run(daemon, Nothing())


def test_a_document_is_put_and_deleted_and_what_cannot_be_is_told_apart():
    """A disk that fails is tried again, a missing role is final, a document that is gone is gone."""
    asked, faults = [], []

    def put(name, body, *, merge=False):
        asked.append((str(name), body, merge))
        if faults:
            raise DocumentError("no", faults.pop())

    daemon = SimpleNamespace(metadata=SimpleNamespace(desk=SimpleNamespace(put=put)))
    ACTIONS["put-document"].run(daemon, Put("CMIP6/a/b", "x\ny", merge=True))
    ACTIONS["delete-document"].run(daemon, Gone("CMIP6/a/b"))
    assert asked == [("CMIP6/a/b", b"x\ny", True), ("CMIP6/a/b", None, False)]
    for status, error in ((403, TaskRefusedError), (409, TaskRefusedError), (503, TryAgainError)):
        faults.append(status)
        with pytest.raises(error):
            ACTIONS["put-document"].run(daemon, Put("CMIP6/a/b", "x"))
    faults.append(404)
    ACTIONS["delete-document"].run(daemon, Gone("CMIP6/a/b"))
    assert not faults
    for fields, words in (
        ({"document": "CMIP6/a", "text": "x"}, "write PROJECT/APPLICATION/NAME"),
        ({"document": "CMIP6/a/b"}, "'text' is missing"),
        ({"document": "CMIP6/a/b", "text": 7}, "'text' is no text"),
        ({"document": "CMIP6/a/b", "text": "x", "merge": "yes"}, "'merge' is not true or false"),
    ):
        with pytest.raises(TaskError, match=words):
            parse_task(json.dumps({"action": "put-document", **fields}).encode(), "f", ARGUMENTS)


def test_datasets_are_said_and_what_cannot_be_is_told_apart():
    """The words of a task reach the keeper; a disk that fails is tried again, a refusal is final."""
    said, faults, caught = [], [], []

    def say(word):
        said.append(
            (word.type.value, str(word.dataset), word.data_node, word.reason, word.supersedes, word.source)
        )
        return fail(DatasetError("no", faults.pop())) if faults else succeed([])

    daemon = SimpleNamespace(datasets=SimpleNamespace(say=say), now_ms=lambda: 7)
    for action, fields in (
        ("publish-dataset", {"dataset": "CMIP6.a.b#1"}),
        ("new-version-dataset", {"dataset": "CMIP6.a.b.v20", "supersedes": ["9", "v10"]}),
        ("retract-dataset", {"dataset": "CMIP6.a.b.v1|Data.org", "reason": "wrong"}),
        ("reinstate-dataset", {"dataset": "CMIP6.a.b.v1"}),
    ):
        task = parse_task(json.dumps({"action": action, **fields}).encode(), "f", ARGUMENTS)
        ACTIONS[action].run(daemon, task.arguments)
    assert said == [
        ("published", "CMIP6.a.b.v1", "", "", (), "task"),
        ("new-version", "CMIP6.a.b.v20", "", "", ("10", "9"), "task"),
        ("retracted", "CMIP6.a.b.v1", "data.org", "wrong", (), "task"),
        ("reinstated", "CMIP6.a.b.v1", "", "", (), "task"),
    ]
    for status, error in ((403, TaskRefusedError), (409, TaskRefusedError), (503, TryAgainError)):
        faults.append(status)
        ACTIONS["publish-dataset"].run(daemon, Said("CMIP6.a.b.v1")).addErrback(
            lambda failure: caught.append(type(failure.value))
        )
        assert caught.pop() is error
    for fields, words in (
        ({"dataset": "CMIP6.a.b"}, "names no version"),
        ({"dataset": 7}, "'dataset' is no text"),
        ({"dataset": "CMIP6.a.b.v2", "supersedes": "1"}, "'supersedes' is no list"),
        ({"dataset": "CMIP6.a.b.v2", "supersedes": ["x"]}, "names no version"),
        ({"dataset": "CMIP6.a.b.v2", "supersedes": ["1"] * 17}, "more than 16"),
    ):
        with pytest.raises(TaskError, match=words):
            parse_task(json.dumps({"action": "new-version-dataset", **fields}).encode(), "f", ARGUMENTS)


def a_task(number, key="", task_id=""):
    """Make the task of the file written as the given one."""
    return Waiting(f"f{number}", task_id or f"i{number}", key, (1, number, f"f{number}"))


def started(queue, now_s=0.0):
    """Start all that may be started; return their names."""
    names = []
    while (task := queue.next(now_s)) is not None:
        names.append(task.name)
    return names


def test_a_key_holds_its_tasks_back_and_no_others():
    """One after the other within a key, four side by side beyond it."""
    queue = Queue()
    for number, key in enumerate("aabbcdef"):
        queue.add(a_task(number, key))
    assert started(queue) == ["f0", "f2", "f4", "f5"]
    queue.finish("f2")
    assert started(queue) == ["f3"]
    queue.finish("f0")
    queue.finish("f4")
    assert started(queue) == ["f1", "f6"]
    assert queue.wait_s(0.0) is None


def test_a_task_that_rests_holds_back_its_key_alone():
    """After a failure the next of the key waits; others go on."""
    queue = Queue()
    queue.add(a_task(1, "a"))
    assert started(queue) == ["f1"]
    queue.rest("f1", 0.0, 5.0)
    queue.add(a_task(0, "a"))
    queue.add(a_task(2))
    assert (started(queue), queue.wait_s(1.0)) == (["f2"], 4.0)
    assert started(queue, 5.0) == ["f1"]
    queue.finish("f1")
    assert started(queue, 5.0) == ["f0"]


def test_two_files_of_one_id_never_run_side_by_side():
    """Not even under different keys."""
    queue = Queue()
    queue.add(a_task(0, "a", "twin"))
    queue.add(a_task(1, "b", "twin"))
    assert started(queue) == ["f0"]
    queue.finish("f0")
    assert started(queue, 10.0) == ["f1"]


@given(st.integers(1, 100), st.randoms(use_true_random=False))
def test_pauses_grow_to_a_bound(failures, random):
    """Doubled each time, spread over a half, never above five minutes."""
    longest_s = min(2.0 ** (failures - 1), BACKOFF_MOST_S)
    assert longest_s / 2 <= backoff_s(failures, random) <= longest_s


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "", "a", "b", "c"]), st.sampled_from(["end", "rest", "go"])),
        max_size=60,
    ),
    st.randoms(use_true_random=False),
)
def test_whatever_happens_each_task_ends_once_and_keys_keep_their_order(plan, random):
    """Tasks come, end, rest in any order: at most four run, none is lost, a key is in order."""
    queue, now_s, ended, running = Queue(), 0.0, [], []
    for number, (key, then) in enumerate(plan):
        queue.add(a_task(number, key))
        now_s += 1.0
        running += started(queue, now_s)
        assert len(running) == queue.running <= SIDE_BY_SIDE
        if running and then != "go":
            name = running.pop(Random(random.random()).randrange(len(running)))
            if then == "end":
                queue.finish(name)
                ended.append(name)
            else:
                queue.rest(name, now_s, 3.0)
    while len(queue):
        now_s += 10.0
        running += started(queue, now_s)
        queue.finish(running[0])
        ended.append(running.pop(0))
    assert sorted(ended) == sorted(f"f{number}" for number in range(len(plan)))
    for key in "abc":
        numbers = [int(name[1:]) for name in ended if plan[int(name[1:])][0] == key]
        assert numbers == sorted(numbers)
