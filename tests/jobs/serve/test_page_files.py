"""The files of the page, and nothing beside them."""

import re
from pathlib import Path

import pytest

from jobs.serve.page_files import PAGE
from jobs.serve.service import Service
from tests.helpers.served import make_client


def test_files_have_their_types_and_are_asked_for_again(service: Service, page: Path) -> None:
    client = make_client(service, page=page)
    for path, kind in (("/", "text/html; charset=utf-8"), ("/main.js", "text/javascript; charset=utf-8")):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        assert answer.headers["cache-control"] == "no-cache"
        again = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    (page / "main.js").write_text("export const a = 1;")
    changed = client.get("/main.js", headers={"If-None-Match": answer.headers["etag"]})
    assert (changed.status_code, changed.text) == (200, "export const a = 1;")


@pytest.mark.parametrize(
    "path",
    [
        "/notes.txt",
        "/../secret.js",
        "/%2e%2e/secret.js",
        "/..%2fsecret.js",
        "/page/../../secret.js",
        "//etc/passwd",
        "/%00",
        "/main.js/",
        "/api/nothing",
    ],
)
def test_nothing_else_is_served(path: str, service: Service, page: Path) -> None:
    answer = make_client(service, page=page).get(f"http://localhost:8765{path}")
    assert answer.status_code == 404
    assert list(answer.json()) == ["error"]


def test_head_has_no_body(service: Service, page: Path) -> None:
    answer = make_client(service, page=page).head("/")
    assert (answer.status_code, answer.content) == (200, b"")


def test_the_scripts_stay_small() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in PAGE.glob("*.js")}
    assert 0 < sum(lengths.values()) <= 1_500, lengths


def test_the_markup_holds_no_script_or_style_and_names_no_other_site() -> None:
    found = re.findall(r"<script(?![^>]*\bsrc=)|\bon\w+=|style=|https?://", (PAGE / "index.html").read_text())
    assert found == []


def test_docs_need_no_scripts(service: Service) -> None:
    client = make_client(service)
    text = client.get("/api/docs").text
    assert "<script" not in text
    assert "http://" not in text.replace("http://localhost", "")
    for path in client.get("/api/openapi.json").json()["paths"]:
        assert path in text
