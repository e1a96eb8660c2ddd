"""How far back a plan must look: what an earlier complete run has found in the table is not looked up again.

A run that ends reconciled has found all that it listed in the table. The next run of the same inputs and model looks up what
was modified since that one began; of what is older it looks at failures alone. The mark stands in the table's log, as
a transaction of an application that is named after all that it holds for. Only S3 sets an object's time by itself; a file
that is moved into a folder brings its own, and a manifest says what it likes.
"""

import hashlib
import json
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from deltalake import Transaction

from pipeline import storage
from pipeline.manifest import is_manifest
from pipeline.table import DELETIONS, ResultTable

MARGIN = timedelta(hours=1)
"""Clocks of the store and of the driver differ by less."""


def application(table: ResultTable, inputs: Collection[str], all_files: bool, model_digest: str) -> str | None:
    """The name that the mark stands under; none where times can't be relied on.

    Rows that were deleted from the table are no longer vouched for: their count is a part of the name.

    Args:
        table: where the mark is.
        inputs: folders, prefixes and manifests of the run.
        all_files: does it take all names?
        model_digest: its model.
    """
    urls = [storage.absolute(url) for url in inputs]
    if not table.exists or not all(storage.is_s3(url) and not is_manifest(url) for url in urls):
        return None
    deletions = table.refreshed().transaction_version(DELETIONS) or 0
    meant = json.dumps([sorted(urls), all_files, model_digest, deletions])
    return f"ssd-batch-complete-{hashlib.sha256(meant.encode()).hexdigest()[:16]}"


def vouched_before(table: ResultTable, application: str | None) -> datetime | None:
    """The time before which all that is listed stands in the table; none where no run has ended complete."""
    began = table.refreshed().transaction_version(application) if application else None
    return None if began is None else datetime.fromtimestamp(began, UTC) - MARGIN


def mark(application: str, began: datetime) -> Transaction:
    """What a complete run commits.

    Args:
        application: see there.
        began: before the run listed anything.
    """
    return Transaction(application, int(began.timestamp()))
