import json

import pytest
import torch

from model.config import Architecture
from model.package import ModelPackage
from model.package_files import PackageRecord
from model.ssd import SSD
from pipeline.errors import SettingError, SsdBatchError
from pipeline.registry.packages import check_free, read_package, write_package
from pipeline.storage import store


@pytest.fixture(scope="module")
def package() -> ModelPackage:
    torch.manual_seed(0)
    record = PackageRecord(name="tiny", architecture=Architecture(width=0.05), class_names=("cat", "dog"))
    return ModelPackage(record, SSD(record.architecture, 3).state_dict())


def assert_same(found: ModelPackage, package: ModelPackage) -> None:
    assert (found.digest, found.record) == (package.digest, package.record)
    assert found.weights.keys() == package.weights.keys()
    for name, tensor in package.weights.items():
        assert torch.equal(found.weights[name], tensor)


def test_a_package_goes_to_a_folder_and_comes_back(package, tmp_path):
    write_package(package, f"file://{tmp_path}/new folder/model/")
    assert_same(read_package(f"{tmp_path}/new folder/model"), package)


@pytest.mark.s3
def test_a_package_goes_to_s3_and_comes_back(package, s3):
    url = f"s3://{s3.bucket()}/models/tiny"
    write_package(package, url)
    assert_same(read_package(f"{url}/"), package)
    with pytest.raises(SettingError, match=r"can't be read: .*model\.json"):
        read_package(f"{url}/none")
    with pytest.raises(SettingError, match="can't be read"):
        read_package("s3://no-such-bucket/model")
    with pytest.raises(SsdBatchError, match="model 's3://no-such-bucket/model' can't be written"):
        write_package(package, "s3://no-such-bucket/model")


def test_what_is_no_package_yet_is_told_apart(tmp_path):
    """The folder above published models, and that of a training that has not ended."""
    (tmp_path / "mine/_runs/mine").mkdir(parents=True)
    with pytest.raises(SettingError, match="a training that writes it has not ended; run the same command again"):
        read_package(f"{tmp_path}/mine")
    (tmp_path / "blood/aliases/latest").mkdir(parents=True)
    (tmp_path / "blood/aliases/latest/00000001.json").write_text("{}")
    with pytest.raises(SettingError, match=r"models are published there: name one, such as .*/blood/latest$"):
        read_package(f"{tmp_path}/blood")


def test_a_missing_folder_or_file_is_named(package, tmp_path):
    with pytest.raises(SettingError, match=r"nowhere' can't be read: .*model\.json"):
        read_package(str(tmp_path / "nowhere"))
    write_package(package, str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(SettingError, match=r"model\.safetensors"):
        read_package(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.json", b"no JSON", r"can't be used: model\.json"),
        ("model.json", b"{}", r"model\.json: name: .*; architecture: .*; class_names: "),
        ("model.json", b"\xff", r"model\.json"),
        ("model.safetensors", b"", r"model\.safetensors: not a safetensors file"),
        ("model.safetensors", b"\x80\x04pickle" * 9, r"model\.safetensors: not a safetensors file"),
    ],
)
def test_a_broken_file_is_named(name, content, message, package, tmp_path):
    write_package(package, str(tmp_path))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SettingError, match=message):
        read_package(str(tmp_path))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("class_names", ["cat"], r"the weights do not fit.*classification.*shape"),
        ("class_names", [], "holds a trunk alone"),
        ("colour", "red", "colour"),
        ("architecture", {"kind": "yolo"}, r"architecture\.kind"),
        ("thresholds", {"score_thresh": 2}, r"thresholds\.score_thresh"),
    ],
)
def test_a_record_that_does_not_fit_is_explained(field, value, message, package, tmp_path):
    write_package(package, str(tmp_path))
    record = json.loads(store.read(f"{tmp_path}/model.json")) | {field: value}
    store.write(f"{tmp_path}/model.json", json.dumps(record).encode())
    with pytest.raises(SettingError, match=message):
        read_package(str(tmp_path))


def test_a_training_may_only_write_where_nothing_is(tmp_path, package):
    check_free(str(tmp_path / "new"))
    assert list(tmp_path.rglob("*")) == []
    write_package(package, str(tmp_path / "new"))
    with pytest.raises(SettingError, match="holds a model package already"):
        check_free(str(tmp_path / "new"))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingError, match="can't be written"):
        check_free(str(tmp_path / "file" / "below"))
