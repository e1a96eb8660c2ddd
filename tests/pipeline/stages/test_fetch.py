import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from model.preprocess import resize
from pipeline.images.decode import decode
from pipeline.images.read import read_version
from pipeline.inputs.listing import list_inputs
from pipeline.inputs.manifest import LISTING
from pipeline.stages import fetch
from pipeline.stages.fetch import ReadAhead, fetch_and_decode
from pipeline.stages.rows import DECODED, failure
from pipeline.storage import store
from tests.conftest import wait_until

SIZE_PX = 64
ORIENTATION = 0x0112


@pytest.fixture
def write(tmp_path):
    """Write a picture of the given width and height, or bytes, and give back its path."""

    def write(name: str, content: tuple[int, int] | bytes, **options: object) -> str:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            scene(*content).save(path, **options)
        return str(path)

    return write


def scene(width_px: int, height_px: int) -> Image.Image:
    """Different in each corner, so that any turn shows."""
    y, x = np.mgrid[0 : 1 : height_px * 1j, 0 : 1 : width_px * 1j]
    return Image.fromarray((255 * np.stack([x, y, 1 - x * y], axis=-1)).astype(np.uint8))


def listed(*uris: str, **columns: object) -> pa.Table:
    """As `list_inputs` lists them, unless columns say otherwise."""
    return pa.Table.from_pylist([vars(store.stat(uri)) | columns for uri in uris], schema=LISTING)


def rows_of(batch: pa.Table, max_pixels: int = 10_000, min_side_px: int | None = None) -> list[dict[str, object]]:
    """Each listed row with what was found of its image; null where nothing was."""
    nothing = dict.fromkeys([".pixels", *DECODED.names])
    found = fetch_and_decode(batch, SIZE_PX, max_pixels, min_side_px)
    return [row | nothing | image for row, image in zip(batch.to_pylist(), found, strict=True)]


def pixels_of(row: dict[str, object]) -> torch.Tensor:
    """(3, S, S)"""
    return torch.from_numpy(row[".pixels"]).permute(2, 0, 1)


def assert_failed(row: dict[str, object], stage: str, kind: str, *words: str) -> None:
    assert (row["error_stage"], row["error_type"]) == (stage, kind)
    assert all(word in row["error_message"] for word in words), row["error_message"]
    assert (row[".pixels"], row["width_px"], row["height_px"]) == (None, None, None)


def test_images_come_in_the_order_of_their_rows(write):
    uris = [write("wide.png", (80, 20)), write("broken.jpg", b"no picture"), write("high.jpg", (20, 80))]
    wide, broken, high = rows_of(listed(*uris))
    for row, size in ((wide, (80, 20)), (high, (20, 80))):
        assert (row["width_px"], row["height_px"]) == size
        assert row["error_stage"] is row["error_type"] is row["error_message"] is None
        assert torch.equal(pixels_of(row), resize(decode(Path(row["uri"]).read_bytes()), SIZE_PX))
    assert_failed(broken, "decode", "DecodeError", "no known image format")


def test_what_each_image_took_is_measured(write, tmp_path):
    uris = [write("good.png", (80, 20)), write("broken.jpg", b"no picture")]
    gone = listed(uris[0]).set_column(0, "uri", pa.array([str(tmp_path / "gone.jpg")]))
    good, broken, missing = rows_of(pa.concat_tables([listed(*uris), gone]))
    for row in (good, broken):
        assert row[".bytes_read"] == Path(row["uri"]).stat().st_size
        assert row[".fetch_s"] > 0
        assert row[".decode_s"] > 0
        assert row[".num_retries"] == 0
    assert missing[".fetch_s"] > 0
    assert missing[".decode_s"] is missing[".bytes_read"] is missing[".num_retries"] is None


def test_an_empty_block_stays_one():
    assert list(fetch_and_decode(LISTING.empty_table(), SIZE_PX, 10_000)) == []


@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_upright(write, kind, orientation):
    """Resized and then turned: within one gray level of turned and then resized."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    uri = write(f"turned.{kind}", (90, 60), exif=exif)
    [row] = rows_of(listed(uri))
    upright = decode(Path(uri).read_bytes())
    assert (row["height_px"], row["width_px"]) == upright.shape[1:] == ((60, 90) if orientation < 5 else (90, 60))
    assert (pixels_of(row).int() - resize(upright, SIZE_PX).int()).abs().max() <= 1


def test_a_row_has_the_size_of_the_whole_picture(write):
    uri = write("large.jpg", (900, 600), quality=95)
    [whole], [fraction] = (rows_of(listed(uri), 10**6, min_side_px) for min_side_px in (None, 2 * SIZE_PX))
    assert (fraction["width_px"], fraction["height_px"]) == (900, 600)
    difference = (pixels_of(fraction).int() - pixels_of(whole).int()).abs()
    assert 0 < difference.max() <= 2


def test_what_storage_says_is_of_the_stage_fetch(write, tmp_path):
    changed, folder = write("changed.png", (8, 8)), tmp_path / "folder.jpg"
    folder.mkdir()
    batch = listed(changed, str(folder), changed, size_bytes=None)
    gone = listed(changed).set_column(0, "uri", pa.array([str(tmp_path / "gone.jpg")]))
    write("changed.png", (9, 9))
    first, second, third, fourth = rows_of(pa.concat_tables([batch, gone]))
    assert_failed(first, "fetch", "ChangedError", "changed since it was listed")
    assert_failed(second, "fetch", "IsADirectoryError", "folder.jpg")
    assert_failed(third, "fetch", "ChangedError")
    assert_failed(fourth, "fetch", "FileNotFoundError", "gone.jpg")


def test_too_large_a_picture_is_of_the_stage_decode(write):
    [row] = rows_of(listed(write("large.png", (101, 100))))
    assert_failed(row, "decode", "DecodeError", "10100 pixels", "max_pixels = 10000")


def test_too_large_a_file_is_not_read(write):
    """A terabyte, of which nothing is on the disk."""
    uri = write("huge.jpg", b"")
    os.truncate(uri, 1 << 40)
    [row] = rows_of(listed(uri))
    assert_failed(row, "fetch", "TooLargeError", f"{1 << 40:,} bytes", f"{8 * 10_000 + (64 << 20):,}", "max_pixels")


def test_too_large_a_file_of_unknown_size_is_not_decoded(write, monkeypatch):
    monkeypatch.setattr(fetch, "MAX_OTHER_BYTES", 0)
    uri = write("large.png", (80, 80), compress_level=0)
    assert_failed(*rows_of(listed(uri, size_bytes=None), 80 * 30), "fetch", "TooLargeError", f"{8 * 80 * 30:,}")
    assert rows_of(listed(uri, size_bytes=None), 80 * 80)[0]["error_stage"] is None


@pytest.mark.parametrize(
    ("sizes", "limit", "begun"),
    [
        ([10] * 6, 30, 3),
        ([10] * 6, 39, 3),
        ([10] * 6, 60, 6),
        ([100, 10, 10], 30, 1),  # alone, as it is larger than the bound
        ([10, 100, 10], 30, 1),
        ([None] * 6, 64, 6),
    ],
)
def test_bytes_in_flight_are_bounded(write, monkeypatch, sizes, limit, begun):
    """Nothing more is begun before the first content is taken."""
    monkeypatch.setattr(fetch, "MAX_BYTES_IN_FLIGHT", limit)
    monkeypatch.setattr(fetch, "UNKNOWN_SIZE_BYTES", limit // 6)
    uris = [write(f"{number}.bin", bytes(size or 10)) for number, size in enumerate(sizes)]
    read = []
    monkeypatch.setattr(fetch, "read_version", lambda uri, *version: read.append(uri) or read_version(uri, *version))
    contents = ReadAhead([(uri, "", size) for uri, size in zip(uris, sizes, strict=True)], max_bytes=1000)
    wait_until(lambda: len(read) == begun)
    assert next(contents).result().data == bytes(sizes[0] or 10)
    assert sorted(read) == uris[:begun]
    assert [len(content.result().data) for content in contents] == [size or 10 for size in sizes[1:]]


def test_contents_come_in_order(write, monkeypatch):
    monkeypatch.setattr(fetch, "MAX_BYTES_IN_FLIGHT", 25)
    uris = [write(f"{number}.bin", bytes([number] * (1 + 7 * number % 20))) for number in range(40)]
    objects = [(uri, "", Path(uri).stat().st_size) for uri in uris]
    assert [read.result().data[0] for read in ReadAhead(objects, max_bytes=1000)] == list(range(40))


MEASURE = Path(__file__).parent / "programs/measure_memory_of_a_block.py"


def run_python(program: Path, *arguments: object) -> str:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, program, *map(str, arguments)]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_a_block_of_large_files_is_not_in_memory_at_once(write, tmp_path):
    uris = [write(f"{number}.jpg", b"") for number in range(64)]
    for uri in uris:
        os.truncate(uri, 32 << 20)  # 2 GiB together
    pq.write_table(listed(*uris), tmp_path / "work.parquet")
    assert int(run_python(MEASURE, tmp_path / "work.parquet")) < fetch.MAX_BYTES_IN_FLIGHT + (96 << 20)


STARVE = Path(__file__).parent / "programs/decode_in_little_memory.py"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux's limit of memory")
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_too_little_memory_is_not_the_fault_of_the_bytes(write, tmp_path, kind):
    uris = [write("small.png", (8, 8)), write(f"large.{kind}", b""), write("other.png", (9, 9))]
    Image.new("RGB", (9000, 9000)).save(uris[1])
    pq.write_table(listed(*uris), tmp_path / "work.parquet")
    fine = {"error_stage": None, "error_type": None}
    starved = {"error_stage": "fetch", "error_type": "MemoryError"}
    assert run_python(STARVE, tmp_path / "work.parquet").strip() == str([fine, starved, fine])


def test_a_failure_always_says_something():
    for error in (MemoryError(), ValueError(""), ValueError("\n\n"), KeyError(None), ValueError("long " * 1000)):
        row = failure("fetch", error)
        assert (row["error_stage"], row["error_type"]) == ("fetch", type(error).__name__)
        assert 0 < len(row["error_message"].strip()) <= 500


FOLDER = os.environ.get("SSD_BATCH_DATA")


def reference(path: Path) -> Image.Image:
    """The picture as plain Pillow shows it, in 8 bits, upright, on white."""
    picture = ImageOps.exif_transpose(Image.open(path))
    if picture.mode.startswith("I;16"):
        values = np.asarray(picture)
        shown = Image.fromarray((values / 257).round().astype(np.uint8))
        mask = Image.fromarray((values != picture.info.get("transparency")).astype(np.uint8) * 255)
        picture = Image.composite(shown, Image.new("L", shown.size, 255), mask)
    layer = picture.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(FOLDER is None, reason="SSD_BATCH_DATA names no folder with hostile/MANIFEST.csv")
@pytest.mark.parametrize("min_side_px", [None, 2 * SIZE_PX])
def test_the_hostile_set_gives_what_is_expected(tmp_path, min_side_px):
    """Handed over as a manifest. What is ok is compared with plain Pillow: JPEG decoders may differ by rounding, fractions more at edges."""
    folder = Path(FOLDER, "hostile")
    with open(folder / "MANIFEST.csv", newline="") as manifest:
        expected = {str(folder / row["file"]): row["expect"] for row in csv.DictReader(manifest)}
    manifest, listing = tmp_path / "manifest.parquet", tmp_path / "listing.parquet"
    pq.write_table(pa.table({"uri": list(expected)}), manifest)
    assert list_inputs([str(manifest)], all_files=False, path=listing) == 0
    rows = rows_of(pq.read_table(listing), 200_000_000, min_side_px)
    assert [row["uri"] for row in rows] == list(expected)
    wrong, differing = {}, {}
    for row in rows:
        expect = expected[row["uri"]]
        result = "ok" if row["error_stage"] is None else "reject"
        if expect not in (result, "either"):
            wrong[row["uri"]] = result
        if result == "reject":
            assert row["error_stage"] == "decode", row
            assert row["error_type"], row
            assert row["error_message"], row
        else:
            try:
                shown = reference(Path(row["uri"]))
            except UnidentifiedImageError:  # Pillow alone can't read a part that the picture does not need
                continue
            assert (row["width_px"], row["height_px"]) == shown.size, row["uri"]
            pixels = torch.from_numpy(np.array(shown)).permute(2, 0, 1)
            difference = (pixels_of(row).int() - resize(pixels, SIZE_PX).int()).abs().float()
            if difference.mean() > (1 if min_side_px else 0.5) or difference.max() > (8 if min_side_px else 4):
                differing[row["uri"]] = (difference.mean().item(), difference.max().item())
    assert wrong == {}
    assert differing == {}
