import pytest
import torch

from model.config import Architecture, Thresholds
from model.detector import Detector, OutputError
from model.engine import MIN_IMAGES_OF_OPENVINO, TorchEngine, fast_dtype, fast_precision, open_engine
from model.fold import fold_batch_norm
from model.openvino_network import float_engine, quantize
from model.package import ModelPackage
from model.package_files import QUANTIZED_FILES, PackageError, PackageFiles, PackageRecord
from model.ssd import SSD

CPU = torch.device("cpu")
LIBRARY = f"torch {torch.__version__}"


def make_package(**architecture: object) -> ModelPackage:
    """A narrow network whose batch norms, where it has them, are not those of a fresh one."""
    torch.manual_seed(0)
    record = PackageRecord(
        name="narrow",
        architecture=Architecture(width=0.1, **architecture),
        class_names=("disc", "square"),
        thresholds=Thresholds(detections_per_img=20),
    )
    network = SSD(record.architecture, 3)
    for name, tensor in network.state_dict().items():
        if "running" in name:
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    return ModelPackage(record, network.state_dict())


@pytest.fixture(scope="module")
def package() -> ModelPackage:
    return make_package()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    pixels = torch.randint(0, 256, (4, 300, 300, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return pixels.permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def quantized(package: ModelPackage, images: torch.Tensor) -> ModelPackage:
    return quantize(package, images)


def test_the_precision_is_the_hardwares_unless_said(package):
    multiplies = [torch.cpu.get_capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16")]
    assert fast_dtype(CPU) == (torch.bfloat16 if any(multiplies) else torch.float32)
    assert fast_dtype(torch.device("meta")) == torch.float32
    assert Detector(package, CPU).engine == f"{LIBRARY} {fast_precision(CPU)}"
    assert Detector(package, CPU, "fp32").engine == f"{LIBRARY} fp32"


@torch.inference_mode()
def test_folded_batch_norm_changes_nothing():
    package = make_package(batch_norm=True)
    inputs = torch.randn(2, 3, 300, 300, generator=torch.Generator().manual_seed(2))
    for ours, expected in zip(fold_batch_norm(package.network())(inputs), package.network()(inputs), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    assert not [m for m in fold_batch_norm(package.network()).modules() if isinstance(m, torch.nn.BatchNorm2d)]


@torch.inference_mode()
@pytest.mark.parametrize("shape", [{}, {"batch_norm": True}, {"kind": "ssd512_vgg16"}])
def test_openvino_computes_the_same(shape):
    package = make_package(**shape)
    side = package.record.architecture.image_size_px
    pixels = torch.randint(0, 256, (3, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    images = pixels.permute(0, 3, 1, 2)
    ours, engine = TorchEngine(package, CPU, "fp32"), float_engine(package, "fp32")
    for part in (images, images[:1]):
        for found, expected in zip(engine(part), ours(part), strict=True):
            assert found.shape == expected.shape
            torch.testing.assert_close(found, expected, atol=1e-3 * float(expected.abs().max()), rtol=0)


def test_a_long_run_is_openvinos(package):
    engines = [open_engine(package, CPU, "fp32", MIN_IMAGES_OF_OPENVINO - few) for few in (0, 1)]
    assert [engine.runtime.split()[0] for engine in engines] == ["openvino", "torch"]
    assert [engine.precision for engine in engines] == ["fp32", "fp32"]


def test_without_openvino_a_long_run_is_torchs(package, monkeypatch):
    monkeypatch.setattr("model.openvino_network.find_spec", lambda name: None)
    assert open_engine(package, CPU, "fp32", MIN_IMAGES_OF_OPENVINO).runtime == LIBRARY


def test_int8_finds_much_the_same(package, quantized, images):
    sizes_px = torch.full((4, 2), 300.0)
    exact, rough = Detector(package, CPU, "fp32")(images, sizes_px), Detector(quantized, CPU)(images, sizes_px)
    for one, other in zip(exact, rough, strict=True):
        torch.testing.assert_close(other.scores[:5], one.scores[:5], atol=0.05, rtol=0)
    assert Detector(quantized, CPU).engine.startswith("openvino ")
    assert Detector(quantized, CPU).engine.endswith(" int8")


def test_a_quantized_package_has_a_digest_of_its_own(package, quantized):
    files = quantized.to_files()
    assert set(files) == {"model.json", "model.safetensors", *QUANTIZED_FILES}
    again = ModelPackage.from_files(files)
    assert (again.record, again.quantized) == (quantized.record, quantized.quantized)
    assert again.digest == quantized.digest != package.digest
    for name in QUANTIZED_FILES:
        assert PackageFiles(files | {name: files[name] + b" "}).digest != quantized.digest
        without = {other: content for other, content in files.items() if other != name}
        with pytest.raises(PackageError, match=f"{name} missing"):
            PackageFiles(without).digest  # noqa: B018
    assert all(torch.equal(tensor, package.weights[name]) for name, tensor in quantized.weights.items())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_int8_has_no_other_precision(quantized, precision):
    with pytest.raises(PackageError, match=f"int8, not in {precision}; give precision auto"):
        Detector(quantized, CPU, precision)


def test_int8_needs_a_network_of_it(package):
    with pytest.raises(PackageError, match="ssd-batch model quantize"):
        Detector(package, CPU, "int8")


def test_int8_is_for_cpus(quantized):
    with pytest.raises(PackageError, match="which CPUs compute; use the package that it was made of"):
        open_engine(quantized, torch.device("cuda"), "auto", 0)


def test_int8_needs_openvino(quantized, monkeypatch):
    monkeypatch.setattr("model.openvino_network.find_spec", lambda name: None)
    with pytest.raises(PackageError, match=r"pip install 'ssd-batch\[openvino\]'"):
        Detector(quantized, CPU)


def test_a_damaged_network_of_int8_is_named(quantized):
    damaged = quantized.with_quantized({**quantized.quantized, QUANTIZED_FILES[0]: b"<net"})
    with pytest.raises(PackageError, match="OpenVINO can't read its quantized network"):
        Detector(damaged, CPU)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("output", [0, 1])
def test_no_number_that_is_not_finite_passes(package, images, monkeypatch, value, output):
    detector = Detector(package, CPU, "fp32")
    outputs = tuple(part.clone() for part in detector._engine(images))
    outputs[output][1, 5, 1] = value
    monkeypatch.setattr(detector, "_engine", lambda images: outputs)
    with pytest.raises(OutputError):
        detector(images, torch.full((4, 2), 300.0))


def test_an_empty_batch_of_openvino(package):
    detector = Detector(package, CPU, "fp32", MIN_IMAGES_OF_OPENVINO)
    assert detector(torch.zeros(0, 3, 300, 300, dtype=torch.uint8), torch.zeros(0, 2)) == []
