"""The columns from an image's path: named by a template of folders, or by Hive-style folders (`camera=7/date=2026-01-31/`)."""

import re
from dataclasses import dataclass, replace

import duckdb
import pyarrow as pa

from pipeline.errors import SettingError
from pipeline.sql import literal
from pipeline.table.schema import DETECTION, SCHEMA

HIVE, NONE = "hive", "none"
TYPES = {"string": pa.string(), "int": pa.int64(), "float": pa.float64(), "date": pa.date32()}
TYPE_NAMES = {type_: name for name, type_ in TYPES.items()}
SQL_TYPES = {pa.string(): "VARCHAR", pa.int64(): "BIGINT", pa.float64(): "DOUBLE", pa.date32(): "DATE"}
ISO_DATE, WHOLE_NUMBER = r"\d{4}-\d{2}-\d{2}", r"0|-?[1-9]\d{0,17}"
NAME = r"[A-Za-z_][A-Za-z0-9_]*"
FIELD = re.compile(r"\{([^{}]*)\}")
TYPED_NAME = re.compile(rf"({NAME})(?::({'|'.join(TYPES)}))?")
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
TAKEN = {name.lower() for name in (*SCHEMA.names, *DETECTION.names, "is_permanent")}
MAX_COLUMNS = 20


@dataclass(frozen=True)
class PathColumn:
    """A column of the table that comes from `uri`."""

    name: str
    text: str
    """The SQL for the column's text; null where a path has none."""
    type: pa.DataType | None = None
    """The column's type; None until it is known."""

    @property
    def value(self) -> str:
        """The SQL for the column's typed value; null for a text that is not of the type."""
        return f"TRY_CAST({self.text} AS {SQL_TYPES[self.type]})"


def check_setting(setting: str) -> str:
    """Return a setting unchanged, if it can be used.

    Raises:
        ValueError: it is neither `hive`, nor `none`, nor a template.
    """
    if setting not in (HIVE, NONE):
        template(setting)
    return setting


def template(setting: str) -> list[PathColumn]:
    """Return the columns of a template such as `camera={camera}/date={date:date}`.

    A template matches whole folders, one after the other, as near to the file as they fit.

    Raises:
        ValueError: the template is wrong; the message says why.
    """
    literals, fields = FIELD.split(setting.strip("/"))[::2], FIELD.findall(setting)
    names = [TYPED_NAME.fullmatch(field) for field in fields]
    if not fields or not all(names) or any(brace in literal for brace in "{}" for literal in literals):
        raise ValueError(
            f"give {HIVE}, {NONE} or a template such as camera={{camera}}/date={{date}}; fields are {{name}} or "
            f"{{name:type}} with a type of {', '.join(TYPES)}"
        )
    lower = [name[1].lower() for name in names if name]
    if clash := sorted(TAKEN.intersection(lower)) or [name for name in lower if lower.count(name) > 1]:
        raise ValueError(f"a column {clash[0]} is there already; give the field another name")
    pattern = "(?s)^.*/" + "([^/]+?)".join(map(re.escape, literals)) + "/"
    return [
        PathColumn(name[1], _text(pattern, index), TYPES[name[2]] if name[2] else None)
        for index, name in enumerate(names, start=1)
        if name
    ]


def path_columns(db: duckdb.DuckDBPyConnection, listed: str, setting: str, known: pa.Schema) -> list[PathColumn]:
    """Return the columns that the paths of a listing have.

    A column that the table has keeps its type. A new column without a type in the template gets its type from its texts:

    - date, if all texts are ISO dates.
    - int, if all texts are whole numbers without leading zeros.
    - string, otherwise.

    Args:
        db: the database with the listing.
        listed: the listing's name in the database; it has a column uri.
        setting: a template, `hive` or `none`.
        known: the table's columns so far.

    Raises:
        SettingError: a template fits no path, Hive-style folders make too many columns, or the table's column has a type that no path
            gives.
    """
    columns = _hive(db, listed) if setting == HIVE else [] if setting == NONE else template(setting)
    fields = {field.name.lower(): field for field in known}
    for index, column in enumerate(columns):
        if field := fields.get(column.name.lower()):
            if field.type not in SQL_TYPES:
                raise SettingError(
                    f"path_columns: the table's column {field.name} is of type {field.type}, which no path gives; give {NONE}, "
                    "or a template with another name"
                )
            columns[index] = replace(column, name=field.name, type=field.type)
        elif column.type is None:
            columns[index] = replace(column, type=_inferred_type(db, listed, column))
    if columns and setting != HIVE:
        _check_fits(db, listed, setting, columns[0])
    return columns


def _hive(db: duckdb.DuckDBPyConnection, listed: str) -> list[PathColumn]:
    """Return a column for each name before a `=` in a folder's name, except the names of the table's own columns."""
    folders = f"SELECT unnest(string_split(uri, '/')[:-2]) AS folder FROM {listed} WHERE contains(uri, '=')"
    found = db.execute(
        f"SELECT DISTINCT lower(regexp_extract(folder, '^({NAME})=', 1)) AS name FROM ({folders}) WHERE name <> '' ORDER BY name"
    ).fetchall()
    names = [name for (name,) in found if name not in TAKEN]
    if len(names) > MAX_COLUMNS:
        raise SettingError(
            f"path_columns: folders named like Hive's would make {len(names)} columns ({', '.join(names[:MAX_COLUMNS])}, "
            f"…); give {NONE} or a template"
        )
    return [
        PathColumn(name, f"nullif(url_decode({_text(f'(?si)^.*/{name}=([^/]*)/', 1)}), '{HIVE_NULL}')")
        for name in names
    ]


def _text(pattern: str, group: int) -> str:
    return f"nullif(regexp_extract(uri, {literal(pattern)}, {group}), '')"


def _inferred_type(db: duckdb.DuckDBPyConnection, listed: str, column: PathColumn) -> pa.DataType:
    for candidate, pattern in ((pa.date32(), ISO_DATE), (pa.int64(), WHOLE_NUMBER)):
        fits = f"regexp_full_match({column.text}, '{pattern}') AND {replace(column, type=candidate).value} IS NOT NULL"
        if db.execute(f"SELECT bool_and({fits}) FROM {listed} WHERE {column.text} IS NOT NULL").fetchall()[0][0]:
            return candidate
    return pa.string()


def _check_fits(db: duckdb.DuckDBPyConnection, listed: str, setting: str, column: PathColumn) -> None:
    num_fitting, example = db.execute(f"SELECT count({column.text}), any_value(uri) FROM {listed}").fetchall()[0]
    if example is not None and not num_fitting:
        raise SettingError(f"path_columns {setting!r} fits the folders of no image, such as {example!r}")
