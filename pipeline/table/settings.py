"""The settings of `maintain`; flags, specs and the schema are made from this class."""

from datetime import UTC, date, datetime
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from model.config import Frozen


def _not_after_today(day: date) -> date:
    if day > datetime.now(UTC).date():
        raise ValueError("give a date that is not in the future: runs before it are deleted")
    return day


class MaintainSettings(Frozen):
    """Every knob of the care of a table."""

    table: Annotated[str, Field(min_length=1)]
    """Delta table of results, local or s3://."""
    target_bytes: Annotated[int, Field(ge=1024)] = 128 * 2**20
    """Size of the files that small ones become; those of half of it and more stay as they are."""
    retention_hours: Annotated[int, Field(ge=168)] = 168
    """Hours after which files that the table no longer needs are deleted. Fewer would take them from queries and runs under way."""
    delete_uri: tuple[str, ...] = ()
    """Delete all rows of this image, of all its versions and models; may be given several times. Remove the image first: what is still in the input is detected again."""
    delete_uris: str | None = None
    """Delete all rows of the images of a manifest (.parquet, .csv, .jsonl with a column uri)."""
    delete_before: Annotated[date, AfterValidator(_not_after_today)] | None = None
    """Delete the rows, and the records, of runs with a run_date before this one."""
    erase: bool = False
    """With a deletion: delete at once the files that held the rows, and all others that the table no longer needs. Queries that are reading them fail, and older versions of the table are gone."""
    repair: bool = False
    """Remove the rows that an image version has beyond one for a model, of which the last run's stays. Runs write none; other engines and restored files may."""
    dry_run: bool = False
    """Say what would be done, and do nothing."""

    @model_validator(mode="after")
    def _erase_what(self) -> "MaintainSettings":
        if self.erase and not self.deletes:
            raise ValueError("erase goes with a deletion; give delete_uri, delete_uris or delete_before too")
        return self

    @property
    def deletes(self) -> bool:
        """Is anything to be deleted?"""
        return bool(self.delete_uri or self.delete_uris or self.delete_before)
