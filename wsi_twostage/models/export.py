"""A torch module as an ONNX file, for images of any size."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from wsi_twostage.errors import BundleError, one_line
from wsi_twostage.models.halo import example
from wsi_twostage.models.onnx_net import OnnxNet, missing
from wsi_twostage.models.stage import Stage, tensor_of


class _Plain(nn.Module):
    """A network with one answer."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor, around: Tensor | None = None) -> Any:
        """Its logits."""
        return tensor_of(self.net(image) if around is None else self.net(image, around))


def as_onnx(stage: Stage) -> bytes:
    """The network of a stage; what feeds it and reads its answer stays outside.

    Raises
    ------
    BundleError
        A plain function, or a module that cannot be exported.
    ConfigError
        A package is missing.
    """
    if isinstance(stage.net, OnnxNet):
        return stage.net.data
    if not isinstance(stage.net, nn.Module):
        raise BundleError(
            f"{stage.name} is a plain function; only torch modules and ONNX files can be written"
        )
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise missing("onnx and onnxscript") from error
    images = example(stage, 128, 256)
    sides = ({2: Dim.DYNAMIC, 3: Dim.DYNAMIC},) * len(images)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's, of itself
            program = torch.onnx.export(
                _Plain(stage.net),
                images,
                dynamo=True,
                dynamic_shapes=sides,
                input_names=["image", "around"][: len(images)],
                output_names=["logits"],
                verbose=False,
            )
        assert program is not None
        return bytes(program.model_proto.SerializeToString())
    except Exception as error:  # a network may fail in any way
        reason = one_line(error)
        raise BundleError(
            f"{stage.name} cannot be exported to ONNX ({reason}); export it yourself and give the file"
        ) from error
