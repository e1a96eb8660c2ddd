import gc
import os
import subprocess
import sys
import time
import weakref

import pytest

from pipeline.errors import SettingError, SsdBatchError
from pipeline.explore import cache as cache_module
from pipeline.explore import queries
from pipeline.explore.build import build
from pipeline.explore.cache import Cache, Copy, cache_folder
from pipeline.explore.filters import Filter
from pipeline.table.delta import ResultTable

UNTIL_S = 240


def num_images(cache: Cache) -> int:
    return cache.copy.search.count(Filter())["images"]


def test_it_follows_the_log(tmp_path, new_table, rows, monkeypatch):
    monkeypatch.setattr(cache_module, "LOOK_EVERY_S", 0.1)
    table = new_table(tmp_path / "table", rows.ok("a"))
    cache = Cache(table, tmp_path / "cache")
    assert num_images(cache) == 1
    first = cache.copy
    cache.start()
    try:
        table.append(rows.table(rows.ok("b")))
        end_s = time.monotonic() + UNTIL_S
        while cache.copy is first and time.monotonic() < end_s:
            time.sleep(0.05)
        assert num_images(cache) == 2
        assert len(queries.page(first, Filter(), 0)) == 1  # who still reads the old copy can do so
    finally:
        cache.close()
    assert len(os.listdir(tmp_path / "cache")) == 1


def test_a_copy_that_nobody_uses_lets_go_of_its_files(tmp_path, new_table, rows):
    """Without a collector of circles: its folder may have been deleted, and its files are on the disk until then."""
    build(new_table(tmp_path / "table", rows.ok("a")).url, tmp_path / "copy")
    copy = Copy(tmp_path / "copy")
    copy.search.page(Filter(text="a"), 0, 9)
    files = weakref.ref(copy.search)
    gc.disable()
    try:
        del copy
        assert files() is None
    finally:
        gc.enable()


def test_a_copy_is_built_once(tmp_path, new_table, rows, monkeypatch):
    table = new_table(tmp_path / "table", rows.ok("a"))
    first = Cache(table, tmp_path / "cache")
    monkeypatch.setattr(Cache, "_build", lambda *_: pytest.fail("it is there already"))
    again = Cache(ResultTable(table.url), tmp_path / "cache")
    assert (again.copy.version, num_images(again)) == (first.copy.version, 1)
    assert os.stat(tmp_path / "cache").st_mode & 0o077 == 0


def test_two_that_build_at_once_agree(tmp_path, new_table, rows):
    table = new_table(tmp_path / "table", rows.ok("a"))
    build(table.url, tmp_path / "copy")
    build(table.url, tmp_path / "copy")
    assert sorted(os.listdir(tmp_path)) == ["copy", "table"]


def test_what_another_explorer_is_building_stays(tmp_path, new_table, rows):
    """Unless that one is dead."""
    table, folder = new_table(tmp_path / "table", rows.ok("a")), tmp_path / "cache"
    name = Cache(table, folder).copy.version.partition("-")[0]
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    ours, dead, old = (folder / f"{name}-{end}" for end in (f"0123.{os.getpid()}", f"4567.{ended.pid}", "89ab"))
    for copy in (ours, dead, old):
        copy.mkdir()
    Cache(ResultTable(table.url), folder)
    assert [copy.exists() for copy in (ours, dead, old)] == [True, False, False]


def test_tables_have_copies_of_their_own(tmp_path, new_table, rows):
    caches = [Cache(new_table(tmp_path / name, rows.ok(name)), tmp_path / "cache") for name in ("one", "two")]
    assert [num_images(cache) for cache in caches] == [1, 1]
    assert len(os.listdir(tmp_path / "cache")) == 2


def test_an_empty_table_can_be_looked_at(tmp_path, new_table):
    cache = Cache(new_table(tmp_path / "table"), tmp_path / "cache")
    assert queries.page(cache.copy, Filter(sort="best", min_score=0.1), 0) == []
    assert cache.copy.search.count(Filter(label=("cat",)))["images"] == 0
    assert queries.facts(cache.copy).classes == []
    assert queries.failures(cache.copy) == []


def test_a_build_that_fails_leaves_nothing(tmp_path, new_table, rows):
    table = new_table(tmp_path / "table", rows.ok("a"))
    for file in table.data_files():
        os.unlink(file)
    with pytest.raises(SsdBatchError, match="can't be copied"):
        Cache(ResultTable(table.url), tmp_path / "cache")
    assert os.listdir(tmp_path / "cache") == []


def test_wrong_settings(tmp_path, new_table):
    with pytest.raises(SettingError, match="no table is there"):
        Cache(ResultTable(str(tmp_path / "none")), tmp_path / "cache")
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match="can't be made"):
        Cache(new_table(tmp_path / "table"), tmp_path / "file/cache")


def test_the_folder_is_that_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "ssd-batch/explore"


@pytest.mark.s3
def test_tables_of_s3(s3, tmp_path, new_table, rows):
    table = new_table(f"s3://{s3.bucket()}/table", rows.ok("a"), rows.failed("b", "fetch"))
    assert num_images(Cache(table, tmp_path / "cache")) == 2
