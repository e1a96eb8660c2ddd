"""The guard before all of the explorer's addresses: who may ask, and what a browser may do with the answer."""

import hmac
import re
from http.cookies import SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PORT = re.compile(r":[0-9]*$")
"""The port at the end of a host's name."""
COOKIE = "ssd-batch-token"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""The headers of each answer: a page loads nothing from elsewhere, and no other page loads this one."""


class Guard:
    """Refuses requests that name another host, come from another page, or lack the token.

    Args:
        app: answers what is allowed.
        hosts: the names by which browsers may reach the server; empty for any. Another name may be a page of
            somebody else whose name leads to this machine.
        token: the token that a request must have, in its address or in a cookie; None where all requests may ask.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str], token: str | None) -> None:
        self._app, self._hosts, self._token = app, hosts, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        answer = self._refusal(scope) or self._app
        await answer(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if self._hosts and PORT.sub("", headers.get("host", "")).lower() not in self._hosts:
            return PlainTextResponse("this explorer is for the machine that it runs on", 403)
        is_opened = headers.get("sec-fetch-mode") == "navigate" and scope["path"] == "/"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not is_opened:
            return PlainTextResponse("another page may not ask", 403)
        if self._token is None:
            return None
        given = parse_qs(scope["query_string"].decode("ascii", "replace")).get("token", [""])[-1]
        if given and hmac.compare_digest(given.encode(), self._token.encode()):
            found = RedirectResponse(scope["path"], 303)
            found.set_cookie(COOKIE, self._token, httponly=True, samesite="strict")
            return found
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        if cookie and hmac.compare_digest(cookie.value.encode(), self._token.encode()):
            return None
        return PlainTextResponse("open the address that `ssd-batch explore` printed, with its token", 403)
