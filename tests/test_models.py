"""Networks and bundles."""

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import constant_bundle, tiny_model
from safetensors.torch import save_file
from torch.nn import functional

from wsi_twostage.errors import BundleError, ConfigError, DeviceFull
from wsi_twostage.models.bundle import build, load_bundle, load_net, save_bundle
from wsi_twostage.models.header import SHIPPED, find_bundle, locate, read_spec, sha256_of, shipped
from wsi_twostage.models.mobilenet import CHANNELS, MobileNetV2
from wsi_twostage.models.runner import refer, runner, settle
from wsi_twostage.models.spec import BundleSpec, Calibration, NetSpec
from wsi_twostage.models.twostage import TwoStageNet
from wsi_twostage.models.unet import Join, UNet, join

TINY = NetSpec((8, 8, 8, 8, 8), (1, 1, 1, 1, 1))


def tiny_net(*, scale: int = 1, context: bool = True) -> TwoStageNet:
    torch.manual_seed(0)
    return build(replace(TINY, scale=scale), TINY, context=context).eval()


def tiny_spec(**changes: object) -> BundleSpec:
    spec = BundleSpec(
        "tiny", 0.25, ("nucleus",), ((1, 2, 3),), coarse=TINY, fine=TINY, card={"licence": "none"}
    )
    return replace(spec, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("height", [32, 128, 160, 288])
def test_logits_in_strips_are_those_of_the_whole(depth: int, scale: int, height: int) -> None:
    torch.manual_seed(depth)
    net = UNet(widths=(8,) * 5, depths=(1, 1, 1, 1, depth), scale=scale).eval()
    x = torch.rand(1, 3, height, 64)
    with torch.inference_mode():
        torch.testing.assert_close(net.logits(x), net(x).logits, rtol=1e-5, atol=1e-6)


def test_logits_have_the_size_of_the_input() -> None:
    output = UNet(widths=TINY.widths)(torch.rand(2, 3, 64, 96))
    assert output.logits.shape == (2, 1, 64, 96)
    assert output.features.shape == (2, 8, 64, 96)


def test_a_sub_pixel_head_gives_finer_logits() -> None:
    assert UNet(classes=3, widths=TINY.widths, scale=2)(torch.rand(1, 3, 64, 32)).logits.shape == (
        1,
        3,
        128,
        64,
    )


def test_context_is_cut_to_the_field_of_the_fine_crop() -> None:
    """A bright dot in the coarse crop must arrive at the same place of the fine crop, whatever the margin."""
    net = tiny_net()
    coarse = torch.zeros(1, 3, 96, 96)
    fine = torch.zeros(1, 3, 256, 256)
    output = net.coarse(coarse)
    marked = output._replace(features=torch.zeros(1, 8, 96, 96))
    marked.features[..., 16 + 10, 16 + 20] = 1
    context = net.context(marked, fine)
    assert context.shape == (1, 8, 64, 64)
    assert context[0, 0].nonzero().tolist() == [[10, 20]]


def test_context_changes_model_2s_answer() -> None:
    net, fine = tiny_net(), torch.rand(1, 3, 128, 128)
    one, two = net.f2(fine, torch.rand(1, 3, 64, 64)), net.f2(fine, torch.rand(1, 3, 64, 64))
    assert not torch.equal(one, two)


def test_a_network_without_context_ignores_the_coarse_crop() -> None:
    net, fine = tiny_net(context=False), torch.rand(1, 3, 128, 128)
    assert torch.equal(net.f2(fine, torch.zeros(1, 3, 64, 64)), net.f2(fine, torch.ones(1, 3, 64, 64)))


def test_settling_keeps_the_function() -> None:
    net, x = tiny_net(), torch.rand(1, 3, 64, 64)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    with torch.inference_mode():
        before = net.f1(x)
        settle(net)
        assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules())
        assert sum(isinstance(m, Join) for m in net.modules()) == 10
        torch.testing.assert_close(net.f1(x), before, atol=1e-4, rtol=1e-3)


def test_a_bundle_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    net, spec, path = (
        tiny_net(),
        tiny_spec(decisions=(0.4, 0.6), threshold=0.12),
        tmp_path / "tiny.safetensors",
    )
    save_bundle(path, net, spec)
    assert read_spec(path) == spec
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(load_net(path).f1(x), net.f1(x), atol=0.02, rtol=0.02)  # 16 bits
    assert len(load_bundle(path).sha256) == 64
    assert list(tmp_path.iterdir()) == [path]


def test_networks_stay_as_they_are_when_their_file_is_written_into(tmp_path: Path) -> None:
    net = load_net(path := tiny_model(tmp_path / "tiny.safetensors"))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    path.write_bytes(bytes(path.stat().st_size))
    torch.testing.assert_close(net.state_dict(), before, atol=0, rtol=0)


def test_no_such_bundle_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such model"):
        load_bundle(tmp_path / "none.safetensors")


def test_a_foreign_file_is_no_bundle(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(b"\x80\x04 a pickle, perhaps")
    with pytest.raises(BundleError, match="not a safetensors file"):
        load_bundle(path)
    save_file({"x": torch.zeros(3)}, path)
    with pytest.raises(BundleError, match="not a wsi_twostage bundle"):
        load_bundle(path)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    save_bundle(path, tiny_net(), tiny_spec(coarse=NetSpec((8, 8, 8, 8, 16), TINY.depths)))
    with pytest.raises(BundleError, match="do not fit the architecture"):
        load_bundle(path)


def test_a_damaged_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    save_file({"x": torch.zeros(3)}, path, metadata={"wsi_twostage": '{"name": 3}'})
    with pytest.raises(BundleError, match="damaged bundle header"):
        load_bundle(path)


def test_tiles_that_do_not_fit_the_networks_are_refused() -> None:
    with pytest.raises(BundleError, match="tile=100"):
        tiny_spec(tile=100)
    with pytest.raises(BundleError, match="at least Model 2's field"):
        tiny_spec(halo=96, context_halo=16)
    with pytest.raises(BundleError, match="context joins at stride 4"):
        tiny_spec(ratio=2)


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ("",)},
        {"classes": ("bell\x07",)},
        {"classes": ("a", "a"), "colours": ((1, 2, 3), (1, 2, 3))},
        {"colours": ((1, 2, 256),)},
        {"colours": ()},
        {"tile": 0},
        {"halo": -16},
        {"threshold": math.nan},
        {"temperature": 0.0},
        {"mpp": 0.0},
        {"mpp": math.nan},
        {"ratio": 0},
        {"ratio": 3},
        {"scale": 0},
        {"decisions": (0.5, 1.0)},
        {"decisions": (0.5,)},
    ],
    ids=str,
)
def test_what_would_only_fail_in_a_run_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(BundleError, match=rf"tiny: {list(changes)[-1]}=.*; expected |tiny: classes="):
        tiny_spec(**changes)


@pytest.mark.parametrize(
    "values",
    [(0, (0.0, 1.0), (0.0, 0.1)), (9, (0.0, 1.0), (0.0,)), (9, (1.0, 0.0), (0.0, 0.1)), (9, (), ())],
    ids=str,
)
def test_a_calibration_that_promises_nothing_sound_is_refused(
    values: tuple[int, tuple[float, ...], tuple[float, ...]],
) -> None:
    cases, thresholds, gaps = values
    with pytest.raises(BundleError, match=r"calibration: cases=.*; expected a case or more"):
        Calibration(cases, "slides", thresholds, gaps, gaps)


def test_context_may_have_a_network_of_its_own(tmp_path: Path) -> None:
    """Model 1 then works on any level, and what it says is not what Model 2 sees."""
    torch.manual_seed(1)
    net = build(replace(TINY, scale=2), TINY, context=True, context_net=TINY).eval()
    path = tmp_path / "three.safetensors"
    save_bundle(path, net, tiny_spec(ratio=2, scale=2, coarse=replace(TINY, scale=2), context_net=TINY))
    spec, loaded = read_spec(path), load_net(path)
    assert spec.context_net == TINY
    assert spec.step == 1
    fine, around = torch.rand(1, 3, 128, 128), torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(loaded.f2(fine, around), net.f2(fine, around), atol=0.02, rtol=0.02)
    torch.nn.init.zeros_(loaded.coarse.head[0].weight)
    torch.testing.assert_close(loaded.f2(fine, around), net.f2(fine, around), atol=0.02, rtol=0.02)


def test_a_device_that_is_not_there_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match="use auto or cpu"):
        refer(None, device="warp:9", precision="fp32")
    with pytest.raises(ConfigError, match=r"no such device; NVIDIA's are cuda, cuda:1, \.\.\.\); use"):
        refer(None, device="gpu", precision="fp32")
    with pytest.raises(ConfigError, match="fp32, bf16, fp16"):
        refer(None, device="cpu", precision="fp8")


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_bundle_is_small_and_has_a_card(name: str) -> None:
    spec = read_spec(locate(name))
    assert spec.name == name
    assert locate(name).stat().st_size < 25e6
    assert spec.classes == ("nucleus",)
    assert {"data", "licence", "split", "seed", "figures", "date", "held_out", "curve"} <= set(spec.card)


def test_a_bundle_is_a_file_or_a_shipped_ones_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate() == locate("nuclei-he") == SHIPPED
    (tmp_path / "nuclei-he").mkdir()  # results may be called so
    assert refer("nuclei-he", device="cpu", precision="fp32") == refer(None, device="cpu", precision="fp32")
    names = "hello: no such model; give a .safetensors bundle, or a shipped one's name: nuclei-he$"
    with pytest.raises(BundleError, match=names):
        refer("hello", device="cpu", precision="fp32")
    with pytest.raises(BundleError, match=r"name: nuclei-he; did you mean nuclei-he\?"):
        refer("nuclei", device="cpu", precision="fp32")
    (tmp_path / "nuclei-he").rmdir()
    (tmp_path / "nuclei-he").write_bytes(b"")
    assert locate("nuclei-he") == Path("nuclei-he")


def test_a_shipped_bundle_is_found_where_it_lies_on_this_machine(tmp_path: Path) -> None:
    for path in shipped().values():
        assert find_bundle(f"/another/machine/{path.name}", sha256_of(path)) == path
    mine = tmp_path / "mine.safetensors"
    save_bundle(mine, tiny_net(), tiny_spec())
    assert find_bundle(str(mine), sha256_of(mine)) == mine
    assert find_bundle(str(mine), "0" * 64) is None


def test_the_runner_loads_a_bundle_once() -> None:
    ref, spec = refer(None, device="cpu", precision="fp32")
    assert runner(ref) is runner(ref)
    logits = runner(ref).f1(np.full((64, 96, 3), 255, np.uint8))
    assert logits.shape == (1, 64 * spec.scale, 96 * spec.scale)
    assert (logits.sigmoid() < 0.3).all()  # glass is no nucleus


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["torch", "cublas"],
)
def test_a_window_that_finds_no_memory_beside_others_is_alone_the_second_time(error: RuntimeError) -> None:
    """There is room for one of eight, and each takes a while."""
    lock, inside = threading.Lock(), 0

    def scarce(image: torch.Tensor) -> torch.Tensor:
        nonlocal inside
        with lock:
            inside += 1
            crowded = inside > 1
        time.sleep(0.002 if crowded else 0.02)
        with lock:
            inside -= 1
        if crowded:
            raise error
        return image[:, :1]

    bundle = constant_bundle(0.0, 0.0)
    ref, _ = refer(replace(bundle, f1=scarce), device="cpu", precision="fp32")
    net, image = runner(ref), np.zeros((8, 8, 3), np.uint8)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(net.f1, image) for _ in range(40)]
    assert all(answer.result().shape == (1, 8, 8) for answer in answers)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    asked = 0

    def wrong(image: torch.Tensor) -> torch.Tensor:
        nonlocal asked
        asked += 1
        raise RuntimeError("sizes do not match")

    ref, _ = refer(replace(constant_bundle(0.0, 0.0), f1=wrong), device="cpu", precision="fp32")
    with pytest.raises(RuntimeError, match="sizes"):
        runner(ref).f1(np.zeros((8, 8, 3), np.uint8))
    assert asked == 1


def test_a_model_that_finds_no_memory_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has 1")

    monkeypatch.setattr("wsi_twostage.models.runner.load_bundle", full)
    with pytest.raises(DeviceFull, match=r"^device cpu: no memory for the model \(CUDA.* MiB\); use"):
        refer(tiny_model(tmp_path / "m.safetensors"), device="cpu", precision="fp32")


def test_the_encoder_is_torchvisions() -> None:
    """Same names, same function: its ImageNet weights load as they are."""
    from torchvision.models import mobilenet_v2

    theirs = mobilenet_v2(weights=None).features[:18].eval()
    ours = MobileNetV2().eval()
    ours.features.load_state_dict(theirs.state_dict())
    x = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x)[-1], theirs(x))
    assert tuple(y.shape[1] for y in ours(x)) == CHANNELS


def test_joining_is_convolving_the_upsampled_map() -> None:
    conv = torch.nn.Conv2d(7, 4, 3, padding=1)
    deep, skip = torch.rand(2, 5, 6, 9), torch.rand(2, 2, 12, 18)
    upsampled = functional.interpolate(deep, scale_factor=2.0, mode="nearest")
    torch.testing.assert_close(join(conv, deep, skip), conv(torch.cat([upsampled, skip], dim=1)))
