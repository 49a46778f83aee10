"""A bundle's network as an ONNX file for other programs, compared with the original."""

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpo.errors import HpoError, UsageError

if TYPE_CHECKING:
    from hpo.results.bundle import Bundle

BATCHES = (1, 64)
"""Sizes at which outputs are compared."""
TOLERANCE = 1e-4
"""Absolute, and relative where outputs are large: numbers in a target's own unit may be."""
NEEDED = ("onnx", "onnxruntime", "onnxscript")


class _Whole(nn.Module):
    """The network with what belongs to it: pixels are normalized, numbers in their own unit."""

    means: Tensor
    deviations: Tensor

    def __init__(self, bundle: "Bundle") -> None:
        super().__init__()
        network = bundle.network
        self.module = bundle.module
        self.classifies = network.task == "classification"
        self.mean, self.scale = network.target_mean, network.target_scale
        self.normalizes = network.normalization is not None
        channels = network.normalization
        for name, values in (
            ("means", channels.means if channels else ()),
            ("deviations", channels.deviations if channels else ()),
        ):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """inputs: [N, *input_shape]. Logits and probabilities [N, C], or numbers [N, 1]."""
        features = (inputs - self.means) / self.deviations if self.normalizes else inputs
        outputs: Tensor = self.module(features)
        if self.classifies:
            return outputs, outputs.softmax(dim=1)
        return outputs * self.scale + self.mean


def require_onnx() -> None:
    """Refuse to begin without the packages of the extra.

    Raises:
        UsageError: one is not installed.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise UsageError(f"--onnx needs {', '.join(missing)}: pip install 'hpo[onnx]'")


def write_onnx(bundle: "Bundle", path: Path) -> None:
    """Write the network to `path`; the number of examples is free.

    Raises:
        HpoError: it cannot be exported, or onnxruntime comes to other outputs than torch.
    """
    import onnx

    whole = _Whole(bundle).eval()
    input_name = "pixels" if bundle.normalization is not None else "features"
    output_names = ["logits", "probabilities"] if whole.classifies else ["number"]
    try:
        with _quiet():
            torch.onnx.export(
                whole,
                (_examples(bundle, 3),),
                path,
                dynamo=True,
                external_data=False,
                verbose=False,
                input_names=[input_name],
                output_names=output_names,
                dynamic_shapes=({0: torch.export.Dim("examples")},),
            )
            model = onnx.load(path)
            onnx.helper.set_model_props(model, _description(bundle))
            onnx.save(model, path)
    except Exception as error:  # (the exporter raises whatever the user's module makes it stumble over)
        raise HpoError(
            f"{bundle.network.architecture!r} cannot be exported to ONNX, and nothing was written: "
            f"{_reason(error)}"
        ) from error
    _compare(bundle, whole, path)


def _reason(error: BaseException) -> str:
    """The innermost cause's first line: torch wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's progress and warnings are about its own insides."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _examples(bundle: "Bundle", count: int) -> Tensor:
    """Examples of the kind that the network takes, the same each time."""
    draws = np.random.default_rng(count)
    shape = (count, *bundle.input_shape)
    if bundle.normalization is not None:
        return torch.from_numpy(draws.integers(0, 256, shape).astype(np.float32))
    return torch.from_numpy(draws.standard_normal(shape).astype(np.float32))


def _description(bundle: "Bundle") -> dict[str, str]:
    """What a user of the file must know, as metadata."""
    shape = ", ".join(map(str, bundle.input_shape))
    if bundle.normalization is not None:
        takes = f"pixels [N, {shape}] float32, from 0 to 255 as in the files; they are normalized inside"
    else:
        takes = f"features [N, {shape}] float32, as preprocessing.skops makes them of raw rows"
    gives = "logits and probabilities [N, C]" if bundle.classes else "number [N, 1] in the target's unit"
    return {"study": bundle.config.name, "takes": takes, "gives": gives, "classes": "\n".join(bundle.classes)}


@torch.no_grad()
def _compare(bundle: "Bundle", whole: nn.Module, path: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for count in BATCHES:
        inputs = _examples(bundle, count)
        expected = whole(inputs)
        found = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
        for ours, its in zip(expected if isinstance(expected, tuple) else (expected,), found, strict=True):
            _check(bundle, count, ours.numpy(), its)


def _check(bundle: "Bundle", count: int, ours: NDArray[Any], its: NDArray[Any]) -> None:
    if ours.shape == its.shape and np.allclose(its, ours, rtol=TOLERANCE, atol=TOLERANCE):
        return
    apart = f"{np.abs(its - ours).max():.2g} apart" if ours.shape == its.shape else f"{its.shape}"
    raise HpoError(
        f"{bundle.network.architecture!r}: its ONNX model does not do the same as the network: outputs of "
        f"{count} examples are {apart}; at most {TOLERANCE:g} is allowed, and nothing was written"
    )
