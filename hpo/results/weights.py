"""A network's weights as tensors that can be kept."""

import hashlib

from safetensors.torch import save
from torch import Tensor, nn


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """The state of `module` by name; copies, since safetensors refuses tensors that share memory, as tied
    weights do."""
    return {name: tensor.clone().contiguous() for name, tensor in module.state_dict().items()}


def digest(module: nn.Module) -> str:
    """SHA-256 of the weights, by which a model is known again."""
    return hashlib.sha256(save(tensors_of(module))).hexdigest()
