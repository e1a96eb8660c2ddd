"""The columns of the table of results."""

import pyarrow as pa

DETECTION = pa.struct(
    [
        ("label_id", pa.int32()),
        ("label", pa.string()),
        ("score", pa.float32()),
        ("xmin", pa.float32()),
        ("ymin", pa.float32()),
        ("xmax", pa.float32()),
        ("ymax", pa.float32()),
    ]
)
SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("etag", pa.string()),
        ("size_bytes", pa.int64()),
        ("last_modified", pa.timestamp("us", "UTC")),
        ("model_name", pa.string()),
        ("model_digest", pa.string()),
        ("run_id", pa.string()),
        ("run_date", pa.date32()),
        ("processed_at", pa.timestamp("us", "UTC")),
        ("status", pa.string()),
        ("error_stage", pa.string()),
        ("error_type", pa.string()),
        ("error_message", pa.string()),
        ("num_attempts", pa.int32()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("num_detections", pa.int32()),
        ("max_score", pa.float32()),
        ("detections", pa.list_(DETECTION)),
    ]
)
"""The columns, with one row per image version and model. Boxes are in pixels of the original image as a viewer shows it."""

IS_RETRY = ".is_retry"
"""The column that says whether the table already has a row of a planned image, which the new row replaces."""
