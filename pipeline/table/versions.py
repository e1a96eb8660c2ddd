"""The latest versions of the images of which a table has several rows.

To find them takes most of a query's time, and there are few. So a run and `maintain` note them in a file next to the table, whose
name is a digest over the names of the data files. Data files never change, so the note is right for exactly these files, whoever
commits, compacts or deletes. A table whose data files have no note is searched.
"""

import hashlib
import logging
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import duckdb
from deltalake.exceptions import DeltaError

from pipeline.errors import SsdBatchError, reason
from pipeline.sql import literal
from pipeline.storage import store
from pipeline.table.delta import ResultTable
from pipeline.table.read_only import name_below
from pipeline.table.results import RESULTS, connect

logger = logging.getLogger(__name__)

LATEST_ETAG = "max_by(etag, (run_id, processed_at))"
"""The SQL of the version that a run saw last, among the rows of one URI and model.

Runs are ordered by their ids, which begin with the time at which the driver began to list. The clocks of workers order only the
rows of one run.
"""
LATEST_OK = f"{LATEST_ETAG} FILTER (status = 'ok')"
"""The SQL of the version that a run saw last, among those that were ok. No failure hides it.

Such a failure may come from a list that lags, or from a file that was cut short since.
"""
NOTE_FILE = re.compile(r"versions-[0-9a-f]{32}\.parquet")
"""A pattern of the names of notes, in the table's work folder."""
KEY = "uri, model_digest"
VERSIONS = f"""
    SELECT {KEY}, {LATEST_ETAG} AS latest, {LATEST_OK} AS latest_ok FROM {RESULTS} {{where}} GROUP BY {KEY} HAVING count(*) > 1
"""
"""The SQL of the latest versions, one row per URI and model with several rows."""
FOUND = VERSIONS.format(where="")
"""The form that finds them for a query. A condition on the URI skips most of the table."""
NO_VERSIONS = "SELECT NULL::VARCHAR AS uri, NULL::VARCHAR AS model_digest, NULL::VARCHAR AS latest, NULL::VARCHAR AS latest_ok WHERE false"
"""The form for a table that has one row of each image and model, so that all rows are the latest."""


def found_by_hash(condition: str = "true") -> str:
    """Return the form that finds them for a note, or for a plan among the rows that meet a condition.

    Where there are few, hashes take a third of the time and a quarter of the memory of names.
    """
    hashes = f"SELECT hash({KEY}) FROM {RESULTS} WHERE {condition} GROUP BY ALL HAVING count(*) > 1"
    return VERSIONS.format(where=f"WHERE {condition} AND hash({KEY}) IN ({hashes})")


def note_url(table: ResultTable, files: Sequence[str]) -> str:
    """Return the URL of the note on these data files. It also depends on the SQL that the note answers."""
    names = sorted(name_below(table.url, file) for file in files)
    digest = hashlib.sha256("\n".join([VERSIONS, *names]).encode()).hexdigest()
    return table.working_url(f"versions-{digest[:32]}.parquet")


def note_versions(table: ResultTable) -> None:
    """Write the note on the table's data files, if there is none. A failure is only logged, as no answer depends on the note."""
    try:
        files = table.data_files()
        url = note_url(table, files)
        if not files or store.exists(url):
            return
        with connect(table, files=files) as db, tempfile.TemporaryDirectory(prefix="ssd-batch-") as folder:
            note = Path(folder, "versions.parquet")
            db.execute(f"COPY ({found_by_hash()}) TO {literal(str(note))} (FORMAT parquet)")
            store.put(note, url)
    except (OSError, DeltaError, SsdBatchError, duckdb.Error) as error:
        logger.warning(
            "table %r: its latest versions can't be noted, so queries search for them: %s", table.url, reason(error)
        )


def noted_versions(db: duckdb.DuckDBPyConnection, table: ResultTable, url: str, search: str = FOUND) -> str:
    """Return the SQL of the latest versions: `NO_VERSIONS` if the note is empty, and the search if there is no note.

    Args:
        db: a DuckDB that may read the note.
        table: the table.
        url: the note's URL, see `note_url`.
        search: the SQL that finds the versions.
    """
    source = f"FROM read_parquet({literal(name_below(table.url, url))})"
    try:
        (num_noted,) = db.execute(f"SELECT count(*) {source}").fetchall()[0]
    except duckdb.Error:  # it is not there, or can't be read
        return search
    return source if num_noted else NO_VERSIONS
