"""The settings of `report`; its flags are made from this class."""

from typing import Annotated, ClassVar

from pydantic import Field

from model.config import Frozen
from pipeline.settings import Metavar, Url


class ReportSettings(Frozen):
    """The settings of `report`."""

    heading: ClassVar[str] = "Report"

    table: Url
    """Delta table of results, local or s3://."""
    run: Annotated[str, Metavar("RUN_ID")] | None = None
    """Run to report on; the last one that ended, unless given. The beginning of its ID is enough."""
    out: Annotated[str, Metavar("PATH_OR_URL")] = "report.html"
    """HTML file to write. In a folder, its name is the run's ID. "-" is standard output."""
    min_score: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Count and show only boxes with at least this score. The table has those of noise, too."""
