"""In front of a page: hosts, token, size and rate of requests, and headers that keep it alone."""

import hashlib
import hmac
import ipaddress
import json
import os
import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from http.cookies import SimpleCookie
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sdn_ray.errors import UserError

TOKEN_VARIABLE = "SDN_RAY_TOKEN"
_COOKIE = "page_token"
_REMEMBERED = 30 * 24 * 3600  # seconds: raters come back
_MOST_CLIENTS = 10_000  # whose rates are remembered
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,200}")  # that needs no quoting anywhere
# Everything a page needs comes from here; what a browser makes of answers is never run.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src "
    "'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Limits:
    """What one client may ask."""

    body: int = 16 << 10  # bytes
    rate: float = 50.0  # requests a second, on the long run
    burst: int = 200  # requests at once


def given_token(option: str | None) -> str | None:
    """The token of ``--token``, else of the environment, which a list of processes does not show.

    Args:
        option: as it was given.
    """
    return option if option is not None else os.environ.get(TOKEN_VARIABLE)


def check_host(host: str, token: str | None) -> None:
    """Refuse to serve other machines whoever asks.

    Raises:
        UserError: ``host`` is not this machine alone and there is no token, or a short one.
    """
    if token is None and not is_local(host):
        raise UserError(
            f"--host: found {host} without --token; expected both, or --host localhost. Whoever "
            "reaches the page may use it"
        )
    if token is not None and not _TOKEN.fullmatch(token):
        raise UserError(
            f"--token: found {len(token)} characters, expected 16 to 200 letters, digits, _ and -, "
            "such as `openssl rand -hex 16` prints"
        )


def is_local(host: str) -> bool:
    """Whether an address reaches this machine from itself alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """Middleware of ASGI around an app.

    Args:
        app: behind it.
        local: it is bound to this machine alone: requests that name another host come from a page
            of that host and are refused.
        token: that a request must show, in the address once and in a cookie from then on.
        limits: of each client.
    """

    def __init__(
        self, app: ASGIApp, *, local: bool, token: str | None = None, limits: Limits | None = None
    ) -> None:
        self._app, self._local, self._token = app, local, token
        # Cookies know no ports: two pages of one host must not take each other's.
        self._cookie = f"{_COOKIE}_{hashlib.sha256((token or '').encode()).hexdigest()[:8]}"
        self._limits = limits or Limits()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal:
            await _answer(send, *refusal)
            return
        if self._token and self._in_address(scope):
            await self._with_cookie(scope, send)
            return
        body = await self._body(headers, receive)
        if body is None:
            most = self._limits.body
            await _answer(send, 413, f"the request has more than {most} bytes")
            return
        if isinstance(body, _Gone):
            return
        await self._app(scope, _replayed(body, receive), _with_headers(send))

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "").rpartition(":")
        name = host[0] if host[1] and host[2].isdigit() else headers.get("host", "")
        if self._local and not is_local(name.lower()):
            return 421, "this page answers to localhost alone"
        if self._token and not (self._in_cookie(headers) or self._in_address(scope)):
            return 403, "the token is missing or wrong; open the link that you were given"
        if not self._may_ask((scope.get("client") or ("",))[0]):
            return 429, "too many requests; wait a moment"
        return None

    def _in_address(self, scope: Scope) -> bool:
        given = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("token", "")
        return bool(given) and self._fits(given)

    def _in_cookie(self, headers: Headers) -> bool:
        cookie = SimpleCookie()
        try:
            cookie.load(headers.get("cookie", ""))
        except Exception:  # of whatever kind, it is no cookie of ours
            return False
        return self._cookie in cookie and self._fits(cookie[self._cookie].value)

    def _fits(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self._token or "").encode())

    async def _with_cookie(self, scope: Scope, send: Send) -> None:
        """Put the token into a cookie, and out of the address, where histories keep it."""
        query = parse_qsl(scope["query_string"].decode("latin-1"))
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        # Lax: a link in a mail that is read in a browser comes from another site.
        kept = f"HttpOnly; SameSite=Lax; Path=/; Max-Age={_REMEMBERED}"
        cookie = f"{self._cookie}={self._token}; {kept}"
        path = "/" + quote(scope["path"].lstrip("/"))  # two slashes would be another host
        target = path + (f"?{rest}" if rest else "")
        await _answer(send, 303, "", {"location": target, "set-cookie": cookie})

    def _may_ask(self, client: str) -> bool:
        """A bucket of tokens for each client."""
        now = time.monotonic()
        left, before = self._buckets.pop(client, (float(self._limits.burst), now))
        left = min(self._limits.burst, left + (now - before) * self._limits.rate)
        self._buckets[client] = (left - 1 if left >= 1 else left, now)
        if len(self._buckets) > _MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return left >= 1

    async def _body(self, headers: Headers, receive: Receive) -> "bytes | _Gone | None":
        """The whole body; None where it is too long."""
        most = self._limits.body
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length[:20]) > most:
            return None
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return _Gone()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > most:
                return None
            if not message.get("more_body"):
                return b"".join(parts)


class _Gone:
    """Instead of a body: the client has left."""


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A body that was read, for the app to read again; then what the client still says."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending


async def _answer(
    send: Send, status: int, error: str, headers: dict[str, str] | None = None
) -> None:
    body = json.dumps({"error": error}).encode() if error else b""
    given = {"content-type": "application/json"} | (headers or {})
    raw = [(name.encode(), value.encode("latin-1")) for name, value in given.items()]
    sending = _with_headers(send)
    await sending({"type": "http.response.start", "status": status, "headers": raw})
    await sending({"type": "http.response.body", "body": body})
