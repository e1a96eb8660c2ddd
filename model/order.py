"""Which example is learned at which moment: a pure function, so that any number of workers and a resumed run agree."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """One worker's part of each batch: `size` examples from `start` on."""

    start: int
    size: int

    def position(self, row: int, first_step: int, batch_size: int) -> int:
        """Where in the whole training the worker's row-th example since `first_step` stands."""
        return (first_step + row // self.size) * batch_size + self.start + row % self.size


def share_of(rank: int, num_workers: int, batch_size: int) -> Share:
    """A worker's; sizes differ by one where the batch can't be divided evenly."""
    start, end = (batch_size * worker // num_workers for worker in (rank, rank + 1))
    return Share(start, end - start)


def index_at(position: int, num_examples: int, seed: int) -> int:
    """The example at a position: each once in a pass, in another order each pass."""
    number, place = divmod(position, num_examples)
    return int(_permutation(num_examples, seed, number)[place])


def seed_at(position: int, seed: int) -> int:
    """What the augmentation at a position is seeded with."""
    return _mixed(seed, position)


@lru_cache(maxsize=2)
def _permutation(num_examples: int, seed: int, number: int) -> Tensor:
    """Of a pass. Two are kept: a block may reach over a pass's end."""
    return torch.randperm(num_examples, generator=torch.Generator().manual_seed(_mixed(seed, number)))


def _mixed(*numbers: int) -> int:
    """torch's generator on the CPU takes but 32 bits, and neighbours give streams of their own only when mixed."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
