"""Seven real daemons that look at services on loopback: who leaves the lists, when, and what never does."""

from __future__ import annotations

import socket
import time

from esgf_gossip.demo.processes import DemoFederation
from helpers.daemons import all_equal, eventually, fetch, fetch_json, status_of
from helpers.service_stubs import PROBE_EVERY_S, Stub, probe_only, self_signed, stubs

NODES = 7
# What the specification allows from the stop of a service to the last list: two periods and two seconds.
WITHIN_S = 2 * PROBE_EVERY_S + 2


def _lists(federation, name):
    return [fetch(federation.http_url(host), f"/{name}")[2].decode() for host in federation.hosts]


def _healths(federation, kind):
    return {
        one["health"]
        for one in fetch_json(federation.http_url(federation.hosts[0]), f"/api/v1/services?type={kind}")
    }


def _all_with(federation, name, texts):
    return all(all(text in document for text in texts) for document in _lists(federation, name))


def _none_with(federation, name, text):
    return all(text not in document for document in _lists(federation, name))


def test_what_is_down_leaves_all_seven_lists_and_returns_and_no_cut_empties_them(tmp_path):
    """A provider that stops leaves every whitelist and comes back; all indices cut at once leave the last good shards."""
    addresses = [f"127.0.0.{number}" for number in range(11, 11 + NODES)]
    with stubs(addresses) as opened, DemoFederation(tmp_path, NODES) as federation:
        federation.prepare()
        port = opened[0].port
        for host, address in zip(federation.hosts, addresses, strict=True):
            endpoints = {
                "idp.service.endpoint": f"http://{address}:{port}/idp",
                "index.service.endpoint": f"http://{address}:{port}/esg-search",
                "index.slave.port": str(port),
            }
            probe_only(federation, host, endpoints)
        federation.start_all()
        eventually(lambda: all_equal(federation, federation.hosts, NODES), "seven nodes converge")
        eventually(lambda: _healths(federation, "OpenIDProvider") == {"up"}, "every provider is up")
        eventually(lambda: _healths(federation, "IndexService") == {"up"}, "every index is up")
        assert any(path.startswith("/solr/datasets/admin/ping") for path in opened[0].seen)

        idp = f"http://{addresses[3]}:{port}/idp"
        files = [federation.config_path(host).parent / "state" / "esgf_idp.xml" for host in federation.hosts]
        eventually(lambda: _all_with(federation, "esgf_idp.xml", [idp]), "all seven list the provider")
        _, conversation = federation.control(federation.hosts[0]).watch()
        opened[3].failing.add("/idp")
        begun_s = time.monotonic()
        eventually(lambda: _none_with(federation, "esgf_idp.xml", idp), "it leaves all seven")
        print(f"left all seven lists after {time.monotonic() - begun_s:.2f} s of {WITHIN_S} s")
        eventually(lambda: not any(idp in path.read_text() for path in files), "it leaves the files too")
        with conversation:
            # What others told of before, that all is up, may still be on its way.
            event = next(
                one
                for one in iter(conversation.next_line, None)
                if one["event"] == "service-health" and one["data"]["health"] == "down"
            )
        assert (event["data"]["host"], event["data"]["type"], event["data"]["health"]) == (
            federation.hosts[3],
            "OpenIDProvider",
            "down",
        )
        assert _all_with(federation, "esgf_idp.xml", [f"http://{addresses[4]}:{port}/idp"])
        opened[3].failing.clear()
        eventually(lambda: _all_with(federation, "esgf_idp.xml", [idp]), "it returns")

        shards = [f"<value>{address}:{port}/solr</value>" for address in addresses]
        eventually(lambda: _all_with(federation, "esgf_shards.xml", shards), "all shards are listed")
        for stub in opened:
            stub.failing.update({"/solr", "/esg-search"})
        eventually(lambda: _healths(federation, "IndexService") == {"down"}, "all indices are down")
        eventually(
            lambda: all(
                "esgf_shards.xml is kept" in str(status_of(federation, host).get("lists"))
                for host in federation.hosts
            ),
            "every node says so loudly",
        )
        eventually(lambda: _all_with(federation, "esgf_shards.xml", shards), "the last good shards stay")
        assert _healths(federation, "IndexService") == {"down"}
        for stub in opened:
            stub.failing.clear()
        eventually(lambda: _all_with(federation, "esgf_shards.xml", shards), "all shards are back")
        eventually(
            lambda: not any("lists" in status_of(federation, host) for host in federation.hosts),
            "no alarm is left",
        )


def test_every_kind_of_look_sees_what_is_there(tmp_path):
    """TLS without a known CA, an open and a closed port, an index behind a closed Solr, a path that is gone, no address at all."""
    certificate = self_signed(tmp_path / "stub.pem")
    stub, secure, closed = Stub("127.0.0.1"), Stub("127.0.0.1", 0, certificate), Stub("127.0.0.1")
    closed.close()
    stub.missing.add("/esgf-idp")
    plain, hidden = f"http://127.0.0.1:{stub.port}", f"127.0.0.1:{closed.port}"
    endpoints = {
        "thredds.service.endpoint": f"https://localhost:{secure.port}/thredds",
        "gridftp.endpoint": f"gsiftp://127.0.0.1:{stub.port}/",
        "myproxy.endpoint": hidden,
        "index.service.endpoint": f"{plain}/esg-search",
        "index.slave.port": str(closed.port),
        "idp.service.endpoint": f"{plain}/esgf-idp",
        "las.service.endpoint": "ftp://127.0.0.1/las",
        "orp.service.endpoint": "http://[half",
    }
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, DemoFederation(tmp_path / "demo", 2) as federation:
        federation.prepare()
        host, other = federation.hosts
        probe_only(federation, host, endpoints)
        index = {"index.service.endpoint": f"{plain}/esg-search"}
        probe_only(federation, other, {**index, "index.slave.port": str(silent.getsockname()[1])})
        numbers = federation.config_path(host).parent / "data_users.metrics"
        numbers.write_text("DOWNLOADCOUNT=5,DOWNLOADSIZE=6,DOWNLOADUSERS=7,REGISTEREDUSERS=8")
        with federation.config_path(host).open("a") as config_file:
            config_file.write('\n[metrics]\ndata_users = "data_users.metrics"\n')
        federation.start_all()
        eventually(lambda: status_of(federation, host), "it runs")
        path = "/api/v1/services"

        def told():
            return {
                one["type"]: one for one in fetch_json(federation.http_url(host), path) if one["host"] == host
            }

        def of_other():
            return [
                one["health"] for one in fetch_json(federation.http_url(other), path) if one["host"] == other
            ]

        eventually(lambda: all(one["health"] != "unknown" for one in told().values()), "all were looked at")
        found = told()
        assert {kind: one["health"] for kind, one in found.items()} == {
            "ThreddsService": "up",
            "GridFTPService": "up",
            "MyProxyService": "down",
            "IndexService": "up",
            "OpenIDProvider": "down",
            "LASService": "down",
            "RelyingPartyService": "down",
        }
        assert "refused" in found["MyProxyService"]["reason"].lower()
        assert found["OpenIDProvider"]["reason"] == "answers with status 404"
        assert "no http" in found["LASService"]["reason"]
        eventually(
            lambda: of_other() == ["up"], "a Solr that takes connections and says nothing decides nothing"
        )
        metered = b'<DownloadedData count="5" size="6" users="7"/>'
        eventually(
            lambda: metered in fetch(federation.http_url(other), "/registration.xml")[2],
            "the other node shows its download numbers",
        )
        # What is not probed any more is unknown to everybody: reload takes it back.
        config = federation.config_path(host)
        config.write_text(config.read_text().replace("probe = true", "probe = false"))
        federation.control(host).ask("reload")
        eventually(lambda: {one["health"] for one in told().values()} == {"unknown"}, "nothing is told")
    stub.close()
    secure.close()


def test_what_others_see_takes_a_service_out_that_says_nothing_of_itself(tmp_path):
    """A node that does not look at itself: its provider stops, a quorum of six others sees it, all seven lists lose it."""
    addresses = [f"127.0.0.{number}" for number in range(31, 31 + NODES)]
    with stubs(addresses) as opened, DemoFederation(tmp_path, NODES) as federation:
        federation.prepare()
        port = opened[0].port
        for host, address in zip(federation.hosts, addresses, strict=True):
            endpoints = {"idp.service.endpoint": f"http://{address}:{port}/idp"}
            probe_only(federation, host, endpoints, looks_at_others=True)
        blind = federation.config_path(federation.hosts[3])
        blind.write_text(blind.read_text().replace("probe = true", "probe = false"))
        federation.start_all()
        eventually(lambda: all_equal(federation, federation.hosts, NODES), "seven nodes converge")
        path = f"/api/v1/nodes/{federation.hosts[3]}"
        of_blind = lambda: fetch_json(federation.http_url(federation.hosts[0]), path)["services"][0]
        eventually(lambda: "/idp" in opened[3].seen, "others look at it")
        assert of_blind()["health"] == "unknown"
        idp = f"http://{addresses[3]}:{port}/idp"
        eventually(lambda: _all_with(federation, "esgf_idp.xml", [idp]), "all seven list the provider")
        opened[3].failing.add("/idp")
        eventually(lambda: _none_with(federation, "esgf_idp.xml", idp), "it leaves all seven")
        assert of_blind()["health"] == "down"
        assert of_blind()["reason"].startswith("seen from ")
        assert _all_with(federation, "esgf_idp.xml", [f"http://{addresses[4]}:{port}/idp"])
        opened[3].failing.clear()
        eventually(lambda: _all_with(federation, "esgf_idp.xml", [idp]), "it returns")
        eventually(lambda: of_blind()["health"] == "unknown", "nobody looks at it any more but from outside")


def test_a_closed_door_stays_closed(tmp_path):
    """Looks from outside go neither to loopback nor to a third host, whatever a registration says."""
    address = "127.0.0.51"
    with stubs([address]) as (stub,), DemoFederation(tmp_path, 3) as federation:
        federation.prepare()
        for host in federation.hosts:
            probe_only(
                federation,
                host,
                {"idp.service.endpoint": f"http://{address}:{stub.port}/{host}"},
                looks_at_others=True,
            )
            config = federation.config_path(host)
            config.write_text(config.read_text().replace('allow = ["127.0.0.0/8"]', "allow = []"))
        silent, *others = federation.hosts
        config = federation.config_path(silent)
        config.write_text(config.read_text().replace("probe = true", "probe = false"))
        federation.start_all()
        eventually(lambda: all_equal(federation, federation.hosts, 3), "three nodes converge")
        for host in others:
            eventually(lambda host=host: stub.seen.count(f"/{host}") >= 6, "six periods have passed")
        assert f"/{silent}" not in stub.seen
        entry = fetch_json(federation.http_url(others[0]), f"/api/v1/nodes/{silent}")["services"][0]
        assert entry["health"] == "unknown"
