"""The settings of `maintain` and of `iceberg register`; flags, specs and the schema are made from these classes."""

import re
from datetime import UTC, date, datetime
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, model_validator

from model.config import Frozen
from pipeline.settings import IsoDay, Metavar, Name, Place, Url

TARGET_BYTES = 128 * 2**20
"""The size of a file that others are merged into."""


def _not_after_today(day: date) -> date:
    if day > datetime.now(UTC).date():
        raise ValueError("give a date that is not in the future: runs before it are deleted")
    return day


def _with_namespace(name: str) -> str:
    if not re.fullmatch(r"[^.\s]+(\.[^.\s]+)+", name):
        raise ValueError("give a namespace, a dot and a name, such as detections.photos")
    return name


class DeletionSettings(Frozen):
    """The settings of what is deleted."""

    heading: ClassVar[str] = "Deletion"

    delete_uri: tuple[Place, ...] = ()
    """Delete all rows of this image, of all its versions and models. Remove the image from the input first, or it is
    detected again. May be given several times."""
    delete_uris: Place | None = None
    """Delete all rows of the images in this list, of any kind that infer takes as input."""
    delete_before: Annotated[IsoDay, AfterValidator(_not_after_today)] | None = None
    """Delete the rows and the records of runs with a run_date before this date."""
    erase: bool = False
    """Delete at once the files that held the deleted rows, and all others that the table no longer needs. Queries
    that are reading them fail, and older versions of the table are gone. Needs delete_uri, delete_uris or
    delete_before."""


class MaintainSettings(DeletionSettings):
    """The settings of `maintain`."""

    heading: ClassVar[str] = "Table"

    table: Url
    """Delta table of results, local or s3://."""
    target_bytes: Annotated[int, Field(ge=1024)] = TARGET_BYTES
    """Size in bytes of the files that small files are merged into. Files of half this size or more stay as they are."""
    retention_hours: Annotated[int, Field(ge=168)] = 168
    """Hours to keep files that the table no longer needs, before they are deleted. Fewer than 168 are refused, as
    queries and runs in progress may still read these files."""
    repair: bool = False
    """Remove duplicate rows: per image version and model, the row of the last run stays. Runs write no duplicates;
    other engines and restored files may."""
    dry_run: bool = False
    """Report what would be done, without doing it."""

    @model_validator(mode="after")
    def _erase_what(self) -> "MaintainSettings":
        if self.erase and not self.deletes:
            raise ValueError("erase goes with a deletion; give delete_uri, delete_uris or delete_before too")
        return self

    @property
    def deletes(self) -> bool:
        """Is anything to be deleted?"""
        return bool(self.delete_uri or self.delete_uris or self.delete_before)


class IcebergSettings(Frozen):
    """The settings of `iceberg register`."""

    heading: ClassVar[str] = "Iceberg"

    table: Url
    """Delta table of results, local or s3://."""
    name: Annotated[str, AfterValidator(_with_namespace), Metavar("NAMESPACE.NAME")]
    """Name of the table in the catalog: a namespace, a dot and a name, such as detections.photos."""
    catalog: Name = "default"
    """Name of the catalog in pyiceberg's configuration: ~/.pyiceberg.yaml, or variables PYICEBERG_CATALOG__NAME__URI."""
