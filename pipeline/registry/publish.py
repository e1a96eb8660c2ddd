"""The published models: packages below one URL, each in a folder named by its digest, and aliases that people move."""

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from model.package_files import RECORD_FILE, PackageRecord
from pipeline.errors import SettingError, reason
from pipeline.registry.aliases import (
    Move,
    aliases,
    current,
    digests,
    history,
    move,
    move_back,
    move_before,
    no_such_alias,
)
from pipeline.registry.packages import read_package, write_files
from pipeline.storage import store
from pipeline.urls import absolute

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """The result of a publishing."""

    url: str
    model_name: str
    model_digest: str
    is_new: bool
    alias: str
    alias_was: str | None
    """The digest that the alias stood for before; None if the alias is new."""


@dataclass(frozen=True)
class RolledBack:
    """The result of a rollback: the digests from which and to which the alias was moved."""

    alias: str
    from_digest: str
    to_digest: str


@dataclass(frozen=True)
class PublishedModel:
    """A package as a list shows it. Its weights were not read."""

    model_digest: str
    model_name: str
    published_at: datetime | None
    metrics: dict[str, Any]
    aliases: list[str]


def publish(model: str, to: str, alias: str) -> Published:
    """Write a package into the folder of its digest, unless it is there already, and let an alias stand for it.

    Raises:
        SettingError: there is no package, nothing can be written, or a folder with the alias's name hides the alias.
    """
    package, root = read_package(model), absolute(to).rstrip("/")
    url = f"{root}/{package.digest}"
    try:
        if store.exists(f"{root}/{alias}/{RECORD_FILE}"):
            raise SettingError(
                f"alias {alias!r}: a package is stored in {root}/{alias} and would hide it; give another name"
            )
        if is_new := not _is_sound(url):
            write_files(package, url)
        was = move(root, alias, package.digest)
    except OSError as error:
        raise SettingError(f"to {to!r} can't be written: {reason(error)}") from error
    return Published(url, package.record.name, package.digest, is_new, alias, was)


def _is_sound(url: str) -> bool:
    """Is the package of this digest there already? A package that is incomplete or was changed must be written again."""
    if not store.exists(f"{url}/{RECORD_FILE}"):
        return False
    try:
        read_package(url)
    except SettingError as error:
        logger.warning("%s; it is written again", error)
        return False
    return True


def roll_back(url: str) -> RolledBack:
    """Let an alias, such as models/blood/latest, stand for the digest that it stood for before. A second rollback goes further back.

    Raises:
        SettingError: the alias or an earlier digest is missing, the earlier package can't be used, or nothing can be written.
    """
    root, _, alias = absolute(url).rstrip("/").rpartition("/")
    try:
        if not (now := current(root, alias)):
            raise no_such_alias(root, alias)
        if not (to := move_before(root, alias, now)):
            raise SettingError(f"alias {url!r} stands for {now.digest}, and there is nothing before to roll back to")
        read_package(f"{root}/{to.digest}")
        move_back(root, alias, now, to)
    except FileExistsError as error:
        raise SettingError(f"alias {url!r} was moved by another just now; look at model list, and try again") from error
    except OSError as error:
        raise SettingError(f"alias {url!r} can't be moved: {reason(error)}") from error
    return RolledBack(alias, now.digest, to.digest)


def list_published(url: str) -> tuple[list[PublishedModel], dict[str, list[Move]]]:
    """Return the models at a URL, the last one first, and the moves of each alias, the last one first.

    Raises:
        SettingError: the URL can't be read, a record is damaged, or nothing is published there.
    """
    root = absolute(url).rstrip("/")
    try:
        moves = {alias: history(root, alias) for alias in aliases(root)}
        found = [model for digest in digests(root) if (model := _model(root, digest, moves))]
    except OSError as error:
        raise SettingError(f"{url!r} can't be read: {reason(error)}") from error
    if not found:
        raise SettingError(f"no model is published at {url!r}; put one there by model publish --to")
    return sorted(found, key=lambda model: str(model.published_at), reverse=True), moves


def _model(root: str, digest: str, moves: dict[str, list[Move]]) -> PublishedModel | None:
    """Return a published model, or None if it is incomplete: its record is written last."""
    url = f"{root}/{digest}/{RECORD_FILE}"
    try:
        record, stored = PackageRecord.model_validate_json(store.read(url)), store.stat(url)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise SettingError(f"{url!r} is damaged: {reason(error)}; publish the package again") from error
    names = [alias for alias, steps in moves.items() if steps[0].digest == digest]
    return PublishedModel(digest, record.name, stored.last_modified, record.metrics, names)
