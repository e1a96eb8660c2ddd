import io
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.config import Architecture, TrainingSettings
from model.engine import fast_dtype
from model.loss import Losses, Targets
from model.order import share_of
from model.package_files import PackageRecord
from model.prepare import Batch, Preparation, to_batch
from model.ssd import SSD
from model.step import (
    NotFiniteError,
    TrainingStep,
    can_compile,
    class_weights,
    learning_rate,
    num_parts,
    parameter_groups,
    training_dtype,
)
from tests.model.bright_square import PREPROCESSING, SETTINGS, bright_square

ARCHITECTURE = Architecture(width=0.1, batch_norm=True)
RECORD = PackageRecord(name="one", architecture=ARCHITECTURE, class_names=("square",), preprocessing=PREPROCESSING)


def prepared_batch(step: int, image_size_px: int = 300) -> Batch:
    preparation = Preparation(image_size_px, PREPROCESSING, SETTINGS)
    return to_batch([preparation(bright_square(), 2 * step + i) for i in (0, 1)])


def run(settings: TrainingSettings = SETTINGS, architecture: Architecture = ARCHITECTURE) -> tuple[SSD, list[Losses]]:
    """Learn one picture over and over."""
    torch.manual_seed(0)
    network = SSD(architecture, num_classes=2).to(memory_format=torch.channels_last)
    step_on = TrainingStep(network, RECORD.model_copy(update={"architecture": architecture}), settings)
    batches = (prepared_batch(step, architecture.image_size_px) for step in range(settings.num_steps))
    return network, [step_on(step, some) for step, some in enumerate(batches)]


@pytest.fixture(scope="module")
def trained() -> tuple[SSD, list[Losses]]:
    return run()


def weights(network: SSD) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def batch() -> Batch:
    targets = Targets(torch.tensor([[[0.1, 0.1, 0.6, 0.6]], [[0.0, 0.0, 0.0, 0.0]]]), torch.tensor([[1], [0]]))
    return Batch(torch.zeros(2, 3, 300, 300, dtype=torch.uint8), targets)


def test_learning_rate():
    settings = TrainingSettings(num_steps=14, warmup_steps=4, learning_rate=0.8)
    rates = [learning_rate(step, settings) for step in (0, 1, 2, 3, 4, 9, 14)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.4, 0.0])


def test_learning_rate_in_steps():
    settings = TrainingSettings(
        num_steps=12, warmup_steps=2, learning_rate=0.8, schedule="multistep", milestones=(8, 10)
    )
    rates = [learning_rate(step, settings) for step in (0, 1, 2, 7, 8, 9, 10, 11)]
    assert rates == pytest.approx([0.4, 0.8, 0.8, 0.8, 0.08, 0.08, 0.008, 0.008])


def test_learning_rate_of_a_run_shorter_than_its_warm_up():
    settings = TrainingSettings(num_steps=2, warmup_steps=4, learning_rate=0.8)
    assert [learning_rate(step, settings) for step in (0, 1)] == pytest.approx([0.2, 0.4])


def test_class_weights_by_name():
    settings = TrainingSettings(class_weights={"dog": 3, "cat": 0.5})
    assert class_weights(settings, ("bird", "cat", "dog")).tolist() == [1, 1, 0.5, 3]
    with pytest.raises(ValueError, match="class_weights: no class is named cat, dog; there are bird, fish"):
        class_weights(settings, ("bird", "fish"))


def test_a_step_heeds_class_weights_and_the_overlap_that_matches():
    """Seen in the first step's loss: the weights that the network starts from are the same."""

    def first_loss(**changed: object) -> Losses:
        (losses,) = run(SETTINGS.model_copy(update={"num_steps": 1, **changed}))[1]
        return losses

    plain, heavy, loose = first_loss(), first_loss(class_weights={"square": 3.0}), first_loss(match_iou=0.3)
    torch.testing.assert_close(heavy.localization, 3 * plain.localization)
    assert plain.classification < heavy.classification < 3 * plain.classification
    assert not torch.isclose(loose.localization, plain.localization, rtol=0.01)


def test_a_few_steps_learn_one_picture():
    _, history = run(SETTINGS.model_copy(update={"num_steps": 8}))
    assert len(history) == 8
    assert history[-1].total < 0.5 * history[0].total
    assert not any(losses.total.requires_grad for losses in history)


def test_the_same_examples_give_the_same_weights(trained):
    again, _ = run()
    assert torch.equal(weights(again), weights(trained[0]))


def test_a_step_goes_on_from_the_state_of_another(trained):
    """Weights, batch norm's statistics and the optimizer's momenta: bit for bit."""
    torch.manual_seed(0)
    network = SSD(ARCHITECTURE, num_classes=2).to(memory_format=torch.channels_last)
    first = TrainingStep(network, RECORD, SETTINGS)
    first(0, prepared_batch(0))
    torch.manual_seed(1)
    other = SSD(ARCHITECTURE, num_classes=2).to(memory_format=torch.channels_last)
    second = TrainingStep(other, RECORD, SETTINGS)
    second.load(first.state())
    for step in (1, 2):
        second(step, prepared_batch(step))
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, trained[0].state_dict()[name]), name


def test_two_forward_passes_are_one_step():
    """Without batch norm, whose statistics are of one pass; in float32, where sums are the same to the last digits."""
    architecture = Architecture(kind="ssd512_vgg16", width=0.05)
    one, losses = run(SETTINGS.model_copy(update={"num_steps": 1}), architecture)
    two, parts = run(SETTINGS.model_copy(update={"num_steps": 1, "grad_accumulation": 2}), architecture)
    torch.testing.assert_close(parts[0].total, losses[0].total)
    torch.testing.assert_close(weights(two), weights(one), atol=1e-5, rtol=1e-4)


def learned(num_workers: int, port: int, **environment: str) -> dict[str, object]:
    """What `two_workers.py` prints."""
    command = [sys.executable, str(Path(__file__).parent / "two_workers.py"), str(num_workers), str(port)]
    places = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, env=os.environ | places | environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_two_workers_take_the_steps_of_one(free_port: Callable[[], int]) -> None:
    """Batches of five: two images for the first, three for the second, in two passes each where they accumulate."""

    alone = learned(1, free_port())
    for together in (learned(2, free_port()), learned(2, free_port(), GRAD_ACCUMULATION="2")):
        assert together["norm"] == pytest.approx(alone["norm"], rel=1e-6)
        torch.testing.assert_close(
            torch.tensor(together["losses"]), torch.tensor(alone["losses"]), rtol=1e-4, atol=1e-4
        )


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not can_compile(torch.device("cpu"))
    monkeypatch.delenv("CXX")
    assert can_compile(torch.device("cpu")) == (shutil.which("g++") is not None)
    monkeypatch.setenv("CC", "no-such-compiler")
    assert not can_compile(torch.device("cuda"))
    monkeypatch.setenv("CC", sys.executable)
    assert can_compile(torch.device("cuda"))


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched():
    torch.manual_seed(0)
    network = SSD(ARCHITECTURE, num_classes=2)
    with torch.no_grad():
        network.classification[0].bias[0] = math.nan
    before = [parameter.detach().clone() for parameter in network.parameters()]
    step_on = TrainingStep(network, RECORD, SETTINGS)
    with pytest.raises(NotFiniteError, match="the loss is nan at step 3"):
        step_on(3, batch())
    for parameter, old in zip(network.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), old, rtol=0, atol=0, equal_nan=True)


def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_touched():
    """The loss is finite."""
    torch.manual_seed(0)
    network = SSD(ARCHITECTURE, num_classes=2)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    next(network.parameters()).register_hook(lambda gradient: gradient * math.inf)
    step_on = TrainingStep(network, RECORD, SETTINGS)
    with pytest.raises(NotFiniteError, match=r"the gradient is (inf|nan) at step 3"):
        step_on(3, batch())
    assert all(torch.equal(parameter, old) for parameter, old in zip(network.parameters(), before, strict=True))
    step_on.check_weights()


def test_weights_that_are_not_finite_are_not_kept():
    network = SSD(ARCHITECTURE, num_classes=2)
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = math.inf
    with pytest.raises(NotFiniteError, match="weights are not finite"):
        TrainingStep(network, RECORD, SETTINGS).check_weights()


@pytest.mark.parametrize("num_workers", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("grad_accumulation", [1, 2, 4, 5])
@pytest.mark.parametrize("batch_size", [7, 34])
def test_all_workers_make_as_many_forward_passes(batch_size: int, grad_accumulation: int, num_workers: int) -> None:
    settings = TrainingSettings(batch_size=batch_size, grad_accumulation=grad_accumulation)
    count = num_parts(settings, num_workers)
    for rank in range(num_workers):
        sizes = [len(part) for part in torch.arange(share_of(rank, num_workers, batch_size).size).tensor_split(count)]
        assert (len(sizes), min(sizes) > 0) == (count, True)
    assert count == min(grad_accumulation, batch_size // num_workers)


def test_by_the_papers_rule_a_step_without_objects_leaves_the_loss_at_zero():
    torch.manual_seed(0)
    network = SSD(ARCHITECTURE, num_classes=2)
    step_on = TrainingStep(network, RECORD, SETTINGS.model_copy(update={"min_negatives": 0}))
    none = Targets(torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.int64))
    assert step_on(0, Batch(batch().images, none)).total == 0
    assert weights(network).isfinite().all()


def test_ssd512_learns_at_512():
    architecture = Architecture(kind="ssd512_vgg16", width=0.1, batch_norm=True)
    assert prepared_batch(0, architecture.image_size_px).images.shape == (2, 3, 512, 512)
    network, history = run(architecture=architecture)
    assert len(network.localization) == 7
    assert history[-1].total < 0.7 * history[0].total


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


def test_the_average_follows_the_weights() -> None:
    """After the first step it is a tenth of the start and nine tenths of the first weights, and so on, batch norm's statistics too. It
    is what is packaged, and what another process resumes with."""
    settings = SETTINGS.model_copy(update={"num_steps": 3, "ema_decay": 0.15})
    torch.manual_seed(0)
    network = SSD(ARCHITECTURE, num_classes=2)
    step_on, seen = TrainingStep(network, RECORD, settings), [clone(network.state_dict())]
    for step in range(3):
        step_on(step, prepared_batch(step))
        seen.append(clone(network.state_dict()))
    for name, found in step_on.weights.items():
        expected = seen[0][name].double()
        for decay, weights_then in zip((0.1, 0.15, 0.15), seen[1:], strict=True):
            expected = decay * expected + (1 - decay) * weights_then[name]
        wanted = expected if found.is_floating_point() else seen[-1][name].double()
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)
    other = TrainingStep(SSD(ARCHITECTURE, num_classes=2), RECORD, settings)
    other.load(clone_state(step_on.state()))
    for one in (step_on, other):
        one(3, prepared_batch(3))
    assert all(torch.equal(step_on.weights[name], tensor) for name, tensor in other.weights.items())


def clone(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def clone_state(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def test_frozen_stages_stay() -> None:
    """Their weights, and the statistics of their batch norm; all else learns."""
    network, _ = run(SETTINGS.model_copy(update={"num_steps": 2, "freeze_stages": 2}))
    torch.manual_seed(0)
    start = SSD(ARCHITECTURE, num_classes=2).state_dict()
    unchanged = {name for name, tensor in network.state_dict().items() if torch.equal(tensor, start[name])}
    frozen = {name for name in start if name.startswith("trunk.") and int(name.split(".")[1]) < 13}
    assert frozen <= unchanged
    assert len(frozen) == 4 * (2 + 5)
    assert {name for name in unchanged - frozen if name.endswith("weight")} == set()


def test_biases_may_go_without_weight_decay() -> None:
    network = SSD(ARCHITECTURE, num_classes=2)
    (everything,) = parameter_groups(network, SETTINGS)
    filters, others = parameter_groups(network, SETTINGS.model_copy(update={"decay_biases": False}))
    assert (everything["weight_decay"], filters["weight_decay"], others["weight_decay"]) == (5e-4, 5e-4, 0)
    assert {parameter.dim() for parameter in filters["params"]} == {4}
    assert {parameter.dim() for parameter in others["params"]} == {1}
    assert len(filters["params"]) + len(others["params"]) == len(everything["params"])


@pytest.mark.parametrize(("limit", "is_limited"), [(1e-6, True), (0, False)])
def test_the_gradient_may_be_shortened(limit: float, is_limited: bool) -> None:
    settings = SETTINGS.model_copy(update={"num_steps": 1, "max_gradient_norm": limit, "weight_decay": 0})
    network, _ = run(settings)
    torch.manual_seed(0)
    moved = (weights(network) - weights(SSD(ARCHITECTURE, num_classes=2))).norm().item()
    assert (moved < 1e-6) == is_limited


def test_float16_learns_with_scaled_losses() -> None:
    """Gradients that overflow are skipped with a smaller scale, and no weight changes; then it learns. The scale is kept."""
    torch.manual_seed(0)
    network = SSD(ARCHITECTURE, num_classes=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.step.training_dtype", lambda device, architecture: torch.float16)
        step_on = TrainingStep(network, RECORD, SETTINGS)
        other = TrainingStep(SSD(ARCHITECTURE, num_classes=2), RECORD, SETTINGS)
    step_on._scaler.load_state_dict(step_on._scaler.state_dict() | {"scale": 2.0**60})
    before = weights(network).clone()
    step_on(0, prepared_batch(0))
    assert torch.equal(weights(network), before)
    assert step_on._scaler.get_scale() == 2.0**59
    step_on._scaler.update(2.0**10)
    losses = [step_on(step, prepared_batch(step)).total.item() for step in range(1, 4)]
    assert losses[-1] < losses[0]
    other.load(clone_state(step_on.state()) | {"scaler": {}})
    other.load(clone_state(step_on.state()))
    assert other._scaler.get_scale() == step_on._scaler.get_scale() <= 2.0**10
