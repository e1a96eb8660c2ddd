"""Storage that fails while a whole job goes through it: a proxy in front of Ceph answers, or does not, as it is told."""

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from deltalake import DeltaTable

from jobs.demo import PACKAGE
from jobs.demo.pictures import draw_picture
from pipeline.storage.store import table_options
from tests.conftest import FaultyProxy, faulty_proxy, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.s3]

NUM_IMAGES = 300
OUTAGE_S = 20.0


@pytest.fixture
def proxy(s3: Any) -> Iterator[FaultyProxy]:
    if s3.name != "ceph":
        pytest.skip("the proxy comes with Ceph: make test-s3")
    with faulty_proxy(os.environ["AWS_ENDPOINT_URL_S3"]) as proxy:
        yield proxy


def start(proxy: FaultyProxy, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "jobs", *arguments]
    environment = os.environ | proxy.variables
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return json.loads(out)


def has_rows(table: str) -> bool:
    options = table_options(table)
    there = DeltaTable.is_deltatable(table, storage_options=options)
    return there and bool(DeltaTable(table, storage_options=options).file_uris())


def test_no_image_is_lost_or_failed(proxy: FaultyProxy, s3: Any) -> None:
    """Some requests fail from the listing to the query; and for 20 s in the middle of the run all of them."""
    encoded = io.BytesIO()
    draw_picture(0).image.resize((64, 48)).save(encoded, "JPEG")
    bucket = s3.bucket()
    s3.put(bucket, {f"in/{index}.jpg": encoded.getvalue() for index in range(NUM_IMAGES)})
    table = f"s3://{bucket}/table"
    proxy.set(slow_down=10, reset=5, lost=2)
    place = ("--input", f"s3://{bucket}/in", "--table", table)
    job = start(proxy, "infer", *place, "--model", str(PACKAGE), "--commit-interval-s", "1", "--json")
    wait_until(lambda: has_rows(table) or job.poll() is not None)
    proxy.set(reset=100)
    threading.Timer(OUTAGE_S, lambda: proxy.set(reset=5)).start()
    summary = finish(job)
    assert [summary[k] for k in ("listed", "planned", "ok", "failed")] == [NUM_IMAGES, NUM_IMAGES, NUM_IMAGES, 0]
    sql = "SELECT count(*) AS num_rows, count(DISTINCT uri) AS num_uris FROM history"
    found = finish(start(proxy, "query", "--table", table, sql, "--format", "json"))
    assert found == [{"num_rows": NUM_IMAGES, "num_uris": NUM_IMAGES}]
