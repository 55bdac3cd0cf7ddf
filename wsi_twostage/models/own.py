"""bundle_of(): a bundle from a user's own two networks; pack(): its file, for other processes."""

import colorsys
import copy
import math
import os
from collections.abc import Mapping, Sequence
from operator import index
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from wsi_twostage.errors import BundleError, ConfigError, one_line
from wsi_twostage.models.bundle import ModelBundle, load_bundle, write_bundle
from wsi_twostage.models.export import as_onnx
from wsi_twostage.models.halo import example, measured_halo
from wsi_twostage.models.onnx_net import OnnxNet, read_onnx
from wsi_twostage.models.spec import CONTEXT_STRIDE, STRIDE, BundleSpec, Contract
from wsi_twostage.models.stage import Net, Stage, stages

TILE = 512  # fine pixels, where the ratio allows it
DEFAULT_HALO = 64  # pixels of a network that is not measured, as it takes a second image
_BESIDE = 0.5  # by which probabilities that were enlarged may lie beside 0..1
EXPORTED = 1e-2
"""Of the probability: what an exported network may differ from its torch module, at most."""


def bundle_of(
    first: Net | str | os.PathLike[str],
    second: Net | str | os.PathLike[str] | None = None,
    *,
    mpp: float,
    classes: Sequence[str],
    ratio: int = 4,
    scale: int = 1,
    context: bool | None = None,
    colours: Sequence[tuple[int, int, int]] | None = None,
    name: str | None = None,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    multiple: int = STRIDE,
    probabilities: bool | None = None,
    tile: int | None = None,
    halo: int | None = None,
    coarse_halo: int | None = None,
    threshold: float = 0.5,
    temperature: float = 1.0,
    decisions: tuple[float, float] = (0.5, 0.5),
    card: Mapping[str, Any] | None = None,
) -> ModelBundle:
    """Make two networks a model; both are tried on small images first.

    >>> bundle = bundle_of(coarse, fine, mpp=0.5, classes=["tumour"])  # doctest: +SKIP

    Parameters
    ----------
    first, second
        Model 1 and Model 2, each a torch module (a copy of it is used, in evaluation mode), a function, or an
        ONNX file: (N, 3, H, W) float32 -> logits (N, K, H, W). None: one network for both stages.
    mpp
        Of the level that Model 2 works on, in um per pixel; Model 1's is ``ratio`` times coarser.
    classes
        Names of the labels 1, 2, ...; background is not named. One class: K is 1, or 2 with background first;
        more: one channel each after that of background.
    scale
        Model 1's logits are this many times finer than its input.
    context
        Whether Model 2 takes a second image, too: the same place four times coarser, with a margin. None: as
        an ONNX file has inputs, else not.
    mean, std
        Of red, green and blue in 0..1, for both networks.
    multiple
        Pixels of whose multiples the networks want the sides of their input; it is padded.
    probabilities
        The networks end in a sigmoid or softmax. None: they do not, and what looks so is refused.
    tile, halo, coarse_halo
        Fine pixels of a tile; what Model 2 sees around it, in its pixels, and Model 1, in its own. None: 512,
        and what is measured on noise.
    threshold, temperature, decisions, card
        As in `BundleSpec`. Before a calibration the threshold promises nothing.

    Raises
    ------
    BundleError
        A network that does not keep the contract, or no ONNX file.
    ConfigError
        A value that does not make sense, or a package that is missing.
    """
    named = (classes,) if isinstance(classes, str) else tuple(classes)
    if not named or not (mpp > 0 and math.isfinite(mpp)):
        raise ConfigError(f"mpp={mpp}, classes={named}; a model needs both")
    ratio, scale, multiple = (
        _whole(key, value) for key, value in (("ratio", ratio), ("scale", scale), ("multiple", multiple))
    )
    if ratio < 1 or ratio & (ratio - 1):
        raise ConfigError(f"ratio={ratio}; use a power of two")
    if scale < 1 or ratio % scale:
        raise ConfigError(f"scale={scale}; use one that divides ratio={ratio}")
    tile, halo, coarse_halo = (
        None if value is None else _whole(key, value)
        for key, value in (("tile", tile), ("halo", halo), ("coarse_halo", coarse_halo))
    )
    contract = Contract(tuple(mean), tuple(std), multiple, bool(probabilities))
    one, two = _net(first, "Model 1"), None if second is None else _net(second, "Model 2")
    two = one if two is None else two
    takes_two = isinstance(two, OnnxNet) and two.inputs == 2
    if isinstance(one, OnnxNet) and one.inputs == 2:
        raise BundleError(f"{one.name}: takes 2 inputs; only Model 2 has a context")
    if isinstance(two, OnnxNet) and context not in (None, takes_two):
        raise BundleError(f"{two.name}: takes {two.inputs} input(s), which is not context={context}")
    with_context = takes_two if context is None else context
    if with_context and STRIDE % multiple:
        raise ConfigError(f"multiple={multiple} px does not go with a context; use a divisor of {STRIDE}")
    pair = stages(one, two, contract, classes=len(named), scale=scale, context=with_context)
    _try(pair[0], probabilities)
    _try(pair[1], probabilities)
    if halo is None:
        halo = DEFAULT_HALO if with_context else measured_halo(pair[1])
    unit = STRIDE * max(ratio, CONTEXT_STRIDE)
    spec = BundleSpec(
        name=name or "own",
        mpp=float(mpp),
        classes=named,
        colours=_palette(len(named)) if colours is None else _plain(colours),
        ratio=ratio,
        scale=scale,
        tile=max(TILE, unit) if tile is None else tile,
        halo=halo,
        coarse_halo=measured_halo(pair[0]) if coarse_halo is None else coarse_halo,
        context_halo=max(48 if with_context else 16, -(-halo // (16 * CONTEXT_STRIDE)) * 16),
        threshold=threshold,
        temperature=temperature,
        decisions=decisions,
        context=with_context,
        contract=contract,
        card=dict(card or {}),
    )
    with torch.inference_mode():  # windows as in a run, now that their size is known
        for stage, side in zip(pair, _sides(spec), strict=True):
            stage(*example(stage, side, side))
    return ModelBundle(spec, *pair)


def _sides(spec: BundleSpec) -> tuple[int, int]:
    """Pixels of a side of the smallest window of Model 1 and of Model 2 on a slide."""
    return spec.tile // spec.ratio + 2 * spec.coarse_halo, spec.tile + 2 * spec.halo


def pack(bundle: ModelBundle, path: str | os.PathLike[str], *, overwrite: bool = False) -> ModelBundle:
    """Write a bundle of `bundle_of` to one file, its networks as ONNX, and load it again.

    Torch modules are exported. What is in the file runs on other machines without their code: nothing in it
    is a pickle.

    Raises
    ------
    BundleError
        A plain function, a module that cannot be exported, or whose export gives something else.
    ConfigError
        The file is there already, or a package is missing.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists; give another name, or overwrite it")
    first, second = bundle.f1, bundle.f2
    if not isinstance(first, Stage) or not isinstance(second, Stage):
        raise BundleError(f"{bundle.spec.name}: only what bundle_of made of two networks can be packed")
    files = {"coarse.onnx": as_onnx(first)}
    if second.net is not first.net:
        files["fine.onnx"] = as_onnx(second)
    one = OnnxNet(files["coarse.onnx"], name="coarse.onnx")
    two = OnnxNet(files["fine.onnx"], name="fine.onnx") if "fine.onnx" in files else one
    written = stages(
        one, two, first.contract, classes=first.classes, scale=first.scale, context=second.context
    )
    for before, after, side in zip((first, second), written, _sides(bundle.spec), strict=True):
        _ensure_same(before, after, side)
    tensors = {key: torch.from_numpy(np.frombuffer(data, np.uint8).copy()) for key, data in files.items()}
    write_bundle(path, tensors, bundle.spec)
    return load_bundle(path)


def _net(net: Net | str | os.PathLike[str], name: str) -> Net:
    """What can be called on a batch; a copy, which the user's later training does not change."""
    if isinstance(net, str | os.PathLike):
        return OnnxNet(read_onnx(Path(net)), name=str(net))
    if isinstance(net, nn.Module):
        try:
            return copy.deepcopy(net).cpu().eval().requires_grad_(False)
        except (RuntimeError, TypeError) as error:
            reason = one_line(error)
            raise BundleError(
                f"{name}: cannot be copied ({reason}); give the module as its code builds it, with its "
                f"weights loaded"
            ) from error
    if not callable(net):
        raise ConfigError(f"{name} is of {type(net)}; use a torch module, a function or an ONNX file")
    return net


@torch.inference_mode()
def _try(stage: Stage, probabilities: bool | None) -> None:
    """See that a network takes windows of several sizes and that its answers have their shape.

    Raises
    ------
    BundleError
        It does not; or what should be logits are probabilities.
    """
    for height, width in ((128, 256), (256, 128)):
        images = example(stage, height, width)
        try:
            found = stage.answer(*images)
        except (BundleError, ConfigError):
            raise
        except Exception as error:  # a network may fail in any way
            reason = one_line(error)
            raise BundleError(
                f"{stage.name} cannot take {height} x {width} px ({reason}); its windows have sides of "
                f"multiples of {stage.contract.multiple} px: say multiple=N where it wants those of N"
            ) from error
        low, high = float(found.min()), float(found.max())
        if probabilities and not -_BESIDE <= low <= high <= 1 + _BESIDE:
            raise BundleError(
                f"{stage.name} gives {low:.3g}..{high:.3g}, which are no probabilities; if they are logits, "
                f"leave probabilities away"
            )
        if probabilities is None and 0 <= low < high <= 1:
            raise BundleError(
                f"{stage.name} gives what look like probabilities, not logits; leave its last sigmoid or "
                f"softmax away, or say probabilities=True (or False, if they are logits)"
            )


@torch.inference_mode()
def _ensure_same(before: Stage, after: Stage, side: int) -> None:
    """An exported network is the network, on other sizes than it was exported with; a window's ``side``."""
    for height, width in ((160 if not before.context else 128, 384), (side, side)):
        images = example(before, height, width)
        one, two = (_probability(stage(*images)) for stage in (before, after))
        if (worst := float((one - two).abs().max())) > EXPORTED:
            raise BundleError(
                f"{before.name}: its ONNX export differs from it by {worst:.2g} of probability, on {height} "
                f"x {width} px; export it yourself and give the file"
            )


def _probability(logits: Tensor) -> Tensor:
    return logits.float().sigmoid() if logits.shape[1] == 1 else logits.float().softmax(1)


def _whole(name: str, value: int) -> int:
    """Python's own, whoever made it."""
    try:
        return index(value)
    except TypeError as error:
        raise ConfigError(f"{name}={value!r}; expected a whole number") from error


def _plain(colours: Sequence[tuple[int, int, int]]) -> tuple[tuple[int, int, int], ...]:
    """Python's own numbers, which a header can hold; whether there are three of each is seen elsewhere."""
    return cast(tuple[tuple[int, int, int], ...], tuple(tuple(map(int, colour)) for colour in colours))


def _palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """Colours that are far from each other and from H&E."""
    hues = [(0.14 + 0.618034 * i) % 1 for i in range(count)]
    found = (colorsys.hsv_to_rgb(hue, 0.9, 1.0) for hue in hues)
    return tuple((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in found)
