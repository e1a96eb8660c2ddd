import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from pipeline.table.query import query
from pipeline.table.read_only import SharedFile

CONTENT = bytes(range(256)) * 16


@pytest.fixture
def file(tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    with open(tmp_path / "file", "rb") as opened:
        yield SharedFile(opened)


def test_each_thread_has_a_place_of_its_own(file):
    """DuckDB seeks and then reads, with other threads in between: what it got was at times of another place, and no error either."""
    file.seek(10)
    with ThreadPoolExecutor(1) as other:
        assert other.submit(lambda: (file.tell(), file.seek(50), file.read(2), file.tell())).result() == (
            0,
            50,
            CONTENT[50:52],
            52,
        )
        assert file.read(2) == CONTENT[10:12]
        assert other.submit(file.read, 1).result() == CONTENT[52:53]
    assert file.read(1) == CONTENT[12:13]


def test_places_are_as_a_file_counts_them(file):
    assert (file.seek(-2, 2), file.read(), file.read()) == (len(CONTENT) - 2, CONTENT[-2:], b"")
    assert (file.seek(4), file.seek(3, 1), file.read(1)) == (4, 7, CONTENT[7:8])
    assert (file.seekable(), file.closed) == (True, False)


def test_threads_that_read_at_once_read_what_they_ask_for(file):
    begin = threading.Barrier(4)

    def read(first: int) -> list[bool]:
        begin.wait()
        places = range(first, len(CONTENT) - 3, 97)
        return [file.seek(place) == place and file.read(3) == CONTENT[place : place + 3] for place in places]

    with ThreadPoolExecutor(4) as threads:
        assert all(all(found) for found in threads.map(read, range(4)))


def test_a_table_reads_the_same_each_time(tmp_path, new_table, rows):
    """Its columns are so large that DuckDB reads some at once: without a place for each thread, one in four of these failed."""
    chance = random.Random(1)

    def row(name: str) -> dict[str, object]:
        boxes = rows.boxes(*((1, "cat", *(chance.random() for _ in range(5))) for _ in range(2)))
        numbers = {name: chance.randrange(10**6) for name in ("size_bytes", "width_px", "height_px")}
        times = {name: datetime.fromtimestamp(1e9 * chance.random(), UTC) for name in ("last_modified", "processed_at")}
        return rows.ok(name, etag=f"{chance.random():.9f}", **numbers, **times, **boxes)

    table = new_table(tmp_path / "table")
    for part in range(6):
        table.append(rows.table(*(row(f"{part}-{number}") for number in range(3000))))
    for _ in range(25):
        with query(table, "SELECT count(*), count(DISTINCT uri), sum(label_id) FROM detections") as relation:
            assert relation.fetchall() == [(36_000, 18_000, 36_000)]
