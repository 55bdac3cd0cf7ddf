"""Where a network starts: random, torchvision's weights, or a file of the user's."""

from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from wsi_twostage.errors import ConfigError
from wsi_twostage.paper.backbones import classifier
from wsi_twostage.paper.networks import build_network
from wsi_twostage.training.recipe import read_encoder

NAMED = ("random", "imagenet", "coco")
Weights = dict[str, Tensor]


def start_network(
    architecture: str, *, backbone: str = "resnet50", preset: str = "paper", weights: str = "random"
) -> nn.Module:
    """A network to train.

    Parameters
    ----------
    weights
        ``random``; ``imagenet``: torchvision's, for the backbone; ``coco``: torchvision's FCN or DeepLab on
        ResNet-50, which is what the published code starts from; or a file with a backbone's weights under
        torchvision's names (.safetensors, .pth). torchvision's are taken from torch's hub folder, or
        downloaded to it.

    Raises
    ------
    ConfigError
        Weights that cannot be had or do not fit.
    """
    if weights == "random":
        return build_network(architecture, backbone=backbone, preset=preset)
    if weights == "coco":
        if architecture not in ("fcn", "deeplab") or backbone != "resnet50":
            raise ConfigError(
                f"weights='coco': there are none for {architecture} on {backbone}; try imagenet"
            )
        names = {"fcn": "fcn_resnet50", "deeplab": "deeplabv3_resnet50"}
        return from_coco(architecture, _torchvision(names[architecture]), preset=preset)
    found = _torchvision(backbone) if weights == "imagenet" else read_encoder(Path(weights))
    return build_network(architecture, backbone=backbone, preset=preset, trunk=load_trunk(backbone, found))


def load_trunk(backbone: str, weights: Weights) -> nn.Module:
    """The classifier with ``weights``; its last layer, which no network here uses, may be missing."""
    net = classifier(backbone)
    if backbone == "mobilenet_v2" and "0.0.weight" in weights:  # of its ``features`` alone
        weights = {f"features.{name}": value for name, value in weights.items()}
    own = net.state_dict()
    used = {name for name in own if not name.startswith(("fc.", "classifier.", "features.18."))}
    lost = sorted(
        name
        for name in used
        if (name not in weights and not name.endswith("num_batches_tracked"))
        or (name in weights and weights[name].shape != own[name].shape)
    )
    if lost:
        raise ConfigError(f"these weights do not fit {backbone}: {len(lost)} are missing, such as {lost[0]}")
    net.load_state_dict({**own, **{name: weights[name] for name in used if name in weights}})
    return net


def from_coco(architecture: str, weights: Weights, *, preset: str) -> nn.Module:
    """FCN or DeepLab on ResNet-50 from torchvision's whole network, but for the last layer.

    ``weights`` has torchvision's names: ``backbone.``, ``classifier.``, ``aux_classifier.``.
    """

    def part(prefix: str) -> Weights:
        return {name.removeprefix(prefix): v for name, v in weights.items() if name.startswith(prefix)}

    net = build_network(architecture, preset=preset, trunk=load_trunk("resnet50", part("backbone.")))
    inner = net.get_submodule("body.net" if preset == "paper" else "body")
    head = inner.get_submodule("classifier" if preset == "paper" else "head")
    head.load_state_dict({name: v for name, v in part("classifier.").items() if not name.startswith("4.")})
    if preset == "paper":
        inner.get_submodule("aux_classifier").load_state_dict(part("aux_classifier."))
    return net


def _torchvision(name: str) -> Weights:
    try:
        found: Weights = get_model_weights(name).DEFAULT.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise ConfigError(
            f"torchvision's weights of {name} are neither in {torch.hub.get_dir()} nor to be had ({error}); "
            f"name a file, or weights = 'random'"
        ) from error
    return found
