"""The moving average of a network's weights, which is often better than the last weights while the learning rate is high."""

from torch import Tensor, nn


class MovingAverage:
    """The exponential moving average of all numbers of a network, batch norm's statistics among them.

    Args:
        network: the network that learns. The average begins with its weights.
        decay: the share of the average that each step keeps. The first steps keep less, so that the random start is soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network, self._decay = network, decay
        self.weights: dict[str, Tensor] = {
            name: tensor.detach().clone() for name, tensor in network.state_dict().items()
        }

    def update(self, step: int) -> None:
        """Take in the network's weights after a step.

        Args:
            step: the number of the step, from 0.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, tensor in self._network.state_dict().items():
            if tensor.is_floating_point():
                self.weights[name].lerp_(tensor.detach(), 1 - decay)
            else:
                self.weights[name].copy_(tensor)

    def load(self, weights: dict[str, Tensor]) -> None:
        """Continue with an average that was kept."""
        for name, tensor in weights.items():
            self.weights[name].copy_(tensor)
