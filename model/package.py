"""A model package: weights, and all that is needed to use them, under one digest."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from model.package_files import RECORD_FILE, WEIGHTS_FILE, PackageError, PackageFiles, PackageRecord
from model.ssd import SSD, network_of_shapes


@dataclass(frozen=True)
class ModelPackage:
    """A record and the network's tensors by name."""

    record: PackageRecord
    weights: dict[str, Tensor]
    quantized: Mapping[str, bytes] = field(default_factory=dict)
    """The files of the network of int8, by name; empty without one."""

    def with_quantized(self, files: Mapping[str, bytes]) -> "ModelPackage":
        """Return the package with a network of int8."""
        return replace(self, record=self.record.model_copy(update={"quantized": True}), quantized=files)

    @cached_property
    def digest(self) -> str:
        """Return the digest of the package's files; see `PackageFiles.digest`."""
        return PackageFiles(self.to_files()).digest

    def network(self) -> SSD:
        """Return the network with these weights, in float32 on the CPU, ready for inference, and for nothing else: it shares their memory.

        Raises:
            PackageError: tensors are missing, extra, of another shape or not finite, and each is named. Or the package is a trunk.
        """
        if not self.record.class_names:
            raise PackageError("it has no classes: it holds a trunk alone, to start a training from (train --init)")
        network = network_of_shapes(self.record.architecture, len(self.record.class_names) + 1).requires_grad_(False)
        wanted = network.state_dict()
        problems = [f"missing {name}" for name in wanted.keys() - self.weights.keys()]
        problems += [f"extra {name}" for name in self.weights.keys() - wanted.keys()]
        problems += [
            f"{name} has shape {tuple(self.weights[name].shape)}, not {tuple(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in self.weights and self.weights[name].shape != tensor.shape
        ]
        if problems:
            raise PackageError(f"the weights do not fit the architecture: {'; '.join(sorted(problems))}")
        broken = [name for name, tensor in self.weights.items() if not tensor.isfinite().all()]
        if broken:
            raise PackageError(f"these weights are not finite numbers: {', '.join(sorted(broken))}")
        values = {
            name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in self.weights.items()
        }
        network.load_state_dict(values, assign=True)
        return network.eval()

    def to_files(self) -> dict[str, bytes]:
        """Return the content of the package's files by name; tensors are stored in the type that they have."""
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.weights.items()}
        return {RECORD_FILE: self.record.to_bytes(), WEIGHTS_FILE: save(weights), **self.quantized}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> "ModelPackage":
        """Return the package that is stored in these files: the inverse of `to_files`.

        Raises:
            PackageError: a file is missing or not valid.
        """
        package = PackageFiles(files)
        try:
            weights = load(package[WEIGHTS_FILE])
        except SafetensorError as error:
            raise PackageError(f"{WEIGHTS_FILE}: not a safetensors file ({error})") from error
        return cls(package.record, weights, package.quantized)
