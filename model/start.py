"""The weights that a network takes over from a detector with other classes, another architecture or other default boxes."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.config import Architecture
from model.package import ModelPackage
from model.ssd import network_of_shapes

HEADS = "classification."
"""The beginning of the names of the tensors that have a part per class."""
BOTH_HEADS = (HEADS, "localization.")


@dataclass(frozen=True)
class Inherited:
    """The tensors and classes that a network takes over."""

    weights: dict[str, Tensor]
    """The tensors by name. The network makes all others anew."""
    class_names: tuple[str, ...]
    """The classes that the classification heads know already."""


def inherit(
    package: ModelPackage,
    architecture: Architecture,
    class_names: tuple[str, ...],
    class_map: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Inherited:
    """Return the tensors of a package that a network can start from: those of the same name and shape.

    The classification heads have a row per default box and class. The rows of the background, and of each class that the package knows, are
    taken over; all others are random, as in a new network.

    Args:
        package: a detector or a trunk.
        architecture: the architecture of the network.
        class_names: the classes of the network.
        class_map: the network's names of the package's classes, where they differ.
        seed: the seed of the random rows.
    """
    wanted = network_of_shapes(architecture, len(class_names) + 1).state_dict()
    if package.record.architecture.kind != architecture.kind:  # heads of other feature maps
        wanted = {name: shaped for name, shaped in wanted.items() if not name.startswith(BOTH_HEADS)}
    weights = {
        name: tensor
        for name, tensor in package.weights.items()
        if name in wanted and not name.startswith(HEADS) and tensor.shape == wanted[name].shape
    }
    renamed = [(class_map or {}).get(name, name) for name in package.record.class_names]
    known = {name: number for number, name in enumerate(renamed, 1)}
    sources = [0, *(known.get(name, -1) for name in class_names)]
    generator = torch.Generator().manual_seed(seed)
    has_heads = False
    for name, shaped in wanted.items():
        old = package.weights.get(name)
        if not name.startswith(HEADS) or old is None:
            continue
        num_rows = shaped.shape[0] // len(sources)
        filters = f"{name.rpartition('.')[0]}.weight"  # a bias alone is worth nothing
        if (
            old.shape[0] != num_rows * (len(renamed) + 1)
            or package.weights[filters].shape[1:] != wanted[filters].shape[1:]
        ):
            continue
        weights[name] = _rows(old.reshape(num_rows, -1, *old.shape[1:]), sources, generator)
        has_heads = True
    return Inherited(weights, tuple(name for name in class_names if has_heads and name in known))


def _rows(old: Tensor, sources: list[int], generator: torch.Generator) -> Tensor:
    """Return a head's tensor, whose first side has a row per default box and class.

    Args:
        old: the tensor to take rows from, (K, C, …) for K default boxes and C classes.
        sources: for each new class its number among the C, or -1 for a random row.
        generator: of the random rows.
    """
    new = old[:, [max(source, 0) for source in sources]].clone()
    if -1 in sources:
        fresh = torch.zeros_like(new, dtype=torch.float32)
        if fresh.dim() > 2:  # biases start at 0
            nn.init.xavier_uniform_(fresh.flatten(0, 1), generator=generator)
        is_fresh = torch.tensor(sources) < 0
        new[:, is_fresh] = fresh[:, is_fresh].to(new.dtype)
    return new.flatten(0, 1).contiguous()
