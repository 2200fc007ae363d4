"""A tracking.db out of a backup: what it would send again is held, until somebody has looked."""

import sqlite3
from contextlib import closing

from esgf_gossip.tracking.restored import RESTORED, mark
from helpers.mailing import DAY_S, NOW_MS, a_change, a_match


def back_up(office):
    """Copy the database as it is."""
    with closing(sqlite3.connect(office.folder / "backup.db")) as copy:
        office.database._connection.backup(copy)


def restore(office, **settings):
    """Put it back, and start."""
    office.close()
    for path in office.folder.glob("tracking.db*"):
        path.unlink()
    (office.folder / "backup.db").rename(office.folder / "tracking.db")
    mark(office.folder / "tracking.db")
    office.open(**settings)


def test_nothing_is_mailed_again(office):
    """Neither a mail that waited, nor a notice without a mail, nor what the backup has never heard of."""
    queued, pending, unheard = (a_change(epoch=epoch) for epoch in range(3))
    office.server.refuses = True
    office.take(queued, a_match(queued, "ann"))
    office.wait(5)
    office.close()
    office.open(quiet_minutes=60, max_delay_minutes=60)
    office.take(pending, a_match(pending, "bob"))
    back_up(office)
    office.server.refuses = False
    office.take(unheard, a_match(unheard, "cy"))
    office.wait(7200, step_s=5)
    before = sorted(office.server.recipients)
    assert before == ["ann@site.org", "bob@site.org", "cy@site.org"]
    restore(office, quiet_minutes=0, max_delay_minutes=0)
    office.take(unheard, a_match(unheard, "cy"))
    office.wait(7200, step_s=5)
    assert sorted(office.server.recipients) == before
    assert office.sql("SELECT DISTINCT state, held_by FROM told") == [("held", RESTORED)]
    assert office.audit("held").count(RESTORED) == 3


def test_what_is_released_goes_out_and_what_happens_later_too(office):
    """One person releases; the mail that waited has its name still; a second start holds nothing more."""
    office.server.refuses = True
    change = a_change()
    office.take(change, a_match(change, "ann"))
    office.wait(5)
    ((name,),) = office.sql("SELECT message_id FROM mail")
    back_up(office)
    office.server.refuses = False
    restore(office)
    office.wait(60)
    later = a_change(epoch=1, occurred_ms=NOW_MS + 3_600_000)
    office.take(later, a_match(later, "bob"))
    office.wait(60)
    assert office.server.recipients == ["bob@site.org"]
    told = office.result(office.desk.release(change.key.hex(), "jim"))
    assert told["state"] == "released"
    office.close()
    office.open()
    office.wait(1200, step_s=5)
    assert office.server.recipients == ["bob@site.org", "ann@site.org"]
    assert office.server.messages()[1]["Message-ID"] == name


def test_what_is_held_for_its_size_needs_two_also_after_a_restore(office):
    """A restore is no way around the second person."""
    back_up(office)
    restore(office, hold_above=1)
    change = a_change()
    office.take(change, a_match(change, "ann"), a_match(change, "bob"))
    assert office.result(office.desk.release(change.key.hex(), "jim"))["state"] == "held"
    assert office.result(office.desk.release(change.key.hex(), "joe"))["state"] == "released"


def test_what_nobody_releases_is_dropped(office):
    """After its age nothing of it is mailed, nor kept as waiting."""
    office.server.refuses = True
    change = a_change()
    office.take(change, a_match(change, "ann"))
    office.wait(5)
    back_up(office)
    office.server.refuses = False
    restore(office)
    office.wait(31 * DAY_S, step_s=600)
    assert office.server.recipients == []
    assert office.sql("SELECT count(*) FROM mail WHERE state IN ('queued', 'sending')") == [(0,)]
