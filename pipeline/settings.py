"""The settings that several commands share; flags, specs and the schema are made from these classes."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, model_validator

from model.config import Frozen, Precision


@dataclass(frozen=True)
class Metavar:
    """The word that stands for a setting's value in a command's help, where the type alone does not say it."""

    text: str


Place = Annotated[str, Metavar("PATH_OR_URL")]
"""The type of a setting that names a file or a folder, anywhere."""
Url = Annotated[str, Field(min_length=1), Metavar("PATH_OR_URL")]
"""The same, where it must be given."""
Name = Annotated[str, Field(min_length=1), Metavar("NAME")]


def _basic_form(value: Any) -> Any:
    """Return digits as the date that they are in the basic form of ISO 8601. Pydantic takes them for seconds since 1970."""
    if not isinstance(value, bool) and str(value).strip().isdigit():
        try:
            return date.fromisoformat(str(value).strip())
        except ValueError as error:
            raise ValueError("give a date, or a date and a time, as 2026-01-31 or 2026-01-31T02:00") from error
    return value


IsoTime = Annotated[datetime, BeforeValidator(_basic_form)]
IsoDay = Annotated[date, BeforeValidator(_basic_form)]
"""The types of settings that are a time or a day in ISO 8601."""

LOCAL, LOCAL_RAY = "local", "local-ray"
"""The addresses that stand for this machine alone."""


class ClusterSettings(Frozen):
    """The settings of the place where the work is done."""

    heading: ClassVar[str] = "Cluster"
    """The title of its flags in a command's help."""

    address: Annotated[str, Metavar("ADDRESS")] = LOCAL
    """Cluster to work on. "local" is this machine; detection there uses Ray only if it has GPUs. "local-ray" starts
    a Ray cluster on this machine. "auto" joins the cluster that this machine belongs to; where it belongs to
    several, host:port says which."""
    require_gpu: bool = False
    """Stop if there is no GPU, instead of using CPU cores."""
    node_wait_s: Annotated[float, Field(ge=0, le=86_400)] = 60.0
    """Seconds to wait for missing nodes of a cluster, which an autoscaler is asked to start. A local cluster is not waited for."""


class DetectionSettings(ClusterSettings):
    """The settings of detection, in a run and in an evaluation."""

    num_detectors: Annotated[int, Field(ge=0)] = 0
    """Number of detectors; the maximum if min_detectors is set. 0 means detectors_per_gpu on each GPU, or one per core
    without GPUs."""
    detectors_per_gpu: Annotated[int, Field(ge=1, le=8)] = 1
    """Number of detectors that share a GPU. While one prepares a batch, another computes. Each takes its own memory on
    the GPU."""
    min_detectors: Annotated[int, Field(ge=1)] | None = None
    """Number of detectors to start with on Ray. More are added up to num_detectors while there is work, and an
    autoscaler is asked for their nodes. Without Ray, all detectors start at once."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Images per forward pass. Without it, 64 on a GPU and 8 on a CPU core."""
    precision: Precision = "auto"
    """Type in which the network computes. auto takes int8 for a quantized package, and else the fastest type that
    the hardware has. Detections of another type differ a little, so a table should keep to one."""

    @model_validator(mode="after")
    def _detectors_in_order(self) -> "DetectionSettings":
        if self.min_detectors and self.min_detectors > self.num_detectors:
            raise ValueError(f"min_detectors {self.min_detectors} needs a num_detectors of as many or more")
        return self


class InputSettings(DetectionSettings):
    """The settings of the images to detect in."""

    heading: ClassVar[str] = "Images"

    input: Annotated[tuple[Url, ...], Field(min_length=1)]
    """Images to process: a folder, glob, s3://bucket/prefix, any fsspec URL, or a list. A list is .parquet, .csv,
    .jsonl or .json with a column uri, or .txt with one name per line (text also as .gz). An S3 Inventory's
    manifest.json is a list, too. May be given several times."""
    all_files: bool = False
    """Process all files in folders and prefixes, not only those with the suffix of an image."""
    sample: Annotated[int, Field(ge=1)] | None = None
    """Process only this many images: a fixed sample, chosen by a hash of their URIs."""
    test_time_flip: bool = False
    """Detect in each image and in its mirror image. It takes twice as long, and finds a little more as a rule. The digest
    of the results stands for it."""
    max_pixels: Annotated[int, Field(ge=1)] = 200_000_000
    """Largest number of pixels of an image. Larger images are not decoded, and recorded as failed."""
