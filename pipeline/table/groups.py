"""The groups of data files that one commit rewrites."""

from collections import defaultdict

from pipeline.table.rewrite import DataFile

GROUP_TARGETS = 16
"""The most that one commit rewrites, as a multiple of a new file's target size. The disk of this machine must hold it."""


def groups(files: list[DataFile], target_bytes: int) -> list[list[DataFile]]:
    """Return groups of files. A group is of one partition, and about as large as `GROUP_TARGETS` new files at most."""
    found: dict[tuple[str | None, int], list[DataFile]] = defaultdict(list)
    sizes: dict[str | None, int] = defaultdict(int)
    for file in sorted(files, key=lambda file: file.path):
        number = sizes[file.run_date] // (GROUP_TARGETS * target_bytes)
        found[file.run_date, number].append(file)
        sizes[file.run_date] += file.size_bytes
    return list(found.values())


def small_files(files: list[DataFile], target_bytes: int) -> list[list[DataFile]]:
    """Return the groups of small files, under half the target size, that become fewer files by a rewrite."""
    small = [file for file in files if file.size_bytes < target_bytes / 2]
    return [group for group in groups(small, target_bytes) if len(group) > 1]
