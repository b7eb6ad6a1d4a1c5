"""Keeps pages of other sites from driving the server through the browser of somebody who may reach it.

A page may send a form to any address, and, once its own name leads to this machine (DNS rebinding), read the
answer as well. Both show: in `Origin`, which is the page's, and in `Host`, which is the name in its address.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from outrider.serving.errors import ApiError


@dataclass(frozen=True)
class Names:
    """What clients may call the server, and whose pages may use it.

    given: names by whoever runs it; own: None where any name will do; origins: of pages of other sites.
    """

    given: Collection[str]
    own: Collection[str] | None
    origins: Collection[str] = ()

    def check(self, host: str, origin: str | None) -> None:
        """Raise ApiError for a request from elsewhere. Both are as the headers say, with their ports."""
        name = _name(host)
        if (
            self.own is not None
            and name not in self.own
            and name not in self.given
            and not _is_loopback(name)
        ):
            raise ApiError(
                421,
                f"the server is not called {name!r}; use the address that it listens at, or start it with "
                f"--allowed-host {name}",
            )
        if origin is not None:
            _, _, place = origin.partition("://")
            own = place != "" and place.lower() == host.lower()
            allowed = "*" in self.origins or origin.lower() in self.origins or _name(place) in self.given
            if not own and not allowed:
                raise ApiError(
                    403, f"pages of {origin!r} may not use this server; --allowed-origins allows it"
                )


def names_of(host: str, allowed: Sequence[str], origins: Sequence[str] = ()) -> Names:
    """host: what the server listens at. No other names are taken where that is this machine alone, or where
    some are given."""
    given = frozenset(name.lower() for name in allowed)
    *_, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    closed = bool(given) or _is_loopback(str(address[0]))
    return Names(given, frozenset({"", host.lower()}) if closed else None, frozenset(origins))


class OwnPagesOnly:
    """Answers 421 to a `Host`, and 403 to an `Origin`, that is not the server's."""

    def __init__(self, app: ASGIApp, names: Names) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            self._names.check(headers.get("host", ""), headers.get("origin"))
        await self._app(scope, receive, send)


def _name(place: str) -> str:
    """Without the port, and without the brackets of IPv6."""
    name = place.lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].removesuffix(".")


def _is_loopback(name: str) -> bool:
    try:
        address = ip_address(name.partition("%")[0])
    except ValueError:
        return name == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
