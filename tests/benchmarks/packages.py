"""Model packages to measure: as large as a real one, or so small that the way of the data takes most of the time."""

from pathlib import Path

import torch
from torch import Tensor, nn

from jobs.demo.examples import DrawnExamples
from model.config import Architecture, Thresholds
from model.openvino_network import quantize
from model.package import ModelPackage
from model.package_files import PackageRecord
from model.preprocess import normalise, resize
from model.ssd import SSD
from pipeline.registry.packages import write_package

FIRST_SEED, NUM_PICTURES = 5_000_000, 16
LOGIT_SPREAD, OFFSET_SPREAD = 3.0, 1.0
"""The standard deviations of a trained network's outputs, about."""
SCORES_PER_IMAGE = 20
"""The number of scores per image that pass `score_thresh`, as in a trained network."""


def tiny(folder: Path) -> Path:
    """Write a package whose network takes hardly any time."""
    torch.manual_seed(0)
    record = PackageRecord(
        name="tiny",
        architecture=Architecture(width=0.05),
        class_names=("a", "b"),
        thresholds=Thresholds(score_thresh=0.3, detections_per_img=5),
    )
    write_package(ModelPackage(record, SSD(record.architecture, 3).state_dict()), str(folder))
    return folder


def ssd300(folder: Path) -> Path:
    """Write an SSD300 of 91 classes whose random weights give scores as a trained network's."""
    write_package(trained_like(), str(folder))
    return folder


def ssd300_int8(folder: Path) -> Path:
    """Write the same package, quantized."""
    write_package(quantize(trained_like(), pictures()), str(folder))
    return folder


MAKERS = {"tiny": tiny, "ssd300": ssd300, "ssd300-int8": ssd300_int8}
"""The packages by name."""


def made(model: str, folder: Path) -> Path:
    """Write a package that is given by a name of `MAKERS`; another is a path."""
    return MAKERS[model](folder / model) if model in MAKERS else Path(model)


def pictures() -> list[Tensor]:
    """Return pictures of the demo as the network takes them."""
    drawn = DrawnExamples(FIRST_SEED, NUM_PICTURES)
    return [resize(drawn[index].image, 300) for index in range(NUM_PICTURES)]


@torch.inference_mode()
def trained_like() -> ModelPackage:
    """Return a package whose heads are brought to the size of a trained network's."""
    torch.manual_seed(0)
    class_names = tuple(f"class {label}" for label in range(1, 91))
    record = PackageRecord(name="ssd300", architecture=Architecture(), class_names=class_names)
    network = SSD(record.architecture, 91).eval()
    inputs = normalise(torch.stack(pictures()), record.preprocessing, torch.float32)
    maps = list(network.feature_maps(inputs))
    for heads, spread in ((network.localization, OFFSET_SPREAD), (network.classification, LOGIT_SPREAD)):
        for head, feature_map in zip(heads, maps, strict=True):
            assert isinstance(head, nn.Conv2d)
            head.weight.mul_(spread / head(feature_map).std(correction=0))
    _, logits = network(inputs)
    # A score passes up to this bias of the background: exp(logit) / (sum of exp + exp(background + bias)) = score_thresh.
    room = logits[..., 1:].exp() / record.thresholds.score_thresh - logits[..., 1:].exp().sum(dim=-1, keepdim=True)
    biases = room.clamp(min=1e-30).log() - logits[..., :1]
    lead = biases.flatten().topk(SCORES_PER_IMAGE * NUM_PICTURES).values[-1]
    for head in network.classification:
        assert isinstance(head, nn.Conv2d)
        assert head.bias is not None
        head.bias.view(-1, 91)[:, 0] += lead
    return ModelPackage(record, network.state_dict())
