"""The settings of `train`; flags, specs and the schema are made from these classes."""

from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from model.config import Architecture, ArchitectureName, TrainingSettings
from pipeline.settings import ClusterSettings, Metavar, Name, Place, Url

RANDOM = "random"
"""The `init` of a training that starts from nothing."""


class ClusterTraining(TrainingSettings, ClusterSettings):
    """The recipe of a training, and how the cluster follows it."""

    heading: ClassVar[str] = "Workers and checkpoints"

    num_workers: Annotated[int, Field(ge=0)] = 0
    """Number of training workers, which share each batch. 0 means one per GPU, or a single one without GPUs."""
    min_workers: Annotated[int, Field(ge=1)] | None = None
    """Smallest number of workers: training continues with this many while the cluster has no more, and uses up to
    num_workers when it has."""
    checkpoint_every_steps: Annotated[int, Field(ge=1)] = 250
    """Steps between checkpoints: a crash can lose this many. The last step makes a checkpoint, too."""
    validate_every_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps between measurements on the held-out images. If set, the checkpoint with the best map50 becomes the
    package, not the last one."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Number of measurements in a row without a better map50 after which the training ends. Needs validate_every_steps."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """Number of checkpoints to keep: the best measured ones if validate_every_steps is set, else the newest. The
    last one is always kept."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """Number of times that a run resumes from its last checkpoint after a worker has failed or died."""
    restart: bool = False
    """Start anew instead of resuming a stopped run of this name, and delete its checkpoints."""
    tensorboard: Place | None = None
    """Folder or URL for TensorBoard's event files; give each training its own. Needs the extra tensorboard."""
    mlflow: Annotated[str, Metavar("URI")] | None = None
    """URI of an MLflow server that records the training as a run, such as http://host:5000. Needs the extra mlflow."""

    @model_validator(mode="after")
    def _fit_together(self) -> "ClusterTraining":
        if self.min_workers and self.min_workers > (self.num_workers or self.min_workers - 1):
            raise ValueError(f"min_workers {self.min_workers} needs a num_workers of as many or more")
        if self.patience and not self.validate_every_steps:
            raise ValueError("patience counts measurements; give validate_every_steps, too")
        if self.num_workers > self.batch_size:
            raise ValueError(
                f"num_workers {self.num_workers} are more than batch_size {self.batch_size}; take fewer, or a larger batch"
            )
        return self


class TrainSettings(ClusterTraining):
    """The settings of a training."""

    heading: ClassVar[str] = "Data and package"

    data: Annotated[tuple[Url, ...], Field(min_length=1)]
    """Labelled images: a folder or URL in the layout of Pascal VOC, COCO, YOLO, LabelMe, CVAT or Open Images, or a file
    such as data.yaml. May be given several times."""
    output: Url
    """Folder or URL to write the model package to."""
    name: Name
    """Name of the model, and of its training run. The same command resumes a stopped run from its last checkpoint."""
    storage: Place | None = None
    """Folder or URL for checkpoints, which all nodes must reach. If not set: <output>/_runs."""
    train_split: Annotated[str, Metavar("NAME")] = "train"
    """Split to learn from: the name of a list, a file or a folder of the data. Data without splits has train and val."""
    val_split: Annotated[str, Metavar("NAME")] = "val"
    """Split of held-out images, named as train_split is. It is measured on at the end, and every validate_every_steps."""
    epochs: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """Number of passes over the images to learn from, instead of num_steps."""
    architecture: ArchitectureName = "ssd300_vgg16"
    """Network to train: ssd300_vgg16, or ssd512_vgg16 for smaller objects at about three times the work."""
    width: Annotated[float, Field(gt=0, le=4)] = 0.25
    """Factor by which the channels of all layers are multiplied; 1 is VGG16."""
    scales: tuple[float, ...] = ()
    """Sizes of the default boxes, as shares of the image: one per feature map, and one more (7 for ssd300_vgg16, 8
    for ssd512_vgg16). If not set: those of the architecture. May be given several times."""
    jpeg_dct_scaling: bool = False
    """Decode large JPEGs at 1/4 or 1/8 of their size, wherever at least twice the input's pixels per side remain; in
    training, after the smallest crop. It is part of the model's digest."""
    follow_data: bool = True
    """Take zoom_out_max, crop_min, class_weights and match_iou from the sizes and counts of the objects to learn, unless
    they are given. Otherwise their defaults count."""
    init: Place | None = None
    """Model package to start from: a trunk, or a detector, whose heads are kept for the classes that both have. The
    training takes over its width, batch norm and preprocessing (jpeg_dct_scaling may be set anew). Without batch norm,
    the learning_rate is 0.001 unless it is set. If not set: the demo's model, if the width is 0.25. "random" starts
    from nothing."""
    class_names: Place | None = None
    """File with the classes to learn, one per line. Objects of other classes are left out; their images stay. If not
    set: all classes of the train split."""
    num_seeds: Annotated[int, Field(ge=1, le=100)] = 1
    """Number of trainings, one after the other, with the seeds from seed on. Each has a folder of output, such as seed-0.
    The mean and the spread of their figures are printed."""
    class_map: dict[str, Name] = Field(default_factory=dict)
    """Names that classes of init have in the data, such as person=pedestrian, so that their heads are kept."""

    @model_validator(mode="after")
    def _scales_of_the_architecture(self) -> "TrainSettings":
        if self.init in (None, RANDOM) or "architecture" in self.model_fields_set:  # else the start says what it is
            Architecture(kind=self.architecture, **self.default_boxes)
        return self

    @model_validator(mode="after")
    def _one_length(self) -> "TrainSettings":
        if self.epochs and "num_steps" in self.model_fields_set:
            raise ValueError(
                f"epochs {self.epochs:g} and num_steps {self.num_steps} both say how long to train; give one"
            )
        return self

    @property
    def default_boxes(self) -> dict[str, Any]:
        """The settings of an `Architecture` that are given here rather than by its kind."""
        return {"scales": self.scales} if self.scales else {}


RESUMABLE = frozenset(
    {"num_workers", "min_workers", "checkpoint_every_steps", "validate_every_steps", "keep_checkpoints", "max_failures", "patience",
     "restart", "tensorboard", "mlflow", "address", "require_gpu", "node_wait_s", "compile", "grad_accumulation"}
)  # fmt: skip
"""The settings that may change between a run's start and its resumption. They change neither what is learned, nor from which data."""
