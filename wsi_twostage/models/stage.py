"""A network that was made elsewhere, as a stage: how it is fed, how its answer is read and checked."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_twostage.errors import BundleError, WsiError, one_line
from wsi_twostage.models.onnx_net import OnnxNet
from wsi_twostage.models.room import is_full
from wsi_twostage.models.spec import Contract

Net = Callable[..., Any]
_LEAST = 1e-6  # of a probability whose logarithm is taken
_KEYS = ("out", "logits")  # of the logits, where a network gives several tensors by name


def ensure_numbers(answer: Tensor, name: str) -> None:
    """Raise BundleError for NaN, which would quietly become background."""
    if bool(answer.isnan().any()):
        raise BundleError(
            f"{name} gives numbers that are not finite (NaN); look at its weights, or use --precision fp32"
        )


class Stage(nn.Module):
    """f1 or f2 around a network.

    Parameters
    ----------
    net
        (B, 3, H, W) float32 -> logits (B, K, scale * H, scale * W), or a mapping that has them as ``out`` or
        ``logits``; with ``context`` it gets a second image, four times coarser and with a margin.
    name
        For messages: ``Model 1``.
    classes
        One: K is 1, or 2 for background and foreground. More: K is one more, background first.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: Net,
        contract: Contract,
        *,
        name: str,
        classes: int = 1,
        scale: int = 1,
        context: bool = False,
    ) -> None:
        super().__init__()
        self.net, self.contract = net, contract
        self.name, self.classes, self.scale, self.context = name, classes, scale, context
        self._plain = not any(contract.mean) and set(contract.std) == {1.0}
        for key in ("mean", "std"):
            values = torch.tensor(getattr(contract, key), dtype=torch.float32)
            self.register_buffer(key, values.view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor, around: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) in 0..1, and what is around it -> logits (B, K, scale * H, scale * W).

        Raises
        ------
        BundleError
            The network fails, or gives another number of channels, another size, or numbers that are not
            finite.
        """
        try:
            z = self.answer(x, around)
        except WsiError:
            raise
        except Exception as error:  # a network may fail in any way
            if isinstance(error, RuntimeError) and is_full(error):
                raise
            reason = one_line(error)
            raise BundleError(
                f"{self.name} cannot take {x.shape[-2]} x {x.shape[-1]} px ({reason}); a window may have "
                f"this size"
            ) from error
        if self.contract.probabilities:
            z = z.float().clamp(_LEAST, 1 - _LEAST)
            z = z.logit() if z.shape[1] == 1 else z.log()
        # of two channels, softmax is the sigmoid of what lies between them
        return z[:, 1:] - z[:, :1] if self.classes == 1 and z.shape[1] == 2 else z

    def answer(self, x: Tensor, around: Tensor | None = None) -> Tensor:
        """What the network says itself, of the right shape."""
        images = (x, around) if self.context and around is not None else (x,)
        found = tensor_of(self.net(*map(self._fed, images)))
        if not isinstance(found, Tensor) or found.dim() != 4:
            said = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise BundleError(f"{self.name} gives {said}; expected a tensor of logits (N, K, H, W)")
        self._ensure_channels(found.shape[1])
        height, width = (self.scale * self._padded(side) for side in x.shape[-2:])
        if found.shape[-2:] != (height, width):
            raise BundleError(self._another_size(x, found, (height, width)))
        if not bool(found.isfinite().all()):  # else they would quietly become background
            raise BundleError(
                f"{self.name} gives numbers that are not finite (NaN or infinity); look at its weights, and "
                f"whether mean and std are those of its training"
            )
        return found[..., : self.scale * x.shape[-2], : self.scale * x.shape[-1]]

    def twin(self) -> "Stage":
        """A copy with the same weights: many networks keep what they compute on themselves for a while.

        Itself, if it keeps what cannot be copied, such as a lock.
        """
        shared: list[Any] = [*self.parameters(), *self.buffers()]
        if not isinstance(self.net, nn.Module):  # ONNX Runtime's, or a function, which is its owner's affair
            shared.append(self.net)
        try:
            return copy.deepcopy(self, {id(each): each for each in shared})
        except Exception:  # of whatever it keeps
            return self

    def on(self, device: torch.device) -> "Stage":
        """A copy on another device; itself on the CPU, and where it is a plain function."""
        if isinstance(self.net, OnnxNet):
            moved = copy.copy(self)
            moved.net = self.net.on(str(device))
            return moved
        return self if device.type == "cpu" else copy.deepcopy(self).to(device)

    def _fed(self, image: Tensor) -> Tensor:
        image = image.to(self.mean.device)
        right, below = (self._padded(image.shape[side]) - image.shape[side] for side in (-1, -2))
        if right or below:
            image = functional.pad(image, (0, right, 0, below), mode="replicate")
        return image if self._plain else (image - self.mean) / self.std

    def _padded(self, side: int) -> int:
        return -(-side // self.contract.multiple) * self.contract.multiple

    def _ensure_channels(self, found: int) -> None:
        """One of background and each class; of one class it may be the foreground alone."""
        if self.classes == 1 and found not in (1, 2):
            wanted = "for one class 1, or 2 with background first"
        elif self.classes > 1 and found != self.classes + 1:
            wanted = f"for {self.classes} classes {self.classes + 1}, background first"
        else:
            return
        raise BundleError(
            f"{self.name} gives {found} channels of logits; expected {wanted}: name each class but background"
        )

    def _another_size(self, x: Tensor, found: Tensor, wanted: tuple[int, int]) -> str:
        came, given = tuple(x.shape[-2:]), tuple(found.shape[-2:])
        said = (
            f"{self.name}: {came[0]} x {came[1]} px in, logits of {given[0]} x {given[1]} px out; expected "
            f"{wanted[0]} x {wanted[1]}"
        )
        finer = given[0] // wanted[0]
        if finer > 1 and given == (finer * wanted[0], finer * wanted[1]) and self.name == "Model 1":
            return f"{said}, or scale={finer * self.scale} to keep Model 1's finer answer"
        return f"{said}; bring them to the input's size inside of the network (interpolate, or pad)"


def tensor_of(answer: Any) -> Any:
    """The logits among what a network gives."""
    if isinstance(answer, Mapping):
        return next((answer[key] for key in _KEYS if key in answer), answer)
    return answer


def stages(
    first: Net, second: Net, contract: Contract, *, classes: int, scale: int, context: bool
) -> tuple[Stage, Stage]:
    """f1 and f2."""
    return (
        Stage(first, contract, name="Model 1", classes=classes, scale=scale),
        Stage(second, contract, name="Model 2", classes=classes, context=context),
    )
