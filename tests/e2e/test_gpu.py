"""What only a GPU can show: that it finds what a CPU finds, that its memory may be too small, and that runs and trainings use it."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from torch import Tensor

from jobs.demo import PACKAGE
from jobs.demo.examples import DrawnExamples
from jobs.demo.pictures import draw_picture
from model.config import Precision, TrainingSettings
from model.default_boxes import default_boxes
from model.detector import Detector
from model.loss import Targets
from model.package import ModelPackage
from model.postprocess import postprocess
from model.prepare import Batch
from model.preprocess import resize
from model.ssd import SSD
from model.step import TrainingStep
from pipeline.registry.packages import read_package
from pipeline.stages.detect import DetectStage
from pipeline.stages.rows import PIXELS, numbered
from pipeline.stages.runner import Stages
from pipeline.stages.timings import METERS
from pipeline.table.schema import SCHEMA
from pipeline.training.driver import train
from pipeline.training.settings import ClusterTraining
from tests.e2e.command import answer, ask, infer
from tests.model.test_step import learned

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here; on a machine with one: make test-gpu"),
]

CPU, GPU = torch.device("cpu"), torch.device("cuda")
NUM_IMAGES = 32


@pytest.fixture(scope="module")
def package() -> ModelPackage:
    return read_package(str(PACKAGE))


@pytest.fixture(scope="module")
def images() -> Tensor:
    """(32, 3, 300, 300) uint8, drawn pictures."""
    drawn = DrawnExamples(7_000_000, NUM_IMAGES)
    return torch.stack([resize(drawn[index].image, 300) for index in range(NUM_IMAGES)])


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Of the GPU's memory, 1 GiB at most for this process."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2**30 / torch.cuda.get_device_properties(GPU).total_memory)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize(("precision", "score_tolerance"), [("fp32", 0.002), ("fp16", 0.02), ("auto", 0.06)])
def test_it_finds_what_a_cpu_finds(
    package: ModelPackage, images: Tensor, precision: Precision, score_tolerance: float
) -> None:
    sizes_px = torch.full((NUM_IMAGES, 2), 300.0)
    expected = Detector(package, CPU, "fp32")(images, sizes_px)
    found = Detector(package, GPU, precision)(images, sizes_px)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.scores.device == ours.boxes_xyxy.device == CPU
        sure = theirs.scores > 0.5
        assert int((ours.scores > 0.5 - score_tolerance).sum()) >= int(sure.sum()) > 0
        best = (ours.boxes_xyxy[:, None] - theirs.boxes_xyxy[sure]).abs().amax(dim=2)
        best[ours.labels[:, None] != theirs.labels[sure]] = torch.inf
        apart, index = best.min(dim=0)
        assert apart.max() < 3.0
        torch.testing.assert_close(ours.scores[index], theirs.scores[sure], atol=score_tolerance, rtol=0)


def test_it_suppresses_as_a_cpu(package: ModelPackage) -> None:
    """Crowded heads, sparse ones, and none that passes, in one batch."""
    generator = torch.Generator().manual_seed(4)
    offsets = torch.randn(9, 8732, 4, generator=generator) * 0.5
    logits = torch.randn(9, 8732, 7, generator=generator) * 2
    logits[..., 0] += torch.tensor([12.0, 40.0, 3.0] * 3)[:, None]
    boxes, sizes_px = default_boxes(package.record.architecture), torch.full((9, 2), 300.0)
    expected = postprocess(offsets, logits, boxes, sizes_px, package.record.thresholds)
    found = postprocess(offsets.to(GPU), logits.to(GPU), boxes.to(GPU), sizes_px.to(GPU), package.record.thresholds)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.scores, theirs.scores, atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.boxes_xyxy.sum(), theirs.boxes_xyxy.sum(), atol=1.0, rtol=1e-3)


@pytest.mark.usefixtures("little_memory")
def test_a_batch_that_does_not_fit_is_halved(package: ModelPackage, caplog: pytest.LogCaptureFixture) -> None:
    stages = Stages(
        lambda start, stop: pa.table({}), lambda rows: iter(()), pa.schema([]), package.to_files(), 1024, {"run_id": "r"},
        pa.schema([*SCHEMA, *METERS]), "fp32",
    )  # fmt: skip
    pixels = draw_picture(0).image.resize((300, 300))
    square = torch.frombuffer(bytearray(pixels.tobytes()), dtype=torch.uint8).reshape(300, 300, 3).numpy()
    images = [{PIXELS: square, "width_px": 300, "height_px": 300} for _ in range(1024)]
    rows = DetectStage(stages, "cuda", "d")(numbered(pa.table({"uri": ["a"] * 1024}), 0), iter(images))
    assert set(rows["status"].to_pylist()) == {"ok"}
    assert len(set(rows["num_detections"].to_pylist())) == 1
    assert "does not fit into the GPU's memory" in caplog.text


def test_a_run_uses_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(NUM_IMAGES):
        draw_picture(number).image.save(tmp_path / f"in/{number}.jpg")
    arguments = ("--input", tmp_path / "in", "--table", tmp_path / "table", "--model", PACKAGE, "--require-gpu")
    assert infer(*arguments)["ok"] == NUM_IMAGES
    (run,) = ask(tmp_path / "table", "SELECT runner, engine FROM runs")
    assert run["runner"] == "ray"
    assert run["engine"].startswith("torch ")
    assert run["engine"].split()[-1] in ("bf16", "fp16")
    assert answer("infer", *arguments)["planned"] == 0


@pytest.mark.usefixtures("local_cluster")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_training_uses_it(tmp_path: Path, package: ModelPackage, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ClusterTraining(num_workers=1, num_steps=4, batch_size=4, warmup_steps=0, seed=2, require_gpu=True)
    trained = train(
        ModelPackage(package.record, {}),
        DrawnExamples(0, 8),
        DrawnExamples(100, 3),
        settings,
        str(tmp_path / "run"),
        (),
    )
    assert "the training begins: 1 workers, cuda" in capsys.readouterr().err
    assert all(tensor.isfinite().all() for tensor in trained.weights.values())


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two GPUs")
def test_two_workers_take_the_steps_of_one(free_port: Callable[[], int]) -> None:
    """By NCCL, with batch norm's statistics over the whole batch."""
    alone, together = (learned(count, free_port(), DEVICE="cuda") for count in (1, 2))
    assert together["norm"] == pytest.approx(alone["norm"], rel=1e-4)
    torch.testing.assert_close(torch.tensor(together["losses"]), torch.tensor(alone["losses"]), rtol=1e-2, atol=1e-2)


def test_a_compiled_training_takes_the_same_steps(images: Tensor, package: ModelPackage) -> None:
    settings = TrainingSettings(num_steps=3, warmup_steps=0, learning_rate=0.001)
    targets = Targets(torch.tensor([[[0.2, 0.2, 0.6, 0.7]]]).expand(8, 1, 4), torch.ones(8, 1, dtype=torch.int64))
    losses = []
    for is_compiled in (False, True):
        network = SSD(package.record.architecture, len(package.record.class_names) + 1)
        network.load_state_dict(package.weights)
        network = network.float().to(GPU, memory_format=torch.channels_last)  # type: ignore[call-overload]
        step_on = TrainingStep(network, package.record, settings.model_copy(update={"compile": is_compiled}))
        losses.append([step_on(step, Batch(images[:8], targets)).total.item() for step in range(3)])
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[0][2] < losses[0][0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_training_in_half_precision_learns(dtype: torch.dtype, images: Tensor, package: ModelPackage) -> None:
    """float16 is what GPUs without bfloat16 learn in, with scaled losses."""
    targets = Targets(torch.tensor([[[0.2, 0.2, 0.6, 0.7]]]).expand(8, 1, 4), torch.ones(8, 1, dtype=torch.int64))
    network = SSD(package.record.architecture, len(package.record.class_names) + 1).to(GPU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.step.training_dtype", lambda device, architecture: dtype)
        step_on = TrainingStep(network, package.record, TrainingSettings(warmup_steps=0, learning_rate=0.01))
    losses = [step_on(step, Batch(images[:8], targets)).total.item() for step in range(20)]
    assert losses[-1] < losses[0]
    step_on.check_weights()
