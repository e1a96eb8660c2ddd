"""Files of a detector, computed by the libraries that their formats are of, against the detector itself."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from jobs.demo import PACKAGE
from jobs.demo.examples import DrawnExamples
from model import export as exporting
from model.config import Format, Part
from model.export import SUFFIXES, Compute, ExportError, check, check_installed, export, load
from model.package import ModelPackage
from model.package_files import PackageError
from model.preprocess import resize

BATCH_SIZE = 2


@pytest.fixture(scope="module")
def package() -> ModelPackage:
    """The demo's detector, with a least score for some classes."""
    found = ModelPackage.from_files({file.name: file.read_bytes() for file in PACKAGE.iterdir()})
    thresholds = found.record.thresholds.model_copy(update={"min_scores": (0.01, 0.6, 0.01, 0.01, 0.9, 0.01)})
    return ModelPackage(found.record.model_copy(update={"thresholds": thresholds}), found.weights)


@pytest.fixture(scope="module")
def batches() -> list[Tensor]:
    images = [resize(DrawnExamples(0, 4)[index].image, 300) for index in range(4)]
    return [torch.stack(images[start : start + BATCH_SIZE]) for start in (0, BATCH_SIZE)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "part"),
    [("onnx", "detector"), ("onnx", "network"), ("openvino", "detector"), ("torch-export", "detector")],
)
def test_a_file_detects_what_the_package_does(
    kind: Format, part: Part, package: ModelPackage, batches: list[Tensor], tmp_path: Path
) -> None:
    path = tmp_path / f"model{SUFFIXES[kind]}"
    export(package, kind, part, BATCH_SIZE, path)
    assert check(package, load(kind, path), part, batches, 4) > 20


def its_own(package: ModelPackage, part: Part) -> Compute:
    module = exporting.ExportedDetector(package) if part == "detector" else exporting.ExportedNetwork(package)
    return lambda images: [output.detach().clone() for output in module(images)]


@pytest.mark.parametrize(
    ("output", "change", "message"),
    [
        (0, lambda boxes: boxes + 0.002, "a detection of label . with score .* is on one side alone"),
        (1, lambda scores: scores * 0.99, "on one side alone"),
        (1, lambda scores: scores * (scores < scores.max()), "on one side alone"),
        (2, lambda labels: labels % 6 + 1, "on one side alone"),
    ],
)
def test_a_detector_that_differs_is_found_out(
    output: int, change: Compute, message: str, package: ModelPackage, batches: list[Tensor]
) -> None:
    right = its_own(package, "detector")
    assert check(package, right, "detector", batches, 4) > 20

    def wrong(images: Tensor) -> list[Tensor]:
        outputs = right(images)
        outputs[output] = change(outputs[output])  # type: ignore[assignment]
        return outputs

    with pytest.raises(ExportError, match=message):
        check(package, wrong, "detector", batches, 4)


@pytest.mark.parametrize("value", [1.5, torch.nan])
def test_a_network_that_differs_is_found_out(value: float, package: ModelPackage, batches: list[Tensor]) -> None:
    right = its_own(package, "network")

    def wrong(images: Tensor) -> list[Tensor]:
        offsets, logits = right(images)
        offsets[1, 7, 2] += value
        return [offsets, logits]

    assert check(package, right, "network", batches, 4) > 20
    with pytest.raises(ExportError, match="offsets differ by"):
        check(package, wrong, "network", batches, 4)


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(PackageError, match=r"the format onnx needs onnxscript: pip install 'ssd-batch\[export"):
        check_installed("onnx")
    check_installed("torch-export")
