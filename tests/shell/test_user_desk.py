"""What administrators ask of a node that knows mails and downloads."""

import pytest
from twisted.internet.defer import succeed

from esgf_gossip.tracking.forgetting import NO_OPENID
from esgf_gossip.user_desk import UserDesk
from helpers.mailing import Office, a_change, a_match, openid


class MadeUpDownloads:
    """Notes whom it was asked for."""

    def __init__(self):
        self.asked = []

    def export(self, one):
        self.asked.append(one)
        return succeed({"downloads": [1]})

    def erase(self, one):
        self.asked.append(one)
        return succeed({"downloads": 3})


@pytest.fixture
def office(tmp_path):
    """Give a mailing without a quiet period, whose desk knows downloads and what is on its way home."""
    office = Office(tmp_path)
    office.downloads = MadeUpDownloads()
    office.forgotten = []
    office.desk = UserDesk(
        office.mailing,
        office.downloads,
        lambda _connection, openids: {"on_the_way": len(openids)},
        lambda _connection, openids: {"on_the_way": list(openids)},
        lambda one: succeed(office.forgotten.append(one)),
    )
    yield office
    office.close()


def test_an_erasure_by_an_address_that_led_to_no_openid_says_so(office):
    """Who has downloads and was never told of anything is not found by the address; by the OpenID all of it goes."""
    told = office.result(office.desk.erase("jane@site.org"))
    assert (told["note"], told["downloads"], office.downloads.asked) == (NO_OPENID, {}, [])
    told = office.result(office.desk.erase(openid("jane")))
    assert "note" not in told
    assert (told["downloads"], office.downloads.asked) == ({"downloads": 3}, [openid("jane")])
    # An answer that is on its way just now must not bring the address back.
    assert office.forgotten == [openid("jane")]


def test_who_was_told_is_found_by_the_address(office):
    """Downloads, and what is on its way, are exported and erased by the OpenIDs that led to it."""
    change = a_change()
    office.take(change, a_match(change))
    office.wait(5)
    told = office.result(office.desk.export("jane@site.org"))
    assert (told["on_the_way"], told["downloads"]) == ([openid("jane")], [{"downloads": [1]}])
    told = office.result(office.desk.erase("jane@site.org"))
    assert "note" not in told
    assert (told["on_the_way"], told["downloads"]) == (1, {"downloads": 3})
