import pytest
import torch
from torch import nn
from torchvision.models import vgg16, vgg16_bn

from model.vgg16 import STAGES, pool_positions, scaled, vgg16_trunk

DOWNSAMPLING = [2, 4, 8, 16, 32]


def reference_features(batch_norm: bool) -> nn.Sequential:
    """torchvision's, without the memory that its classifier takes."""
    with torch.device("meta"):
        return (vgg16_bn if batch_norm else vgg16)().features.eval()


@pytest.mark.parametrize("batch_norm", [False, True])
def test_layer_for_layer_torchvisions(batch_norm):
    with torch.device("meta"):
        trunk = vgg16_trunk(batch_norm=batch_norm)
    assert [repr(layer) for layer in trunk] == [repr(layer) for layer in reference_features(batch_norm)]


@pytest.mark.parametrize("batch_norm", [False, True])
def test_takes_torchvisions_weights_unchanged_and_gives_its_outputs(batch_norm):
    torch.manual_seed(0)
    trunk = vgg16_trunk(batch_norm=batch_norm).eval()
    reference = reference_features(batch_norm)
    reference.load_state_dict(trunk.state_dict(), strict=True, assign=True)
    trunk.load_state_dict(reference.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(trunk(images), reference(images))


def test_downsampling_after_the_stages():
    trunk = vgg16_trunk(width=0.1).eval()
    x = torch.zeros(1, 3, 320, 640)
    sizes = []
    for layer in trunk:
        x = layer(x)
        if isinstance(layer, nn.MaxPool2d):
            sizes.append(tuple(x.shape[-2:]))
    assert sizes == [(320 // rate, 640 // rate) for rate in DOWNSAMPLING]


def test_pools_stand_where_torchvision_numbers_them_and_round_down():
    trunk = vgg16_trunk(width=0.1)
    assert pool_positions(trunk) == [4, 9, 16, 23, 30]
    assert pool_positions(vgg16_trunk(width=0.1, batch_norm=True)) == [6, 13, 23, 33, 43]
    assert [trunk[position].ceil_mode for position in pool_positions(trunk)] == [False] * 5


def test_thirteen_convolutions():
    assert sum(len(stage) for stage in STAGES) == 13
    channels = [layer.out_channels for layer in vgg16_trunk(width=0.25) if isinstance(layer, nn.Conv2d)]
    assert channels == [16, 16, 32, 32, 64, 64, 64, *[128] * 6]


def test_scaled_rounds_to_eights_and_keeps_eight():
    assert scaled(512, 1.0) == 512
    assert scaled(64, 0.3) == 16  # 19.2
    assert scaled(64, 0.33) == 24  # 21.12
    assert scaled(64, 0.01) == 8
