"""Settings of jobs whose own modules take seconds to import."""

from typing import Annotated

from pydantic import Field

from model.config import Kind, TrainingSettings


class TrainSettings(TrainingSettings):
    """Every knob of a training."""

    data: Annotated[str, Field(min_length=1)]
    """Labelled images: a folder in Pascal VOC's layout."""
    output: Annotated[str, Field(min_length=1)]
    """Folder or URL that the model package is written to."""
    name: Annotated[str, Field(min_length=1)]
    """The model's name."""
    train_split: str = "train"
    """Images to learn from: a file of ImageSets/Main."""
    val_split: str = "val"
    """Images to measure on at the end: a file of ImageSets/Main."""
    architecture: Kind = "ssd300_vgg16"
    """The network: ssd300_vgg16, or ssd512_vgg16 for smaller objects at about three times the work."""
    width: Annotated[float, Field(gt=0, le=4)] = 0.25
    """Multiplies the channels of all layers; 1 is VGG16."""
