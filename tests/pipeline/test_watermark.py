from datetime import UTC, datetime

import pytest
from deltalake import CommitProperties, Transaction

from pipeline import watermark
from pipeline.table import DELETIONS, ResultTable

INPUTS = ("s3://b/photos", "s3://b/more/*.jpg")
BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def table(tmp_path, new_table) -> ResultTable:
    return new_table(tmp_path / "table")


def commit(table: ResultTable, transaction: Transaction) -> None:
    table.delta.create_write_transaction(
        [], "append", table.delta.schema(), commit_properties=CommitProperties(app_transactions=[transaction])
    )


def test_a_complete_run_vouches_for_what_is_older_than_its_beginning(table):
    name = watermark.application(table, INPUTS, False, "m1")
    assert name is not None
    assert watermark.vouched_before(table, name) is None
    commit(table, watermark.mark(name, BEGAN))
    assert watermark.vouched_before(ResultTable(table.url), name) == datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC)


def test_it_holds_for_the_same_inputs_and_model_alone(table):
    def name(inputs=INPUTS, all_files=False, digest="m1") -> str | None:
        return watermark.application(table, inputs, all_files, digest)

    assert name() == name(INPUTS[::-1]) == name(("s3a://b/photos", INPUTS[1]))
    assert len({name(), name(INPUTS[:1]), name(all_files=True), name(digest="m2")}) == 4


def test_deleted_rows_are_not_vouched_for(table):
    before = watermark.application(table, INPUTS, False, "m1")
    commit(table, Transaction(DELETIONS, 1))
    assert watermark.application(table, INPUTS, False, "m1") not in (before, None)


@pytest.mark.parametrize("url", ["/photos", "file:///photos", "https://b/photos", "s3://b/list.csv"])
def test_only_s3_tells_when_an_object_came(url, table):
    assert watermark.application(table, (*INPUTS, url), False, "m1") is None


def test_where_there_is_no_table_nothing_is_vouched_for(tmp_path):
    table = ResultTable(str(tmp_path / "none"))
    assert watermark.application(table, INPUTS, False, "m1") is None
    assert watermark.vouched_before(table, None) is None
