"""The reading of a file of weights: tensors by name, and no code of the file is run."""

import io
import re
import warnings
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor
from torch.serialization import safe_globals

MAX_NAMED = 20
ENTRIES = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "network",
    "net",
    "weights",
    "model_ema",
    "ema",
)
"""The entries of a checkpoint that may hold the network; the first one with tensors is used."""
SAFETENSORS = re.compile(rb".{5}\x00{3}\{", re.DOTALL)
"""The beginning of a safetensors file: the length of its header, in eight bytes, and the header."""


class WeightsError(ValueError):
    """The weights can't be imported; the message says what is wrong, in the file's own names."""


class StandIn:
    """A placeholder for a Python object in a file, whose class is not looked up: settings, paths, numbers of other libraries."""

    def __new__(cls, *args: object, **kwargs: object) -> "StandIn":
        """Accept the object's arguments, and keep none of them."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Accept the object's state, and keep none of it."""


def read_weights(data: bytes) -> dict[str, Tensor]:
    """Return the tensors by name in a file that safetensors or `torch.save` wrote; nothing in the file is run.

    The tensors may be an entry of a checkpoint, such as `state_dict` or `model`. An optimizer and other objects next to
    them are ignored.

    Raises:
        WeightsError: the file is of neither kind, or needs code to be run, or does not hold tensors by name.
    """
    if SAFETENSORS.match(data[:9]):
        try:
            return load(data)
        except SafetensorError as error:
            raise WeightsError(f"it is a safetensors file that is damaged or cut short ({error})") from error
    loaded, objects = _unpickled(data)
    tensors = _tensors_in(loaded)
    if tensors is None and objects:
        raise WeightsError(
            f"it holds Python objects ({', '.join(objects)}), and reading them would run code from the file; save the network's "
            "state_dict() alone"
        )
    if not isinstance(loaded, dict):
        raise WeightsError(f"it holds a {type(loaded).__name__}, not tensors by name; save the state_dict()")
    if tensors is None:
        others = [str(name) for name, value in loaded.items() if not isinstance(value, Tensor)]
        raise WeightsError(f"it holds {listed(others) or 'nothing'}, not tensors by name; save the state_dict() alone")
    return {str(name): tensor for name, tensor in tensors.items()}


def _unpickled(data: bytes) -> tuple[Any, list[str]]:
    """Return what `torch.save` wrote, and the names of the classes that `StandIn` replaces.

    torch names one such class per attempt to load the file.
    """
    names: list[str] = []
    while True:
        try:
            with warnings.catch_warnings(), safe_globals([(StandIn, name) for name in names]):
                warnings.simplefilter("ignore")  # warnings about old formats
                return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), names
        except (
            Exception
        ) as error:  # for damaged files torch raises nearly anything, AssertionError and struct.error too
            needed = re.search(r"GLOBAL (\S+) (was not an allowed global|whose module \S+ is blocked)", str(error))
            if needed is None:
                raise WeightsError(
                    "it is no file of weights that torch.save wrote, or is damaged or cut short"
                ) from error
            is_plain = "." in needed[1] and needed[2].startswith(
                "was"
            )  # otherwise it is a built-in function, or one of the system
            if not is_plain or needed[1] in names or len(names) == MAX_NAMED:
                message = f"it holds Python objects ({needed[1]}), and reading them would run code from the file"
                raise WeightsError(f"{message}; save the network's state_dict() alone") from error
            names.append(needed[1])


def _tensors_in(loaded: Any) -> dict[Any, Tensor] | None:
    """Return the tensors by name, or those in an entry of a checkpoint; None where there are none."""
    if not isinstance(loaded, dict) or not loaded:
        return None
    if all(isinstance(value, Tensor) for value in loaded.values()):
        return loaded
    for entry in ENTRIES:
        if tensors := _tensors_in(loaded.get(entry)):
            return tensors
    return None


def listed(names: list[str], separator: str = ", ") -> str:
    """Return the first names of many as one text."""
    more = f"{separator}and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return separator.join(names[:MAX_NAMED]) + more
