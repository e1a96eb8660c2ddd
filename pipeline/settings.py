"""The settings that several commands share; flags, specs and the schema are made from these classes."""

from typing import Annotated

from pydantic import Field, model_validator

from model.config import Frozen

LOCAL, LOCAL_RAY = "local", "local-ray"
"""The addresses of this machine alone."""


class ClusterSettings(Frozen):
    """Where work is done."""

    address: str = LOCAL
    """Where work is done: "local" is this machine, where processes do it without Ray unless it has GPUs; "local-ray" is a Ray cluster of one's own on this machine; "auto" is the cluster this machine belongs to; or host:port of a cluster."""
    require_gpu: bool = False
    """Stop where there is no GPU, instead of using cores."""
    node_wait_s: Annotated[float, Field(ge=0, le=86_400)] = 60.0
    """Seconds that a cluster, unless it is a local one, is given to start the nodes that are needed; an autoscaler is asked for them."""


class DetectionSettings(ClusterSettings):
    """How many detectors, and of what batch size, in a run and in an evaluation."""

    num_detectors: Annotated[int, Field(ge=0)] = 0
    """Number of detectors; the maximum if min_detectors is set. 0 means one per GPU, or one per core without GPUs."""
    min_detectors: Annotated[int, Field(ge=1)] | None = None
    """On Ray, start with this many detectors, and add others up to num_detectors as there is work; an autoscaler is asked for their nodes. Without Ray all start at once."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 8
    """Images a forward pass."""

    @model_validator(mode="after")
    def _detectors_in_order(self) -> "DetectionSettings":
        if self.min_detectors and self.min_detectors > self.num_detectors:
            raise ValueError(f"min_detectors {self.min_detectors} needs a num_detectors of as many or more")
        return self


class InputSettings(DetectionSettings):
    """What to detect in."""

    input: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    """Folder, glob, s3://bucket/prefix, any fsspec URL, or a list: .parquet, .csv, .jsonl or .json with a column uri, .txt with a name a line (these
    also as .gz), or an S3 Inventory's manifest.json; may be given several times."""
    all_files: bool = False
    """Take all files of folders and prefixes, not only those with an image's suffix."""
    sample: Annotated[int, Field(ge=1)] | None = None
    """Take only so many of the listed images: whichever a hash of their names picks, the same ones each time."""
    max_pixels: Annotated[int, Field(ge=1)] = 200_000_000
    """Pictures of more pixels are failures, and not decoded."""
