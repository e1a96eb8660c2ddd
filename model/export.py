"""A package as a file for other libraries: ONNX, OpenVINO or torch.export. It is the whole detector, or its network alone."""

import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.boxes import decode_boxes
from model.config import Format, Part, Preprocessing
from model.default_boxes import default_boxes
from model.fold import fold_batch_norm
from model.package import ModelPackage
from model.package_files import PackageError
from model.postprocess import Detections, postprocess
from model.preprocess import normalise
from model.ssd import SSD

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2"}
"""The suffix of each format's file. OpenVINO has a second file, with the suffix .bin."""
NEEDED: dict[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino", "onnx", "onnxscript"),
    "torch-export": (),
}
"""The packages that each format needs. OpenVINO reads ONNX: it knows no suppression of torch."""
MAX_CANDIDATES = 2048
"""The number of best candidates of an image that enter non-maximum suppression, whose input has a fixed size in these formats."""
TOLERANCE = 1e-3
"""The largest difference of scores, and of boxes as shares of the image, between a file and the package."""

Compute = Callable[[Tensor], list[Tensor]]
"""The function that a file holds: images (B, 3, S, S) uint8 to its outputs."""


class ExportError(RuntimeError):
    """The file does not compute what the package does."""


class ExportedNetwork(nn.Module):
    """The network alone, with batch norm folded: uint8 pixels in, the raw outputs of both heads out, in float32."""

    outputs = ("offsets", "logits")

    def __init__(self, package: ModelPackage) -> None:
        super().__init__()
        self.network: SSD = fold_batch_norm(package.network())
        self._preprocessing: Preprocessing = package.record.preprocessing

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return offsets (B, A, 4) and logits (B, A, C) of images (B, 3, S, S) uint8 RGB; see `model.ssd.SSD.forward`."""
        offsets, logits = self.network(normalise(images, self._preprocessing, torch.float32))
        return offsets, logits


class ExportedDetector(nn.Module):
    """The whole detector: uint8 pixels in, boxes out, all of fixed sizes."""

    outputs = ("boxes", "scores", "labels")
    default_boxes: Tensor
    min_scores: Tensor

    def __init__(self, package: ModelPackage) -> None:
        super().__init__()
        self._raw = ExportedNetwork(package)
        self._thresholds = package.record.thresholds
        num_classes = len(package.record.class_names)
        self.register_buffer("default_boxes", default_boxes(package.record.architecture))
        least = self._thresholds.min_scores or (0.0,) * num_classes
        self.register_buffer("min_scores", torch.tensor(least))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the detections in images, best first.

        Args:
            images: (B, 3, S, S) uint8 RGB, resized as `model.preprocess.resize` does.

        Returns:
            boxes (B, D, 4) float32, xyxy in [0, 1], scores (B, D) float32, and labels (B, D) int64, from 1. D is the package's
            `detections_per_img`. Where an image has fewer, the rest is 0.
        """
        offsets, logits = self._raw(images)
        found = [self._in_image(*outputs) for outputs in zip(offsets.unbind(), logits.unbind(), strict=True)]
        boxes, scores, labels = (torch.stack(parts) for parts in zip(*found, strict=True))
        return boxes, scores, labels

    def _in_image(self, offsets: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        thresholds = self._thresholds
        boxes = decode_boxes(offsets, self.default_boxes).clamp(0, 1)
        scores = logits.softmax(dim=-1)[:, 1:].transpose(0, 1)  # (L, A)
        scores, places = scores.topk(min(thresholds.topk_candidates, scores.shape[1]), dim=1)
        scores = scores * ((scores > thresholds.score_thresh) & (scores >= self.min_scores[:, None]))
        labels = torch.arange(1, len(scores) + 1)[:, None].expand(scores.shape).flatten()
        best, order = scores.flatten().topk(min(MAX_CANDIDATES, scores.numel()))
        candidates, label = boxes[places.flatten()[order]], labels[order]
        apart = candidates + 2 * label[:, None]  # each class is moved to a place of its own
        kept = torch.ops.torchvision.nms(apart, best, thresholds.nms_thresh)
        is_kept = torch.zeros_like(best).index_fill(0, kept, 1.0)
        score, place = (best * is_kept).topk(min(thresholds.detections_per_img, len(best)))
        return candidates[place] * (score > 0)[:, None], score, label[place] * (score > 0)


def check_installed(kind: Format) -> None:
    """Check that a format's libraries are there.

    Raises:
        PackageError: one is missing; the message says how to install it.
    """
    if missing := [name for name in NEEDED[kind] if not find_spec(name)]:
        raise PackageError(f"the format {kind} needs {', '.join(missing)}: pip install 'ssd-batch[export,openvino]'")


def export(package: ModelPackage, kind: Format, part: Part, batch_size: int, path: Path) -> None:
    """Write a package's detector or network to a file.

    Args:
        package: the model, which is not quantized.
        kind: the format.
        part: the whole detector, or the network alone.
        batch_size: the number of images that the file takes at once.
        path: the file; OpenVINO writes a second one beside it, with the suffix .bin.

    Raises:
        PackageError: the package can't be exported, or the format's libraries are not installed.
    """
    check_installed(kind)
    if package.quantized:
        raise PackageError(
            "it is quantized, and its int8 network is OpenVINO's already; export the package that it was made of"
        )
    if package.record.preprocessing.test_time_flip:
        raise PackageError(
            "it detects in mirror images, too, which a file does not; export the package that it was made of"
        )
    import torchvision  # noqa: F401  for what a suppression returns, before it is computed

    module = (ExportedDetector if part == "detector" else ExportedNetwork)(package).eval()
    side = package.record.architecture.image_size_px
    example = torch.zeros(batch_size, 3, side, side, dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torchvision's, of torch
        program = torch.export.export(module, (example,))
    about = {
        "model_name": package.record.name,
        "model_digest": package.digest,
        "class_names": "\n".join(package.record.class_names),
    }
    match kind:
        case "torch-export":
            torch.export.save(program, path, extra_files=about)
        case "onnx":
            _write_onnx(program, module.outputs, about, path)
        case "openvino":
            _write_openvino(program, module.outputs, about, path)


def _write_onnx(program: Any, outputs: tuple[str, ...], about: dict[str, str], path: Path) -> None:
    import onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = torch.onnx.export(
            program, (), input_names=["images"], output_names=outputs, dynamo=True, verbose=False
        )
    assert written is not None
    model = written.model_proto
    onnx.helper.set_model_props(model, about)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _write_openvino(program: Any, outputs: tuple[str, ...], about: dict[str, str], path: Path) -> None:
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        between = Path(folder, "between.onnx")
        _write_onnx(program, outputs, about, between)
        model = openvino.convert_model(between)
    for name, text in about.items():
        model.set_rt_info(text, name)
    openvino.save_model(model, path, compress_to_fp16=False)


def load(kind: Format, path: Path) -> Compute:
    """Return the function that a file holds, computed in float32 by the library that the format is of."""
    match kind:
        case "torch-export":
            import torchvision  # noqa: F401

            module = torch.export.load(path).module()
            return lambda images: list(module(images))
        case "onnx":
            import onnxruntime

            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            return lambda images: [torch.from_numpy(out) for out in session.run(None, {"images": images.numpy()})]
        case "openvino":
            import openvino

            compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            return lambda images: [torch.from_numpy(out.copy()) for out in compiled([images.numpy()]).values()]


def check(package: ModelPackage, compute: Compute, part: Part, batches: Iterable[Tensor], num_images: int) -> int:
    """Compare a file with the package, on images, and return the number of detections in them.

    Args:
        package: the model.
        compute: what `load` returned.
        part: the part that the file holds.
        batches: images (B, 3, S, S) uint8, of the batch size of the file.
        num_images: the number of images; what follows them only fills the last batch.

    Raises:
        ExportError: a detection of one of both is not one of the other, or outputs differ by more than `TOLERANCE`.
    """
    network, record, counts = ExportedNetwork(package), package.record, list[int]()
    defaults = default_boxes(record.architecture)
    for images in batches:
        with torch.no_grad():
            offsets, logits = network(images)
        found = postprocess(offsets, logits, defaults, torch.ones(len(images), 2), record.thresholds)
        counts += [len(detections.scores) for detections in found]
        outputs = compute(images)
        if part == "network":
            _check_close(network.outputs, (offsets, logits), outputs)
        else:
            limit = record.thresholds.detections_per_img
            for ours, boxes, scores, labels in zip(found, *outputs, strict=True):
                is_there = scores > 0
                _check_same(Detections(boxes[is_there], scores[is_there], labels[is_there]), ours, limit)
    return sum(counts[:num_images])


def _check_close(names: Sequence[str], ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    for name, here, there in zip(names, ours, theirs, strict=True):
        difference = float((here - there).abs().max())
        if not difference <= TOLERANCE * max(1.0, float(here.abs().max())):
            raise ExportError(f"{name} differ by {difference:.2g}")


def _check_same(theirs: Detections, ours: Detections, limit: int) -> None:
    """Check that each detection is one of the other side, too. Those that score as the worst of a full image may be cut off on one side."""
    for one, other in ((theirs, ours), (ours, theirs)):
        is_same = (
            ((one.boxes_xyxy[:, None] - other.boxes_xyxy[None]).abs().amax(dim=2) <= TOLERANCE)
            & ((one.scores[:, None] - other.scores[None]).abs() <= TOLERANCE)
            & (one.labels[:, None] == other.labels[None])
        ).any(dim=1)
        worst = float(other.scores.min()) if len(other.scores) == limit else 0.0
        lost = ~is_same & (one.scores > worst + TOLERANCE)
        if lost.any():
            place = int(lost.int().argmax())
            box = [round(side, 4) for side in one.boxes_xyxy[place].tolist()]
            raise ExportError(
                f"a detection of label {int(one.labels[place])} with score {float(one.scores[place]):.4f} at {box} is on one side alone"
            )
