"""The import of other projects' weights as model packages: the kind of file, its tensors under our names, its preprocessing."""

import re
from collections.abc import Iterable, Mapping
from statistics import mode
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision.models.detection import SSD300_VGG16_Weights

from model.config import Architecture, Preprocessing, Thresholds
from model.package import ModelPackage
from model.package_files import PackageRecord
from model.ssd import network_of_shapes
from model.weight_sources import SOURCES, SSD_PYTORCH, TORCHVISION_VGG_BN, VGG_REDUCED, Source
from model.weights_file import WeightsError, listed

PreprocessingName = Literal["imagenet", "caffe"]
PREPROCESSINGS: dict[PreprocessingName, Preprocessing] = {
    "imagenet": Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "caffe": Preprocessing(),
}
"""The preprocessing for VGG16's weights: imagenet for those that torchvision trained, caffe for those of VGG's authors."""

VOC_CLASS_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
COCO_CLASS_NAMES = tuple(SSD300_VGG16_Weights.COCO_V1.meta["categories"][1:])
"""The 90 labels that torchvision has for COCO; the ten that COCO does not use are called N/A."""

SSD_PYTORCH_PREPROCESSING = Preprocessing(mean=(123 / 255, 117 / 255, 104 / 255))
SSD_PYTORCH_THRESHOLDS = Thresholds(score_thresh=0.01, nms_thresh=0.45, topk_candidates=200, detections_per_img=200)
SSD_PYTORCH_VOC_SCALES = (0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05)
SSD_PYTORCH_OTHER_SCALES = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
"""The smallest box sizes of ssd.pytorch in pixels, divided by 300.

They are 30, 60, 111, … for VOC's 20 classes (`SSD_PYTORCH_VOC_SCALES`), and 21, 45, 99, … in its settings for COCO.
"""

FC6, FC7 = "classifier.0", "classifier.3"
"""The first two layers of VGG16's classifier in torchvision's files."""
EVERY_CHANNEL, EVERY_PLACE = 4, 3
"""The steps in which fc6 and fc7 are sampled to become conv6 and conv7: 1024 of 4096 channels, 3×3 of 7×7 places."""


def without_wrapper(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under their names without the prefix of a wrapper.

    DistributedDataParallel, torch.compile or a class around the network add such a prefix.
    """
    names = {name: name for name in tensors}
    while not _sources(names.values()):
        wrappers = {name.partition(".")[0] for name in names.values()}
        if len(wrappers) != 1 or not all("." in name for name in names.values()):
            return dict(tensors)
        names = {name: inner.partition(".")[2] for name, inner in names.items()}
    return {inner: tensors[name] for name, inner in names.items()}


def import_weights(
    tensors: Mapping[str, Tensor],
    name: str,
    class_names: tuple[str, ...] | None = None,
    preprocessing: PreprocessingName | None = None,
    provenance: dict[str, Any] | None = None,
) -> ModelPackage:
    """Return a model package of another project's weights: a detector, or a trunk to start a training from.

    Args:
        tensors: the tensors by the names that their own project gives them, which identify the project.
        name: the model's name.
        class_names: the classes without the background; needed where their number does not identify them.
        preprocessing: the preprocessing of VGG16's weights, where the file does not show it.
        provenance: is added to the record, with the kind of source.

    Raises:
        WeightsError: tensors are missing, extra, misshapen or not finite, and each is named; or an argument is wrong.
    """
    tensors = without_wrapper(tensors)
    source = recognise(tensors)
    num_classes = _num_classes(tensors, source)
    weights = _renamed(tensors, source, num_classes) | _decimated(tensors)
    architecture, thresholds = Architecture(batch_norm=source.batch_norm), Thresholds()
    if source is SSD_PYTORCH:
        scales = SSD_PYTORCH_VOC_SCALES if num_classes == 1 + len(VOC_CLASS_NAMES) else SSD_PYTORCH_OTHER_SCALES
        architecture, thresholds = Architecture(scales=scales, clip_centres=True), SSD_PYTORCH_THRESHOLDS
    record = PackageRecord(
        name=name,
        architecture=architecture,
        class_names=_class_names(source, class_names, num_classes),
        preprocessing=_preprocessing(tensors, source, preprocessing),
        thresholds=thresholds,
        provenance={"source": source.title} | (provenance or {}),
    )
    return ModelPackage(record, weights)


def recognise(tensors: Mapping[str, Tensor]) -> Source:
    """Return the kind of file that has tensors of these names.

    Raises:
        WeightsError: no known kind has them.
    """
    if found := _sources(tensors):
        return found[0]
    known = ", ".join(source.title for source in SOURCES)
    raise WeightsError(f"its tensors ({listed(list(tensors))}) are named as in none of {known}")


def _sources(names: Iterable[str]) -> list[Source]:
    """Return the kinds of file that have tensors of some of these names."""
    names = list(names)
    return [source for source in SOURCES if any(re.match(source.keys, name) for name in names)]


def _num_classes(tensors: Mapping[str, Tensor], source: Source) -> int:
    """Return the number of classes of most classification heads, with the background; VOC's where there are no heads."""
    boxes_a_cell = Architecture().num_default_boxes_a_cell
    heads = [
        (their_name, our_name.split("."))
        for their_name, our_name in source.names.items()
        if our_name.startswith("classification.")
    ]
    counts = [
        tensors[their_name].shape[0] // boxes_a_cell[int(index)]
        for their_name, (_, index, _) in heads
        if their_name in tensors and tensors[their_name].dim()
    ]
    return max(2, mode(counts)) if counts else 1 + len(VOC_CLASS_NAMES)


def _renamed(tensors: Mapping[str, Tensor], source: Source, num_classes: int) -> dict[str, Tensor]:
    """Return the tensors under our names, each checked and copied into memory of its own."""
    wanted = network_of_shapes(Architecture(batch_norm=source.batch_norm), num_classes).state_dict()
    # Files from before torch 0.4.1 lack the counts, which nothing of ours uses.
    counts = {name: torch.tensor(0) for name in source.names if name.endswith(".num_batches_tracked")}
    tensors = counts | dict(tensors)
    problems = [f"missing {their_name}" for their_name in source.names if their_name not in tensors]
    for their_name, tensor in tensors.items():
        if source.ignored and their_name.startswith(source.ignored):
            continue
        if their_name not in source.names:
            problems.append(f"extra {their_name}")
        elif tensor.shape != (shape := wanted[source.names[their_name]].shape):
            problems.append(f"{their_name} has shape {tuple(tensor.shape)}, not {tuple(shape)}")
        elif not tensor.is_floating_point() and wanted[source.names[their_name]].is_floating_point():
            problems.append(f"{their_name} is of {tensor.dtype}, not of real numbers")
        elif not tensor.isfinite().all():
            problems.append(f"{their_name} holds values that are NaN or infinite")
    if problems:
        raise WeightsError(f"it looks like {source.title}, but does not fit: {listed(problems, '; ')}")
    return {
        our_name: tensors[their_name].clone(memory_format=torch.contiguous_format)
        for their_name, our_name in source.names.items()
    }


def _decimated(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return conv6 and conv7 made of fc6 and fc7, where a file of VGG16 has them.

    fc6 is a convolution over all of 7×7. Of its places every third is taken, which dilation puts where they were, and every fourth channel of
    both. Source: Liu et al. 2016, section 3 ("subsample parameters from fc6 and fc7"), after Chen et al. 2015.
    """
    shapes = {
        f"{FC6}.weight": (4096, 512 * 7 * 7), f"{FC6}.bias": (4096,), f"{FC7}.weight": (4096, 4096), f"{FC7}.bias": (4096,),
    }  # fmt: skip
    found = {name: tensors[name] for name, shape in shapes.items() if name in tensors and tensors[name].shape == shape}
    if len(found) < len(shapes) or not all(tensor.isfinite().all() for tensor in found.values()):
        return {}
    fc6, fc6_bias, fc7, fc7_bias = found.values()
    step = EVERY_CHANNEL
    return {
        "conv6.0.weight": fc6.reshape(4096, 512, 7, 7)[::step, :, ::EVERY_PLACE, ::EVERY_PLACE].contiguous(),
        "conv6.0.bias": fc6_bias[::step].contiguous(),
        "conv7.0.weight": fc7[::step, ::step, None, None].contiguous(),
        "conv7.0.bias": fc7_bias[::step].contiguous(),
    }


def _preprocessing(tensors: Mapping[str, Tensor], source: Source, name: PreprocessingName | None) -> Preprocessing:
    """Return the source's own preprocessing; for a trunk the given one, else the one that its file shows."""
    if source.is_trunk:
        return PREPROCESSINGS[name or _trained_by(tensors, source)]
    if name:
        raise WeightsError(f"how {source.title} wants its pixels is known; leave --preprocessing out")
    return SSD_PYTORCH_PREPROCESSING if source is SSD_PYTORCH else Preprocessing()


def _trained_by(tensors: Mapping[str, Tensor], source: Source) -> PreprocessingName:
    """Return the name of the preprocessing that a VGG16 was trained with.

    torchvision's file of the Caffe weights is recognised by its classifier, which has not a single finite number.
    """
    if source is VGG_REDUCED:
        return "caffe"
    if source is TORCHVISION_VGG_BN:  # nobody else has trained one
        return "imagenet"
    finite = [tensor.isfinite() for name, tensor in tensors.items() if name.startswith("classifier.")]
    if finite and all(each.all() for each in finite):
        return "imagenet"
    if finite and not any(each.any() for each in finite):
        return "caffe"
    raise WeightsError(
        "it does not say how its training normalised pixels; give --preprocessing imagenet for weights that "
        "torchvision trained, --preprocessing caffe for those of VGG's authors"
    )


def _class_names(source: Source, given: tuple[str, ...] | None, num_classes: int) -> tuple[str, ...]:
    """Return a name for each class of the heads except the background; none for a trunk."""
    if source.is_trunk:
        if given:
            raise WeightsError(f"{source.title} detects no classes; leave --class-names out")
        return ()
    known = VOC_CLASS_NAMES if source is SSD_PYTORCH else COCO_CLASS_NAMES
    names = given or known
    if len(names) == num_classes - 1:
        return names
    wrong = f"not the {len(known)} whose names are known; give" if given is None else f"not {len(names)} as in"
    raise WeightsError(f"its heads have {num_classes - 1} classes, {wrong} --class-names")
