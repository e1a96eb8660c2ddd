"""Register the table with an Iceberg catalog. Nothing is copied: the catalog gets a list of the data files that are there.

The log of Delta has all that a data file's entry needs: its name, its size, its number of rows and its partition. Columns are found by
their names, since files that Delta wrote have no field IDs (Iceberg's specification, "Column Projection").
"""

from collections.abc import Container
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SettingError, SsdBatchError, reason
from pipeline.storage import store
from pipeline.storage.table_files import PARTITION
from pipeline.table.delta import ResultTable
from pipeline.table.groups import groups
from pipeline.table.maintain import ATTEMPTS
from pipeline.table.rewrite import DataFile as DeltaFile
from pipeline.table.rewrite import StaleError, data_files, rewrite, unfenced
from pipeline.table.settings import TARGET_BYTES, IcebergSettings

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table, Transaction

SOURCE, VERSION = "ssd-batch.table", "ssd-batch.version"
"""The properties of an Iceberg table that name the Delta table and its version."""
EPOCH = date(1970, 1, 1)
"""The day from which Iceberg counts days."""
NUM_READ_THREADS = 16
NAME_MAPPING = "schema.name-mapping.default"


@dataclass(frozen=True)
class Registered:
    """The Iceberg table after a registration."""

    name: str
    version: int
    """The version of the Delta table."""
    files: int
    rows: int
    added_files: int
    removed_files: int
    metadata: str
    """The URL of its metadata, which DuckDB and others read without a catalog."""


def register(settings: IcebergSettings) -> Registered:
    """Make an Iceberg table of the Delta table's current files, or bring it up to date. Readers see one commit.

    Raises:
        SettingError: there is no table, no such catalog, or the name is taken by another table.
        SsdBatchError: the catalog can't be written.
    """
    try:
        from pyiceberg.exceptions import CommitFailedException
    except ImportError as error:
        raise SettingError(
            "iceberg needs pyiceberg, which is not installed; pip install 'ssd-batch[iceberg]'"
        ) from error
    table = ResultTable(settings.table)
    if not table.exists:
        raise SettingError(f"table {table.url!r}: no table is there; make one with `ssd-batch infer`")
    catalog = _catalog(settings.catalog)
    try:
        return _mirror(table, _opened(catalog, settings.name, table), settings.name)
    except CommitFailedException as error:
        raise SsdBatchError(f"name: {settings.name!r} was changed by another; try again: {reason(error)}") from error


def _catalog(name: str) -> "Catalog":
    from pyiceberg.catalog import load_catalog

    try:
        return load_catalog(name)
    except Exception as error:  # of each catalog's own library
        raise SettingError(
            f"catalog: {name!r} can't be opened; describe it in ~/.pyiceberg.yaml, or by PYICEBERG_CATALOG__{name.upper()}__URI and "
            f"…__WAREHOUSE: {reason(error)}"
        ) from error


def _opened(catalog: "Catalog", name: str, table: ResultTable) -> "Table":
    """Return the Iceberg table of a name, which is made if it is not there."""
    from pyiceberg.exceptions import NamespaceAlreadyExistsError, NoSuchTableError

    try:
        iceberg = catalog.load_table(name)
    except NoSuchTableError:
        iceberg = None
    if iceberg is None:
        with suppress(NamespaceAlreadyExistsError):
            catalog.create_namespace(name.rpartition(".")[0])
        iceberg = catalog.create_table(name, table.schema, properties={SOURCE: table.url})
    if (source := iceberg.properties.get(SOURCE)) != table.url:
        whose = f"mirrors the table {source!r}" if source else "was made by something else"
        raise SettingError(f"name: {name!r} {whose}; give another name")
    if not iceberg.spec().fields:  # also where a process died after it had made the table
        with iceberg.update_spec() as spec:
            spec.add_identity(PARTITION)
    return iceberg


def _mirror(table: ResultTable, iceberg: "Table", name: str) -> Registered:
    """Give the Iceberg table the files that the Delta table has, and take away those that it no longer has."""
    there = {task.file.file_path: task.file for task in iceberg.scan().plan_files()}
    _rewrite_views(table, there)
    wanted = {_url(table, file): file for file in data_files(table)}
    version = table.delta.version()
    gone = [file for url, file in there.items() if url not in wanted]
    new = [_entry(url, file, iceberg.spec().spec_id) for url, file in wanted.items() if url not in there]
    with iceberg.transaction() as transaction:
        _give_columns(transaction, table.schema)
        if new or gone:
            with transaction.update_snapshot(snapshot_properties={VERSION: str(version)}).overwrite() as snapshot:
                for entry in gone:
                    snapshot.delete_data_file(entry)
                for entry in new:
                    snapshot.append_data_file(entry)
    kept = [entry for url, entry in there.items() if url in wanted]
    return Registered(
        name=name,
        version=version,
        files=len(wanted),
        rows=sum(entry.record_count for entry in (*kept, *new)),
        added_files=len(new),
        removed_files=len(gone),
        metadata=iceberg.metadata_location,
    )


def _rewrite_views(table: ResultTable, there: Container[str]) -> None:
    """Rewrite the files, except those that are there already, whose strings have Arrow's type string_view.

    Only MERGE and UPDATE of delta-rs write it. pyiceberg can't read such files together with others.
    """
    for _ in range(ATTEMPTS):
        files = [file for file in data_files(table) if _url(table, file) not in there]
        with ThreadPoolExecutor(NUM_READ_THREADS) as threads:
            are_views = threads.map(lambda file: _has_views(_url(table, file)), files)
        found = [file for file, is_view in zip(files, are_views, strict=True) if is_view]
        if not found:
            return
        with suppress(StaleError):  # a run has just replaced one of them
            for group in groups(found, TARGET_BYTES):
                rewrite(table, group, unfenced(table), TARGET_BYTES)
    raise SsdBatchError(f"table {table.url!r}: a run kept replacing rows; register it when the run has ended")


def _has_views(url: str) -> bool:
    return "string_view" in str(_footer(url).schema.to_arrow_schema())


def _footer(url: str) -> pq.FileMetaData:
    fs, path = store.filesystem(url)
    with fs.open(path) as file:
        return pq.read_metadata(file)


def _url(table: ResultTable, file: DeltaFile) -> str:
    return f"{table.url}/{unquote(file.path)}"


def _give_columns(transaction: "Transaction", schema: pa.Schema) -> None:
    """Add the columns that came since, and say that columns are found by their names."""
    with transaction.update_schema() as update:
        update.union_by_name(schema)
    mapping = transaction.table_metadata.schema().name_mapping.model_dump_json()
    if transaction.table_metadata.properties.get(NAME_MAPPING) != mapping:
        transaction.set_properties({NAME_MAPPING: mapping})


def _entry(url: str, file: DeltaFile, spec_id: int) -> "DataFile":
    """Return the entry of a data file."""
    from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
    from pyiceberg.typedef import Record

    day = date.fromisoformat(file.run_date) if file.run_date else None
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=url,
        file_format=FileFormat.PARQUET,
        partition=Record((day - EPOCH).days if day else None),
        record_count=file.num_rows or _footer(url).num_rows,  # other engines may leave it out
        file_size_in_bytes=file.size_bytes,
        spec_id=spec_id,
    )
