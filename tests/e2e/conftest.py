"""A small model for the whole command."""

from pathlib import Path

import pytest
import torch

from model.config import Architecture, Thresholds
from model.package import ModelPackage
from model.package_files import PackageRecord
from model.ssd import SSD


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package small enough that only the pipeline takes time; it finds something in any picture."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    record = PackageRecord(
        name="tiny",
        architecture=Architecture(width=0.05),
        class_names=("a", "b"),
        thresholds=Thresholds(score_thresh=0.3, detections_per_img=5),
    )
    package = ModelPackage(record, SSD(record.architecture, 3).state_dict())
    for name, content in package.to_files().items():
        (folder / name).write_bytes(content)
    return folder
