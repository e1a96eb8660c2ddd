"""A file of class names, for the commands that take one."""

from pipeline import storage
from pipeline.errors import SettingError, reason
from pipeline.urls import absolute


def read_class_names(url: str) -> tuple[str, ...]:
    """Read one name a line; empty lines at the end do not count."""
    try:
        names = storage.read(absolute(url)).decode().rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"class_names {url!r} can't be read: {reason(error)}") from error
    if not names or not all(name.strip() for name in names):
        raise SettingError(f"class_names {url!r} has an empty line; give one name a line, without the background")
    return tuple(name.strip() for name in names)
