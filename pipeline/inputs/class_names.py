"""A file of class names, for the commands that take one."""

from collections import Counter

from pipeline.errors import SettingError, reason
from pipeline.storage import store
from pipeline.texts import decode_text
from pipeline.urls import absolute


def read_class_names(url: str) -> tuple[str, ...]:
    """Read one name per line. Empty lines at the end do not count."""
    try:
        names = [name.strip() for name in decode_text(store.read(absolute(url))).rstrip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"class_names {url!r} can't be read: {reason(error)}") from error
    if any("\ufeff" in name for name in names):
        raise SettingError(f"class_names {url!r} has a byte order mark within, which nobody sees; save it as one file")
    if not names or not all(names):
        raise SettingError(f"class_names {url!r} has an empty line; give one name a line, without the background")
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise SettingError(f"class_names {url!r} has {repeated[0]!r} more than once; give each class one line")
    return tuple(names)
