"""The settings of `explore`; its flags are made from this class."""

from typing import Annotated, ClassVar

from pydantic import Field

from model.config import Frozen
from pipeline.settings import Metavar, Place, Url


class ExploreSettings(Frozen):
    """The settings of `explore`."""

    heading: ClassVar[str] = "Explorer"

    table: Url
    """Delta table of results, local or s3://."""
    host: Annotated[str, Metavar("ADDRESS")] = "127.0.0.1"
    """Address to listen on. On another one than loopback, the page needs the token in the URL that is printed."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8765
    """Port to listen on. 0 takes a free one."""
    cache: Place | None = None
    """Folder for the copy of the table; a folder of the user's cache unless given. It takes 0.4 GB per million images."""
