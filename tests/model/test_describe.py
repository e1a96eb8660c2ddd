"""The page says what the code is."""

from model.describe import PAGE, filled, tables


def test_the_page_is_the_codes() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == filled(page), "run: python -m model.describe --write"


def test_the_tables_are_in_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(table in page for table in tables().values())


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
