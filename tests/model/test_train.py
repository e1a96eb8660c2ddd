import math
import os
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from torch import Tensor

from model.config import Architecture, Preprocessing, TrainingSettings
from model.detector import fast_dtype
from model.example import Example, plain_truth
from model.loss import Losses, Targets
from model.ssd import SSD
from model.train import NotFiniteError, TrainingExamples, TrainingStep, collate, learning_rate, train, training_dtype

ARCHITECTURE = Architecture(width=0.1, batch_norm=True)
PREPROCESSING = Preprocessing(std=(0.229, 0.224, 0.225))
SETTINGS = TrainingSettings(num_steps=3, batch_size=2, warmup_steps=0, num_workers=0, rescale=False)


def bright_square() -> Example:
    image = torch.full((3, 80, 80), 60, dtype=torch.uint8)
    image[:, 20:60, 10:50] = 220
    return Example(image, plain_truth(torch.tensor([[10.0, 20.0, 50.0, 60.0]]), torch.tensor([1])))


def run(settings: TrainingSettings, examples: Sequence[Example] | None = None) -> tuple[SSD, list[Losses]]:
    history: list[Losses] = []
    examples = examples or [bright_square()]
    network = train(
        examples, ARCHITECTURE, PREPROCESSING, 2, settings, lambda step, losses, rate: history.append(losses)
    )
    return network, history


@pytest.fixture(scope="module")
def trained() -> tuple[SSD, list[Losses]]:
    return run(SETTINGS)


def weights(network: SSD) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def batch() -> tuple[Tensor, Targets]:
    return torch.zeros(2, 3, 300, 300, dtype=torch.uint8), Targets(
        torch.tensor([[[0.1, 0.1, 0.6, 0.6]], [[0.0, 0.0, 0.0, 0.0]]]), torch.tensor([[1], [0]])
    )


def test_learning_rate():
    settings = TrainingSettings(num_steps=14, warmup_steps=4, learning_rate=0.8)
    rates = [learning_rate(step, settings) for step in (0, 1, 2, 3, 4, 9, 14)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.4, 0.0])


def test_learning_rate_of_a_run_shorter_than_its_warm_up():
    settings = TrainingSettings(num_steps=2, warmup_steps=4, learning_rate=0.8)
    assert [learning_rate(step, settings) for step in (0, 1)] == pytest.approx([0.2, 0.4])


def test_a_few_steps_learn_one_picture(trained):
    network, history = trained
    assert not network.training
    assert len(history) == SETTINGS.num_steps
    assert history[-1].total < 0.8 * history[0].total
    assert not any(losses.total.requires_grad for losses in history)


def test_the_same_seed_gives_the_same_weights(trained):
    again, _ = run(SETTINGS)
    assert torch.equal(weights(again), weights(trained[0]))


def test_another_seed_is_another_training(trained):
    _, history = run(SETTINGS.model_copy(update={"num_steps": 1, "seed": 1}))
    assert history[0].total != trained[1][0].total


def test_worker_processes_read_and_augment():
    settings = SETTINGS.model_copy(update={"num_steps": 2, "num_workers": 1})
    _, history = run(settings, [bright_square()] * 3)
    assert [math.isfinite(losses.total) for losses in history] == [True, True]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted in /proc")
def test_examples_go_to_workers_without_a_file_for_each_tensor():
    dataset = TrainingExamples([bright_square() for _ in range(100)], 300, PREPROCESSING, SETTINGS)
    before = len(os.listdir("/proc/self/fd"))
    pickled = ForkingPickler.dumps(dataset)
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(ForkingPickler.loads(pickled)) == 100


def test_examples_are_resized_and_their_boxes_shares():
    """Half the time flipped: 10 to 50 of 80 px is 30 to 70 then."""
    torch.manual_seed(0)
    dataset = TrainingExamples([bright_square()], 300, PREPROCESSING, SETTINGS)
    seen = set()
    for _ in range(20):
        image, boxes, labels = dataset[0]
        assert image.shape == (3, 300, 300)
        assert labels.tolist() == [1]
        seen.add(tuple(boxes[0].tolist()))
    assert seen == {(0.125, 0.25, 0.625, 0.75), (0.375, 0.25, 0.875, 0.75)}


def test_crowds_are_not_learned_from():
    plain = bright_square()
    boxes, labels = torch.cat((plain.truth.boxes_xyxy, torch.tensor([[0.0, 0.0, 80.0, 80.0]]))), torch.tensor([1, 2])
    crowd = replace(plain_truth(boxes, labels), is_crowd=torch.tensor([False, True]))
    ((_, _, found),) = TrainingExamples([Example(plain.image, crowd)], 300, PREPROCESSING, SETTINGS)
    assert found.tolist() == [1]


def test_collate_pads_objects_with_label_0():
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    box = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    images, targets = collate(
        [
            (image, box, torch.tensor([5])),
            (image, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
            (image, box.repeat(2, 1), torch.tensor([6, 7])),
        ]
    )
    assert images.shape == (3, 3, 4, 4)
    assert targets.boxes_xyxy.shape == (3, 2, 4)
    assert targets.labels.tolist() == [[5, 0], [0, 0], [6, 7]]


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched():
    torch.manual_seed(0)
    network = SSD(ARCHITECTURE, num_classes=2)
    with torch.no_grad():
        network.classification[0].bias[0] = math.nan
    before = [parameter.detach().clone() for parameter in network.parameters()]
    step_on = TrainingStep(network, ARCHITECTURE, PREPROCESSING, SETTINGS)
    with pytest.raises(NotFiniteError, match="the loss is nan at step 3"):
        step_on(3, *batch())
    for parameter, old in zip(network.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), old, rtol=0, atol=0, equal_nan=True)


def test_a_step_without_objects_leaves_the_loss_at_zero():
    torch.manual_seed(0)
    network = SSD(ARCHITECTURE, num_classes=2)
    step_on = TrainingStep(network, ARCHITECTURE, PREPROCESSING, SETTINGS)
    images, _ = batch()
    none = Targets(torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.int64))
    assert step_on(0, images, none).total == 0
    assert weights(network).isfinite().all()


def test_ssd512_learns_at_512():
    history = []
    architecture = Architecture(kind="ssd512_vgg16", width=0.1, batch_norm=True)
    dataset = TrainingExamples([bright_square()], architecture.image_size_px, PREPROCESSING, SETTINGS)
    assert dataset[0][0].shape == (3, 512, 512)
    network = train(
        [bright_square()],
        architecture,
        PREPROCESSING,
        2,
        SETTINGS,
        lambda _, losses, rate: history.append(losses.total),
    )
    assert len(network.localization) == 7
    assert history[-1] < 0.7 * history[0]


def test_gradients_of_ssd512_are_right_in_the_type_that_it_trains_in():
    """conv6 at width 0.05: 24 channels in, no multiple of 16."""
    architecture = Architecture(kind="ssd512_vgg16", width=0.05)
    dtype = training_dtype(torch.device("cpu"), architecture)
    torch.manual_seed(0)
    conv6 = SSD(architecture, num_classes=2).conv6[0].to(memory_format=torch.channels_last)
    maps = torch.randn(2, 24, 32, 32).to(memory_format=torch.channels_last)
    gradients = []
    for enabled in (False, dtype != torch.float32):
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            (gradient,) = torch.autograd.grad(conv6(maps).float().square().sum(), conv6.weight)
        gradients.append(gradient)
    torch.testing.assert_close(gradients[1], gradients[0], atol=0.02 * gradients[0].abs().max().item(), rtol=0)


def test_wide_networks_train_in_the_hardwares_type():
    for architecture in (Architecture(kind="ssd512_vgg16"), Architecture(width=0.05)):
        assert training_dtype(torch.device("cpu"), architecture) == fast_dtype(torch.device("cpu"))


def test_a_training_starts_from_the_weights_that_it_gets():
    start = {"trunk.0.weight": torch.full((8, 3, 3, 3), 0.25)}
    still = SETTINGS.model_copy(update={"num_steps": 1, "learning_rate": 1e-12, "weight_decay": 0})
    network = train([bright_square()], ARCHITECTURE, PREPROCESSING, 2, still, lambda *_: None, weights=start)
    fresh = train([bright_square()], ARCHITECTURE, PREPROCESSING, 2, still, lambda *_: None)
    torch.testing.assert_close(network.trunk[0].weight.detach(), start["trunk.0.weight"])
    torch.testing.assert_close(network.trunk[3].weight, fresh.trunk[3].weight)
