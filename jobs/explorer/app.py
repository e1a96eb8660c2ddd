"""The explorer's addresses: the page, the questions that it asks, and pictures. Nothing is written."""

import csv
import io
import textwrap
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import duckdb
import msgspec
from anyio import to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from jobs.explorer.guard import Guard
from jobs.text.values import plain
from pipeline.errors import SettingError, SsdBatchError, reason
from pipeline.explore import queries
from pipeline.explore.cache import Cache
from pipeline.explore.filters import Filter, parse_filter
from pipeline.explore.thumbnails import NotShownError, thumbnail, whole_picture
from pipeline.redaction import redacted
from pipeline.table.delta import ResultTable
from pipeline.table.query import query

STATIC = Path(__file__).parent / "static"
THUMBNAIL_PX = 360
TILE_LETTERS, TILE_LINES = 36, 10
"""The text on the tile of a picture that can't be shown."""
MAX_ROWS, QUERY_LIMIT_S = 1000, 30.0
"""The most rows of an answer to the SQL box, and the most seconds for it."""
KEEP = "private, max-age=86400, immutable"
"""The cache control of pictures, whose addresses name their version."""

Answer = Callable[[Request], Response]


class Explorer:
    """The answers to requests.

    Args:
        url: the table's URL.
        cache: its flat copy.
    """

    def __init__(self, url: str, cache: Cache) -> None:
        self._url, self._cache = url, cache

    def table(self, request: Request) -> Response:
        """Return what can be chosen in filters."""
        return _json({"table": self._url, **asdict(queries.facts(self._cache.copy))})

    def images(self, request: Request) -> Response:
        """Return a page of images with boxes."""
        return _json(queries.page(self._cache.copy, self._filter(request), _number(request, "offset")))

    def counts(self, request: Request) -> Response:
        """Return counts and histograms."""
        return _json(self._cache.copy.search.count(self._filter(request)))

    def image(self, request: Request) -> Response:
        """Return one row with all boxes."""
        return _json(self._row(request))

    def failures(self, request: Request) -> Response:
        """Return the causes of failures."""
        return _json(queries.failures(self._cache.copy))

    def compare(self, request: Request) -> Response:
        """Return images that two models or runs see differently."""
        given = request.query_params
        a, b = (queries.Side(given.get(f"{side}_model"), given.get(f"{side}_run")) for side in ("a", "b"))
        if not all(side.model or side.run for side in (a, b)):
            raise SettingError("compare: give a model or a run for each side")
        min_score = parse_filter({"min_score": [given.get("min_score", "0.5")]}, []).min_score
        return _json(queries.compare(self._cache.copy, a, b, min_score, _number(request, "offset")))

    def list(self, request: Request) -> Response:
        """Return a list that `infer --input` takes: of the named images, or of all that a filter shows."""
        if keys := request.query_params.getlist("key"):
            found = queries.versions(self._cache.copy, [_checked_key(key) for key in keys])
        else:
            found = queries.all_versions(self._cache.copy, self._filter(request))
        text = io.StringIO()
        writer = csv.DictWriter(text, ("uri", "etag", "size_bytes", "last_modified"), lineterminator="\n")
        writer.writeheader()
        writer.writerows(plain(row) for row in found)
        headers = {"Content-Disposition": "attachment; filename=images.csv"}
        return Response(text.getvalue(), media_type="text/csv", headers=headers)

    def thumbnail(self, request: Request) -> Response:
        """Return a small picture, or why there is none."""
        row = self._row(request)
        return _picture(lambda: (thumbnail(row["uri"], row["etag"], row["size_bytes"], THUMBNAIL_PX), "image/jpeg"))

    def picture(self, request: Request) -> Response:
        """Return a whole picture, or why there is none."""
        row = self._row(request)
        return _picture(lambda: whole_picture(row["uri"], row["etag"], row["size_bytes"]))

    def sql(self, request: Request) -> Response:
        """Answer one SELECT over the table's views."""
        with query(ResultTable(self._url), request.query_params.get("q", ""), QUERY_LIMIT_S) as relation:
            found = relation.limit(MAX_ROWS + 1).to_arrow_table()
        columns = [[plain(value) for value in column.to_pylist(maps_as_pydicts="lossy")] for column in found.columns]
        rows = list(zip(*columns, strict=True))
        return _json({"columns": found.column_names, "rows": rows[:MAX_ROWS], "is_cut": len(rows) > MAX_ROWS})

    def _filter(self, request: Request) -> Filter:
        parameters = {name: request.query_params.getlist(name) for name in request.query_params if name != "offset"}
        return parse_filter(parameters, queries.path_columns(self._cache.copy))

    def _row(self, request: Request) -> dict[str, Any]:
        row = queries.image(self._cache.copy, _checked_key(request.path_params["key"]))
        if row is None:
            raise LookupError("the table has no such image")
        return row


def explorer_app(url: str, cache: Cache, hosts: frozenset[str], token: str | None) -> Starlette:
    """Return the application.

    Args:
        url: the table's URL.
        cache: its flat copy.
        hosts: the names of this host by which browsers may reach it; empty for any.
        token: the token that requests must have, or None.
    """
    explorer = Explorer(url, cache)
    answers: dict[str, Answer] = {
        "/api/table": explorer.table, "/api/images": explorer.images, "/api/counts": explorer.counts,
        "/api/image/{key}": explorer.image, "/api/failures": explorer.failures, "/api/compare": explorer.compare,
        "/api/list": explorer.list, "/api/sql": explorer.sql, "/thumbnail/{key}": explorer.thumbnail,
        "/picture/{key}": explorer.picture,
    }  # fmt: skip
    return Starlette(
        routes=[
            *(Route(path, _explained(answer, cache)) for path, answer in answers.items()),
            Mount("/", StaticFiles(directory=STATIC, html=True)),
        ],
        middleware=[Middleware(Guard, hosts=hosts, token=token)],
    )


def _explained(answer: Answer, cache: Cache) -> Callable[[Request], Awaitable[Response]]:
    """Return an answer that says what was wrong with a request. It is made in a thread, which nobody waits for once the server stops."""

    async def explained(request: Request) -> Response:
        try:
            return await to_thread.run_sync(answer, request, abandon_on_cancel=True)
        except SettingError as error:
            return _json({"error": str(error)}, 400)
        except LookupError as error:
            return _json({"error": str(error.args[0])}, 404)
        except (SsdBatchError, duckdb.Error) as error:
            return _json({"error": reason(error)}, 500)
        finally:
            cache.copy.release()

    return explained


def _json(content: Any, status: int = 200) -> Response:
    body = msgspec.json.encode(content, enc_hook=plain)
    return Response(body, status, media_type="application/json", headers={"Cache-Control": "no-store"})


def _picture(load: Callable[[], tuple[bytes, str]]) -> Response:
    try:
        content, kind = load()
    except NotShownError as error:
        return Response(_tile(str(error)), media_type="image/svg+xml", headers={"Cache-Control": "no-store"})
    return Response(content, media_type=kind, headers={"Cache-Control": KEEP})


def _tile(text: str) -> str:
    """Return a grey picture with a text. A status of 404 would be an error in the browser's console."""
    lines = textwrap.wrap(redacted(text), TILE_LETTERS)[:TILE_LINES]
    spans = "".join(f'<tspan x="50%" dy="1.3em">{escape(line)}</tspan>' for line in lines)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="360" height="270"><rect width="100%" height="100%" fill="#ddd"/>'
        f'<text y="40" text-anchor="middle" font-family="sans-serif" font-size="15" fill="#555">{spans}</text></svg>'
    )


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "0")
    if not text.isascii() or not text.isdigit():
        raise SettingError(f"{name}: give a whole number, not {text!r}")
    return int(text)


def _checked_key(key: str) -> str:
    if len(key) != 16 or not set(key) <= set("0123456789abcdef"):
        raise LookupError("the table has no such image")
    return key
