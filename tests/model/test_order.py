from itertools import pairwise

import pytest

from model.order import index_at, seed_at, share_of


def test_each_pass_has_each_example_once_in_an_order_of_its_own():
    passes = [[index_at(position, 50, seed=0) for position in range(start, start + 50)] for start in (0, 50, 100)]
    assert [sorted(some) for some in passes] == [list(range(50))] * 3
    assert all(one != other for one, other in pairwise(passes))
    assert passes[0] != [index_at(position, 50, seed=1) for position in range(50)]
    assert passes[0] == [index_at(position, 50, seed=0) for position in range(50)]


def test_augmentations_have_seeds_of_their_own():
    seeds = {seed_at(position, seed) for position in range(1000) for seed in (0, 1, 2**31)}
    assert len(seeds) == 3000


@pytest.mark.parametrize("num_workers", [1, 2, 3, 8])
def test_workers_share_each_batch_without_gap_or_overlap(num_workers):
    """Eight images a batch: three workers take 2, 3 and 3 of them."""
    shares = [share_of(rank, num_workers, 8) for rank in range(num_workers)]
    for step in (0, 7):
        taken = [position for share in shares for position in share.positions(step, 8)]
        assert taken == list(range(8 * step, 8 * step + 8))
    assert max(share.size for share in shares) - min(share.size for share in shares) <= 1


def test_positions_of_the_second_of_two_workers():
    share = share_of(1, 2, 6)
    assert [list(share.positions(step, 6)) for step in range(3)] == [[3, 4, 5], [9, 10, 11], [15, 16, 17]]
