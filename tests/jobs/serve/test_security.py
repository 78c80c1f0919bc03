"""Who may ask a server, by which name, with which token, and from which page."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from jobs.serve.security import Access, is_loopback, make_access, read_host
from jobs.serve.service import Service
from tests.helpers.served import make_client

TOKEN = "a-token-of-some-length"
BEYOND = Access(frozenset({"sounds.example", "localhost"}), any_address=True, token=TOKEN, cookie="earshot-8765")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *[(host, 200) for host in ("localhost", "localhost:8765", "LOCALHOST:1", "127.0.0.1:8765", "[::1]:8765")],
        *[(host, 421) for host in ("evil.example", "evil.example:8765", "localhost.evil.example", "192.0.2.7:8765")],
        *[(host, 400) for host in ("", "a b", "user@localhost", "localhost:x", "[::1", "localhost/x")],
    ],
)
def test_only_its_own_names_are_answered(host: str, status: int, client: TestClient) -> None:
    answer = client.get("/api/info", headers={"Host": host})
    assert answer.status_code == status
    assert (set(answer.json()) == {"error"}) is (status != 200)


def test_name_that_was_rebound_to_this_address_is_refused_on_every_path(service: Service, page: Path) -> None:
    client = make_client(service, page=page)
    for path in ("/", "/main.js", "/api/info", "/api/docs", "/api/openapi.json", "/api/query?text=x"):
        assert client.get(path, headers={"Host": "attacker.example"}).status_code == 421


def test_server_of_all_addresses_is_called_by_any_address_but_not_by_any_name(service: Service) -> None:
    client = make_client(service, BEYOND)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    for host, status in (("192.0.2.7:8765", 200), ("[2001:db8::1]", 200), ("sounds.example", 200), ("x.example", 421)):
        assert client.get("/api/info", headers={"Host": host, **bearer}).status_code == status


def test_access_allows_the_asked_names() -> None:
    access = make_access("10.0.0.5", 80, ["Sounds.Example"], "t")
    assert {"10.0.0.5", "sounds.example", "localhost"} <= access.names
    assert not access.any_address
    assert make_access("0.0.0.0", 80, [], "t").any_address
    assert make_access("::", 80, [], "t").any_address


@pytest.mark.parametrize(
    ("host", "is_local"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.1.2.3", True), ("0.0.0.0", False), ("x", False)],
)
def test_loopback_needs_no_token(host: str, is_local: bool) -> None:
    assert is_loopback(host) is is_local


@pytest.mark.parametrize(("header", "name"), [("A.b:1", "a.b"), ("[::1]:2", "::1"), ("a.", "a"), ("a:b:c", None)])
def test_host_is_read(header: str, name: str | None) -> None:
    assert read_host(header) == name


# --- the token --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Cookie": "earshot-8765=wrong"},
        {"Cookie": f"earshot-8765={TOKEN}"},
        {"Cookie": f"other={TOKEN}"},
    ],
)
def test_without_the_token_nothing_is_answered(headers: dict[str, str], service: Service, page: Path) -> None:
    client = make_client(service, BEYOND, page=page)
    for path in ("/", "/main.js", "/api/info", "/api/openapi.json", "/?token=wrong", "/?token="):
        answer = client.get(path, headers=headers, follow_redirects=False)
        assert answer.status_code == 401
        assert "token" in answer.json()["error"]
        assert TOKEN not in answer.text
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [
        ("POST", "/api/similar", {"headers": {"Content-Length": str(10**12), "Content-Type": "multipart/form-data"}}),
        ("POST", "/api/similar", {"content": b"{" * 10**6, "headers": {"Content-Type": "application/json"}}),
        ("POST", "/api/similar", {"content": b"x", "headers": {"Content-Type": "text/plain"}}),
        ("POST", "/api/similar", {"json": {}, "headers": {"Origin": "http://elsewhere.example"}}),
        ("POST", "/api/marks", {"json": {"marks": []}}),
        ("POST", "/api/export?format=nothing", {"json": {}}),
        ("GET", "/api/query", {"params": {"text": "x" * 10_000}}),
        ("GET", "/api/query", {"params": {"text": "x", "k": "many"}}),
        ("GET", "/api/info", {"params": {"at": 999_999}}),
        ("GET", "/api/file", {"params": {"uri": "/etc/passwd"}}),
        ("GET", "/api/info", {"headers": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}}),
        ("GET", "/api/nothing", {}),
        ("DELETE", "/api/info", {}),
        ("OPTIONS", "/", {}),
    ],
)
def test_without_the_token_nothing_is_learned_of_limits_files_or_states(
    method: str, path: str, sent: dict[str, Any], service: Service, page: Path
) -> None:
    client = make_client(service, BEYOND, page=page)
    plain, answer = client.get("/"), client.request(method, path, **sent)
    assert plain.status_code == 401
    assert (answer.status_code, answer.content, answer.headers) == (401, plain.content, plain.headers)


def test_cookie_goes_over_tls_alone_where_a_proxy_speaks_it(service: Service, page: Path) -> None:
    for said, is_secure in (("https", True), ("http", False), ("HTTPS , http", True), ("http, https", False)):
        asked = {"params": {"token": TOKEN}, "headers": {"X-Forwarded-Proto": said}, "follow_redirects": False}
        answer = make_client(service, BEYOND, page=page).get("/", **asked)  # type: ignore[arg-type]
        assert ("; Secure" in answer.headers["set-cookie"]) is is_secure


def test_token_in_the_address_becomes_a_cookie_and_leaves_the_address(service: Service, page: Path) -> None:
    client = make_client(service, BEYOND, page=page)
    answer = client.get(f"/?a=1&token={TOKEN}&b=%20x", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/?a=1&b=+x")
    cookie = answer.headers["set-cookie"]
    assert re.fullmatch(r"earshot-8765=[0-9a-f]{64}; HttpOnly; Path=/; SameSite=strict", cookie)
    assert TOKEN not in cookie
    assert client.get("/api/info").status_code == 200  # the client keeps the cookie
    assert client.get("/").status_code == 200
    assert make_client(service, BEYOND).get("/api/info").status_code == 401


def test_link_of_another_site_leads_to_the_page_by_a_page(service: Service, page: Path) -> None:
    client = make_client(service, BEYOND, page=page)
    answer = client.get(f'/?a="<&token={TOKEN}', headers={"Sec-Fetch-Site": "cross-site"}, follow_redirects=False)
    assert answer.status_code == 200
    assert 'content="0; url=/?a=%22%3C"' in answer.text
    assert TOKEN not in answer.text
    assert "SameSite=strict" in answer.headers["set-cookie"]
    assert client.get("/").status_code == 200


def test_bearer_token_is_answered(service: Service) -> None:
    client = make_client(service, BEYOND)
    assert client.get("/api/info", headers={"Authorization": f"bearer {TOKEN}"}).status_code == 200


@pytest.mark.parametrize("path", ["//evil.example/x", "/\\evil.example", "///evil.example"])
def test_redirect_never_leads_to_another_host(path: str, service: Service) -> None:
    client = make_client(service, BEYOND)
    answer = client.get(f"http://localhost:8765{path}?token={TOKEN}", follow_redirects=False)
    assert answer.status_code == 303
    assert re.match(r"/(?![/\\])", answer.headers["location"])


def test_token_in_the_address_of_a_post_does_not_count(service: Service) -> None:
    assert make_client(service, BEYOND).post(f"/api/refresh?token={TOKEN}").status_code == 401


def test_token_is_in_no_log(
    service: Service, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    client = make_client(service, BEYOND)
    with caplog.at_level(logging.DEBUG, "uvicorn"), caplog.at_level(logging.DEBUG, "jobs"):
        client.get(f"/?token={TOKEN}")
        client.get("/api/info", headers={"Authorization": f"Bearer {TOKEN}"})
        client.get("/api/query?text=", headers={"Authorization": f"Bearer {TOKEN}"})
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("http")]
    out, err = capfd.readouterr()
    assert TOKEN not in "".join(ours) + out + err


# --- other sites ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost:8765"}, 200),
        ({"Origin": "http://localhost:8765", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "file://localhost:8765"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_only_the_own_page_changes_something(headers: dict[str, str], status: int, client: TestClient) -> None:
    answer = client.post("/api/refresh", headers=headers)
    assert answer.status_code == status
    assert (set(answer.json()) == {"error"}) is (status != 200)


@pytest.mark.parametrize(
    ("site", "mode", "dest", "status"),
    [
        *[(site, "no-cors", "image", 403) for site in ("cross-site", "same-site", "new-word")],
        *[(site, "cors", "empty", 403) for site in ("cross-site", "same-site")],
        *[(site, "navigate", "iframe", 403) for site in ("cross-site", "same-site")],
        *[("same-site", "navigate", dest, 403) for dest in ("embed", "object", "frame")],
        *[(site, "navigate", "document", 200) for site in ("cross-site", "same-site", "none", "same-origin")],
        ("same-site", "no-cors", "document", 403),
        ("same-origin", "cors", "empty", 200),
        ("same-origin", "no-cors", "audio", 200),
        ("same-origin", "no-cors", "image", 200),
    ],
)
def test_another_page_lets_no_server_work(site: str, mode: str, dest: str, status: int, client: TestClient) -> None:
    """``same-site`` is a page of another port of this machine."""
    asked = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
    assert client.get("/api/info", headers=asked).status_code == status


def test_page_is_shown_wherever_its_link_is(service: Service, page: Path) -> None:
    asked = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert make_client(service, page=page).get("/", headers=asked).status_code == 200


def test_a_form_of_another_site_cannot_send_json(client: TestClient) -> None:
    answer = client.post("/api/similar", content=b'{"uri": "x"}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


def test_no_other_site_may_read_answers(client: TestClient) -> None:
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for answer in (client.get("/api/info", headers=asked), client.options("/api/info", headers=asked)):
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/", "/api/info", "/api/docs", "/nothing", "/api/query"])
def test_every_answer_has_the_policy(path: str, service: Service, page: Path) -> None:
    answer = make_client(service, page=page).get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_refusals_have_the_policy_too(service: Service) -> None:
    for answer in (
        make_client(service, BEYOND).get("/api/info"),
        make_client(service).get("/api/info", headers={"Host": "evil.example"}),
    ):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
