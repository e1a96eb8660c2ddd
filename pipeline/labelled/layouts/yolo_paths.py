"""The places that the paths in a `data.yaml` of YOLO mean: it is often that of another machine."""

from contextlib import suppress
from typing import Any

from pipeline.labelled.record import DataError
from pipeline.storage import store


def is_there(folder: str, root: Any, paths: Any) -> bool:
    """Is one of a split's paths there? Exports name all three splits, and write those that have images."""
    given = paths if isinstance(paths, list) else [paths]
    if not all(isinstance(path, str) for path in [*given, root or ""]):
        return True  # reading it says what is wrong
    for path in given:
        with suppress(DataError):
            return bool(_found(folder, root or "", path))
    return False


def places(folder: str, root: Any, paths: Any) -> list[str]:
    """Return the places of a split's paths in `data.yaml`.

    Raises:
        DataError: one is not there, or is no path.
    """
    given = paths if isinstance(paths, list) else [paths]
    if not all(isinstance(path, str) for path in [*given, root or ""]):
        raise DataError(f"{folder}: its YAML file names a split by something else than paths")
    return [_found(folder, root or "", path) for path in given]


def _found(folder: str, root: str, path: str) -> str:
    """Return the place of a path: below the folder, or else where it says.

    `path` in the file is often that of another machine, or of the folder that this one is a copy of. Roboflow's paths begin above the folder.
    """
    plain = [[step for step in part.split("/") if step not in ("", ".", "..")] for part in (f"{root}/{path}", path)]
    beside = ["/".join([folder, *steps]) for steps in plain]
    shorter = ["/".join([folder, *steps[drop:]]) for steps in plain for drop in range(1, len(steps))]
    said = joined(joined(folder, root), path)
    candidates = [*([path] if _is_whole(path) else []), *beside, said, *shorter]
    for candidate in candidates:
        with suppress(PermissionError):  # a guess may be another's
            if store.exists(candidate):
                return candidate.rstrip("/")
    raise DataError(
        f"{folder}: {path!r} of its YAML file is not there; looked for {candidates[0]} and {candidates[-1]}"
    )


def joined(folder: str, path: str) -> str:
    """Return a path as it is seen from a folder."""
    if _is_whole(path):
        return path.rstrip("/")
    steps = folder.split("/")
    num_kept = 3 if "://" in folder else 1  # a bucket has nothing above it
    for step in path.split("/"):
        if step == "..":
            steps = steps[: max(num_kept, len(steps) - 1)]
        elif step not in ("", "."):
            steps.append(step)
    return "/".join(steps)


def _is_whole(path: str) -> bool:
    return path.startswith("/") or "://" in path
