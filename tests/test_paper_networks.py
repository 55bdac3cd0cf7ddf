"""The paper's networks: their size and cost to the last digit, their shapes, and where they start."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models
from torchvision.models.segmentation import deeplabv3_resnet50, fcn_resnet50

from wsi_twostage.errors import ConfigError
from wsi_twostage.paper.backbones import BACKBONES, Encoder, classifier
from wsi_twostage.paper.cost import cost
from wsi_twostage.paper.networks import ARCHITECTURES, PRESETS, _folded, build_network
from wsi_twostage.paper.tables import SIDES, published, table1_costs
from wsi_twostage.paper.weights import from_coco, load_trunk, start_network

PARAMETERS = {
    "resnet50": 23_508_032,
    "deeplab": 42_000_982,
    "fcn": 35_316_054,
    "unet": 73_387_201,
    "segnet": 48_448_705,
}


def quiet(net: nn.Module) -> nn.Module:
    """In training mode, but without dropout and batch statistics."""
    net.train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.Dropout):
            module.eval()
    return net


@pytest.mark.parametrize("line", published(1), ids=lambda line: line["architecture"])
def test_table_1_to_the_last_digit(line: dict[str, str]) -> None:
    costs = table1_costs(line["architecture"])
    assert costs[0].parameters == PARAMETERS[line["architecture"]]
    assert f"{costs[0].parameters / 1e6:.1f}" == line["params_millions"]
    printed = [int(line[str(side)]) for side in SIDES]
    counted = [502 if n == 594 else n for n in printed]  # of SegNet at 48 px, which is misprinted
    assert [round(c.table1 / 1e6) for c in costs] == counted


def test_convolutions_alone_agree_with_torch() -> None:
    """torch's own counter knows convolutions only, two operations for each MAC."""
    with torch.device("meta"):
        net = build_network("unet", backbone="resnet18").eval()
        with FlopCounterMode(display=False) as counter:
            net(torch.empty(1, 3, 96, 96))
    ours = cost(lambda: build_network("unet", backbone="resnet18"), 96)
    assert counter.get_total_flops() == 2 * ours.convolutions


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_any_architecture_on_any_backbone(architecture: str, backbone: str, preset: str) -> None:
    """Also at 48 px, which is no multiple of 32: the side of the paper's smallest cells."""
    net = build_network(architecture, backbone=backbone, preset=preset).eval()
    x = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        logits, features = net(x)
        assert logits.shape == (2, 1, 48, 48)
        context = torch.rand_like(features)
        changed = net(x, context).logits
    assert changed.shape == logits.shape
    if preset == "paper":
        added = nn.functional.conv2d(context, net.final.weight, padding=1)
        torch.testing.assert_close(changed, logits + added, rtol=1e-3, atol=1e-4)  # it is linear
    else:
        torch.testing.assert_close(changed, logits)  # starts as if without context


@pytest.mark.parametrize("architecture", ["fcn", "deeplab"])
def test_training_on_small_maps_is_the_published_function(architecture: str) -> None:
    net = quiet(build_network(architecture, backbone="resnet18"))
    x = torch.rand(2, 3, 64, 64)
    fast = net(x).logits
    slow = net.final(net.body(x))
    torch.testing.assert_close(fast, slow, rtol=1e-3, atol=1e-4)
    ours = torch.autograd.grad(fast.square().sum(), net.final.weight)[0]
    published_way = torch.autograd.grad(slow.square().sum(), net.final.weight)[0]
    torch.testing.assert_close(ours, published_way, rtol=1e-3, atol=1e-3)


def test_the_folded_layer_by_hand() -> None:
    """At equal size it is the convolution itself."""
    final = nn.Conv2d(5, 1, 3, padding=1)
    x = torch.rand(1, 5, 8, 8)
    torch.testing.assert_close(_folded(final, x, 8), final(x))


def test_dilation_is_that_of_torchvision() -> None:
    ours = Encoder(classifier("resnet50"), dilated=True).eval()
    theirs = models.resnet50(replace_stride_with_dilation=[False, True, True]).eval()
    ours_state = list(ours.state_dict().values())
    trunk = {k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    trunk = {k: ours_state[i].clone() for i, k in enumerate(trunk)}
    theirs.load_state_dict(trunk, strict=False)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        y = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(y))))
        torch.testing.assert_close(ours(x)[-1], y)


@pytest.mark.parametrize(
    ("architecture", "make", "channels"),
    [("fcn", fcn_resnet50, 512), ("deeplab", deeplabv3_resnet50, 256)],
    ids=["fcn", "deeplab"],
)
def test_coco_weights_give_torchvisions_features(
    architecture: str, make: Callable[..., nn.Module], channels: int
) -> None:
    theirs = make(weights=None, weights_backbone=None, aux_loss=True, num_classes=21).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        wanted = theirs.backbone(x)["out"]
        for layer in list(theirs.classifier)[:4]:
            wanted = layer(wanted)
        paper = from_coco(architecture, theirs.state_dict(), preset="paper").eval()
        torch.testing.assert_close(paper.body.small(x), wanted)
        default = from_coco(architecture, theirs.state_dict(), preset="default").eval()
        torch.testing.assert_close(default.body(x), wanted)
    assert wanted.shape[1] == channels
    auxiliary = paper.body.net.aux_classifier.state_dict()
    torch.testing.assert_close(auxiliary["0.weight"], theirs.state_dict()["aux_classifier.0.weight"])


def test_a_file_of_features_alone_starts_a_mobilenet(tmp_path: Path) -> None:
    trunk = models.mobilenet_v2()
    path = tmp_path / "features.safetensors"
    save_file(dict(trunk.features.state_dict()), path)
    net = start_network("unet", backbone="mobilenet_v2", weights=str(path))
    first = net.state_dict()["body.encoder.stages.0.0.0.weight"]
    torch.testing.assert_close(first, trunk.features[0][0].weight)


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(ConfigError, match="do not fit resnet50"):
        load_trunk("resnet50", models.resnet18().state_dict())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"architecture": "vgg"}, "architecture 'vgg' is not known; known: fcn, segnet, unet, deeplab"),
        ({"architecture": "fcn", "backbone": "vgg"}, "backbone 'vgg'"),
        ({"architecture": "fcn", "preset": "vgg"}, "preset 'vgg'"),
    ],
)
def test_unknown_names_are_refused(values: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_network(**values)


def test_coco_is_for_two_networks_only() -> None:
    with pytest.raises(ConfigError, match="there are none for unet"):
        start_network("unet", weights="coco")


def test_every_backbone_has_five_stages() -> None:
    for name in BACKBONES:
        with torch.device("meta"):
            encoder = Encoder(classifier(name))
            maps = encoder(torch.empty(1, 3, 64, 64))
        assert [m.shape[-1] for m in maps] == [32, 16, 8, 4, 2]
        assert tuple(m.shape[1] for m in maps) == encoder.channels
