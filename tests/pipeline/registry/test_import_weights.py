"""`ssd-batch model import`, from files as torchvision and ssd.pytorch have them to packages that can be used."""

import functools
import hashlib
import json
import logging
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models import get_weight, vgg16
from torchvision.models.detection import ssd300_vgg16

from jobs.__main__ import main
from model.config import Architecture, Preprocessing
from model.package_files import PackageError
from pipeline.errors import SettingError
from pipeline.inputs.class_names import read_class_names
from pipeline.registry.packages import read_package

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ssd.pth: torchvision's SSD300 with three classes; names.txt: their names; vgg.pth: VGG16's features."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    torch.save(ssd300_vgg16(weights=None, weights_backbone=None, num_classes=4).state_dict(), folder / "ssd.pth")
    (folder / "names.txt").write_text("disc\nsquare\nstar\n\n")
    torch.save(features(), folder / "vgg.pth")
    (folder / "text.pth").write_text("no weights\n")
    return folder


def features() -> Weights:
    with torch.device("meta"):
        network = vgg16().features
    return {f"features.{name}": torch.full(tensor.shape, 0.25) for name, tensor in network.state_dict().items()}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """The command line in this process, whose log goes where that of a process of its own would: exit code, standard output, standard error."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(logging.getLogger(), "handlers", [])
        monkeypatch.setattr(sys, "argv", ["ssd-batch", "model", "import", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            main()
        said = capsys.readouterr()
        return int(exit_info.value.code or 0), said.out, said.err

    return command


@pytest.fixture
def server(files: Path) -> Iterator[str]:
    """An HTTP server of the files, in a thread; answers whatever a query says."""
    handler = functools.partial(QuietHandler, directory=str(files))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    """Forbids what is called forbidden."""

    def do_GET(self) -> None:
        return self.send_error(403) if "forbidden" in self.path else super().do_GET()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


def test_a_detector(files: Path, tmp_path: Path, run) -> None:
    source, output = files / "ssd.pth", tmp_path / "model"
    code, out, err = run(
        "--weights", source, "--output", output, "--name", "s", "--class-names", files / "names.txt", "--json"
    )
    assert (code, err) == (0, "")
    package = read_package(str(output))
    assert json.loads(out.splitlines()[-1]) == {
        "output": str(output),
        "source": "torchvision's SSD300",
        "num_classes": 3,
        "model_digest": package.digest,
    }
    assert package.record.name == "s"
    assert package.record.class_names == ("disc", "square", "star")
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    assert package.record.provenance == {"source": "torchvision's SSD300", "file": "ssd.pth", "sha256": sha256}
    assert package.network().num_classes == 4


def test_large_jpegs_may_be_decoded_at_a_fraction(files: Path, tmp_path: Path, run) -> None:
    arguments = ("--weights", files / "ssd.pth", "--name", "s", "--class-names", files / "names.txt")
    assert run(*arguments, "--output", tmp_path / "plain")[0] == 0
    assert run(*arguments, "--output", tmp_path / "scaled", "--jpeg-dct-scaling")[0] == 0
    plain, scaled = (read_package(str(tmp_path / name)) for name in ("plain", "scaled"))
    assert (plain.record.preprocessing, scaled.record.preprocessing) == (
        Preprocessing(), Preprocessing(jpeg_dct_scaling=True),
    )  # fmt: skip
    assert plain.digest != scaled.digest


def test_a_trunk_and_what_it_is_for(files: Path, tmp_path: Path, run) -> None:
    arguments = ("--weights", files / "vgg.pth", "--output", tmp_path / "m", "--name", "vgg")
    code, _, err = run(*arguments)
    assert code == 2
    assert "weights 'vgg.pth' can't be used" in err
    assert "--preprocessing imagenet" in err
    code, out, _ = run(*arguments, "--preprocessing", "imagenet")
    assert code == 0
    assert out.startswith(f"torchvision's VGG16, a trunk, for train --init, written to {tmp_path / 'm'}\nmodel ")
    with pytest.raises(SettingError, match=r"it holds a trunk alone.*train --init") as error:
        read_package(str(tmp_path / "m"))
    assert isinstance(error.value.__cause__, PackageError)


def test_a_url_leaves_its_signature_out(files: Path, tmp_path: Path, run, server: str) -> None:
    names = ("--class-names", files / "names.txt")
    output = tmp_path / "model"
    code, _, err = run("--weights", f"{server}/ssd.pth?signature=hush", "--output", output, "--name", "s", *names)
    assert (code, err) == (0, "")
    assert read_package(str(output)).record.provenance["file"] == "ssd.pth"
    assert all(b"hush" not in path.read_bytes() for path in output.iterdir())
    for name in ("no.pth", "forbidden.pth"):
        url = f"{server.replace('://', '://me:hush@')}/{name}?signature=hush"
        code, out, err = run("--weights", url, "--output", tmp_path / "o", "--name", "s")
        assert code == 2
        assert err.startswith(f"Error: weights {name!r} can't be read: ")
        assert "hush" not in out + err


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("none.pth", "weights 'none.pth' can't be read: "),
        ("text.pth", "weights 'text.pth' can't be used: it is no file of weights that torch.save wrote"),
        ("ssd.pth", "weights 'ssd.pth' can't be used: its heads have 3 classes, not the 90"),
    ],
)
def test_one_line_and_exit_code_2(files: Path, tmp_path: Path, run, weights: str, message: str) -> None:
    code, out, err = run("--weights", files / weights, "--output", tmp_path / "model", "--name", "s")
    assert (code, out) == (2, "")
    assert err.startswith(f"Error: {message}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [], "no empty folder is left"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("disc\n\nstar\n", "has an empty line; give one name a line"),
        ("disc\nstar\n disc\n", "has 'disc' more than once"),
        ("disc\n\ufeffstar\n", "has a byte order mark within"),
    ],
)
def test_class_names_that_are_none(files: Path, tmp_path: Path, run, content: str, message: str) -> None:
    (tmp_path / "names.txt").write_text(content)
    arguments = ("--weights", files / "ssd.pth", "--output", tmp_path / "m", "--name", "s")
    code, _, err = run(*arguments, "--class-names", tmp_path / "names.txt")
    assert (code, message in err) == (2, True), err


def test_class_names_behind_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes("disc\nstar\n".encode("utf-8-sig"))
    assert read_class_names(str(tmp_path / "names.txt")) == ("disc", "star")


def test_an_output_that_is_taken(files: Path, tmp_path: Path, run) -> None:
    (tmp_path / "model.json").write_text("{}")
    code, _, err = run("--weights", files / "ssd.pth", "--output", tmp_path, "--name", "s")
    assert code == 2
    assert "holds a model package already" in err


def test_a_name_of_torchvisions_that_is_not_reachable(tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Port 9 of this machine discards; nothing listens. An outage may end, so the code is 1, which schedulers repeat."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of its first use
    name = "SSD300_VGG16_Weights.COCO_V1"
    code, out, err = run("--weights", name, "--output", tmp_path / "model", "--name", "coco")
    assert (code, out) == (1, "")
    last = err.splitlines()[-1]
    assert last.startswith(f"Error: weights {name!r} can't be downloaded: ")
    assert last.endswith(f"get {get_weight(name).url} elsewhere and give the file")


def test_a_name_of_torchvisions_that_is_none_of_ours(tmp_path: Path, run) -> None:
    code, _, err = run("--weights", "ResNet50_Weights.DEFAULT", "--output", tmp_path / "model", "--name", "r")
    assert code == 2
    assert "none that can be imported; give a file or SSD300_VGG16_Weights.COCO_V1, " in err


@pytest.mark.parametrize(
    ("name", "mean"),
    [("VGG16_Weights.IMAGENET1K_V1", 0.485), ("VGG16_Weights.IMAGENET1K_FEATURES", Preprocessing().mean[0])],
)
def test_a_name_of_torchvisions_in_its_cache(
    tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch, name: str, mean: float
) -> None:
    """What torch has downloaded once it takes from its cache; a file of the same names and shapes stands in for it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub/checkpoints" / get_weight(name).url.rpartition("/")[2]
    cached.parent.mkdir(parents=True)
    torch.save(features(), cached)
    code, _, err = run("--weights", name, "--output", tmp_path / "model", "--name", "vgg")
    assert (code, err) == (0, "")
    record = json.loads((tmp_path / "model/model.json").read_text())
    assert record["preprocessing"]["mean"][0] == mean
    assert record["provenance"] == {
        "source": "torchvision's VGG16",
        "weights": name,
        "url": get_weight(name).url,
    }
    assert record["architecture"]["kind"] == Architecture().kind
