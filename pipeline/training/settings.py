"""The settings of `train`; flags, specs and the schema are made from these classes."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from model.config import Architecture, ArchitectureName, TrainingSettings
from pipeline.settings import ClusterSettings


class ClusterTraining(TrainingSettings, ClusterSettings):
    """The recipe, and how the cluster follows it."""

    num_workers: Annotated[int, Field(ge=0)] = 0
    """Training workers, each with its part of each batch; 0 = one a GPU, or one where there is no GPU."""
    min_workers: Annotated[int, Field(ge=1)] | None = None
    """Go on with as few as this while the cluster has no more, and with up to num_workers when it has."""
    checkpoint_every_steps: Annotated[int, Field(ge=1)] = 500
    """Steps between checkpoints: what a crash can lose. There is one at the end, too."""
    validate_every_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps between measurements on the held-out images; the best checkpoint by map50 then becomes the package, not the last."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """Checkpoints that are kept beside the last one: the best measured, or else the last."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """Times that a run goes on from its last checkpoint after a worker has failed or died."""
    restart: bool = False
    """Begin anew where an earlier run of this name was stopped, and forget its checkpoints."""
    tensorboard: str | None = None
    """Folder or URL for TensorBoard's event files, a folder a training; needs the extra tensorboard."""
    mlflow: str | None = None
    """URI of an MLflow server, such as http://host:5000, that gets a run; needs the extra mlflow."""

    @model_validator(mode="after")
    def _workers_in_order(self) -> "ClusterTraining":
        if self.min_workers and self.min_workers > (self.num_workers or self.min_workers - 1):
            raise ValueError(f"min_workers {self.min_workers} needs a num_workers of as many or more")
        if self.num_workers > self.batch_size:
            raise ValueError(
                f"num_workers {self.num_workers} are more than batch_size {self.batch_size}; take fewer, or a larger batch"
            )
        return self


class TrainSettings(ClusterTraining):
    """Every knob of a training."""

    data: Annotated[tuple[str, ...], Field(min_length=1)]
    """Labelled images: a folder or URL in Pascal VOC's or COCO's layout, or a VOCdevkit; may be given several times."""
    output: Annotated[str, Field(min_length=1)]
    """Folder or URL that the model package is written to."""
    name: Annotated[str, Field(min_length=1)]
    """The model's name, and the run's: the same command goes on at the last checkpoint of a run that was stopped."""
    storage: str | None = None
    """Folder or URL for checkpoints, which all nodes must reach; <output>/_runs unless given."""
    train_split: str = "train"
    """Images to learn from: a file of ImageSets/Main, or annotations/instances_<split>.json."""
    val_split: str = "val"
    """Images to measure on at the end, as train_split."""
    architecture: ArchitectureName = "ssd300_vgg16"
    """The network: ssd300_vgg16, or ssd512_vgg16 for smaller objects at about three times the work."""
    width: Annotated[float, Field(gt=0, le=4)] = 0.25
    """Multiplies the channels of all layers; 1 is VGG16."""
    scales: tuple[float, ...] = ()
    """Default boxes' sizes, map by map, as shares of the image, and one more; the architecture's own unless given."""
    init: str | None = None
    """Package to start from: a trunk, or a detector whose heads are kept where they fit. Its width, batch norm and
    preprocessing are the training's; without batch norm, take a learning rate about 0.001."""

    @model_validator(mode="after")
    def _scales_of_the_architecture(self) -> "TrainSettings":
        Architecture(kind=self.architecture, **self.default_boxes)
        return self

    @property
    def default_boxes(self) -> dict[str, Any]:
        """What of an `Architecture` is given here rather than by its kind."""
        return {"scales": self.scales} if self.scales else {}


RESUMABLE = frozenset(
    {"num_workers", "min_workers", "checkpoint_every_steps", "validate_every_steps", "keep_checkpoints", "max_failures",
     "restart", "tensorboard", "mlflow", "address", "require_gpu", "node_wait_s", "compile", "grad_accumulation"}
)  # fmt: skip
"""Settings that may change between a run's start and its resumption: they do not change what is learned from what."""
