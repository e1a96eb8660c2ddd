"""Flat files with one row per box: Parquet, CSV and JSON Lines."""

import csv
import io
import itertools
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.exports.folder import NewFolder
from pipeline.exports.selection import Selection
from pipeline.table.query import query

BATCH_ROWS, MAX_FILE_ROWS = 65_536, 5_000_000


def write_flat(selection: Selection, folder: NewFolder, kind: str) -> int:
    """Write the boxes into files `part-0`, `part-1` and so on, and return their number. There is one file at least."""
    num_rows = 0
    with query(selection.table, selection.boxes_sql()) as relation:
        batches = relation.to_arrow_reader(BATCH_ROWS)
        for number, first in enumerate(_first_or_none(batches)):
            part = itertools.islice(batches, MAX_FILE_ROWS // BATCH_ROWS - 1)
            with folder.file(f"part-{number}.{kind}") as file:
                num_rows += WRITERS[kind](itertools.chain(first, part), batches.schema, file)
    return num_rows


def _first_or_none(batches: Iterator[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Yield the next batch until there are no more, and an empty list if there is none at all."""
    yield list(itertools.islice(batches, 1))
    for batch in batches:
        yield [batch]


def _write_parquet(batches: Iterable[pa.RecordBatch], schema: pa.Schema, file: BinaryIO) -> int:
    num_rows = 0
    with pq.ParquetWriter(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            num_rows += batch.num_rows
    return num_rows


def _write_csv(batches: Iterable[pa.RecordBatch], schema: pa.Schema, file: BinaryIO) -> int:
    num_rows, text = 0, io.TextIOWrapper(file, "utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(schema.names)
    for batch in batches:
        writer.writerows(zip(*(column.to_pylist() for column in batch.columns), strict=True))
        num_rows += batch.num_rows
    text.detach()
    return num_rows


def _write_jsonl(batches: Iterable[pa.RecordBatch], schema: pa.Schema, file: BinaryIO) -> int:
    num_rows, encoder = 0, msgspec.json.Encoder()
    for batch in batches:
        file.write(encoder.encode_lines(batch.to_pylist()))
        num_rows += batch.num_rows
    return num_rows


WRITERS = {"parquet": _write_parquet, "csv": _write_csv, "jsonl": _write_jsonl}
