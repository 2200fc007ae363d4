"""The service described for programs: openapi.json beside what is answered."""

import attrs
import pytest

from esgf_gossip.views.federation import NodeStatus
from esgf_gossip.web.questions import HEALTH
from helpers.archivists import NAME, an_office
from helpers.web import HOST, PATHS, Client, StubDaemon, a_node, a_site

DOCUMENT_PATH = "/api/v1/documents/{project}/{application}/{name}"
XML = b"<Registration/>" * 100


@pytest.fixture
def daemon():
    """The daemon behind the site."""
    return StubDaemon(a_node(), a_node("esgf-b.example.org", registration=None))


@pytest.fixture
def client(daemon):
    """A connected client."""
    return Client(a_site(daemon))


def test_openapi_describes_exactly_what_is_served(daemon):
    """Every path described answers with a type described; every listed path is described."""
    daemon.documents.keep("registration.xml", XML)
    daemon.metadata = an_office().desk
    client = Client(a_site(daemon))
    description = client.ask("/openapi.json").json
    assert description["openapi"] == "3.1.0"
    below = {"/api/v1/nodes/{host}", "/api/v1/events", "/api/v1/differences"}
    below |= {f"/api/v1/nodes/{{host}}/{name}" for name in ("explain", "history")}
    below |= {f"{DOCUMENT_PATH}{name}" for name in ("", "/history", "/content")}
    asked = {"/api/v1/datasets/check"}
    assert {*PATHS, "/registration.xml", *below, *asked} == set(description["paths"])
    assert [list(description["paths"][path]) for path in asked] == [["post"]]
    for path, methods in description["paths"].items():
        if path in asked:
            continue
        needed = [
            one["name"] for one in methods["get"]["parameters"] if one["in"] == "query" and one["required"]
        ]
        query = "&".join(f"{name}=2023-11-13" for name in needed)
        path = path.replace("{host}", HOST).replace(DOCUMENT_PATH, f"/api/v1/documents/{NAME}")
        answer = client.ask(f"{path}?{query}".rstrip("?"), "HEAD")
        described = methods["get"]["responses"]["200"]["content"]
        assert [answer.fields["content-type"].partition(";")[0]] == list(described)


def test_bodies_fit_their_schemas(client, daemon):
    """Status, nodes and problems are what openapi.json says, without a field more."""
    schemas = client.ask("/openapi.json").json["components"]["schemas"]
    assert set(HEALTH) == set(schemas["Service"]["properties"]["health"]["enum"])
    conform(client.ask("/api/v1/status").json, schemas["Status"], schemas)
    services = client.ask("/api/v1/services").json
    assert services
    for service in services:
        conform(service, schemas["ListedService"], schemas)
    for node in client.ask("/api/v1/nodes").json:
        conform(node, schemas["Node"], schemas)
    daemon.picture = attrs.evolve(
        daemon.picture,
        nodes=(
            attrs.evolve(daemon.picture.node(HOST), status=NodeStatus.UNREACHABLE),
            *(a_node(f"o{number}.example.org") for number in range(3)),
        ),
    )
    explanation = client.ask(f"/api/v1/nodes/{HOST}/explain").json
    assert {one["vote"] for one in explanation["observers"]} == {"reports", "does not report"}
    conform(explanation, schemas["Explanation"], schemas)
    assert client.ask("/api/v1/nodes/nobody.example.org/explain").status == 404
    conform(client.ask("/api/v1/history").json, schemas["History"], schemas)
    differences = client.ask("/api/v1/differences?from=2023-11-13").json
    assert differences["nodes"][0]["changes"]
    conform(differences, schemas["Differences"], schemas)
    daemon.metadata = an_office().desk
    client = Client(a_site(daemon))
    for path, schema in {
        "": "WholeDocument",
        "/history": "DocumentHistory",
    }.items():
        conform(client.ask(f"/api/v1/documents/{NAME}{path}").json, schemas[schema], schemas)
    for one in client.ask("/api/v1/documents").json:
        conform(one, schemas["Document"], schemas)
    (refused,) = client.ask("/api/v1/documents/refused").json
    conform(refused, schemas["RefusedLeaf"], schemas)
    conform(client.ask("/nowhere").json, schemas["Problem"], schemas)


def conform(body, schema, schemas):
    """Check a body against the part of JSON Schema that openapi.json uses."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        schema = schema["anyOf"][1 if body is None else 0]
    if "enum" in schema:
        assert body in schema["enum"]
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "boolean": bool,
        "number": (int, float),
        "null": type(None),
    }
    if "type" in schema:
        assert isinstance(body, kinds[schema["type"]])
    for item in body if isinstance(body, list) else ():
        conform(item, schema["items"], schemas)
    if "properties" in schema:
        assert set(schema["required"]) <= set(body) <= set(schema["properties"])
        for name, value in body.items():
            conform(value, schema["properties"][name], schemas)
