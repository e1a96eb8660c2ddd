from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.stages.rows import ROW, PlanRows, finish, numbered


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 7), (1, 3), (2, 4), (3, 7), (6, 7)])
def test_any_rows_of_the_plan(tmp_path, start, stop):
    """The file has row groups of 2, 2, 2 and 1."""
    plan = pa.table({"uri": list("abcdefg"), "etag": list("1234567")})
    pq.write_table(plan, tmp_path / "work.parquet", row_group_size=2)
    rows = PlanRows(str(tmp_path / "work.parquet"))
    assert rows(start, stop) == plan.slice(start, stop - start)
    assert numbered(rows(start, stop), start)[ROW].to_pylist() == list(range(start, stop))


SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("run_id", pa.string()),
        ("status", pa.string()),
        ("error_type", pa.string()),
        ("width_px", pa.int32()),
        ("num_detections", pa.int32()),
        ("camera", pa.int64()),
        ("processed_at", pa.timestamp("us", "UTC")),
    ]
)


def test_rows_of_the_table_by_columns():
    """From the plan, the run, the stages, arrays, or nowhere; what the schema lacks is left out."""
    before = datetime.now(UTC)
    rows = numbered(pa.table({"uri": ["a", "b"], "camera": [7, None], "size_bytes": [1, 2]}), 5)
    found = [{"width_px": 40, ".detect_s": 1.0}, {"error_stage": "decode", "error_type": "DecodeError"}]
    made = finish(rows, found, {"run_id": "r"}, SCHEMA, num_detections=pa.array([3, None], pa.int64()))
    assert made.schema == pa.schema([*SCHEMA, (ROW, pa.int64())])
    assert made.drop_columns(["processed_at"]).to_pylist() == [
        {"uri": "a", "run_id": "r", "status": "ok", "error_type": None, "width_px": 40, "num_detections": 3, "camera": 7, ROW: 5},
        {
            "uri": "b", "run_id": "r", "status": "failed", "error_type": "DecodeError", "width_px": None, "num_detections": None,
            "camera": None, ROW: 6,
        },
    ]  # fmt: skip
    assert all(before <= time <= datetime.now(UTC) for time in made["processed_at"].to_pylist())
