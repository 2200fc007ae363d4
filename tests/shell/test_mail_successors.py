"""Which version a mail tells people to take: as the ledger stands when it is made, not when the change was."""

import attrs

from esgf_gossip.tracking.versions import successor_of
from helpers.mailing import NOW_MS, a_match, link_of
from helpers.registrars import V1, V2, V3, an_event


def plain(message):
    """Return the text of a mail."""
    return message.get_body(("plain",)).get_content()


def taken_now(text):
    """Return the versions that a text tells to take, in its order."""
    return [line.partition("Take now: ")[2] for line in text.splitlines() if "Take now: " in line]


def said(kind, dataset=V1, **fields):
    """Return an event of today."""
    return an_event(kind, dataset, occurred_ms=NOW_MS, **fields)


def test_two_new_versions_in_one_digest_name_the_one_to_be_taken(offices):
    """Both entries say the newest; where that is retracted before the mail is made, the one that is left."""
    for is_retracted, wanted in ((False, V3), (True, V2)):
        office = offices(quiet_minutes=60)
        events = [
            said("published"),
            said("new-version", V2, supersedes=(V1.version,)),
            said("new-version", V3),
        ]
        for change in office.hear(*events):
            office.take(change, a_match(change, dataset=V1))
        if is_retracted:
            office.hear(said("retracted", V3))
        office.wait(3700, 60.0)
        (message,) = office.server.messages()
        assert taken_now(plain(message)) == [str(wanted)] * 2
        (rows, _) = office.result(office.desk.full_list(link_of(message, "list"), 0))
        assert [row.successor for row in rows] == [str(wanted)] * 2


def test_a_retraction_names_what_replaces_the_version_and_preview_and_list_follow(office):
    """The ledger knew of it before; preview and the whole list say later what stands later."""
    office.hear(said("published"), said("new-version", V2))
    (change,) = office.hear(said("retracted"))
    office.take(change, a_match(change, dataset=V1))
    office.wait(5)
    (message,) = office.server.messages()
    text = plain(message)
    assert taken_now(text) == [str(V2)]
    assert "Do not use it any more." in text
    assert "known" not in text

    def later():
        preview = office.result(office.desk.preview(change.key.hex(), ""))["text"]
        rows, _ = office.result(office.desk.full_list(link_of(message, "list"), 0))
        return taken_now(preview), rows[0].successor

    assert later() == ([str(V2)], str(V2))
    office.hear(said("new-version", V3))
    assert later() == ([str(V3)], str(V3))
    office.hear(said("retracted", V2), said("unpublished", V3))
    assert later() == ([], "")


def test_each_dataset_is_asked_for_once_a_mail_and_only_where_it_is_shown(office, monkeypatch):
    """A mail is made over and over until it fits; of three hundred datasets those with an entry are asked for."""
    asked = []

    def counted(connection, dataset):
        asked.append(dataset)
        return successor_of(connection, dataset)

    monkeypatch.setattr(office.mailing._digests, "_successor_of", counted)
    for number in range(300):
        name = attrs.evolve(V1, master_id=f"CMIP6.{'x' * 150}.n{number}")
        (change,) = office.hear(said("published", name), said("retracted", name))
        office.take(change, a_match(change, files=[f"{n}{'y' * 150}.nc" for n in range(20)]))
    office.wait(5)
    assert len(office.server.mails) == 1
    assert len(asked) == len(set(asked)) == 100
