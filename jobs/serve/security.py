"""Who may ask a server: checks before every request, and headers on every answer.

- The Host header has to name this machine as it was started to be named. A page of a foreign name that resolves to this
  address (DNS rebinding) is refused. Addresses of digits are no names, so they cannot be rebound.
- Beyond loopback a token is needed: once in the address, then as a cookie that no script reads and no other site sends,
  or as a bearer token. It is compared in constant time, and never logged: there is no log of requests.
- What changes something has to come from the page itself, or from a program that sends no Origin. No other site may
  read answers: no CORS header is ever sent.
- No other page, not even one of another port of this machine, has the API work for it, as by an image or a frame.
- The page runs its own scripts only, none inline.
"""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

POLICY = "; ".join(
    [
        *("default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' blob: data:"),
        *("media-src 'self' blob:", "connect-src 'self'", "base-uri 'none'", "form-action 'self'"),
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
BODIES = ("application/json", "multipart/form-data")
OWN_SITES = ("same-origin", "none")
"""What browsers say of the page's own requests, and of what the user opens directly."""

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:/@\s\[\]]+))(?::\d{1,5})?")


@dataclass(frozen=True)
class Access:
    """How a server may be asked.

    Args:
        names: host names and addresses by which it may be called.
        any_address: any address of digits is a name, too; for a server that listens on all of them.
        token: None for a server that only this machine reaches.
        cookie: the name of the cookie. Cookies ignore ports, so it has the port in it.
    """

    names: frozenset[str] = LOOPBACK_NAMES
    any_address: bool = False
    token: str | None = None
    cookie: str = "earshot"


def make_access(host: str, port: int, allowed_hosts: Iterable[str], token: str | None) -> Access:
    """The access to a server that listens on ``host``."""
    names = LOOPBACK_NAMES | {name.lower().strip("[]") for name in (host, *allowed_hosts)}
    return Access(names, any_address=host in ("0.0.0.0", "::"), token=token, cookie=f"earshot-{port}")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on ``host``."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """Wraps an app: checks each request, and adds headers to each answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # there are no web sockets here
            return
        has_begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        answer: ASGIApp = self._check(scope) or self._app
        try:
            await answer(scope, receive, send_with_headers)
        except Exception:  # the app's own handler has said which, and starlette raises it again for a log
            if not has_begun:
                raise

    def _check(self, scope: Scope) -> Response | None:
        """The answer to a request that may not pass; None for one that may."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or (name := read_host(host)) is None:
            return refuse(400, "the request has no valid Host header")
        if not self._may_be_called(name):
            return refuse(421, f"this server is not {name[:100]}: start it with --allowed-host to give it that name")
        if refused := self._check_token(scope, headers):
            return refused
        return _check_site(scope, headers) if scope["method"] in SAFE_METHODS else _check_origin(headers, host)

    def _may_be_called(self, name: str) -> bool:
        if name in self._access.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._access.any_address

    def _check_token(self, scope: Scope, headers: Headers) -> Response | None:
        token = self._access.token
        if token is None:
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        in_address = [value for name, value in query if name == "token"]
        if in_address and scope["method"] in ("GET", "HEAD") and _is_same(in_address[-1], token):
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            # One slash: an address that begins with two would lead to another host.
            path = "/" + quote(scope["path"].lstrip("/\\"))
            lead = _lead_to(path + (f"?{rest}" if rest else ""), headers.get("sec-fetch-site", "none"))
            # A proxy with TLS says so. Whoever says so without one gets a cookie that their browser does not keep.
            is_secure = headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower() == "https"
            value = make_cookie(token)
            lead.set_cookie(self._access.cookie, value, httponly=True, secure=is_secure, samesite="strict", path="/")
            return lead
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _is_same(bearer.strip(), token):
            return None
        for pair in "; ".join(headers.getlist("cookie")).split(";"):
            name, _, value = pair.strip().partition("=")
            if name == self._access.cookie and _is_same(value, make_cookie(token)):
                return None
        answer = refuse(401, "this server asks for a token: open the address that `earshot serve` has printed")
        answer.headers["WWW-Authenticate"] = "Bearer"
        return answer


def _lead_to(address: str, came_from: str) -> Response:
    """Leads a browser to an address of this server, where it has to send a cookie that it just got.

    After a link of another site, browsers send no such cookie with a redirect, but do with what a page leads to.
    """
    if came_from in OWN_SITES:
        return RedirectResponse(address, status_code=303)
    return HTMLResponse(f'<!doctype html><meta http-equiv="refresh" content="0; url={escape(address)}">')


def _check_site(scope: Scope, headers: Headers) -> Response | None:
    """Refuse work for another page, which could not read the answer. Its links may lead here.

    A page of another port of this machine is another one, too: browsers call it ``same-site``. Programs say nothing.
    """
    if not scope["path"].startswith("/api/") or headers.get("sec-fetch-site", "none") in OWN_SITES:
        return None
    if headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document":
        return None  # followed by the user: frames and embedded objects have other destinations
    return refuse(403, "only the server's own page may ask this")


def _check_origin(headers: Headers, host: str) -> Response | None:
    """Refuse what another site's page sends, and bodies that a form of any site can send."""
    origin = headers.get("origin")
    if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
        return refuse(403, "only the server's own page may send this")
    if headers.get("sec-fetch-site", "none") not in OWN_SITES:
        return refuse(403, "only the server's own page may send this")
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if (has_body or kind) and kind not in BODIES:
        return refuse(415, f"the content type is {kind[:100] or 'missing'}: send {' or '.join(BODIES)}")
    return None


def read_host(header: str) -> str | None:
    """The name in a Host header, in lower case and without its port; None if it is not valid."""
    found = _HOST.fullmatch(header)
    return (found[1] or found[2]).lower().rstrip(".") if found else None


def make_cookie(token: str) -> str:
    """The value of the cookie, which does not tell the token."""
    return hmac.new(token.encode(), b"cookie", hashlib.sha256).hexdigest()


def _is_same(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), secret.encode())


def refuse(status: int, message: str) -> JSONResponse:
    """An error in the form that all errors of the API have."""
    sendable = message.encode("utf-8", "replace").decode()  # JSON may bring in halves of characters
    return JSONResponse({"error": sendable}, status_code=status)
