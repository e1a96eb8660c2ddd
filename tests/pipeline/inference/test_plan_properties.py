"""Whatever happens to images, models, storage and runs: a run that ends leaves the table that one run from nothing would."""

import itertools
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipeline.inference.plan import Plan, make_plan, reconcile, tally
from pipeline.inputs.manifest import LISTING
from pipeline.table.commit import Committer
from pipeline.table.delta import ResultTable
from pipeline.table.fence import Fence
from pipeline.table.query import LATEST, query
from pipeline.table.results import connect
from pipeline.table.schema import IS_RETRY, SCHEMA
from pipeline.table.versions import FOUND, note_versions

URIS = st.sampled_from(["a", "b", "c", "d"])
MODELS = st.sampled_from(["m1", "m2"])
MAX_ATTEMPTS = 2
RESULTS = SCHEMA.append(pa.field(IS_RETRY, pa.bool_()))
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class Crash(Exception):
    """The driver is killed."""


class Nights(RuleBasedStateMachine):
    """Images come, change and go; some are broken, some can't be read for a while; runs crash between commits."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.table = ResultTable(str(self.folder / "table"))
        self.table.create()
        self.numbers = itertools.count(1)
        self.images: dict[str, tuple[str, datetime]] = {}
        self.broken: set[tuple[str, str]] = set()
        self.unreadable: set[str] = set()
        self.former: dict[str, str] = {}
        self.detected: set[tuple[str, str, str]] = set()

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def now(self) -> datetime:
        """A clock that moves half a day each time it is read."""
        return BEGINNING + timedelta(hours=12 * next(self.numbers))

    @rule(uri=URIS, is_broken=st.booleans())
    def put(self, uri: str, is_broken: bool) -> None:
        now = self.now()
        self.keep(uri)
        self.images[uri] = (f"v{now:%m%dT%H}", now)
        if is_broken:
            self.broken.add((uri, self.images[uri][0]))

    @rule(uri=URIS)
    def put_in_parts(self, uri: str) -> None:
        """Its time is that of the upload's beginning, long ago."""
        self.keep(uri)
        self.images[uri] = (f"v{self.now():%m%dT%H}-2", BEGINNING)

    def keep(self, uri: str) -> None:
        if uri in self.images:
            self.former[uri] = self.images[uri][0]

    @rule(uri=URIS)
    def bring_back(self, uri: str) -> None:
        """The version before the present one, with its old time."""
        if uri in self.former:
            before = self.former[uri]
            self.keep(uri)
            self.images[uri] = (before, BEGINNING)

    @rule(uri=URIS)
    def delete(self, uri: str) -> None:
        self.keep(uri)
        self.images.pop(uri, None)

    @rule(uri=URIS)
    def lose_or_mend_storage(self, uri: str) -> None:
        self.unreadable ^= {uri}

    @rule(uri=URIS)
    def forget(self, uri: str) -> None:
        """Rows are deleted."""
        self.table.refreshed().delete(f"uri = '{uri}'")
        self.check_views()
        self.detected = {key for key in self.detected if key[1] != uri}

    @rule(model=MODELS, num_commits=st.integers(0, 3))
    def crash(self, model: str, num_commits: int) -> None:
        """A run that is killed after some of its commits, while it holds the table."""
        self.night(model, num_commits)
        self.check_views()

    @rule(model=MODELS)
    def finish(self, model: str) -> None:
        """A run to its end: the table holds what is listed, once, as it should be."""
        self.night(model)
        self.check_views()
        listed = [(uri, etag) for uri, (etag, _) in self.images.items()]
        # What was detected once stays so, whatever storage does later.
        expected = {key: "ok" if (model, *key) in self.detected else self.outcome(*key) for key in listed}
        found = {key: status for *key_, status in self.rows(model) if (key := tuple(key_)) in expected}
        # One that has failed too often for a passing reason is held, though storage may be mended by now.
        given_up = self.given_up(model)
        assert {key: status for key, status in found.items() if key not in given_up} == {
            key: status for key, status in expected.items() if key not in given_up
        }
        assert found.keys() == expected.keys()
        with query(
            ResultTable(self.table.url), f"SELECT uri, etag, status FROM images WHERE model_digest = '{model}'"
        ) as relation:
            shown = relation.fetchall()
        for uri, etag in listed:
            versions = {version: status for name, version, status in shown if name == uri}
            beside = [status for version, status in versions.items() if version != etag]
            # A failure stands beside the success that it does not hide.
            assert beside == ([] if versions[etag] == "ok" else ["ok"] * len(beside)), versions
            assert len(beside) <= 1

    @invariant()
    def no_key_has_two_rows(self) -> None:
        for model in ("m1", "m2"):
            keys = [row[:2] for row in self.rows(model)]
            assert len(keys) == len(set(keys))

    def check_views(self) -> None:
        """They show what a search finds, whatever notes there are."""
        with query(ResultTable(self.table.url), "SELECT uri, etag, model_digest FROM images ORDER BY ALL") as relation:
            shown = relation.fetchall()
        with connect(self.table) as db:
            db.execute(f"CREATE VIEW versions AS {FOUND}")
            assert db.execute(f"SELECT uri, etag, model_digest FROM ({LATEST}) ORDER BY ALL").fetchall() == shown

    def night(self, model: str, num_commits: int | None = None) -> None:
        began, listing, work = self.now(), self.folder / "listing.parquet", self.folder / "work.parquet"
        listed = [
            {"uri": uri, "etag": etag, "last_modified": time, "size_bytes": 1}
            for uri, (etag, time) in self.images.items()
        ]
        pq.write_table(pa.Table.from_pylist(listed, schema=LISTING), listing)
        table = ResultTable(self.table.url)
        plan = make_plan(listing, table, model, f"{began:%Y%m%d}", MAX_ATTEMPTS, work)
        fence = Fence(table, f"r{next(self.numbers)}", 60)
        fence.hold(take_over=True)
        committer = Committer(table, fence, 60)
        rows = [self.result(row, model, began) for row in pq.read_table(work).to_pylist()]
        for number, row in enumerate(rows):
            if number == num_commits:
                return
            committer._commit([pa.Table.from_pylist([row], schema=RESULTS)], is_last=True)
            key = (model, row["uri"], row["etag"])
            (self.detected.add if row["status"] == "ok" else self.detected.discard)(key)
        if num_commits is not None:
            return
        self.check(plan, rows, listing, model)
        note_versions(ResultTable(self.table.url))
        fence.release()

    def check(self, plan: Plan, rows: list[dict], listing: Path, model: str) -> None:
        ok = sum(row["status"] == "ok" for row in rows)
        reconcile(plan, ok, len(rows) - ok, tally(listing, ResultTable(self.table.url), model))

    def result(self, row: dict, model: str, began: datetime) -> dict:
        outcome = self.outcome(row["uri"], row["etag"])
        stage = None if outcome == "ok" else "fetch" if row["uri"] in self.unreadable else "decode"
        kind = "ChangedError" if stage == "fetch" else None
        """The workers' clocks go backwards."""
        constants = {"model_digest": model, "run_id": f"{began:%Y%m%dT%H%M%SZ}", "run_date": began.date()}
        constants["processed_at"] = BEGINNING - (began - BEGINNING)
        return row | constants | {"status": outcome, "error_stage": stage, "error_type": kind, "detections": []}

    def outcome(self, uri: str, etag: str) -> str:
        return "failed" if uri in self.unreadable or (uri, etag) in self.broken else "ok"

    def rows(self, model: str) -> list[tuple[str, str, str]]:
        return self.sql("SELECT uri, etag, status FROM read_parquet(?) WHERE model_digest = ?", model)

    def given_up(self, model: str) -> set[tuple[str, str]]:
        sql = "SELECT uri, etag FROM read_parquet(?) WHERE model_digest = ? AND error_stage = 'fetch' AND num_attempts >= 2"
        return set(self.sql(sql, model))

    def sql(self, sql: str, model: str) -> list[tuple]:
        files = ResultTable(self.table.url).data_files()
        return duckdb.execute(sql, [files, model]).fetchall() if files else []


TestNights = Nights.TestCase
TestNights.settings = settings(
    max_examples=15, stateful_step_count=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
