"""The check whether so many images of a run fail that something around them is broken."""

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import TargetMissedError
from pipeline.inference.summary import Summary
from pipeline.stages.rows import ERROR, IS_FIRST
from pipeline.table.query import OWN_ERRORS

DEFAULT_SHARE = 0.5
WINDOW_IMAGES = 1000
"""The number of images whose failures are checked together during a run."""
FEW_IMAGES = 20
"""The number of images below which failures that are the images' own do not count: they say nothing about what is around them."""
BYTES_AT_FAULT = "decode"
"""The stage of failures that are the images' own and permanent."""
AGAIN = "The next run tries them again; where so many images are broken, give --max-failed-share 1"

FailureKind = tuple[str, str]
"""The kind of a failure: error_stage and error_type."""


class Failures:
    """Counts failures by kind as rows come in.

    Where no share is given, images that failed before, in a run that counts, are left out: their failures are expected.

    Args:
        max_share: the share of the planned images that may fail. None means `DEFAULT_SHARE` of the images that are tried for the
            first time.

    Attributes:
        are_systemic: True if so many images failed that something around them is broken. Their failures then do not count as attempts.
    """

    def __init__(self, max_share: float | None) -> None:
        self._max_share = max_share
        self._num_failed = self._num_first = 0
        self._kinds: Counter[FailureKind] = Counter()
        self._recent: Counter[FailureKind] = Counter()
        self._num_recent, self._is_begun = 0, False
        self._messages: dict[FailureKind, str] = {}
        self.are_systemic = False

    def take(self, rows: pa.Table) -> int:
        """Add rows of the table, with the column `IS_FIRST`, and return how many of them failed.

        Raises:
            TargetMissedError: more than half of a thousand images failed alike. Bytes at fault count in the first thousand only:
                later images may be in a folder of broken files.
        """
        failed = rows.select([*ERROR, IS_FIRST]).filter(pc.equal(rows["status"], "failed"))
        kinds = list(zip(*(failed[name].to_pylist() for name in ("error_stage", "error_type")), strict=True))
        self._messages.update(zip(kinds, failed["error_message"].to_pylist(), strict=True))
        first = [kind for kind, is_first in zip(kinds, failed[IS_FIRST].to_pylist(), strict=True) if is_first]
        num_first = pc.sum(rows[IS_FIRST]).as_py() or 0
        self._num_failed += len(kinds)
        self._num_first += num_first
        self._num_recent += num_first
        self._kinds.update(first)
        self._recent.update(first)
        if self._num_recent >= WINDOW_IMAGES:
            self._check_recent()
            self._recent.clear()
            self._num_recent, self._is_begun = 0, True
        return len(kinds)

    def _check_recent(self) -> None:
        for kind, num in self._recent.most_common(1):
            is_telling = not self._is_begun or kind[0] != BYTES_AT_FAULT
            if is_telling and num > max(self._max_share or 0, DEFAULT_SHARE) * self._num_recent:
                self.are_systemic = True
                raise TargetMissedError(
                    f"max_failed_share: {num:,} of {self._num_recent:,} images failed alike, {self._described(kind)}: the run was "
                    f"stopped. {AGAIN}"
                )

    def check(self, summary: Summary) -> None:
        """Check the failures at the end of a run against the share that may fail.

        Raises:
            TargetMissedError: more images failed.
        """
        num_first = self._kinds.total()
        if self._num_first < FEW_IMAGES:
            num_first = sum(num for kind, num in self._kinds.items() if not _is_own(kind))
        is_systemic = num_first > DEFAULT_SHARE * self._num_first
        num_failed, num, share = self._num_failed, summary.planned, self._max_share
        if share is None:
            num_failed, num, share = num_first, self._num_first, DEFAULT_SHARE
        if num_failed <= share * num:
            return
        self.are_systemic = is_systemic
        commonest = "".join(f"; {alike:,} {self._described(kind)}" for kind, alike in self._kinds.most_common(1))
        raise TargetMissedError(
            f"max_failed_share: {num_failed:,} of {num:,} images failed, more than {share:g} of them{commonest}; the view failures "
            f"says why{f'. {AGAIN}' if is_systemic else ''}",
            summary,
        )

    def _described(self, kind: FailureKind) -> str:
        return f"in {kind[0]} ({kind[1]}: {self._messages[kind]})"


def _is_own(kind: FailureKind) -> bool:
    return kind[0] == BYTES_AT_FAULT or kind[1] in OWN_ERRORS
