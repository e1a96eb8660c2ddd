import threading
from concurrent.futures import ThreadPoolExecutor

from pipeline.images.pace import Pace


def test_places_are_halved_and_grow_by_one_a_round() -> None:
    pace = Pace(64, num_fewest=1)
    for expected in (32, 16, 8, 4, 2, 1, 1):
        pace.slow_down()
        assert pace.num_places == expected
    pace.succeed()
    assert pace.num_places == 2
    for _ in range(2):
        pace.succeed()
    assert 2.8 < pace.num_places < 3.1
    for _ in range(5000):
        pace.succeed()
    assert pace.num_places == 64


def test_no_more_are_under_way_than_there_are_places() -> None:
    pace, lock, under_way, most = Pace(8, num_fewest=2), threading.Lock(), 0, 0
    for _ in range(3):
        pace.slow_down()

    def request(_: int) -> None:
        nonlocal under_way, most
        with pace.place():
            with lock:
                under_way += 1
                most = max(most, under_way)
            with lock:
                under_way -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(request, range(500)))
    assert (most <= 2, under_way) == (True, 0)
