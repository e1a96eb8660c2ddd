"""The page says what the code is."""

import re
from pathlib import Path

import pytest
from PIL import Image
from torchvision.models.detection import ssd300_vgg16

from jobs.demo.pictures import CLASS_NAMES, draw_picture
from model.config import Architecture
from model.describe import COLOURS, PAGE, PICTURE_SIDE_PX, draw_default_boxes, filled, tables


def test_the_page_is_the_codes() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == filled(page), "run: python -m model.describe --write"


def test_the_tables_are_in_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(table in page for table in tables().values())


def test_known_costs() -> None:
    """Of SSD300 with 20 classes: its 26,285,486 parameters, as torchvision's `ssd300_vgg16(num_classes=21)` has them too."""
    costs = tables()["costs"]
    assert "| 4 | conv4_3 | 2,359,808 | 3,407 M | 92 |" in costs
    assert "| all | with conv4_3_norm | 26,285,486 | 31,374 M | |" in costs
    assert (
        sum(p.numel() for p in ssd300_vgg16(weights=None, weights_backbone=None, num_classes=21).parameters())
        == 26_285_486
    )


def test_default_boxes_are_drawn() -> None:
    sheet = draw_default_boxes(Image.new("RGB", (64, 48)), Architecture())
    assert sheet.size == (3 * PICTURE_SIDE_PX, 2 * PICTURE_SIDE_PX)
    assert len(sheet.getcolors(maxcolors=100_000)) > len(COLOURS)


def test_the_programs_of_the_page_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Detect and train, each as short as the page says. The first finds what is on the demo's first picture."""
    detect, train = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    picture = draw_picture(1)
    picture.image.save(tmp_path / "photo.jpg", quality=95)
    (tmp_path / "jobs").symlink_to(Path(__file__).parents[2] / "jobs")
    monkeypatch.chdir(tmp_path)
    exec(detect, {})
    sure = [line.split()[0] for line in capsys.readouterr().out.splitlines() if float(line.split()[1]) > 0.5]
    assert sorted(sure) == sorted(CLASS_NAMES[label - 1] for label in picture.labels)
    exec(train, {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["0", "1", "2"]
    for program, most in ((detect, 12), (train, 20)):
        lines = [line for line in program.splitlines() if line.strip() and not line.startswith(("import ", "from "))]
        assert len(lines) <= most


def test_known_layers() -> None:
    plain = tables()["vgg16"]
    assert "| (0) | Conv2d(3, 64, 3×3, stride 1, padding 1) | 64×300×300 | 1 |" in plain
    assert "| (30) | MaxPool2d(2×2, stride 2, padding 0, ceil_mode False) | 512×9×9 | 32 |" in plain
    changes = tables()["changes"]
    assert "| (16) | MaxPool2d(2×2, stride 2, padding 0, ceil_mode True) | 256×38×38 | 8 |" in changes
    auxiliary = tables()["auxiliary512"]
    assert "| conv12_2 | Conv2d(128, 256, 4×4, stride 1, padding 1) | 256×1×1 | 256 |" in auxiliary
    assert "| all | | | | each box 4 values | 24564 |" in tables()["localization512"]
    assert "| conv6 | Conv2d(512, 1024, 3×3, stride 1, padding 6, dilation 6) | 1024×19×19 | 16 |" in changes
