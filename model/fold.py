"""The removal of batch norm from a network that no longer learns."""

from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Network = TypeVar("Network", bound=nn.Module)


def fold_batch_norm(network: Network) -> Network:
    """Let each convolution do what the batch norm after it does, and return the same network.

    Layers keep their places in a Sequential: an Identity takes the place of a batch norm.
    """
    for sequential in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for place, (layer, following) in enumerate(pairwise(sequential)):
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                sequential[place] = fuse_conv_bn_eval(layer, following)
                sequential[place + 1] = nn.Identity()
    return network
