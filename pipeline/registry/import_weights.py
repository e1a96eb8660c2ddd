"""Turn weights of other projects into a model package."""

import hashlib
import pickle
import re
import sys
from contextlib import redirect_stdout
from typing import Any
from urllib.parse import urlsplit

from torch import Tensor
from torchvision.models import get_weight

from model.import_weights import PreprocessingName, import_weights
from model.package import ModelPackage
from model.weights_file import WeightsError, read_weights
from pipeline.errors import SettingError, reason
from pipeline.inputs.class_names import read_class_names
from pipeline.registry.packages import check_free, write_package
from pipeline.registry.settings import ImportSettings
from pipeline.storage import store
from pipeline.urls import absolute

TORCHVISION: dict[str, PreprocessingName | None] = {
    "SSD300_VGG16_Weights.COCO_V1": None,
    "VGG16_Weights.IMAGENET1K_V1": "imagenet",
    "VGG16_BN_Weights.IMAGENET1K_V1": "imagenet",
    "VGG16_Weights.IMAGENET1K_FEATURES": "caffe",
}
"""The names of torchvision's weights that we can use, each with the preprocessing of pixels that weights of VGG16 need."""


def import_model(settings: ImportSettings) -> dict[str, Any]:
    """Read weights, write them as a package, and return what was made.

    Raises:
        SettingError: the weights can't be read or used, or the package can't be written.
    """
    check_free(settings.output)
    class_names = read_class_names(settings.class_names) if settings.class_names else None
    normalisation = settings.preprocessing
    try:
        if re.fullmatch(r"\w+_Weights\.[A-Z0-9_]+", settings.weights):
            tensors, provenance = _download(settings.weights)
            normalisation = normalisation or TORCHVISION[settings.weights]
        else:
            data = _read(settings.weights)
            tensors = read_weights(data)
            provenance = {"file": _file_name(settings.weights), "sha256": hashlib.sha256(data).hexdigest()}
        package = import_weights(tensors, settings.name, class_names, normalisation, provenance)
    except WeightsError as error:
        raise SettingError(f"weights {_file_name(settings.weights)!r} can't be used: {error}") from error
    record = package.record
    preprocessing = record.preprocessing.model_copy(update={"jpeg_dct_scaling": settings.jpeg_dct_scaling})
    package = ModelPackage(record.model_copy(update={"preprocessing": preprocessing}), package.weights)
    write_package(package, settings.output)
    return {
        "output": settings.output,
        "source": package.record.provenance["source"],
        "num_classes": len(package.record.class_names),
        "model_digest": package.digest,
    }


def _file_name(url: str) -> str:
    """Return the last part of a path or URL. The text before or after that part may be a password or a signature."""
    path = urlsplit(url).path if "://" in url else url
    return path.rstrip("/").rpartition("/")[2]


def _read(url: str) -> bytes:
    try:
        return store.read(absolute(url))
    except OSError as error:
        why = re.sub(r"\w+://[^\s'\"]+", _file_name(url), reason(error))
        raise SettingError(f"weights {_file_name(url)!r} can't be read: {why}") from error


def _download(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return weights that torchvision knows by name, from its cache or its server, and their provenance."""
    if name not in TORCHVISION:
        raise SettingError(f"weights {name!r} are none that can be imported; give a file or {', '.join(TORCHVISION)}")
    weights = get_weight(name)
    try:
        with redirect_stdout(sys.stderr):  # torch prints what it downloads
            tensors = weights.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise SettingError(
            f"weights {name!r} can't be downloaded: {reason(error)}; get {weights.url} elsewhere and give the file"
        ) from error
    return tensors, {"weights": name, "url": weights.url}
