"""Both stages compiled by OpenVINO, for CPUs: the same functions, faster most of all in 16 bits."""

import os
import threading
import uuid
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from dask.system import CPU_COUNT
from numpy.typing import NDArray
from torch import Tensor, nn

from wsi_twostage.errors import ConfigError
from wsi_twostage.models.bundle import ModelBundle
from wsi_twostage.models.spec import CONTEXT_STRIDE, BundleSpec
from wsi_twostage.models.stage import ensure_numbers
from wsi_twostage.models.twostage import TwoStageNet

T = TypeVar("T")

PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


class _First(nn.Module):
    """Model 1 on (1, h, w, 3) uint8."""

    def __init__(self, net: TwoStageNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, coarse: Tensor) -> Tensor:
        """Logits (1, K, scale * h, scale * w)."""
        logits: Tensor = self.net.coarse(_input(coarse)).logits
        return logits


class _Second(nn.Module):
    """Model 2 on (1, H, W, 3) and (1, h, w, 3) uint8."""

    def __init__(self, net: TwoStageNet, margin: int) -> None:
        super().__init__()
        self.net, self.margin = net, margin

    def forward(self, fine: Tensor, around: Tensor) -> Tensor:
        """Logits (1, K, H, W)."""
        context = None
        if self.net.fine.context:
            guide = self.net.coarse if self.net.guide is None else self.net.guide
            inner = slice(self.margin, -self.margin or None)  # of any size, where a cut to `fine` is of one
            context = guide(_input(around)).features[..., inner, inner]
        logits: Tensor = self.net.fine(_input(fine), context).logits
        return logits


def _input(rgb: Tensor) -> Tensor:
    return rgb.permute(0, 3, 1, 2).float() / 255


@dataclass(frozen=True, eq=False)
class Compiled:
    """A bundle at work, as `runner.Runner`."""

    spec: BundleSpec
    _first: Any
    _second: Any
    _requests: threading.local

    def f1(self, coarse: NDArray[np.uint8]) -> Tensor:
        """(h, w, 3) -> logits (K, scale * h, scale * w)."""
        return self._infer("first", coarse)

    def f2(self, fine: NDArray[np.uint8], around: NDArray[np.uint8]) -> Tensor:
        """(H, W, 3) and (h, w, 3) -> logits (K, H, W)."""
        return self._infer("second", fine, around)

    def within_memory(self, image: NDArray[np.uint8], work: Callable[[], T]) -> T:
        """As of `runner.Runner`; a CPU's memory is the system's own affair."""
        return work()

    def _infer(self, stage: str, *images: NDArray[np.uint8]) -> Tensor:
        request = getattr(self._requests, stage, None)
        if request is None:  # each thread has its own
            request = getattr(self, f"_{stage}").create_infer_request()
            setattr(self._requests, stage, request)
        request.infer([np.ascontiguousarray(image)[None] for image in images])
        answer = torch.from_numpy(request.get_output_tensor(0).data[0].copy())
        ensure_numbers(answer, self.spec.name)
        return answer


def compile_bundle(bundle: ModelBundle, net: TwoStageNet, *, precision: str) -> Compiled:
    """Trace both stages and compile them for windows of any size.

    Each core is a stream of its own: one window a core beats all cores on one.

    Raises
    ------
    ConfigError
        OpenVINO is not installed, or does not know the precision.
    """
    try:
        import openvino
    except ImportError as error:
        raise ConfigError("engine='openvino' needs OpenVINO: pip install 'wsi-twostage[openvino]'") from error
    if precision not in PRECISIONS:
        raise ConfigError(f"precision={precision!r} with engine='openvino'; use {', '.join(PRECISIONS)}")
    spec, core = bundle.spec, openvino.Core()
    options = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        "NUM_STREAMS": CPU_COUNT,
        "INFERENCE_NUM_THREADS": CPU_COUNT,
    }
    margin = spec.context_halo - spec.halo // CONTEXT_STRIDE
    field = 2 * spec.halo + 128  # of the traced window: any will do
    fine = torch.zeros(1, field, field, 3, dtype=torch.uint8)
    side = field // CONTEXT_STRIDE + 2 * margin
    around = torch.zeros(1, side, side, 3, dtype=torch.uint8)

    def compiled(name: str, stage: nn.Module, *example: Tensor) -> Any:
        kept = _cache() / f"{bundle.sha256}-{name}-{version('wsi-twostage')}-{version('openvino')}.xml"
        with suppress(RuntimeError):  # missing, or damaged
            return core.compile_model(core.read_model(kept), "CPU", options)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch's, of its own tracing
            model = openvino.convert_model(stage.eval(), example_input=example)
        model.reshape({index: [1, -1, -1, 3] for index in range(len(example))})
        draft = kept.with_name(f"{uuid.uuid4().hex}.xml")
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            openvino.save_model(model, draft, compress_to_fp16=False)
            draft.with_suffix(".bin").replace(kept.with_suffix(".bin"))
            draft.replace(kept)
            model = core.read_model(kept)  # so that the first time is as every other, to the last bit
        except (OSError, RuntimeError):  # it is made again next time
            for file in (draft, draft.with_suffix(".bin")):
                file.unlink(missing_ok=True)
        return core.compile_model(model, "CPU", options)

    first = compiled("first", _First(net), around)
    return Compiled(spec, first, compiled("second", _Second(net, margin), fine, around), threading.local())


def _cache() -> Path:
    """Where traced networks are kept: tracing takes seconds."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "wsi_twostage"
