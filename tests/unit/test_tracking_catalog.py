"""What sources saw, made into events: tracking catalog, turns, copies and files."""

import pytest

from esgf_gossip.tracking.catalog import is_empty, recall
from esgf_gossip.tracking.copies import copies_of
from esgf_gossip.tracking.events import file_key
from esgf_gossip.tracking.seen_files import FILES_MOST, files_of, new_files_after
from esgf_gossip.tracking.sightings import SeenFile
from esgf_gossip.tracking.turns import SKEW_MS
from helpers.sightings import NODE, NOON_MS, OTHER, Catalog, a_file, a_sighting, version

HOURS = 3600


def test_the_whole_story_of_a_dataset():
    """Published, replaced, retracted, published again, retracted again, deleted: each is said once, by its epoch."""
    catalog = Catalog()
    assert catalog.see_all(
        [
            a_sighting("publish", 1, 0),
            a_sighting("publish", 1, 1),
            a_sighting("supersede", 1, 9),
            a_sighting("publish", 2, 10),
            a_sighting("publish", 1, 11),
            a_sighting("retract", 2, 20),
            a_sighting("retract", 2, 21),
            a_sighting("publish", 2, 30),
            a_sighting("retract", 2, 40),
            a_sighting("delete", 2, 50),
            a_sighting("delete", 1, 60),
        ]
    ) == [
        "published 1 0",
        "new-version 2 0",
        "retracted 2 0",
        "reinstated 2 1",
        "retracted 2 1",
        "unpublished 1 0",
    ]
    assert len({event.change_key for event in catalog.said}) == 6
    assert catalog.said[1].supersedes == ("1",)


def test_latest_false_alone_is_nothing():
    """The version to follow may never come."""
    catalog = Catalog()
    assert catalog.see_all([a_sighting("publish", 1), a_sighting("supersede", 1, 1)]) == ["published 1 0"]


def test_versions_are_compared_as_numbers():
    """Version 10 replaces version 9, newest first among those it replaces."""
    catalog = Catalog()
    catalog.see_all([a_sighting("publish", 9), a_sighting("publish", 10, 1), a_sighting("publish", 100, 2)])
    assert catalog.said[-1].supersedes == ("10", "9")


def test_a_retraction_of_what_was_never_said_says_it_first():
    """Receivers must have the original on record before it is retracted."""
    catalog = Catalog()
    assert catalog.see_all([a_sighting("retract", 1, is_replica=False)]) == ["published 1 0", "retracted 1 0"]


def test_replicas_are_the_business_of_operators():
    """A replica's coming and going is no user event, however the data were removed; each time it is said anew."""
    catalog = Catalog()
    catalog.see(a_sighting("publish", 1, 0, data_node=OTHER))
    found = catalog.see_all(
        [
            a_sighting("publish", 1, 1, is_replica=True),
            a_sighting("publish", 1, 2, is_replica=True),
            a_sighting("retract", 1, 3),
            a_sighting("delete", 1, 4),
            a_sighting("publish", 1, 5, is_replica=True),
            a_sighting("delete", 1, 6),
        ]
    )
    assert found == ["replicated 1 0", "replica-removed 1 0", "replicated 1 1", "replica-removed 1 1"]


def test_copies_elsewhere_are_learned_and_said_by_nobody_here():
    """Only a node that speaks for the data node says what happened there."""
    catalog = Catalog()
    assert (
        catalog.see_all(
            [a_sighting("publish", 1, data_node=OTHER), a_sighting("retract", 1, 1, data_node=OTHER)]
        )
        == []
    )
    assert catalog.see(a_sighting("publish", 2, 2)) == ["new-version"]


def test_who_is_the_original_where_nobody_says():
    """The record says it; else a copy is the original unless another copy is known to be."""
    catalog = Catalog()
    catalog.see(a_sighting("publish", 1, data_node=OTHER))
    assert catalog.see(a_sighting("retract", 1, 1)) == ["replica-removed"]
    assert catalog.see(a_sighting("retract", 2, 2)) == ["published", "retracted"]
    catalog.see(a_sighting("publish", 3, 3, is_replica=True))
    assert catalog.see(a_sighting("retract", 3, 4, is_replica=False)) == ["replica-removed"]


def test_a_deletion_says_no_fault_and_what_comes_back_after_it_was_not_at_fault():
    """Publishing anew by way of deleting alarms nobody."""
    catalog = Catalog()
    assert catalog.see_all(
        [
            a_sighting("publish", 1),
            a_sighting("delete", 1, 1),
            a_sighting("publish", 1, 2),
            a_sighting("retract", 1, 3),
        ]
    ) == ["published 1 0", "unpublished 1 0", "published 1 1", "retracted 1 1"]


def test_a_retraction_that_comes_after_the_deletion_is_told():
    """One source shows the deletion first; that the data were at fault must not be lost."""
    catalog = Catalog()
    assert catalog.see_all(
        [a_sighting("publish", 1), a_sighting("delete", 1, 9), a_sighting("retract", 1, 5, "kafka")]
    ) == ["published 1 0", "unpublished 1 0", "retracted 1 0"]


def test_the_higher_version_is_new_as_soon_as_a_lower_one_is_known():
    """Two sources may tell the versions in either order; the new version is said once."""
    catalog = Catalog()
    assert catalog.see_all([a_sighting("publish", 2, 10), a_sighting("publish", 1, 5, "kafka")]) == [
        "published 2 0",
        "published 1 0",
        "new-version 2 0",
    ]
    assert catalog.said[-1].occurred_ms == NOON_MS + 10_000
    assert catalog.said[-1].supersedes == ("1",)


def test_a_version_that_has_ended_is_recommended_to_nobody():
    """What is first heard of by its retraction is no new version."""
    catalog = Catalog()
    catalog.see(a_sighting("publish", 1))
    assert catalog.see(a_sighting("retract", 2, 9, is_replica=False)) == ["published", "retracted"]
    assert catalog.see(a_sighting("publish", 2, 5)) == []


@pytest.mark.parametrize("late_s", [1, 12 * HOURS, -12 * HOURS])
def test_a_source_that_lags_makes_no_news(late_s):
    """A queue with a clock of its own tells publication and retraction a day late: nothing comes back to life."""
    catalog = Catalog()
    catalog.see_all([a_sighting("publish", 1), a_sighting("retract", 1, 10)])
    late = [a_sighting("publish", 1, late_s, "kafka"), a_sighting("retract", 1, late_s + 10, "kafka")]
    for sighting in late * 2:
        assert catalog.see(sighting, now=24 * HOURS) == []


def test_a_source_that_has_caught_up_makes_news():
    """The queue brings it back by its own clock, which is behind."""
    catalog = Catalog()
    catalog.see_all([a_sighting("publish", 1), a_sighting("retract", 1, 10)])
    for operation, at in (("publish", -7200), ("retract", -7100)):
        assert catalog.see(a_sighting(operation, 1, at, "kafka"), now=20) == []
    assert catalog.see(a_sighting("publish", 1, -7000, "kafka"), now=30) == ["reinstated"]
    assert catalog.see(a_sighting("publish", 1, 40), now=40) == []


def test_a_publication_seen_here_after_a_retraction_seen_elsewhere_is_news():
    """What passes the proxy happens now, whatever the clock of who told the retraction."""
    catalog = Catalog()
    catalog.see(a_sighting("publish", 1))
    assert catalog.see(a_sighting("retract", 1, 7200, "kafka"), now=10) == ["retracted"]
    assert catalog.see(a_sighting("publish", 1, 20), now=20) == ["reinstated"]


def test_an_index_that_was_never_told_of_a_retraction_does_not_take_it_back():
    """A retraction that went by the queue alone stands, though the index shows the record as before, for ever."""
    catalog = Catalog()
    catalog.see(a_sighting("publish", 1))
    catalog.see(a_sighting("retract", 1, 10, "kafka"))
    assert catalog.see(a_sighting("publish", 1, 100 * HOURS, "index")) == []
    assert catalog.see(a_sighting("retract", 1, 101 * HOURS, "index")) == []
    assert catalog.see(a_sighting("publish", 1, 102 * HOURS, "index")) == ["reinstated"]


def test_clocks_decide_where_a_source_skipped_a_turn():
    """Later than two clocks can differ is later."""
    catalog = Catalog()
    catalog.see_all([a_sighting("publish", 1), a_sighting("retract", 1, 10)])
    skew_s = SKEW_MS // 1000
    assert catalog.see(a_sighting("publish", 1, 10 + skew_s, "kafka"), now=11) == []
    assert catalog.see(a_sighting("publish", 1, 11 + skew_s, "kafka"), now=12) == ["reinstated"]


def test_what_the_first_look_found_is_said_when_something_happens():
    """Millions of datasets are learned quietly; an old retraction is told when somebody says so by hand."""
    catalog = Catalog()
    for number in (1, 2):
        assert catalog.see(a_sighting("publish", number, source="index"), is_quiet=True) == []
    assert catalog.see(a_sighting("retract", 3, source="index", is_replica=False), is_quiet=True) == []
    assert catalog.see(a_sighting("publish", 1, 5)) == []
    assert catalog.see(a_sighting("retract", 3, 5, "kafka")) == []
    assert catalog.see(a_sighting("retract", 1, 6)) == ["published", "retracted"]
    assert catalog.see(a_sighting("publish", 4, 7)) == ["new-version"]
    assert catalog.said[-1].supersedes == ("3", "2", "1")
    assert catalog.see(a_sighting("retract", 3, 8, "hand")) == ["published", "retracted"]
    assert catalog.see(a_sighting("publish", 3, 9)) == ["reinstated"]


def test_files_that_did_not_change_are_named():
    """By checksum, with the version before; files come before the record of their dataset, each alone."""
    catalog = Catalog()
    for number, sums in ((1, ("aa", "bb", "")), (2, ("aa", "cc", ""))):
        for letter, checksum in zip("xyz", sums, strict=True):
            file = a_file(f"{letter}.nc", checksum, number=number)
            assert catalog.see(a_sighting("add-files", number, number, files=(file,))) == []
        catalog.see(a_sighting("publish", number, number))
    assert catalog.said[-1].unchanged == (file_key("x.nc"),)


def test_files_outlive_a_retraction_and_their_numbers_rise():
    """Whoever resolves URLs reads on from a number; a file that changed comes again."""
    catalog = Catalog()
    catalog.see(a_sighting("publish", 1, files=(a_file("a.nc", "AA"), a_file("b.nc"))))
    catalog.see(
        a_sighting("publish", 1, 1, data_node=OTHER, is_replica=True, files=(a_file("a.nc", node=OTHER),))
    )
    catalog.see(a_sighting("retract", 1, 2))
    first = new_files_after(catalog.connection, 0, 2)
    rest = new_files_after(catalog.connection, first[-1][0], 10)
    assert [(dataset, file.name) for _, dataset, file in first + rest] == [
        (version(1), "a.nc"),
        (version(1), "b.nc"),
        (version(1), "a.nc"),
    ]
    united = files_of(catalog.connection, version(1))
    assert [(file.name, file.checksum, len(file.urls)) for file in united] == [
        ("a.nc", "aa", 2),
        ("b.nc", "", 1),
    ]
    catalog.see(a_sighting("publish", 1, 3, files=(a_file("b.nc", "bb"), a_file("a.nc"))))
    (found,) = new_files_after(catalog.connection, rest[-1][0], 10)
    assert (found[2].name, found[2].checksum) == ("b.nc", "bb")


def test_hostile_files_are_bounded():
    """Names with folders, endless URLs and more files than a dataset has are left out."""
    catalog = Catalog()
    bad = (
        SeenFile("../x"),
        SeenFile(""),
        SeenFile("a\nb"),
        SeenFile("ok", ("x" * 2000, "https://a/b\n", "u")),
    )
    catalog.see(a_sighting("publish", 1, files=bad))
    assert files_of(catalog.connection, version(1)) == [SeenFile("ok", ("u",))]
    many = tuple(SeenFile(f"{number}.nc") for number in range(FILES_MOST + 5))
    catalog.see(a_sighting("publish", 2, files=many))
    assert len(files_of(catalog.connection, version(2))) == FILES_MOST


def test_files_alone_are_no_version():
    """A publication that broke off after its files has published nothing."""
    catalog = Catalog()
    catalog.see(a_sighting("add-files", 1, files=(a_file(),)))
    assert catalog.see(a_sighting("publish", 2, 1)) == ["published"]
    assert [one.is_known for one in copies_of(catalog.connection, version(1).master_id)] == [False, True]
    assert catalog.see(a_sighting("publish", 1, 2)) == ["published", "new-version"]
    assert NODE in catalog.data_nodes


def test_a_clock_that_ran_ahead_holds_nothing_up():
    """What was dated in the future is dated anew; a retraction that happens now is one."""
    catalog = Catalog()
    catalog.see(a_sighting("publish", 1, 1000 * HOURS), now=1000 * HOURS)
    assert catalog.see(a_sighting("retract", 1, 5), now=5) == ["retracted"]
    catalog.see(a_sighting("publish", 1, 2000 * HOURS), now=2000 * HOURS)
    assert catalog.see(a_sighting("retract", 1, 0, "index"), now=900) == ["retracted"]
    assert catalog.see(a_sighting("publish", 1, 901), now=901) == ["reinstated"]


def test_a_catalog_that_was_lost_is_recalled_from_the_own_log():
    """Nothing is said again, and a second retraction is not taken for the first."""
    story = [
        a_sighting("publish", 1, 0),
        a_sighting("publish", 2, 1),
        a_sighting("retract", 2, 2),
        a_sighting("publish", 2, 3),
        a_sighting("publish", 3, 4, is_replica=True),
        a_sighting("retract", 1, 5),
    ]
    before, after = Catalog(), Catalog()
    before.see_all(story)
    assert is_empty(after.connection)
    for event in before.said:
        recall(after.connection, event)
    assert not is_empty(after.connection)
    for sighting in [*story, a_sighting("publish", 1, 5, "kafka")]:
        assert after.see(sighting, now=5) == []
    again = [a_sighting("retract", 2, 6), a_sighting("delete", 3, 7), a_sighting("publish", 1, 8)]
    assert (
        after.see_all(again)
        == before.see_all(again)[-3:]
        == [
            "retracted 2 1",
            "replica-removed 3 0",
            "reinstated 1 1",
        ]
    )
