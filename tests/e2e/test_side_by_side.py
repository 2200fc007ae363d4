"""A production and a test federation on one host: neither sees the other, even where a seed is the wrong one."""

from esgf_gossip.demo.processes import DemoFederation
from helpers.daemons import eventually, fetch_json, status_of


def test_two_federations_on_one_host_stay_apart(tmp_path):
    """The same hosts in both, with keys, ports and roots of their own; a test node that dials production is refused."""
    with (
        DemoFederation(tmp_path / "production", 3, federation="prod.esgf.example") as production,
        DemoFederation(tmp_path / "test", 3, federation="test.esgf.example") as test,
    ):
        for federation in (production, test):
            federation.prepare()
        stray = test.hosts[2]
        config = test.config_path(stray)
        wrong = f'seeds = ["127.0.0.1:{production.node(production.hosts[0]).gossip_port}", '
        config.write_text(config.read_text().replace("seeds = [", wrong, 1))
        for federation in (production, test):
            federation.start_all()

        def has_converged(federation):
            states = [status_of(federation, host) for host in federation.hosts]
            return all(states) and len({(one["root"], one["nodes"]["total"]) for one in states}) == 1

        log = config.parent / "daemon.log"
        eventually(lambda: has_converged(production), "production converges")
        eventually(lambda: has_converged(test), "the test federation converges")
        eventually(
            lambda: "cannot reach" in log.read_text() or "refused" in log.read_text(), "the stray is refused"
        )
        seen = {}
        for name, federation in (("prod", production), ("test", test)):
            told = [fetch_json(federation.http_url(host), "/api/v1/status") for host in federation.hosts]
            assert {one["federation"] for one in told} == {f"{name}.esgf.example"}
            assert {one["nodes"]["total"] for one in told} == {3}
            seen[name] = {one["root"] for one in told}
        assert seen["prod"].isdisjoint(seen["test"])
