"""Decode files, and print how much memory each took at its peak."""

import os
import resource
import sys
from pathlib import Path

import torch

from model import torchvision_ops
from model.preprocess import resize
from pipeline.images.decode import decode_stored, turn

torch.set_num_threads(1)
torchvision_ops._load("image", "torchvision.io")  # so that its code does not count for a picture's memory


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


for name in sys.argv[1:]:
    data = Path(name).read_bytes()
    if os.fork() == 0:
        before = peak_bytes()
        stored = decode_stored(data)
        turn(resize(stored.pixels, 300), stored.orientation)
        print(name, (peak_bytes() - before) / (stored.size_px[0] * stored.size_px[1]), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
