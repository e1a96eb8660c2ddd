"""Files of weights, of which nothing is run."""

import argparse
import io
import os
import pickle
import subprocess
from collections import OrderedDict
from pathlib import PurePosixPath
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import save

from model.weights_file import WeightsError, read_weights


def saved(content: object, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_tensors(zipped):
    """ssd.pytorch's files are older than torch's zip files."""
    tensors = read_weights(saved(OrderedDict(a=torch.ones(2, 3), b=torch.zeros(1)), zipped))
    assert list(tensors) == ["a", "b"]
    assert torch.equal(tensors["a"], torch.ones(2, 3))


class Marks:
    """Leaves a mark where its code is run."""

    are_made: ClassVar[list[object]] = []

    def __init__(self, *args: object) -> None:
        self.are_made.append(args)

    def __reduce__(self):
        return Marks, ("made",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("entry", ["state_dict", "model_state_dict", "model", "net"])
def test_an_entry_of_a_checkpoint_beside_objects_whose_code_is_not_run(zipped, entry, monkeypatch):
    content = {
        "epoch": 3,
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(1)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "args": argparse.Namespace(lr=0.1, path=PurePosixPath("/x")),
        "best": np.float64(0.5),
        entry: OrderedDict(a=torch.ones(2)),
        "mark": Marks(),
    }
    data = saved(content, zipped)
    monkeypatch.setattr(Marks, "are_made", [])
    tensors = read_weights(data)
    assert (list(tensors), tensors["a"].tolist(), Marks.are_made) == (["a"], [1, 1], [])


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_objects_alone_is_refused(zipped):
    for content in ({"args": argparse.Namespace(lr=0.1)}, Marks(), {"a": torch.ones(1), "mark": Marks()}):
        with pytest.raises(WeightsError, match=r"it holds Python objects \(\S+\).* would run code"):
            read_weights(saved(content, zipped))


class Runs:
    """What a hostile file does."""

    def __init__(self, function, argument: str) -> None:
        self._function, self._argument = function, argument

    def __reduce__(self):
        return self._function, (self._argument,)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("function", [os.system, eval, exec, getattr, subprocess.check_output])
def test_nothing_that_a_file_would_do_is_done(function, zipped, tmp_path):
    """What every Python has is refused by name; another's function is one more object that is passed over."""
    data = saved({"model": {"a": torch.ones(1)}, "x": Runs(function, f"touch {tmp_path}/done")}, zipped)
    if function is subprocess.check_output:
        assert list(read_weights(data)) == ["a"]
    else:
        with pytest.raises(WeightsError, match="would run code"):
            read_weights(data)
    assert list(tmp_path.iterdir()) == []


def test_safetensors():
    tensors = {"a": torch.ones(2, 3), "b": torch.zeros(1)}
    assert {name: t.tolist() for name, t in read_weights(save(tensors)).items()} == {
        n: t.tolist() for n, t in tensors.items()
    }
    with pytest.raises(WeightsError, match="safetensors file that is damaged or cut short"):
        read_weights(save(tensors)[:-3])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no weights\n",
        b"<html>404</html>",
        b"PK\x03\x04",
        pickle.dumps({"a": 1}),
        saved({"a": torch.ones(999)})[:-2000],
        saved({"a": torch.ones(999)}, zipped=False)[:-2000],
    ],
)
def test_files_that_are_no_weights(data):
    with pytest.raises(WeightsError, match=r"no file of weights that torch\.save wrote"):
        read_weights(data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "it holds a list"),
        (torch.ones(1), "it holds a Tensor"),
        ({}, "it holds nothing"),
        ({"head": {"a": torch.ones(1)}, "epoch": 3}, "it holds head, epoch, not tensors by name"),
        ({"model": {"a": 1}, "epoch": 3}, "it holds model, epoch, not tensors by name"),
    ],
)
def test_files_of_something_else(content, message):
    with pytest.raises(WeightsError, match=message):
        read_weights(saved(content))
