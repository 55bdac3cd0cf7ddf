"""A bundle at work: loaded once per process, folded, on its device and in its precision."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from wsi_twostage.errors import BundleError, ConfigError, DeviceFull, did_you_mean
from wsi_twostage.models.bundle import ModelBundle, load_bundle
from wsi_twostage.models.compiled import Compiled, compile_bundle
from wsi_twostage.models.header import find_bundle, locate, read_spec, sha256_of
from wsi_twostage.models.onnx_net import OnnxNet, onnx_device
from wsi_twostage.models.room import is_full, reason, with_room, within_room
from wsi_twostage.models.spec import BundleSpec
from wsi_twostage.models.stage import Stage, ensure_numbers
from wsi_twostage.models.twostage import TwoStageNet
from wsi_twostage.models.unet import DecoderStep

T = TypeVar("T")

ENGINES = ("torch", "openvino", "onnx")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_in_memory: dict[str, ModelBundle] = {}
_loading = Lock()


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Where a worker finds the bundle; this, not the weights, travels with each task."""

    path: str
    sha256: str
    device: str = "cpu"
    """Or ``auto``, which each worker decides for itself."""
    precision: str = "fp32"
    engine: str = "torch"
    """What runs the networks; ``onnx`` for a bundle of ONNX files."""


def refer(
    bundle: ModelBundle | str | os.PathLike[str] | None,
    *,
    device: str,
    precision: str,
    engine: str = "torch",
    elsewhere: bool = False,
) -> tuple[ModelRef, BundleSpec]:
    """A reference for workers, and the bundle's spec; loads it here first, so that errors show early.

    A `ModelBundle` made in memory is known to this process alone. ``elsewhere``: only the workers have the
    device, and load it.

    Raises
    ------
    BundleError
        Not a bundle.
    ConfigError
        A device, precision or engine that is not to be had here.
    """
    if engine not in ENGINES:
        names = ENGINES[:2]
        raise ConfigError(f"engine={engine!r}; use {' or '.join(names)}{did_you_mean(engine, names)}")
    if precision not in PRECISIONS:
        near = did_you_mean(precision, PRECISIONS)
        raise ConfigError(f"precision={precision!r}; use {', '.join(PRECISIONS)}{near}")
    if isinstance(bundle, ModelBundle):
        return _refer_to_memory(bundle, device=device, precision=precision, engine=engine)
    path = locate(bundle)
    spec = read_spec(path)  # before the hash, so that what is no bundle says so
    onnx = spec.contract is not None
    if onnx:
        _ensure_as_it_is(path, precision=precision, engine=engine)
        engine = "onnx"
    elif engine == "onnx":
        raise ConfigError(f"engine='onnx' is for bundles of ONNX files; {path}: use torch or openvino")
    device = "cpu" if (engine, device) == ("openvino", "auto") else device
    if not elsewhere:
        device = onnx_device(device) if onnx else choose_device(device)
    if engine == "openvino" and device != "cpu":
        raise ConfigError(_OPENVINO)
    ref = ModelRef(str(path.absolute()), sha256_of(path), device, precision, engine)
    return ref, spec if elsewhere else runner(ref).spec


_OPENVINO = "engine='openvino' is for bundles in files, on the CPU"


def _refer_to_memory(
    bundle: ModelBundle, *, device: str, precision: str, engine: str
) -> tuple[ModelRef, BundleSpec]:
    if engine != "torch":
        raise ConfigError(_OPENVINO if engine == "openvino" else "engine='onnx' is for bundles in files")
    if _has_onnx(bundle):
        _ensure_as_it_is(bundle.spec.name, precision=precision, engine=engine)
        device = onnx_device(device)
    key = f"memory:{id(bundle)}"
    _in_memory[key] = bundle
    return ModelRef(key, bundle.sha256, choose_device(device), precision), bundle.spec


def _has_onnx(bundle: ModelBundle) -> bool:
    return any(isinstance(f, Stage) and isinstance(f.net, OnnxNet) for f in (bundle.f1, bundle.f2))


def _ensure_as_it_is(name: object, *, precision: str, engine: str) -> None:
    """An ONNX file says its numbers itself, and ONNX Runtime runs it."""
    if engine == "openvino":
        raise ConfigError(f"{name}: engine='openvino' is not for ONNX files; ONNX Runtime runs them")
    if precision != "fp32":
        raise ConfigError(f"{name}: precision={precision!r} is not for ONNX files; export it in 16 bits")


def choose_device(name: str) -> str:
    """``auto`` is a CUDA device where there is one, else the CPU."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "meta":  # torch's, of shapes alone
        raise ConfigError("device 'meta' computes nothing; use auto or cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        if "device string" in reason:  # all that torch was ever built for follows
            reason = "there is no such device; NVIDIA's are cuda, cuda:1, ..."
        raise ConfigError(f"device {name!r} cannot be used here ({reason}); use auto or cpu") from error
    return name


@dataclass(frozen=True, eq=False)
class Runner:
    """Both stages from arrays to arrays."""

    bundle: ModelBundle
    device: torch.device
    precision: torch.dtype
    _twins: threading.local = field(default_factory=threading.local)

    @property
    def spec(self) -> BundleSpec:
        return self.bundle.spec

    def f1(self, coarse: NDArray[np.uint8]) -> Tensor:
        """(h, w, 3) -> logits (K, scale * h, scale * w); raises as `within_memory`."""
        return self._answer(self._own("f1"), coarse)

    def f2(self, fine: NDArray[np.uint8], around: NDArray[np.uint8]) -> Tensor:
        """(H, W, 3) and (h, w, 3) -> logits (K, H, W); raises as `within_memory`."""
        return self._answer(self._own("f2"), fine, around)

    def within_memory(self, image: NDArray[np.uint8], work: Callable[[], T]) -> T:
        """What is made of an image on the device; beside other threads' work or, without room there, alone.

        Raises
        ------
        DeviceFull
            There is no memory for it alone either.
        """
        try:
            return with_room(work)
        except RuntimeError as error:
            if within_room() or not is_full(error):
                raise
            height, width, _ = image.shape
            raise DeviceFull(
                f"device {self.device}: no memory for {height} x {width} px ({reason(error)}); use "
                f"fewer --workers, or --device cpu"
            ) from error

    def _own(self, name: str) -> Callable[..., Tensor]:
        """A stage for this thread alone, where it is a network of the user's."""
        stage = getattr(self.bundle, name)
        if not isinstance(stage, Stage):
            return cast(Callable[..., Tensor], stage)
        if not hasattr(self._twins, name):
            setattr(self._twins, name, stage.twin())
        return cast(Callable[..., Tensor], getattr(self._twins, name))

    def _answer(self, net: Callable[..., Tensor], *images: NDArray[np.uint8]) -> Tensor:
        return self.within_memory(images[0], lambda: self._once(net, *images))

    def _once(self, net: Callable[..., Tensor], *images: NDArray[np.uint8]) -> Tensor:
        with torch.inference_mode(), self._autocast():
            answer = net(*map(self._input, images))[0]
        ensure_numbers(answer, self.spec.name)
        return answer

    def _input(self, rgb: NDArray[np.uint8]) -> Tensor:
        """(H, W, 3) uint8 -> (1, 3, H, W) float32 in 0..1, channels last in memory, as it was read."""
        return torch.from_numpy(rgb).to(self.device)[None].permute(0, 3, 1, 2).float().div_(255)

    def _autocast(self) -> Any:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)


def runner(ref: ModelRef) -> Runner | Compiled:
    """The runner of a reference, made once per process, whichever of its threads asks first.

    Raises
    ------
    BundleError, ConfigError, DeviceFull
        It cannot be used here.
    """
    with _loading:
        try:
            return _runner(ref)
        except RuntimeError as error:
            if not is_full(error):
                raise
            raise DeviceFull(
                f"device {ref.device}: no memory for the model ({reason(error)}); use --device cpu"
            ) from error


@lru_cache(maxsize=4)
def _runner(ref: ModelRef) -> Runner | Compiled:
    kept = _in_memory.get(ref.path)
    if kept is not None:
        return _in_place(kept, torch.device(choose_device(ref.device)), ref)
    if ref.engine == "onnx":  # images go to ONNX Runtime from the CPU, whatever its own device
        bundle = load_bundle(_place(ref), device=onnx_device(ref.device))
        return Runner(bundle, torch.device("cpu"), torch.float32)
    device = choose_device(ref.device)
    bundle = load_bundle(_place(ref), device=device)
    for stage in (bundle.f1, bundle.f2):
        net = getattr(stage, "__self__", None)
        if isinstance(net, nn.Module):
            settle(net)
            if ref.engine == "openvino":
                assert isinstance(net, TwoStageNet)
                return compile_bundle(bundle, net, precision=ref.precision)
    return Runner(bundle, torch.device(device), PRECISIONS[ref.precision])


def _in_place(bundle: ModelBundle, device: torch.device, ref: ModelRef) -> Runner:
    """A bundle of this process on a device; plain functions are left where they are."""
    f1 = bundle.f1.on(device) if isinstance(bundle.f1, Stage) else bundle.f1
    f2 = bundle.f2.on(device) if isinstance(bundle.f2, Stage) else bundle.f2
    return Runner(replace(bundle, f1=f1, f2=f2), device, PRECISIONS[ref.precision])


def _place(ref: ModelRef) -> Path:
    """The file of a reference on this machine."""
    path = Path(ref.path)
    if (found := find_bundle(ref.path, ref.sha256)) is None and path.is_file():
        raise BundleError(f"{path} is not the file that the run was started with")
    return found or path


def settle(net: nn.Module) -> None:
    """What can be computed from the weights alone, once and in place; the same function, in less time.

    Each batch norm goes into the convolution before it, and decoder steps make their kernels.
    """
    for module in list(net.modules()):
        if isinstance(module, nn.Sequential):
            for (first, conv), (second, norm) in pairwise(list(module.named_children())):
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    setattr(module, first, fuse_conv_bn_eval(conv, norm))
                    setattr(module, second, nn.Identity())
    for module in list(net.modules()):
        if isinstance(module, DecoderStep):
            module.settle()
