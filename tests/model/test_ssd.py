import pytest
import torch
from torch import nn

from model.config import Architecture
from model.default_boxes import default_boxes
from model.ssd import SSD, L2Norm, adapted_trunk
from model.vgg16 import pool_positions, vgg16_trunk

NARROW = Architecture(width=0.1)


@pytest.fixture(scope="module")
def network() -> SSD:
    torch.manual_seed(0)
    return SSD(NARROW, num_classes=4).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(3, 3, 300, 300, generator=torch.Generator().manual_seed(1))


def test_l2norm_gives_each_position_the_length_20():
    norm = L2Norm(2)
    x = torch.tensor([[3.0, 0.0], [4.0, -0.5]]).view(1, 2, 1, 2)  # positions (3, 4) and (0, -½)
    expected = torch.tensor([[12.0, 0.0], [16.0, -20.0]]).view(1, 2, 1, 2)
    torch.testing.assert_close(norm(x), expected)


def test_l2norm_of_zeros_is_zero_and_its_scale_is_learned():
    norm = L2Norm(3)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert norm(torch.zeros(1, 3, 2, 2, dtype=dtype)).count_nonzero() == 0
    assert norm.scale.requires_grad
    assert norm.scale.tolist() == [20.0, 20.0, 20.0]


def test_the_trunk_differs_from_vgg16_in_two_pools_alone():
    with torch.device("meta"):
        plain, adapted = vgg16_trunk(), adapted_trunk(Architecture())
    changed = [i for i, (a, b) in enumerate(zip(plain, adapted, strict=True)) if repr(a) != repr(b)]
    assert changed == [16, 30] == [pool_positions(plain)[2], pool_positions(plain)[4]]
    pool3, pool5 = adapted[16], adapted[30]
    assert (pool3.kernel_size, pool3.stride, pool3.ceil_mode) == (2, 2, True)
    assert (pool5.kernel_size, pool5.stride, pool5.padding, pool5.ceil_mode) == (3, 1, 1, False)


def test_pool3_rounds_75_up_to_38():
    trunk = adapted_trunk(NARROW)
    x = torch.zeros(1, 3, 300, 300)
    sides = []
    for layer in trunk:
        x = layer(x)
        if isinstance(layer, nn.MaxPool2d):
            sides.append(x.shape[-1])
    assert sides == [150, 75, 38, 19, 19]


def test_conv6_has_holes_and_conv7_is_pointwise(network):
    conv6, conv7 = network.conv6[0], network.conv7[0]
    assert (conv6.kernel_size, conv6.padding, conv6.dilation) == ((3, 3), (6, 6), (6, 6))
    assert (conv7.kernel_size, conv7.padding, conv7.dilation) == ((1, 1), (0, 0), (1, 1))


def test_six_maps(network, images):
    maps = list(network.feature_maps(images[:1]))
    assert [feature_map.shape[-1] for feature_map in maps] == [38, 19, 10, 5, 3, 1]
    assert [feature_map.shape[1] for feature_map in maps] == [48, 104, 48, 24, 24, 24]  # a tenth, in eights
    torch.testing.assert_close(maps[0].norm(dim=1).max(), torch.tensor(20.0))


def test_seven_maps_of_ssd512():
    architecture = Architecture(kind="ssd512_vgg16", width=0.1)
    large = SSD(architecture, num_classes=2).eval().requires_grad_(False)
    images = torch.zeros(1, 3, 512, 512)
    maps = list(large.feature_maps(images))
    assert [feature_map.shape[-1] for feature_map in maps] == [64, 32, 16, 8, 4, 2, 1]
    assert [feature_map.shape[1] for feature_map in maps] == [48, 104, 48, 24, 24, 24, 24]
    assert architecture.feature_map_sizes == (64, 32, 16, 8, 4, 2, 1)
    assert architecture.feature_map_names[-1] == "conv12_2"
    offsets, logits = large(images)
    assert offsets.shape == (1, 24564, 4)
    assert logits.shape == (1, 24564, 2)


def test_ssd512_differs_from_ssd300_in_what_comes_after_conv9_2():
    with torch.device("meta"):
        small, large = (SSD(Architecture(kind=kind), 21) for kind in ("ssd300_vgg16", "ssd512_vgg16"))
    assert repr(large.trunk) == repr(small.trunk)
    assert repr(large.conv9_2) == repr(small.conv9_2)
    added = set(large.state_dict()) - set(small.state_dict())
    assert {name.split(".")[0] for name in added} == {"conv12_1", "conv12_2", "localization", "classification"}
    strides = [getattr(large, f"conv{number}_2")[0].stride for number in (8, 9, 10, 11, 12)]
    assert strides == [(2, 2)] * 4 + [(1, 1)]
    last = large.conv12_2[0]
    assert (last.kernel_size, last.padding) == ((4, 4), (1, 1))


def test_channels_at_width_1():
    with torch.device("meta"):
        network = SSD(Architecture(), num_classes=21)
    assert [head.in_channels for head in network.localization] == [512, 1024, 512, 256, 256, 256]
    assert [head.out_channels for head in network.localization] == [4 * k for k in (4, 6, 6, 6, 4, 4)]
    assert [head.out_channels for head in network.classification] == [21 * k for k in (4, 6, 6, 6, 4, 4)]


def test_one_row_a_default_box(network, images):
    offsets, logits = network(images[:1])
    assert offsets.shape == (1, len(default_boxes(NARROW)), 4) == (1, 8732, 4)
    assert logits.shape == (1, 8732, 4)


def test_rows_are_ordered_as_the_default_boxes(network, images):
    """Box 2 of the cell in row 7, column 3 of the second map."""
    second = list(network.feature_maps(images[:1]))[1]
    head = network.localization[1](second)[0, 2 * 4 : 3 * 4, 7, 3]
    offsets, _ = network(images[:1])
    torch.testing.assert_close(offsets[0, 38 * 38 * 4 + (7 * 19 + 3) * 6 + 2], head)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_batch_is_its_images_one_by_one(images, batch_norm):
    torch.manual_seed(0)
    network = SSD(Architecture(width=0.1, batch_norm=batch_norm), num_classes=3).eval()
    with torch.inference_mode():
        offsets, logits = network(images)
        singles = [network(image[None]) for image in images]
    torch.testing.assert_close(offsets, torch.cat([o for o, _ in singles]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits, torch.cat([s for _, s in singles]), atol=1e-4, rtol=1e-4)


def test_batch_norm_follows_each_convolution_outside_the_heads():
    with torch.device("meta"):
        network = SSD(Architecture(width=0.1, batch_norm=True), num_classes=3)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(convolutions) - len(norms) == 6 + 6
    assert [type(layer) for layer in network.conv8_2] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]


def test_other_aspect_ratios_make_other_heads(images):
    architecture = Architecture(width=0.1, aspect_ratios=((), (2,), (2,), (2,), (), ()))
    offsets, _ = SSD(architecture, num_classes=2).eval()(images[:1])
    assert offsets.shape[1] == len(default_boxes(architecture))


def test_biases_start_at_zero(network):
    assert all(tensor.count_nonzero() == 0 for name, tensor in network.named_parameters() if name.endswith("bias"))
