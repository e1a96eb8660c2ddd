import csv
import io
import re
import socket
import threading
from contextlib import contextmanager

import pytest
import requests
import uvicorn
from PIL import Image

from jobs.explorer.app import explorer_app
from jobs.explorer.guard import COOKIE, HEADERS
from jobs.explorer.serve import LOOPBACK_NAMES
from pipeline.explore.cache import Cache
from pipeline.storage import store
from pipeline.table.delta import ResultTable

HOSTS = LOOPBACK_NAMES


@contextmanager
def served(app):
    """A real server; its address."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Three images, of which one has gone."""
    from tests.pipeline.conftest import make_detections, make_row, to_table

    folder = tmp_path_factory.mktemp("explored")
    table = ResultTable(str(folder / "table"))
    table.create()
    rows = []
    for name in ("a.png", "<b>.png", "gone.png"):
        Image.new("RGB", (40, 30), "red").save(folder / name)
        stored = store.stat(str(folder / name))
        found = make_detections((1, "cat", 0.9, 1, 2, 30, 20), (2, "dog", 0.2, 0, 0, 5, 5))
        rows.append(make_row(stored.uri, etag=stored.etag, size_bytes=stored.size_bytes, **found))
    (folder / "gone.png").unlink()
    table.append(to_table(*rows))
    return table


@pytest.fixture(scope="module")
def cache(table, tmp_path_factory):
    return Cache(ResultTable(table.url), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def url(table, cache):
    with served(explorer_app(table.url, cache, HOSTS, None)) as url:
        yield url


def get(url: str, path: str, **parameters: object):
    answer = requests.get(f"{url}{path}", params=parameters, timeout=240)
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    return answer


def test_the_page_and_its_parts(url):
    page = get(url, "/")
    assert (page.status_code, page.headers["content-type"].split(";")[0]) == (200, "text/html")
    for part, kind in (("app.js", "text/javascript"), ("style.css", "text/css"), ("icon.svg", "image/svg+xml")):
        assert get(url, f"/{part}").headers["content-type"].split(";")[0] == kind
    for path in ("/../app.py", "/%2e%2e/app.py", "/api/none", "/api/"):
        assert get(url, path).status_code == 404


def test_the_questions_of_the_page(url, table):
    facts = get(url, "/api/table").json()
    assert (facts["table"], facts["classes"], len(facts["models"])) == (table.url, ["cat", "dog"], 1)
    images = get(url, "/api/images", sort="name").json()
    assert [len(image["boxes"]) for image in images] == [1, 1, 1]
    assert get(url, "/api/images", sort="name", min_score="0.1").json()[0]["found"] == 2
    assert get(url, "/api/counts", label=["dog"], min_score="0.1").json()["images"] == 3
    row = get(url, f"/api/image/{images[0]['key']}").json()
    assert (row["uri"], row["run_date"]) == (images[0]["uri"], "2026-01-02")
    assert get(url, "/api/failures").json() == []
    assert get(url, "/api/compare", a_model="m1", b_run="r1").json()["images"] == 3


def test_pictures(url):
    by_name = {image["uri"].rpartition("/")[2]: image["key"] for image in get(url, "/api/images").json()}
    small, whole = (get(url, f"/{kind}/{by_name['a.png']}") for kind in ("thumbnail", "picture"))
    assert (small.headers["content-type"], whole.headers["content-type"]) == ("image/jpeg", "image/png")
    for kind in ("thumbnail", "picture"):
        missing = get(url, f"/{kind}/{by_name['gone.png']}")
        assert (missing.status_code, missing.headers["content-type"]) == (200, "image/svg+xml")
        assert "No such file" in re.sub(r"(<[^>]*>)+", " ", missing.text)
    assert len(set(by_name.values())) == 3


def test_lists_to_run_again(url):
    keys = [image["key"] for image in get(url, "/api/images", text="<b>").json()]
    for parameters, names in (({"key": keys}, ["<b>.png"]), ({"sort": "name"}, ["<b>.png", "a.png", "gone.png"])):
        answer = get(url, "/api/list", **parameters)
        assert answer.headers["content-type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert [row["uri"].rpartition("/")[2] for row in rows] == names
        assert rows[0]["etag"]


def test_sql(url):
    found = get(
        url, "/api/sql", q="SELECT label, count(*) AS boxes FROM detections GROUP BY label ORDER BY label"
    ).json()
    assert found == {"columns": ["label", "boxes"], "rows": [["cat", 3], ["dog", 3]], "is_cut": False}
    many = get(url, "/api/sql", q="SELECT * FROM range(1001)").json()
    assert (len(many["rows"]), many["is_cut"]) == (1000, True)
    for sql in ("DROP VIEW images", "SELECT * FROM read_csv('/etc/passwd')", "COPY images TO 'x'", "", "SELECT"):
        answer = get(url, "/api/sql", q=sql)
        assert (answer.status_code, bool(answer.json()["error"])) == (400, True), sql


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/images?min_score=x", 400), ("/api/images?offset=-1", 400), ("/api/images?colour=red", 400),
        ("/api/images?column.uri=x", 400), ("/api/compare", 400), ("/api/image/zz", 404), ("/api/image/0000000000000000", 404),
        ("/thumbnail/0000000000000000", 404), ("/picture/..%2f..%2fetc%2fpasswd", 404), ("/api/list?key=1", 404),
    ],
)  # fmt: skip
def test_nonsense_is_answered_with_what_is_wrong(url, path, status):
    assert requests.get(url + path, timeout=240).status_code == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_is_written(url, method):
    for path in ("/", "/api/images", "/api/sql"):
        assert requests.request(method, url + path, timeout=240).status_code == 405


def test_another_name_of_this_machine_is_refused(url):
    """A page of somebody else, whose name leads here, is not answered."""
    for host, status in (
        ("evil.example", 403),
        ("localhost.evil.example:80", 403),
        ("localhost:1", 200),
        ("LOCALHOST", 200),
        ("[::1]:1", 200),
    ):
        assert requests.get(f"{url}/api/table", headers={"Host": host}, timeout=240).status_code == status, host


def test_another_page_may_open_it_but_not_ask(url):
    from_elsewhere = {"Sec-Fetch-Site": "cross-site"}
    assert requests.get(f"{url}/api/table", headers=from_elsewhere, timeout=240).status_code == 403
    assert requests.get(url, headers={**from_elsewhere, "Sec-Fetch-Mode": "navigate"}, timeout=240).status_code == 200


def test_a_token_is_needed_away_from_loopback(table, cache):
    with served(explorer_app(table.url, cache, frozenset(), "secret")) as url:
        for path in ("/", "/api/table", "/api/table?token=wrong", "/app.js"):
            assert requests.get(url + path, timeout=240).status_code == 403
        session = requests.Session()
        opened = session.get(f"{url}/?token=secret", timeout=240)
        assert (opened.status_code, opened.url, session.cookies[COOKIE]) == (200, f"{url}/", "secret")
        assert session.get(f"{url}/api/table", timeout=240).status_code == 200
