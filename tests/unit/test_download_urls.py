"""What a logged URL is: never something else, and None where it does not say."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from esgf_gossip.tracking.identity import DatasetId, parse_dataset
from esgf_gossip.tracking.openids import fold_openid
from esgf_gossip.tracking.urls import could_be, dataset_of, read_url
from helpers.download_urls import KNOWN, TABLE, UNKNOWN


def resolved(url):
    """Return the dataset version and file that a URL says by its folders, as a download's is asked for; None: not sure."""
    place = read_url(url)
    dataset = None if place is None else dataset_of(place)
    return None if dataset is None else (dataset, place.name)


def test_urls_of_every_kind_are_resolved_and_none_wrongly():
    """Of a table of real forms at least 99 % are right, and no answer is wrong."""
    answers = [(resolved(url), (parse_dataset(dataset), name)) for url, dataset, name in TABLE]
    assert len(answers) > 250
    assert [pair for pair in answers if pair[0] not in (None, pair[1])] == []
    assert sum(answer is not None for answer, _ in answers) >= 0.99 * len(answers)


@pytest.mark.parametrize("url", UNKNOWN)
def test_what_is_not_sure_is_no_answer(url):
    """A version that is missing or another's, folders that lack the project, files that say something else."""
    assert resolved(url) is None


@pytest.mark.parametrize(("form", "dataset", "name"), KNOWN)
def test_a_folder_that_is_missing_or_doubled_is_no_other_dataset(form, dataset, name):
    """Whatever folder is left out, doubled or changed: never another dataset is found."""
    right = parse_dataset(dataset)
    parts = form.rstrip("/").split("/")
    for number in range(len(parts)):
        for changed in ([], [parts[number]] * 2, ["other"], [parts[number] + "x"]):
            found = resolved("/".join([*parts[:number], *changed, *parts[number + 1 :], name]))
            # Facets that the file's name does not repeat may be any word: then it is a dataset of that word.
            assert found is None or found[0] == right or len(changed) == 1, (parts, number, changed)


def test_one_place_has_one_key():
    """Scheme, port, case of the host, service and query make no difference; host and path do."""
    places = {
        read_url(url)
        for url in (
            "http://Data.example.org/thredds/fileServer/root/a.nc",
            "https://data.example.org:443//thredds/dodsC/root/./a.nc?tas",
            "https://user@data.example.org/thredds/fileServer/root/%61.nc|application/netcdf|HTTPServer",
        )
    }
    assert len(places) == 1
    (place,) = places
    assert (place.host, place.path, place.name) == ("data.example.org", "root/a.nc", "a.nc")
    stripped = read_url("root/a.nc")
    assert (stripped.host, stripped.key) == ("", place.key)
    assert read_url("https://data.example.org/root/b.nc").key != place.key


@given(st.one_of(st.text(max_size=300), st.builds("".join, st.lists(
    st.sampled_from([*"/%?#|:@.", "globus:", "https://", "CMIP6", "cmip5", "v20190101", "..", "%2F", "%ff", "a.nc", "é", "\0", "\n"]),
    max_size=25))))  # fmt: skip
@example("https://[::1]:8443/a.nc")
@example("globus:/a.nc")
def test_any_text_is_an_answer_or_none(text):
    """No text raises; what is answered has the form of a dataset, and a path no folder leads out of."""
    place, found = read_url(text), resolved(text)
    assert place is None or (place.path and ".." not in place.path.split("/") and place.path.isprintable())
    assert found is None or (parse_dataset(found[0].instance_id) == found[0] and "/" not in found[1])


@pytest.mark.parametrize(
    ("version", "at_ms", "answer"),
    [
        ("20200102", 1_577_836_800_000, True),  # the day before: clocks and zones differ
        ("20200103", 1_577_836_800_000, False),
        ("1", 0, True),
        ("20209999", 0, True),
    ],
)
def test_a_version_was_not_there_before_its_day(version, at_ms, answer):
    """Versions that are dates say from when they can have been fetched; others say nothing."""
    assert could_be(DatasetId("a.b", version), at_ms) is answer


def test_openids_are_equal_as_identity_providers_have_them():
    """Scheme, host and the slash at the end are folded, and nothing else."""
    wanted = "https://idp.example.org/esgf-idp/openid/Alice"
    for same in (
        wanted,
        f" {wanted}/ ",
        wanted.replace("https", "HTTPS").replace("idp.example", "IDP.Example"),
        wanted.replace(".org", ".org:443"),
        f"{wanted}#me",
    ):
        assert fold_openid(same) == wanted
    for other in (
        wanted.replace("Alice", "alice"),
        wanted.replace("https", "http"),
        wanted.replace(".org", ".org:8443"),
    ):
        assert fold_openid(other) != wanted
    assert fold_openid("someone@example.org ") == "someone@example.org"
