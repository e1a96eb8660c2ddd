"""Serve the explorer until it is stopped."""

import ipaddress
import logging
import os
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import uvicorn

from jobs.explorer.app import explorer_app
from model.memory import keep_freed_memory
from pipeline.errors import SettingError, reason
from pipeline.explore.cache import Cache, cache_folder
from pipeline.explore.settings import ExploreSettings
from pipeline.table.delta import ResultTable

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
GRACE_S = 1
"""The seconds for the answers that are being sent when a signal comes. Later ones are cut off, which is no error."""


def serve(settings: ExploreSettings, on_ready: Callable[[str], None]) -> NoReturn:
    """Copy the table if that is not done, and answer until the process is stopped. This ends the process.

    Args:
        settings: the table, and where to listen.
        on_ready: called with the address to open, when it can be opened.

    Raises:
        SettingError: there is no table, or nothing can listen there.
    """
    listening = _listen(settings.host, settings.port)
    with listening:
        token = None if _is_loopback(settings.host) else secrets.token_urlsafe(24)
        cache = Cache(ResultTable(settings.table), Path(settings.cache) if settings.cache else cache_folder())
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        names = LOOPBACK_NAMES | {host} if token is None else frozenset()
        app = explorer_app(ResultTable(settings.table).url, cache, names, token)
        query = f"?token={token}" if token else ""
        server = uvicorn.Server(
            uvicorn.Config(
                app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=GRACE_S
            )
        )
        logging.getLogger("uvicorn.error").addFilter(lambda record: not server.should_exit)
        keep_freed_memory(is_shared=True)  # each search takes and frees some tens of megabytes
        cache.start()
        try:
            with suppress(KeyboardInterrupt):
                on_ready(f"http://{host}:{listening.getsockname()[1]}/{query}")
                server.run(sockets=[listening])
        finally:
            cache.close()
    # Python would wait for answers that are cut off: for a store that does not answer, for example. And DuckDB would print what it counts as
    # leaks, once pictures of a store have been read.
    os._exit(0)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise SettingError(
            f"host {host!r}, port {port}: can't listen there: {reason(error)}; choose another port"
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
