import numpy as np

from pipeline.report.counts import count_runs, count_sizes


def test_counts_of_two_nights(nights):
    nights.add(("a", [("cat", 0.9), ("cat", 0.55), ("dog", 0.4)]), ("a", []), failed=2)
    nights.add(("b", [("dog", 1.0)]))
    first, second = count_runs(nights.table, ["r00", "r01", "none"], 0.5)
    assert (first.run_id, first.num_ok, first.num_failed, first.num_boxes) == ("r00", 2, 2, 2)
    assert first.images_by_boxes == {0: 1, 2: 1}
    assert list(first.classes) == ["cat"]
    cats = first.classes["cat"]
    assert (cats.num_boxes, round(cats.sum_scores, 4), round(cats.sum_squares, 4)) == (2, 1.45, 0.81 + 0.3025)
    assert np.flatnonzero(cats.score_bins).tolist() == [11, 18]
    assert second.classes["dog"].score_bins[-1] == 1  # a score of 1 is in the last bin


def test_sizes_are_shares_of_the_image(nights):
    """A box of 10 × 10 pixels in an image of 40 × 30: the root of 1/12 is 0.29."""
    nights.add(("a", [("cat", 0.9), ("cat", 0.2)]))
    assert np.flatnonzero(count_sizes(nights.table, "r00", 0.5, 20)).tolist() == [5]
    assert count_sizes(nights.table, "r00", 0.1, 20)[5] == 2
