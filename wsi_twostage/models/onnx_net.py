"""A network in an ONNX file, run by ONNX Runtime on a CPU or a CUDA device."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsi_twostage.errors import BundleError, ConfigError, one_line

_CUDA = "CUDAExecutionProvider"
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_KEYS = ("out", "logits")  # of the answer, where a file has several
_PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".bin", ".jit", ".torchscript")


class OnnxNet:
    """(N, 3, H, W) -> (N, K, H, W), as the other networks; several threads may call it at once.

    Raises
    ------
    BundleError
        Not an ONNX file, or one that takes something else than RGB images of any size.
    ConfigError
        ONNX Runtime is not installed, or has no such device.
    """

    def __init__(self, data: bytes, *, name: str, device: str = "cpu") -> None:
        self.data, self.name, self.device = data, name, device
        self._sessions: dict[int, Any] = {}
        self._making = threading.Lock()
        session = self._session(1)
        self._inputs = [(each.name, _TYPES.get(each.type)) for each in session.get_inputs()]
        outputs = [each.name for each in session.get_outputs()]
        named = [key for key in _KEYS if key in outputs]
        if len(outputs) > 1 and not named:
            raise BundleError(
                f"{name}: gives {', '.join(outputs)}; name the logits {_KEYS[0]!r} or {_KEYS[1]!r} or leave "
                f"the others away"
            )
        self._output = (named or outputs)[0]
        _ensure_images(name, session.get_inputs())

    @property
    def inputs(self) -> int:
        """1, or 2 for a network that takes what is around, too."""
        return len(self._inputs)

    def __call__(self, *images: Tensor) -> Tensor:
        fed = {
            name: np.ascontiguousarray(image.cpu().numpy(), kind)
            for (name, kind), image in zip(self._inputs, images, strict=True)
        }
        # As many threads as torch would take, which in a run is one for each window at work.
        try:
            (found,) = self._session(torch.get_num_threads()).run([self._output], fed)
        except Exception as error:  # its errors have no common base; torch's are RuntimeErrors
            raise RuntimeError(one_line(error)) from error
        return torch.from_numpy(found)

    def on(self, device: str) -> "OnnxNet":
        """The same on another device."""
        return self if device == self.device else OnnxNet(self.data, name=self.name, device=device)

    def _session(self, threads: int) -> Any:
        with self._making:
            if threads not in self._sessions:
                self._sessions[threads] = self._made(threads)
            return self._sessions[threads]

    def _made(self, threads: int) -> Any:
        runtime = onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_mem_pattern = False  # windows have many sizes
        options.log_severity_level = 4  # what goes wrong is raised
        kind, _, index = self.device.partition(":")
        providers: list[Any] = ["CPUExecutionProvider"]
        if kind == "cuda":
            providers.insert(0, (_CUDA, {"device_id": int(index or 0)}))
        try:
            session = runtime.InferenceSession(self.data, options, providers=providers)
        except Exception as error:  # its errors have no common base
            reason = one_line(error)
            raise BundleError(f"{self.name}: not a sound ONNX file ({reason})") from error
        if kind == "cuda" and session.get_providers()[0] != _CUDA:
            raise ConfigError(f"device {self.device!r}: ONNX Runtime cannot use it; use cpu")
        return session


def _ensure_images(name: str, inputs: list[Any]) -> None:
    """One or two inputs of (N, 3, H, W), of any height and width."""
    if len(inputs) not in (1, 2):
        raise BundleError(f"{name}: takes {len(inputs)} inputs; expected the image, or it and what is around")
    for each in inputs:
        shape, said = each.shape, f"{name}: input {each.name!r} is {each.type}, {_written(each.shape)}"
        if each.type not in _TYPES:
            raise BundleError(f"{said}; expected float32 (N, 3, H, W) in 0..1")
        last = len(shape) == 4 and shape[3] == 3 and shape[1] != 3
        if len(shape) != 4 or last or (isinstance(shape[1], int) and shape[1] != 3):
            hint = "channels come first" if last else "red, green and blue"
            raise BundleError(f"{said}; expected (N, 3, H, W): {hint}")
        if isinstance(shape[2], int) or isinstance(shape[3], int) or shape[0] not in (1, None, str(shape[0])):
            raise BundleError(
                f"{said}; windows come one by one and in many sizes: export it with dynamic height and width"
            )


def _written(shape: list[Any]) -> str:
    return f"({', '.join('?' if side is None else str(side) for side in shape)})"


def read_onnx(path: Path) -> bytes:
    """An ONNX file, whole: weights in files of their own beside it are put inside.

    Raises
    ------
    BundleError
        No such file, no ONNX, or more than the 2 GB that one file can hold.
    ConfigError
        The package onnx is not installed.
    """
    if path.suffix.lower() in _PICKLES:
        raise BundleError(
            f"{path}: pickles and TorchScript run what is in them and are never loaded; export it to ONNX, "
            f"or give the torch module from Python"
        )
    if not path.is_file():
        raise BundleError(f"{path}: no such ONNX file")
    try:
        import onnx
        from google.protobuf.message import DecodeError, EncodeError
    except ImportError as error:
        raise missing("onnx") from error
    try:
        model = onnx.load(path)
        if not model.graph.node:
            raise BundleError(f"{path}: not a sound ONNX file (no network in it)")
        return bytes(model.SerializeToString())
    except (DecodeError, EncodeError, ValueError, OSError, onnx.checker.ValidationError) as error:
        reason = one_line(error)
        raise BundleError(f"{path}: not a sound ONNX file ({reason})") from error


def onnx_device(name: str) -> str:
    """Where ONNX Runtime works: ``auto`` is a CUDA device where it has one, else the CPU.

    Raises
    ------
    ConfigError
        It has no such device.
    """
    has = _CUDA in onnxruntime().get_available_providers()
    if name == "auto":
        return "cuda" if has and torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if name != "cpu" and not (kind == "cuda" and has and (not index or index.isdecimal())):
        more = "" if has else "; CUDA needs the package onnxruntime-gpu in the place of onnxruntime"
        raise ConfigError(f"device {name!r} cannot be used for ONNX files here; use auto or cpu{more}")
    return name


def onnxruntime() -> Any:
    """The package."""
    try:
        import onnxruntime as package
    except ImportError as error:
        raise missing("ONNX Runtime") from error
    return package


def missing(what: str) -> ConfigError:
    return ConfigError(f"ONNX files need {what}: pip install 'wsi-twostage[onnx]'")
