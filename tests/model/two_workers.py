"""The same batches learned by one process and by two: prints the losses. `python two_workers.py NUM_WORKERS PORT`.

With DEVICE=cuda each has a GPU of its own, and batch norm, whose statistics are those of the whole batch there.
"""

import json
import os
import sys

import torch
from torch import Tensor, distributed
from torch.multiprocessing.spawn import spawn

from model.config import Architecture, Preprocessing, TrainingSettings
from model.loss import Targets
from model.order import share_of
from model.package_files import PackageRecord
from model.prepare import Batch
from model.ssd import SSD
from model.step import TrainingStep

RECORD = PackageRecord(
    name="two",
    architecture=Architecture(width=0.05),
    class_names=("a", "b"),
    preprocessing=Preprocessing(std=(0.2,) * 3),
)
SETTINGS = TrainingSettings(num_steps=3, batch_size=5, warmup_steps=0, learning_rate=0.001)


def batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Five images, the first of one object and the others of two."""
    generator = torch.Generator().manual_seed(step)
    images = torch.randint(0, 256, (5, 3, 300, 300), dtype=torch.uint8, generator=generator)
    low = torch.rand(5, 2, 2, generator=generator) / 2
    boxes = torch.cat((low, low + 0.1 + 0.4 * torch.rand(5, 2, 2, generator=generator)), dim=2)
    return images, boxes, torch.tensor([[1, 0]] + [[1, 2]] * 4)


def learn(rank: int, num_workers: int, port: int) -> None:
    torch.set_num_threads(1)
    device = torch.device(os.environ.get("DEVICE", "cpu"), rank if "DEVICE" in os.environ else None)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if num_workers > 1:
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, f"tcp://127.0.0.1:{port}", rank=rank, world_size=num_workers)
    torch.manual_seed(rank)  # the first worker's weights are everyone's
    architecture = RECORD.architecture.model_copy(update={"batch_norm": device.type == "cuda"})
    network = SSD(architecture, num_classes=3).to(device)
    accumulation = int(os.environ.get("GRAD_ACCUMULATION", "1"))
    settings = SETTINGS.model_copy(update={"grad_accumulation": accumulation})
    step_on = TrainingStep(network, RECORD, settings)
    step_on._dtype = torch.float32
    share = share_of(rank, num_workers, SETTINGS.batch_size)
    mine = slice(share.start, share.start + share.size)
    losses = []
    for step in range(SETTINGS.num_steps):
        images, boxes, labels = batch(step)
        found = step_on(step, Batch(images[mine], Targets(boxes[mine], labels[mine])))
        losses.append([found.localization.item(), found.classification.item()])
    if rank == num_workers - 1:
        norm = torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).norm().item()
        print(json.dumps({"losses": losses, "norm": norm}))
    if num_workers > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    count, port = int(sys.argv[1]), int(sys.argv[2])
    if count == 1:
        learn(0, 1, port)
    else:
        spawn(learn, args=(count, port), nprocs=count)
