"""The names of published models: digests, their beginnings, and aliases such as `latest`.

An alias is a folder of moves. The last move holds the digest that the alias stands for. A move is a file that is created once and never
changes. So one request moves the alias, concurrent moves follow one another, and the history is the alias itself.
"""

import re
from contextlib import suppress
from datetime import UTC, datetime

from pydantic import ValidationError

from model.config import Frozen
from pipeline.errors import SettingError, reason
from pipeline.storage import store

ALIASES_FOLDER = "aliases"
DIGEST = re.compile(r"[0-9a-f]{64}")
DIGEST_BEGINNING = re.compile(r"[0-9a-f]{4,64}")
MOVE_FILE = re.compile(r"\d{8}\.json")
"""The name of a move's file. Moves are numbered, because the clocks of two machines differ."""


class Move(Frozen):
    """The content of a move's file."""

    number: int
    digest: str
    """The digest that the alias stands for from now on."""
    moved_at: datetime
    before: int | None
    """The number of the move that a rollback returns to. A rollback takes it from the move it returns to, so the next one goes further."""


def check_alias(alias: str) -> str:
    """Check that a name can be an alias, and return it unchanged.

    Raises:
        ValueError: the name can't be an alias.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", alias):
        raise ValueError("give letters, digits, points, dashes and underscores, a letter or digit first")
    if re.fullmatch(r"[0-9a-f]+", alias):
        raise ValueError("this would read as a digest; give a name with another letter than a to f")
    return alias


def digests(root: str) -> list[str]:
    """Return the digests that have a folder below an absolute URL."""
    return sorted(name for name in _names(root) if DIGEST.fullmatch(name))


def aliases(root: str) -> list[str]:
    """Return the aliases at an absolute URL."""
    return sorted(name for name in _names(f"{root}/{ALIASES_FOLDER}") if _move_files(root, name))


def history(root: str, alias: str) -> list[Move]:
    """Return the moves of an alias, the last one first."""
    return [_read(root, alias, name) for name in reversed(_move_files(root, alias))]


def current(root: str, alias: str) -> Move | None:
    """Return the last move of an alias, or None if there is no such alias."""
    files = _move_files(root, alias)
    return _read(root, alias, files[-1]) if files else None


def look_up(root: str, name: str) -> str | None:
    """Return the digest that an alias, or the beginning of a digest, stands for; None if nothing is published.

    Raises:
        SettingError: models are published, but none by this name, or several digests begin with it.
    """
    if move := current(root, name):
        return move.digest
    known = digests(root)
    found = [digest for digest in known if DIGEST_BEGINNING.fullmatch(name) and digest.startswith(name)]
    if len(found) > 1:
        raise SettingError(f"model {name!r}: {len(found)} digests at {root!r} begin so, {', '.join(found)}; give more")
    if not found and known:
        raise no_such_alias(root, name)
    return found[0] if found else None


def no_such_alias(root: str, alias: str) -> SettingError:
    """Return the error for an unknown alias. It names the aliases that exist."""
    there = ", ".join(aliases(root))
    return SettingError(
        f"there is no alias {alias!r} at {root!r}; " + (f"there are: {there}" if there else "there is none")
    )


def move(root: str, alias: str, digest: str) -> str | None:
    """Let an alias stand for a published digest. If another process moves it at the same time, this move follows that one.

    Returns:
        The digest that the alias stood for before: the same digest if nothing was to do, None if the alias is new.
    """
    while True:
        last = current(root, alias)
        if last and last.digest == digest:
            return digest
        with suppress(FileExistsError):
            _append(root, alias, last, digest, before=last.number if last else None)
            return last.digest if last else None


def move_before(root: str, alias: str, last: Move) -> Move | None:
    """Return the move that a rollback returns to from an alias's last move, or None if there is nothing before."""
    return None if last.before is None else _read(root, alias, _file_name(last.before))


def move_back(root: str, alias: str, last: Move, to: Move) -> None:
    """Let an alias stand for the digest of an earlier move.

    Raises:
        FileExistsError: another process has moved the alias since its last move was read.
    """
    _append(root, alias, last, to.digest, to.before)


def _append(root: str, alias: str, last: Move | None, digest: str, before: int | None) -> None:
    number = last.number + 1 if last else 1
    step = Move(number=number, digest=digest, moved_at=datetime.now(UTC), before=before)
    try:
        content = step.model_dump_json(indent=2) + "\n"
        store.create(f"{root}/{ALIASES_FOLDER}/{alias}/{_file_name(number)}", content.encode())
    except FileExistsError:
        if (
            _read(root, alias, _file_name(number)) != step
        ):  # else it is ours: the answer was lost, and the request repeated
            raise


def _read(root: str, alias: str, name: str) -> Move:
    url = f"{root}/{ALIASES_FOLDER}/{alias}/{name}"
    try:
        return Move.model_validate_json(store.read(url))
    except ValidationError as error:
        raise SettingError(f"alias {alias!r}: {url!r} is damaged: {reason(error)}; delete it") from error


def _file_name(number: int) -> str:
    return f"{number:08}.json"


def _move_files(root: str, alias: str) -> list[str]:
    """Return the files of an alias's moves, in order. A file that is being written on a local disk has another name."""
    return sorted(name for name in _names(f"{root}/{ALIASES_FOLDER}/{alias}") if MOVE_FILE.fullmatch(name))


def _names(folder: str) -> set[str]:
    try:
        return store.names(folder)
    except (FileNotFoundError, NotADirectoryError):
        return set()
