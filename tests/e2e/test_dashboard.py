"""The dashboard in a real browser: every page at every size, sorting, keyboard, no script, live changes, hostile nodes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from helpers.browser import DEADLINE_MS, a_browser, a_visit, page_servers
from helpers.crowd import ATTACKS
from helpers.daemons import a_federation_of_processes, eventually, fetch_json, set_property

PATHS = ("/", "/services", "/trust", "/changes", "/metadata", "/datasets", "/this-node")
DOCUMENT_PATHS = (
    "/metadata/CMIP6/publisher/facets.ini",
    *(f"/metadata/CMIP6/said/text-{number}" for number in (0, 8)),
)
NODE = "/nodes/esgf-node001.site1.example.org"
DOWN = "/nodes/esgf-node038.site38.example.org"
PAGE_BYTES = 300_000
RAW_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}|\b1[5-9]\d{11}\b")
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Tables that are wider than what they stand in: by their labels.
CUT = """() => [...document.querySelectorAll('.scroll')]
  .filter((one) => one.scrollWidth > one.clientWidth).map((one) => `${one.ariaLabel}: ${one.scrollWidth} in ${one.clientWidth}`)"""
STATUS_OF_SECOND = "#nodes tr:has(a[href='/nodes/esgf-node001.site1.example.org']) td.status"
# Where make screenshots puts what README and docs show; else a folder of the run.
SHOTS = os.environ.get("SCREENSHOTS")


@pytest.fixture(scope="module")
def browser():
    """One Chromium for all tests here."""
    with a_browser() as started:
        yield started


@pytest.fixture(scope="module")
def serve():
    """What serves federations."""
    with page_servers() as function:
        yield function


def paths_of(what):
    """Return the pages of a federation, that of a node among them."""
    node = {"0": None, "1": "/nodes/esgf-node000.site0.example.org", "hostile": "/nodes/evil1.example.org"}
    found = node.get(what, NODE)
    documents = () if what in ("0", "1") else DOCUMENT_PATHS
    return PATHS if found is None else (*PATHS, *documents, found)


@pytest.mark.parametrize("what", ["0", "1", "13", "500"])
def test_every_page_stands_at_every_size_of_federation_and_screen(browser, serve, what):
    """No error, nothing asked of others, no overflow from a phone to a wall, no raw time, below 300 kB."""
    for width, scheme in ((360, "light"), (1280, "dark"), (2560, "light")):
        options = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
        with a_visit(browser, serve(what).url, **options) as visit:
            for path in paths_of(what):
                page = visit.open(path)
                assert page.locator("h1").first.is_visible()
                assert page.evaluate(OVERFLOW) <= 0, f"{path} at {width}"
                assert page.evaluate(CUT) == [], f"{path} at {width}"
                if width == 1280:
                    text = page.locator("body").inner_text()
                    assert not RAW_TIME.search(text), f"{path}: {RAW_TIME.search(text)}"
                    assert len(page.request.get(visit.url + path).body()) < PAGE_BYTES


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_of_accessibility(browser, serve, scheme):
    """Axe finds nothing serious or critical on any page, in light and in dark."""
    axe = Axe()
    with a_visit(browser, serve("13").url, color_scheme=scheme) as visit:
        for path in paths_of("13"):
            page = visit.open(path)
            response = axe.run(page).response
            assert len(response["passes"]) > 10
            found = response["violations"]
            serious = [
                (one["id"], [node["html"][:120] for node in one["nodes"]][:3])
                for one in found
                if one["impact"] in ("serious", "critical")
            ]
            assert serious == [], f"{path}: {serious}"


def test_a_hostile_federation_runs_nothing_and_breaks_nothing(browser, serve):
    """Attacks in every field a stranger writes: no dialog, no error, no element of theirs, also after a live change."""
    server = serve("hostile")
    for width in (360, 1280):
        with a_visit(browser, server.url, viewport={"width": width, "height": 900}) as visit:
            for path in paths_of("hostile"):
                page = visit.open(path)
                assert page.locator("main img, main script, main svg[onload]").count() == 0
                assert page.locator("h1").filter(has_text="gotcha").count() == 0
                assert page.evaluate(OVERFLOW) <= 0, f"{path} at {width}"
            page = visit.open("/")
            assert ATTACKS[0] in page.locator("#nodes").inner_text()
            server.order("suspect" if width == 360 else "unreachable")
            wanted = "suspect" if width == 360 else "unreachable"
            page.locator("#news").get_by_text(f"is {wanted}").wait_for(state="attached")
            page.locator("#nodes td.status", has_text=wanted).wait_for()
            visit.open("/nodes/evil1.example.org")
            links = page.locator("main a[href]").evaluate_all(
                "all => all.map((one) => one.getAttribute('href'))"
            )
            assert not [link for link in links if link.startswith("javascript:")]


def test_the_table_sorts_and_filters_without_leaving_the_page(browser, serve):
    """Heads sort both ways, words and choices filter as one types, the address follows, the way back works."""
    with a_visit(browser, serve("13").url) as visit:
        page = visit.open("/")
        page.evaluate("window.stayed = true")
        hosts = page.locator("#nodes tbody th a")
        organization = page.locator("#nodes thead th", has_text="Organization")
        for direction in ("ascending", "descending"):
            organization.locator("a").click()
            page.locator(f"#nodes th[aria-sort={direction}]").wait_for()
            shown = page.locator("#nodes tbody tr td:nth-child(4)").all_inner_texts()
            assert shown == sorted(shown, reverse=direction == "descending")
        page.get_by_label("Find").fill("node004")
        expect(page.locator("#nodes tbody tr")).to_have_count(1, timeout=DEADLINE_MS)
        assert hosts.all_inner_texts() == ["esgf-node004.site4.example.org"]
        assert "q=node004" in page.url
        page.get_by_label("Find").fill("nobody at all")
        page.get_by_text("No node is like that").wait_for()
        page.get_by_label("Find").fill("")
        expect(page.locator("#nodes tbody tr")).to_have_count(13, timeout=DEADLINE_MS)
        page.get_by_label("Type").select_option("compute")
        expect(page.locator("#nodes tbody tr")).not_to_have_count(13, timeout=DEADLINE_MS)
        assert all(
            "compute" in text for text in page.locator("#nodes tbody tr td:nth-child(6)").all_inner_texts()
        )
        assert page.evaluate("window.stayed") is True
        page.go_back()
        expect(page.locator("#nodes tbody tr")).to_have_count(13, timeout=DEADLINE_MS)


def test_the_keyboard_is_enough(browser, serve):
    """The first stop skips to the content, every stop is seen, Enter sorts and opens."""
    with a_visit(browser, serve("13").url) as visit:
        page = visit.open("/")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        assert page.locator(".skip").bounding_box()["width"] > 50
        page.keyboard.press("Enter")
        page.locator("main:focus").wait_for()
        page.locator("#nodes thead a", has_text="Node").focus()
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
        page.keyboard.press("Enter")
        page.locator("#nodes th[aria-sort=ascending]").wait_for()
        # The page was put in anew, and the focus is where it was.
        assert "sort=host" in page.evaluate("document.activeElement.getAttribute('href')")
        first = page.locator("#nodes tbody th a").first
        first.focus()
        name = first.inner_text()
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/nodes/{name}")
        assert name in page.locator("h1").inner_text()


def test_without_script_every_page_says_the_same(browser, serve):
    """Sorting and filtering are links and forms; pages renew themselves."""
    with a_visit(browser, serve("13").url, java_script_enabled=False) as visit:
        for path in paths_of("13"):
            page = visit.open(path)
            assert page.locator("h1").first.is_visible()
            assert page.locator("meta[http-equiv=refresh]").count() == 1
        page = visit.open("/")
        assert page.locator("#nodes tbody tr").count() == 13
        page.locator("#nodes thead a", has_text="Node").click()
        assert page.locator("#nodes th[aria-sort=ascending]").count() == 1
        page.get_by_label("Find").fill("node004")
        page.get_by_role("button", name="Show").click()
        assert page.locator("#nodes tbody th a").all_inner_texts() == ["esgf-node004.site4.example.org"]


@pytest.mark.parametrize("width", [390, 1400])
def test_a_mark_stands_where_its_node_is_at_any_width(browser, serve, width):
    """A phone shows larger marks, at the same places of the world."""
    with a_visit(browser, serve("60").url, viewport={"width": width, "height": 900}) as visit:
        page = visit.open("/")
        off = page.evaluate(
            """() => [...document.querySelectorAll("#map a")].map((one) => {
              const svg = one.ownerSVGElement.getScreenCTM(), place = one.transform.baseVal[0].matrix;
              const box = one.querySelector("use").getBoundingClientRect();
              return Math.hypot(box.x + box.width / 2 - svg.e - svg.a * place.e, box.y + box.height / 2 - svg.f - svg.d * place.f);
            })"""
        )
        assert len(off) > 10
        assert max(off) < 4


def test_a_change_is_told_and_shown_on_the_open_page(browser, serve):
    """An event changes the row, says it to a screen reader, and leaves what the reader was at."""
    server = serve("13")
    with a_visit(browser, server.url) as visit:
        page = visit.open("/?q=node00")
        page.locator("#live", has_text="live").wait_for()
        page.evaluate("window.stayed = true")
        link = page.locator("#nodes tbody th a").nth(2)
        link.focus()
        name = link.inner_text()
        for status in ("unreachable", "up"):
            server.order(status)
            page.locator(STATUS_OF_SECOND, has_text=status).wait_for()
            page.locator("#news", has_text=f"esgf-node001.site1.example.org is {status}").wait_for(
                state="attached"
            )
        assert page.evaluate("window.stayed") is True
        assert page.evaluate("document.activeElement.textContent") == name
        assert page.locator("#nodes tbody tr").count() == 10


def test_a_click_is_never_lost_to_a_renewal_and_a_slow_line_renews(browser, serve):
    """Answers take longer than events: each click on a head still sorts, and what changed is shown in the end."""
    server = serve("13")

    with a_visit(browser, server.url) as visit:
        page = visit.open("/")
        page.locator("#live", has_text="live").wait_for()
        page.evaluate(
            """() => { const fetched = window.fetch; window.fetch = async (...asked) => {
              const answer = await fetched(...asked); await new Promise((done) => setTimeout(done, 400)); return answer; } }"""
        )
        heads = page.locator("#nodes thead a")
        for place in (0, 3, 4, 0, 3, 4):
            server.order("suspect" if place else "up")
            name = heads.nth(place).inner_text()
            before = page.locator("#nodes th[aria-sort]:not([aria-sort=none]) a").all_inner_texts()
            heads.nth(place).click()
            server.order("unreachable")
            assert before != [name]
            page.locator("#nodes th[aria-sort=ascending]", has_text=name).wait_for()
        page.locator(STATUS_OF_SECOND, has_text="unreachable").wait_for()
        server.order("up")
        page.locator(STATUS_OF_SECOND, has_text="up").wait_for()


def test_a_node_that_hangs_is_not_shown_as_live(browser, serve):
    """No connection ends, nothing is heard: the page asks, and says that it got no answer; then it is live again."""
    with a_visit(browser, serve("13").url) as visit:
        visit.page.clock.install()
        page = visit.open("/")
        page.locator("#live", has_text="live").wait_for()
        page.route("**/healthz", lambda route: route.abort())
        page.clock.run_for(30_000)
        expect(page.locator("#live")).to_contain_text("no answer; what you see is old", timeout=DEADLINE_MS)
        page.unroute("**/healthz")
        page.clock.run_for(30_000)
        expect(page.locator("#live .words")).to_have_text("live", timeout=DEADLINE_MS)
        # The browser tells of the answers that did not come, and of nothing else.
        assert visit.faults
        assert all("net::ERR_FAILED" in fault for fault in visit.faults)
        visit.faults.clear()


def test_from_then_back_to_now_is_a_page_of_now(browser, serve):
    """The field of the time is emptied: the banner of then goes, and the page lives again."""
    with a_visit(browser, serve("13").url) as visit:
        page = visit.open("/?at=1h+ago")
        page.locator("#live", has_text="as it was").wait_for()
        page.get_by_label("As it was").fill("")
        page.get_by_role("button", name="Show").click()
        page.locator("#live", has_text="live").wait_for()
        assert page.locator("section.past").count() == 0
        assert page.locator("#recent").is_visible()


def test_a_tab_that_nobody_sees_rests_and_catches_up(browser, serve):
    """Hidden, it holds no connection to the node; seen again, it shows what happened meanwhile."""
    server = serve("13")
    look = "(hidden) => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true}); document.dispatchEvent(new Event('visibilitychange')); }"
    with a_visit(browser, server.url) as visit:
        page = visit.open("/")
        page.locator("#live", has_text="live").wait_for()
        page.evaluate(look, True)
        page.locator("#live", has_text="paused").wait_for()
        server.order("suspect")
        # The order has been carried out when the API says so; the page has not asked.
        url = f"{server.url}/api/v1/nodes/esgf-node001.site1.example.org"
        eventually(lambda: page.request.get(url).json()["status"] == "suspect", "the node changes")
        assert page.locator(STATUS_OF_SECOND).inner_text() != "suspect"
        page.evaluate(look, False)
        page.locator(STATUS_OF_SECOND, has_text="suspect").wait_for()
        page.locator("#live", has_text="live").wait_for()
        server.order("up")
        page.locator(STATUS_OF_SECOND, has_text="up").wait_for()


def test_the_five_questions_are_answered_in_one_step(browser, serve):
    """Down since when, who says so, shards in use and left out, the next certificate, yesterday at 14:00."""
    with a_visit(browser, serve("500").url) as visit:
        page = visit.open("/")
        # By default those that need somebody's eye stand first, with since when.
        assert "unreachable" in page.locator("#nodes tbody tr").first.inner_text()
        assert re.search(r"ago|\d{4}", page.locator("#nodes tbody tr td time").first.inner_text())
        assert "until the next certificate ends" in page.locator("#tiles").inner_text()
        visit.open(page.locator("#nodes tbody th a").first.get_attribute("href"))
        assert page.locator("#observers").is_visible()
        assert page.locator("#head .reason").inner_text().startswith("Why:")
        visit.open("/services")
        shards = page.locator(".card", has=page.get_by_text("esgf_shards.xml"))
        assert "IndexService is down: answers with status 503" in shards.locator(".places.out").inner_text()
        assert shards.locator(".places.in li").count() > 10
        visit.open("/trust")
        assert page.locator("#certificates tbody tr td").nth(1).inner_text() == "1"
        visit.open("/")
        page.get_by_label("As it was").fill("yesterday 14:00")
        page.get_by_role("button", name="Show").click()
        page.get_by_text("As it was 2026-11-25 14:00:00 UTC").wait_for()
        visit.open("/changes?since=yesterday+13:00&until=yesterday+15:00")
        assert page.locator("ol.changes li").count() > 0


def test_a_change_on_one_node_appears_on_the_page_of_another(browser, tmp_path):
    """Three real daemons: a renamed node, then a dead one, on an open page of a third, without a reload."""
    with a_federation_of_processes(tmp_path, 3) as federation:
        watching, changing, dying = federation.hosts
        with a_visit(browser, federation.http_url(watching)) as visit:
            page = visit.open("/")
            page.locator("#live", has_text="live").wait_for()
            page.evaluate("window.stayed = true")
            set_property(
                federation.config_path(changing).parent / "esgf.properties", "node.short.name", "Renamed"
            )
            federation.control(changing).ask("reload")
            page.locator("#nodes td small, #nodes th small", has_text="Renamed").wait_for()
            federation.kill(dying)
            page.locator(
                f"#nodes tr:has(a[href='/nodes/{dying}']) td.status", has_text="unreachable"
            ).wait_for()
            assert page.evaluate("window.stayed") is True
            visit.open(f"/nodes/{dying}")
            assert "nothing of it" in page.locator("#head").inner_text()
            page.locator("ol.changes", has_text="is unreachable").wait_for()
            visit.open("/this-node")
            assert changing in page.locator("#peer-table").inner_text()
            assert "listen" in page.locator("pre").text_content()
        told = fetch_json(federation.http_url(watching), f"/api/v1/nodes/{dying}/history?kind=status")
        eventually(lambda: told["changes"][0]["summary"].startswith("is unreachable"), "the API says so too")


def test_pictures_of_every_page_are_written(browser, serve, tmp_path):
    """For whoever reviews a change, and for README and docs: light, dark, phone."""
    folder = Path(SHOTS) if SHOTS else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {
        "federation": "/",
        "node": DOWN,
        "services": "/services",
        "trust": "/trust",
        "changes": "/changes",
    }
    for look, width, scheme in (("light", 1400, "light"), ("dark", 1400, "dark"), ("phone", 390, "light")):
        options = {
            "viewport": {"width": width, "height": 950},
            "color_scheme": scheme,
            "reduced_motion": "reduce",
        }
        with a_visit(browser, serve("60").url, **options) as visit:
            for name, path in wanted.items():
                page = visit.open(path)
                page.locator("#live", has_text="live").wait_for()
                page.screenshot(path=folder / f"{name}-{look}.png")
    written = list(folder.glob("*-*.png"))
    assert len(written) >= 15
    assert all(path.stat().st_size > 10_000 for path in written)
