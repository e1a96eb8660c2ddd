"""Exports of the demo's model, checked on its pictures before the file is kept."""

from pathlib import Path
from typing import Any

import pytest

from jobs.demo import PACKAGE
from jobs.demo.pictures import draw_picture
from pipeline.errors import SettingError, SsdBatchError
from pipeline.registry import export_model as exporting
from pipeline.registry.export_model import export_model
from pipeline.registry.settings import ExportSettings


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Three pictures, and a broken one."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for seed in range(3):
        draw_picture(seed).image.save(folder / f"{seed}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def settings(photographs: Path, output: Path, **more: Any) -> ExportSettings:
    return ExportSettings(model=str(PACKAGE), input=(str(photographs),), output=str(output), **more)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_file_is_written_where_it_should_be(batch_size: int, photographs: Path, tmp_path: Path) -> None:
    output = tmp_path / "new/mine.pt2"
    done = export_model(settings(photographs, output, format="torch-export", batch_size=batch_size))
    assert (done.num_images, done.output) == (3, str(output))
    assert done.num_detections > 5
    assert [file.name for file in output.parent.iterdir()] == ["mine.pt2"]


def test_a_file_that_differs_is_not_kept(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(kind: str, path: Path) -> Any:
        return lambda images: [output * 0 for output in exporting_of(images)]

    from model.export import ExportedDetector
    from pipeline.registry.packages import read_package

    exporting_of = ExportedDetector(read_package(str(PACKAGE)))
    monkeypatch.setattr(exporting, "export", lambda *arguments: arguments[-1].write_bytes(b"some"))
    monkeypatch.setattr(exporting, "load", broken)
    with pytest.raises(SsdBatchError, match="would not compute what the package does, and is not kept: a detection of"):
        export_model(settings(photographs, tmp_path / "mine.onnx"))
    assert not (tmp_path / "mine.onnx").exists()


def test_what_can_not_be_exported(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"output '.*mine\.xml' must end with \.onnx in the format onnx"):
        export_model(settings(photographs, tmp_path / "mine.xml"))
    for number in range(3):
        (photographs / f"{number}.png").unlink()
    with pytest.raises(SettingError, match=r"input .*photographs: none of its images can be read"):
        export_model(settings(photographs, tmp_path / "mine.onnx"))
