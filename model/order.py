"""The order in which examples are learned: a pure function, so that any number of workers and a resumed run agree."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """A worker's part of each batch: `size` examples from `start` on."""

    start: int
    size: int

    def positions(self, step: int, batch_size: int) -> range:
        """Return the positions in the whole training of the worker's examples in a step."""
        first = step * batch_size + self.start
        return range(first, first + self.size)


def share_of(rank: int, num_workers: int, batch_size: int) -> Share:
    """Return a worker's share; sizes differ by one where the batch can't be divided evenly."""
    start, end = (batch_size * worker // num_workers for worker in (rank, rank + 1))
    return Share(start, end - start)


def index_at(position: int, num_examples: int, seed: int) -> int:
    """Return the index of the example at a position: each once per pass, in another order in each pass."""
    number, place = divmod(position, num_examples)
    return int(_permutation(num_examples, seed, number)[place])


def seed_at(position: int, seed: int) -> int:
    """Return the seed of the augmentation at a position."""
    return _mixed(seed, position)


@lru_cache(maxsize=2)
def _permutation(num_examples: int, seed: int, number: int) -> Tensor:
    """Return the order of the examples in a pass. The cache keeps two, because a block may reach over a pass's end."""
    return torch.randperm(num_examples, generator=torch.Generator().manual_seed(_mixed(seed, number)))


def _mixed(*numbers: int) -> int:
    """Return a seed of 32 bits, mixed from numbers.

    torch's generator on the CPU takes only 32 bits. Neighbouring seeds give independent streams only when mixed.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
