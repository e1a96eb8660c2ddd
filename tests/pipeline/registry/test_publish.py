import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from model.config import Architecture
from model.package import ModelPackage
from model.package_files import PackageRecord
from model.ssd import SSD
from pipeline.errors import SettingError
from pipeline.registry.packages import read_package, write_package
from pipeline.registry.publish import list_published, publish, roll_back
from pipeline.storage import store


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> tuple[str, str]:
    """Two that differ in their weights, and their metrics."""
    folder = tmp_path_factory.mktemp("packages")
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        record = PackageRecord(
            name=name, architecture=Architecture(width=0.05), class_names=("cat",), metrics={"map50": 0.5 + seed / 4}
        )
        write_package(ModelPackage(record, SSD(record.architecture, 2).state_dict()), f"{folder}/{name}")
    return f"{folder}/a", f"{folder}/b"


@pytest.fixture
def root(tmp_path) -> str:
    """A place where nothing is published yet."""
    return f"{tmp_path}/models"


def test_publish_read_by_alias_and_roll_back(packages, root):
    a, b = packages
    first, second = publish(a, f"{root}/", "latest"), publish(b, root, "latest")
    assert (first.url, first.is_new, first.alias_was) == (f"{root}/{first.model_digest}", True, None)
    assert (second.model_name, second.is_new, second.alias_was) == ("b", True, first.model_digest)
    assert read_package(f"{root}/latest/").digest == second.model_digest
    assert read_package(f"{root}/{first.model_digest[:9]}").digest == first.model_digest

    done = roll_back(f"{root}/latest")
    assert (done.from_digest, done.to_digest) == (second.model_digest, first.model_digest)
    assert read_package(f"{root}/latest").digest == first.model_digest
    with pytest.raises(
        SettingError, match=f"stands for {first.model_digest}, and there is nothing before to roll back to"
    ):
        roll_back(f"{root}/latest")


def test_the_same_again_writes_nothing_and_an_alias_may_be_added(packages, root):
    first = publish(packages[0], root, "latest")
    record = store.stat(f"{first.url}/model.json")
    again = publish(packages[0], root, "latest")
    assert (again.is_new, again.alias_was) == (False, first.model_digest)
    added = publish(f"{root}/latest", root, "stable")
    assert (added.is_new, added.alias_was, added.url) == (False, None, first.url)
    assert store.stat(f"{first.url}/model.json") == record


def test_what_is_there(packages, root):
    with pytest.raises(SettingError, match="no model is published at"):
        list_published(root)
    first, second = (publish(package, root, "latest") for package in packages)
    publish(packages[1], root, "stable")
    store.write(f"{root}/{'0' * 64}/model.safetensors", b"half of a package that is being published")
    models, moves = list_published(root)
    assert {model.model_digest: (model.model_name, model.metrics, model.aliases) for model in models} == {
        first.model_digest: ("a", {"map50": 0.5}, []),
        second.model_digest: ("b", {"map50": 0.75}, ["latest", "stable"]),
    }
    assert all(model.published_at for model in models)
    assert [step.digest for step in moves["latest"]] == [second.model_digest, first.model_digest]


def test_a_package_that_is_half_there_or_changed_is_refused_and_published_again(packages, root):
    done = publish(packages[0], root, "latest")
    weights = store.read(f"{packages[1]}/model.safetensors")
    store.write(f"{done.url}/model.safetensors", weights)
    for name in ("latest", done.model_digest):
        with pytest.raises(SettingError, match=r"has the digest .*, so it was changed after it was published"):
            read_package(f"{root}/{name}")
    assert publish(packages[0], root, "latest").is_new
    assert read_package(f"{root}/latest").digest == done.model_digest
    store.delete(f"{done.url}/model.json")
    with pytest.raises(SettingError, match=r"can't be read: .*model\.json"):
        read_package(f"{root}/latest")
    assert publish(packages[0], root, "latest").is_new


def test_two_at_once(packages, root):
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda package: publish(package, root, "latest"), packages * 2))
    models, moves = list_published(root)
    assert {model.model_digest for model in models} == {one.model_digest for one in done}
    assert read_package(f"{root}/latest").digest == moves["latest"][0].digest


@pytest.mark.slow
def test_killed_at_any_moment_a_publishing_leaves_a_package_or_none(packages, root):
    """One after the other is published, until the process is killed in the sixth or soon after."""
    command = [sys.executable, PUBLISH_FOR_EVER, packages[0], root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        last = next(int(line) for line in process.stdout if int(line) >= 5)
        process.kill()
        last = max([last, *map(int, process.stdout)])
    digest = read_package(packages[0]).digest
    assert [read_package(f"{root}/{number}/latest").digest for number in range(last)] == [digest] * last
    with suppress(SettingError):
        assert read_package(f"{root}/{last}/latest").digest == digest
    publish(packages[0], f"{root}/{last}", "latest")
    assert read_package(f"{root}/{last}/latest").digest == digest
    assert len(list_published(f"{root}/{last}")[0]) == 1


PUBLISH_FOR_EVER = Path(__file__).parent / "programs/publish_for_ever.py"


def test_wrong_names_are_answered_with_the_right_ones(packages, tmp_path):
    root, (a, b) = str(tmp_path / "models"), packages
    publish(a, root, "latest")
    publish(a, root, "stable")
    for wrong in (read_package, roll_back):
        with pytest.raises(SettingError, match=r"there is no alias 'lates' at .*; there are: latest, stable"):
            wrong(f"{root}/lates")
    with pytest.raises(SettingError, match=r"model '/nowhere' can't be read: .*model\.json"):
        read_package("/nowhere")
    write_package(read_package(b), f"{root}/mine")
    with pytest.raises(SettingError, match=r"a package is stored in .*/models/mine and would hide it"):
        publish(a, root, "mine")
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match=r"to .*file/models' can't be written"):
        publish(a, f"{tmp_path}/file/models", "latest")


def test_nobody_is_led_back_to_what_is_no_longer_there(packages, tmp_path):
    first = publish(packages[0], str(tmp_path), "latest")
    second = publish(packages[1], str(tmp_path), "latest")
    shutil.rmtree(first.url)
    with pytest.raises(SettingError, match=rf"{first.model_digest}' can't be read"):
        roll_back(f"{tmp_path}/latest")
    assert read_package(f"{tmp_path}/latest").digest == second.model_digest


def test_a_damaged_record_is_named(packages, tmp_path):
    done = publish(packages[0], str(tmp_path), "latest")
    store.write(f"{done.url}/model.json", json.dumps({"name": "x"}).encode())
    with pytest.raises(SettingError, match=rf"{done.model_digest}/model\.json' is damaged"):
        list_published(str(tmp_path))


@pytest.mark.s3
@pytest.mark.parametrize(
    "check",
    [
        test_publish_read_by_alias_and_roll_back,
        test_the_same_again_writes_nothing_and_an_alias_may_be_added,
        test_what_is_there,
        test_a_package_that_is_half_there_or_changed_is_refused_and_published_again,
        test_two_at_once,
        test_killed_at_any_moment_a_publishing_leaves_a_package_or_none,
    ],
)
def test_the_same_on_s3(check, packages, s3):
    check(packages, f"s3://{s3.bucket()}/models/blood")


@pytest.mark.s3
def test_a_bucket_that_is_not_there(packages, s3):
    with pytest.raises(SettingError, match="to 's3://no-such-bucket/models' can't be written"):
        publish(packages[0], "s3://no-such-bucket/models", "latest")
