"""In which numbers a network computes: bfloat16 for convolutions where the hardware has it."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import nn

from hpo.config import Precision

_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


FEWEST_CHANNELS = 16
"""That a convolution reads for its network to gain by bfloat16. With AVX512-BF16 a step of two convolutions
takes 1.3 times as long in float32 where the second reads 16 channels, 0.8 times where it reads 8."""


def computes_in_bfloat16(
    option: Precision, module: nn.Module, device: torch.device, dtype: torch.dtype
) -> bool:
    """Whether `module` runs under autocast to bfloat16, which only ever takes the place of float32.

    `auto` looks at the network and the hardware, never at the clock, so that equal machines come to equal
    numbers. A network without convolutions is left alone: an MLP's matrices are too small for bfloat16 to
    make up for the conversions.
    """
    if dtype != torch.float32 or option == "float32":
        return False
    if option == "bfloat16":
        return True
    return has_bfloat16(device.type) and any(
        isinstance(layer, _CONVOLUTIONS) and layer.in_channels // layer.groups >= FEWEST_CHANNELS
        for layer in module.modules()
    )


@cache
def has_bfloat16(device: str) -> bool:
    """Whether machines of this type of device, "cpu" or "cuda", multiply bfloat16 in hardware here."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Not in torch 2.10, the oldest that we allow: there, nothing is known.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return device == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
