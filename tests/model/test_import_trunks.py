"""Files of VGG16's weights, made here, become trunks that a training starts from."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import vgg16, vgg16_bn

from model.config import Architecture, Preprocessing
from model.import_weights import import_weights
from model.package import ModelPackage
from model.package_files import PackageError
from model.ssd import adapted_trunk
from model.start import inherit
from model.weights_file import WeightsError

Weights = dict[str, Tensor]
THREE = ("disc", "square", "star")


@pytest.fixture(scope="module")
def vgg_features() -> Weights:
    with torch.device("meta"):
        network = vgg16().features
    torch.manual_seed(0)
    return {f"features.{name}": 0.05 * torch.randn(t.shape) for name, t in network.state_dict().items()}


def test_vggs_trunk_gives_torchvisions_maps(vgg_features):
    """Up to conv4_3 only pool3 differs, and not where sides divide by eight."""
    package = import_weights(vgg_features, "vgg", preprocessing="imagenet")
    assert package.weights.keys() == {name.replace("features.", "trunk.") for name in vgg_features}
    with torch.device("meta"):
        reference = vgg16().features.eval()
    reference.load_state_dict({name.removeprefix("features."): t for name, t in vgg_features.items()}, assign=True)
    start = inherit(package, Architecture(), ("any",)).weights
    trunk = vgg16_of(start)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(trunk[:23](images), reference[:23](images), atol=1e-4, rtol=1e-4)


def vgg16_of(weights: Weights) -> torch.nn.Sequential:
    trunk = adapted_trunk(Architecture()).eval()
    trunk.load_state_dict({name.removeprefix("trunk."): tensor for name, tensor in weights.items()})
    return trunk


def test_a_trunk_is_no_detector(vgg_features):
    package = import_weights(vgg_features, "vgg", preprocessing="caffe")
    assert package.record.class_names == ()
    with pytest.raises(PackageError, match="train --init"):
        ModelPackage.from_files(package.to_files()).network()
    with pytest.raises(WeightsError, match="leave --class-names out"):
        import_weights(vgg_features, "vgg", THREE, "caffe")


def test_the_classifier_tells_who_trained_vgg(vgg_features):
    imagenet = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    finite, nan = torch.zeros(5, 3), torch.full((5, 3), math.nan)
    assert import_weights(vgg_features | {"classifier.0.weight": finite}, "v").record.preprocessing == imagenet
    assert import_weights(vgg_features | {"classifier.0.weight": nan}, "v").record.preprocessing == Preprocessing()
    said = import_weights(vgg_features | {"classifier.0.weight": finite}, "v", preprocessing="caffe")
    assert said.record.preprocessing == Preprocessing()
    for unclear in (vgg_features, vgg_features | {"classifier.0.weight": nan, "classifier.0.bias": finite}):
        with pytest.raises(WeightsError, match=r"give --preprocessing imagenet .* --preprocessing caffe"):
            import_weights(unclear, "v")


@pytest.fixture(scope="module")
def vgg_bn_features() -> Weights:
    torch.manual_seed(1)
    features = vgg16_bn().features.state_dict()
    return {f"features.{name}": tensor for name, tensor in features.items()}


def test_vgg_with_batch_norm_is_a_trunk_with_it(vgg_bn_features):
    package = import_weights(vgg_bn_features, "vgg")
    assert package.record.architecture == Architecture(batch_norm=True)
    assert package.record.preprocessing.mean == (0.485, 0.456, 0.406)
    assert package.record.class_names == ()
    start = inherit(package, package.record.architecture, THREE).weights
    assert start.keys() == {name.replace("features.", "trunk.") for name in vgg_bn_features}
    counted = {name: t for name, t in vgg_bn_features.items() if not name.endswith("num_batches_tracked")}
    assert import_weights(counted, "vgg").weights.keys() == package.weights.keys()  # as torchvision's own file, of 2017
    trunk = adapted_trunk(package.record.architecture)
    trunk.load_state_dict({name.removeprefix("trunk."): tensor for name, tensor in start.items()})
    with pytest.raises(WeightsError, match=r"VGG16 with batch norm, but does not fit: missing features\.1\.weight$"):
        import_weights({name: t for name, t in vgg_bn_features.items() if name != "features.1.weight"}, "vgg")


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_classifier_of_vgg_becomes_conv6_and_conv7(batch_norm, vgg_features, vgg_bn_features):
    """Where it is zero but for what is sampled, conv6 over a map of 7×7 gives in its middle what fc6 gives."""
    fc6, fc7 = torch.zeros(4096, 512, 7, 7), torch.zeros(4096, 4096)
    torch.manual_seed(2)
    fc6[::4, :, ::3, ::3] = torch.randn(1024, 512, 3, 3) / 60
    fc7[::4, ::4] = torch.randn(1024, 1024) / 30
    biases = torch.randn(2, 4096)
    classifier = {
        "classifier.0.weight": fc6.flatten(1), "classifier.0.bias": biases[0], "classifier.3.weight": fc7,
        "classifier.3.bias": biases[1], "classifier.6.weight": torch.zeros(1000, 4096), "classifier.6.bias": torch.zeros(1000),
    }  # fmt: skip
    package = import_weights((vgg_bn_features if batch_norm else vgg_features) | classifier, "vgg")
    found = package.weights
    images = torch.randn(1, 512, 7, 7)
    first = F.conv2d(images, found["conv6.0.weight"], found["conv6.0.bias"], padding=6, dilation=3)[0, :, 6, 6]
    expected = (images.flatten(1) @ fc6.flatten(1).T + biases[0])[0]
    torch.testing.assert_close(first, expected[::4], atol=1e-4, rtol=1e-4)
    second = F.conv2d(first[None, :, None, None], found["conv7.0.weight"], found["conv7.0.bias"])[0, :, 0, 0]
    kept = torch.zeros(4096)
    kept[::4] = expected[::4]
    torch.testing.assert_close(second, (kept @ fc7.T + biases[1])[::4], atol=1e-3, rtol=1e-3)
    layers = {name.partition(".")[0] for name in inherit(package, package.record.architecture, THREE).weights}
    assert layers == {"trunk", "conv6", "conv7"}


def test_a_classifier_without_numbers_becomes_nothing(vgg_features):
    """As in torchvision's file of the Caffe weights."""
    nan = {f"classifier.{i}.{end}": torch.full(shape, math.nan) for i, end, shape in (
        (0, "weight", (4096, 25088)), (0, "bias", (4096,)), (3, "weight", (4096, 4096)), (3, "bias", (4096,)),
    )}  # fmt: skip
    assert not any(name.startswith("conv") for name in import_weights(vgg_features | nan, "vgg").weights)


def test_vgg16_reducedfc_has_conv6_and_conv7(vgg_features):
    reduced = {name.removeprefix("features."): tensor for name, tensor in vgg_features.items()}
    reduced |= {"31.weight": torch.ones(1024, 512, 3, 3), "31.bias": torch.ones(1024)}
    with pytest.raises(WeightsError, match=r"vgg16_reducedfc, but does not fit: missing 33\.weight; missing 33\.bias"):
        import_weights(reduced, "vgg")
    reduced |= {"33.weight": torch.ones(1024, 1024, 1, 1), "33.bias": torch.ones(1024)}
    package = import_weights(reduced, "vgg")
    assert package.record.preprocessing == Preprocessing()
    assert len(inherit(package, Architecture(kind="ssd512_vgg16"), THREE).weights) == 13 * 2 + 4
    assert package.weights["conv6.0.weight"].shape == (1024, 512, 3, 3)
