import asyncio
import hashlib

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from sdn_ray.errors import UserError
from sdn_ray.web.guard import Guard, Limits, check_host, given_token, is_local
from sdn_ray.web.server import address, bound_socket

TOKEN = "a-token-of-more-than-16"
NAME = f"page_token_{hashlib.sha256(TOKEN.encode()).hexdigest()[:8]}"


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{request.url.query} {len(await request.body())}")


def client(base="http://localhost", **options):
    app = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])])
    options = {"local": True} | options
    return TestClient(Guard(app, **options), base_url=base, follow_redirects=False)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8001", "127.0.0.1:80", "127.0.0.2:80", "[::1]:8001"]
)
def test_this_machine_s_names_are_answered(host):
    assert client().get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8001", "localhost.evil", "", "a:b"])
def test_a_page_of_another_name_is_not(host):
    assert client().get("/", headers={"host": host}).status_code == 421


def test_a_page_for_others_answers_to_any_name():
    found = client(local=False, token=TOKEN)
    assert found.get("/", params={"token": TOKEN}).status_code == 303
    assert found.get("/", headers={"host": "lab.example"}).status_code == 200


def test_the_link_with_the_token_becomes_a_cookie_and_loses_it():
    found = client(token=TOKEN)
    answer = found.get("/", params={"token": TOKEN, "a": "1"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/?a=1")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie  # or a link in a mail would lead to nothing
    assert "Max-Age" in cookie
    assert found.get("/").status_code == 200  # the client kept the cookie


def test_the_link_leads_to_no_other_host():
    answer = client(token=TOKEN).get(f"//evil.example/?token={TOKEN}")
    assert not answer.headers["location"].startswith("//")


@pytest.mark.parametrize("given", ["", "wrong", TOKEN[:-1], TOKEN + "x", "é"])
def test_without_the_token_nothing_is_answered(given):
    for answer in (
        client(token=TOKEN).get("/", params={"token": given}),
        client(token=TOKEN).get("/", headers={"cookie": f"{NAME}={given}".encode()}),
    ):
        assert answer.status_code == 403  # of a page 401 is an unknown rater
        assert TOKEN not in answer.text


def test_two_pages_of_one_host_keep_their_cookies_apart():
    other = "another-token-of-more-than-16"
    first, second = client(token=TOKEN), client(token=other)
    cookies = [
        page.get("/", params={"token": token}).headers["set-cookie"].partition("=")[0]
        for page, token in ((first, TOKEN), (second, other))
    ]
    assert len(set(cookies)) == 2


def test_a_client_that_leaves_before_its_body_is_whole_is_not_answered():
    called = []

    async def app(scope, receive, send):
        called.append(scope)

    async def gone():
        return {"type": "http.disconnect"}

    scope = {"type": "http", "path": "/", "query_string": b"", "headers": [(b"host", b"localhost")]}
    asyncio.run(Guard(app, local=True)(scope, gone, None))
    assert called == []


def test_a_body_too_long_is_refused_whether_or_not_its_length_is_told():
    found = client(limits=Limits(body=100))
    assert found.post("/", content=b"x" * 100).text == " 100"
    assert found.post("/", content=b"x" * 101).status_code == 413

    def parts():
        for _ in range(11):
            yield b"x" * 10

    assert found.post("/", content=parts()).status_code == 413
    headers = {"content-length": "9" * 40}
    assert found.post("/", content=b"", headers=headers).status_code == 413


def test_a_client_that_asks_too_often_is_told_to_wait():
    found = client(limits=Limits(rate=0.0, burst=3))
    assert [found.get("/").status_code for _ in range(5)] == [200, 200, 200, 429, 429]


def test_every_answer_keeps_the_page_alone():
    for answer in (client().get("/"), client().get("/", headers={"host": "evil.example"})):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


def test_other_machines_are_served_with_a_token_alone():
    check_host("localhost", None)
    check_host("127.0.0.1", None)
    check_host("0.0.0.0", TOKEN)
    with pytest.raises(UserError, match=r"--host: found 0\.0\.0\.0 without --token"):
        check_host("0.0.0.0", None)
    for token in ("short", "with spaces in it all", "plus+slash/and=others", "ünïcödë-" * 3):
        with pytest.raises(UserError, match=f"--token: found {len(token)} characters, expected"):
            check_host("0.0.0.0", token)


def test_what_is_this_machine_alone():
    assert all(map(is_local, ("localhost", "127.0.0.1", "::1", "[::1]", "127.9.9.9")))
    assert not any(map(is_local, ("0.0.0.0", "::", "192.168.0.2", "example.org", "")))


def test_a_port_that_is_taken_is_told():
    with bound_socket("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert address("127.0.0.1", first, "t") == f"http://127.0.0.1:{port}/?token=t"
        with pytest.raises(UserError, match=f"--port: 127.0.0.1:{port} cannot be served"):
            bound_socket("127.0.0.1", port)
    with pytest.raises(UserError, match="--port: localhost:99999"):
        bound_socket("localhost", 99999)


def test_a_token_may_stand_in_the_environment(monkeypatch):
    assert given_token(None) is None
    monkeypatch.setenv("SDN_RAY_TOKEN", TOKEN)
    assert given_token(None) == TOKEN
    assert given_token("another") == "another"
