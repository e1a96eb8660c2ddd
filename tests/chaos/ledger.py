"""What a table must hold after accidents: DuckDB alone reads the files that the table's log names."""

import json
from collections import Counter
from typing import Any, NamedTuple
from urllib.parse import unquote

import duckdb
from deltalake import DeltaTable

from pipeline.storage import store
from pipeline.urls import is_s3

COLUMNS = "uri, etag, model_digest, run_id, processed_at::VARCHAR, status, error_type"


class Row(NamedTuple):
    """The columns that tell whether a row is the one that stood there before."""

    uri: str
    etag: str
    model_digest: str
    run_id: str
    processed_at: str
    status: str
    error_type: str | None

    @property
    def key(self) -> tuple[str, str, str]:
        return self[:3]

    @property
    def is_done(self) -> bool:
        """Is it never to be computed again?"""
        return self.status == "ok" or self.error_type == "DecodeError"


class Ledger:
    """Holds a table against what was seen of it before.

    Args:
        table: its URL.
        num_images: how many the run lists.
    """

    def __init__(self, table: str, num_images: int) -> None:
        self._table, self._num_images = table, num_images
        self._done: dict[tuple[str, str, str], Row] = {}
        self._closed: Counter[str] = Counter()

    def _delta(self) -> DeltaTable | None:
        options = store.table_options(self._table)
        there = DeltaTable.is_deltatable(self._table, storage_options=options)
        return DeltaTable(self._table, storage_options=options) if there else None

    def rows(self) -> list[Row]:
        """All that is committed now."""
        delta = self._delta()
        files = [unquote(uri) for uri in delta.file_uris()] if delta else []
        if not files:
            return []
        with duckdb.connect() as db:
            if is_s3(self._table):
                db.register_filesystem(store.filesystem(self._table)[0])
            found = db.execute(f"SELECT {COLUMNS} FROM read_parquet(?)", [files]).fetchall()
        return [Row(*values) for values in found]

    def holder(self) -> dict[str, Any]:
        """Who committed last, as the table's log has it."""
        delta = self._delta()
        last = delta.history(1)[0] if delta else {}
        return json.loads(last.get("ssd_batch", "{}"))

    def note(self) -> int:
        """Remember what is committed: nothing of it may be computed again. How many images are done."""
        self._done |= {row.key: row for row in self.rows() if row.is_done}
        return len(self._done)

    def note_others(self, pid: int) -> None:
        """A process has just taken the table: no run that wrote before may commit any more."""
        rows, holder = self.rows(), self.holder()
        if holder.get("pid") == pid:
            self._closed |= Counter(row.run_id for row in rows if row.run_id != holder["run_id"])

    def judge(self) -> Counter[str]:
        """What is wrong at the end; and `failed`, images that an accident took along: another run tries them again."""
        rows = self.rows()
        now, by_run = {row.key: row for row in rows}, Counter(row.run_id for row in rows)
        return Counter(
            lost=self._num_images - len(now),
            doubled=len(rows) - len(now),
            recomputed=sum(now.get(key) != row for key, row in self._done.items()),
            late=sum(by_run[run_id] > num_rows for run_id, num_rows in self._closed.items()),
            failed=sum(not row.is_done for row in rows),
        )
