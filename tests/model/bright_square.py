"""One picture, and how little is done to it, so that a few steps learn it."""

import torch

from model.config import Preprocessing, TrainingSettings
from model.example import Example, plain_truth

PREPROCESSING = Preprocessing(std=(0.229, 0.224, 0.225))
SETTINGS = TrainingSettings(num_steps=3, batch_size=2, warmup_steps=0, zoom_out_max=1, crop_min=1)


def bright_square() -> Example:
    image = torch.full((3, 80, 80), 60, dtype=torch.uint8)
    image[:, 20:60, 10:50] = 220
    return Example(image, plain_truth(torch.tensor([[10.0, 20.0, 50.0, 60.0]]), torch.tensor([1])))
