"""A bundle: both stages and everything needed to run them, in one safetensors file."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from wsi_twostage.drafts import whole_file
from wsi_twostage.errors import BundleError
from wsi_twostage.models.header import KEY, locate, read_spec, sha256_of
from wsi_twostage.models.onnx_net import OnnxNet
from wsi_twostage.models.spec import BundleSpec, NetSpec
from wsi_twostage.models.stage import Stage, stages
from wsi_twostage.models.twostage import TwoStageNet
from wsi_twostage.models.unet import UNet


@dataclass(frozen=True, eq=False)
class ModelBundle:
    """Two callables and how to use them; any pair that keeps the contract will do.

    ``f1(coarse)`` and ``f2(fine, around)`` take (B, 3, H, W) float32 in 0..1 and give logits; ``around``
    shows the same place as ``fine``, four times coarser and with a margin (see `TwoStageNet`).
    `own.bundle_of` makes a bundle of two networks and sees that they keep it.
    """

    spec: BundleSpec
    """Scale, tiles, classes, threshold, calibration and card."""
    f1: Callable[[Tensor], Tensor]
    f2: Callable[[Tensor, Tensor], Tensor]
    sha256: str = ""
    """Of the file; empty for a bundle that was made in memory."""


def build(
    coarse: NetSpec, fine: NetSpec, *, context: bool, context_net: NetSpec | None = None, classes: int = 1
) -> TwoStageNet:
    """The networks, with random weights; ``classes`` is the number of logits."""
    features = (context_net or coarse).widths[-1] if context else 0
    second = UNet(classes=classes, widths=fine.widths, depths=fine.depths, context=features)
    guide = build_coarse(context_net, classes=classes) if context and context_net else None
    return TwoStageNet(build_coarse(coarse, classes=classes), second, context=guide)


def build_coarse(spec: NetSpec, *, classes: int = 1) -> UNet:
    """Model 1, with random weights."""
    return UNet(classes=classes, widths=spec.widths, depths=spec.depths, scale=spec.scale)


def save_bundle(path: Path, net: TwoStageNet, spec: BundleSpec) -> None:
    """Write the file, convolutions in 16 bits; it appears whole or not at all."""
    tensors = {
        name: (value.half() if value.dim() > 1 else value).detach().cpu().contiguous()
        for name, value in net.state_dict().items()
    }
    write_bundle(path, tensors, spec)


def copy_bundle(path: Path, target: Path, spec: BundleSpec) -> None:
    """The weights of a bundle, bit for bit, under another header."""
    write_bundle(target, load_file(path), spec)


def write_bundle(path: Path, tensors: dict[str, Tensor], spec: BundleSpec) -> None:
    """Write tensors under a header; the file appears whole or not at all."""
    header = asdict(spec)
    if spec.contract is None:
        del header["contract"]  # so that versions which do not know it read the file
    with whole_file(path) as draft:
        draft.write_bytes(save(tensors, metadata={KEY: json.dumps(header)}))


def load_net(path: Path) -> TwoStageNet:
    """Both networks of a bundle, in evaluation mode, in 32 bits.

    Raises
    ------
    BundleError
        Not a bundle, or weights that do not fit its architecture.
    """
    spec = read_spec(path)
    if spec.contract is not None:
        raise BundleError(f"{path}: its networks are ONNX files; this needs those that wsi-seg train makes")
    if spec.coarse is None or spec.fine is None:
        raise BundleError(f"{path}: the header names no architecture")
    classes = 1 if len(spec.classes) == 1 else len(spec.classes) + 1
    with torch.device("meta"):  # no weights are drawn that the file replaces anyway
        net = build(
            spec.coarse, spec.fine, context=spec.context, context_net=spec.context_net, classes=classes
        )
    # Copied, since what is loaded is the file itself, mapped: who writes into it would change the networks.
    stored = {
        name: value.to(torch.float32 if value.is_floating_point() else value.dtype, copy=True)
        for name, value in load_file(path).items()
    }
    try:
        net.load_state_dict(stored, assign=True)
    except RuntimeError as error:
        raise BundleError(f"{path}: the weights do not fit the architecture in its header") from error
    return net.eval().requires_grad_(False)


def load_bundle(path: str | os.PathLike[str] | None = None, *, device: str = "cpu") -> ModelBundle:
    """Load a bundle ready to run: a file's, or a shipped one's by name; None is the default one.

    Raises
    ------
    BundleError
        As `load_net`.
    ConfigError
        Its networks are ONNX files, and ONNX Runtime is not installed, or has no such device.
    """
    path = locate(path)
    if (spec := read_spec(path)).contract is not None:
        return ModelBundle(spec, *_load_onnx(path, spec, device), sha256_of(path))
    net = load_net(path).to(torch.device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    return ModelBundle(spec, net.f1, net.f2, sha256_of(path))


def _load_onnx(path: Path, spec: BundleSpec, device: str) -> tuple[Stage, Stage]:
    """Both stages; one network may serve both."""
    stored = {key: value.numpy().tobytes() for key, value in load_file(path).items()}
    if spec.contract is None or "coarse.onnx" not in stored:
        raise BundleError(f"{path}: a damaged bundle (no coarse.onnx in it)")
    first = OnnxNet(stored["coarse.onnx"], name=f"{path}, coarse.onnx", device=device)
    second = first
    if "fine.onnx" in stored:
        second = OnnxNet(stored["fine.onnx"], name=f"{path}, fine.onnx", device=device)
    return stages(
        first, second, spec.contract, classes=len(spec.classes), scale=spec.scale, context=spec.context
    )
