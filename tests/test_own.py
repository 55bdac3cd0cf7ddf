"""A user's own two networks: torch modules, functions, ONNX files and smp, in memory and in a bundle."""

import math
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from slides import texture, write_slide
from torch import Tensor, nn
from torch.nn import functional

from wsi_seg.main import commands
from wsi_twostage.algorithm import two_stage
from wsi_twostage.calibrate import calibrate_bundle
from wsi_twostage.errors import BundleError, ConfigError, StoreError, WsiError
from wsi_twostage.further import refine
from wsi_twostage.models.bundle import ModelBundle, load_bundle, load_net
from wsi_twostage.models.halo import measured_halo
from wsi_twostage.models.header import read_spec
from wsi_twostage.models.own import bundle_of, pack
from wsi_twostage.models.runner import refer, runner
from wsi_twostage.models.spec import Contract
from wsi_twostage.models.stage import Stage
from wsi_twostage.pipeline import segment
from wsi_twostage.result import Result
from wsi_twostage.selection import ALL, Fraction, Rule
from wsi_twostage.settings import Settings
from wsi_twostage.tiles import Box

RED = (
    "w = Constant <value = float[1,3,1,1] {20, 0, 0}> () b = Constant <value = float[1] {-10}> () "
    "y = Conv (x, w, b)"
)
EVERYWHERE = Settings(tissue="none", workers=2)
SMALL: dict[str, Any] = {"mpp": 0.5, "classes": ["tumour"], "tile": 128, "halo": 32, "coarse_halo": 32}
DIFFER = 0.002
"""Share of the pixels in which a network and its ONNX may differ: those at the decision."""


class Tiny(nn.Module):
    """Down by two, up again, with a batch norm and a dropout, which show whether it is in evaluation mode."""

    def __init__(self, channels: int = 1, *, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.down = nn.Sequential(
                nn.Conv2d(3, 8, 5, stride=2, padding=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5)
            )
            self.up = nn.ConvTranspose2d(8, channels, 2, stride=2)
            self.skip = nn.Conv2d(3, channels, 3, padding=1)
            nn.init.normal_(self.skip.weight, std=2.0)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.up(self.down(x)) + self.skip(x - 0.6)
        return y


class Guided(nn.Module):
    """A Model 2 that looks at its surroundings, too."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.fine, self.wide = Tiny(channels, seed=1), nn.Conv2d(3, channels, 3, padding=1)

    def forward(self, fine: Tensor, around: Tensor) -> Tensor:
        """What lies in the middle of ``around`` is ``fine``."""
        height, width = fine.shape[-2] // 4, fine.shape[-1] // 4
        top, left = (around.shape[-2] - height) // 2, (around.shape[-1] - width) // 2
        middle = self.wide(around)[..., top : top + height, left : left + width]
        y: Tensor = self.fine(fine) + functional.interpolate(middle, scale_factor=4.0)
        return y


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return write_slide(tmp_path / "slide.tiff", [texture(420, 333)])


def labels(result: Result) -> NDArray[np.uint8]:
    return result.store.read(Box(0, 0, *result.store.shape(0)))


def run(slide: Path, output: Path, bundle: ModelBundle | Path, rule: Rule = ALL) -> NDArray[np.uint8]:
    return labels(segment(slide, output, bundle=bundle, rule=rule, settings=EVERYWHERE))


def onnx_file(path: Path, text: str = "y = ReduceMean <axes = [1]> (x)", **changes: str) -> Path:
    """A small network, written down; ``changes`` are of its signature."""
    parser = pytest.importorskip("onnx.parser")
    signature = {"x": "float[N,3,H,W] x", "y": "float[N,C,h,w] y"} | changes
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> net ({signature["x"]}) => ({signature["y"]}) {{ {text} }}'
    )
    path.write_bytes(model.SerializeToString())
    return path


def test_two_modules_on_a_slide_give_what_algorithm_1_gives(tmp_path: Path, slide: Path) -> None:
    bundle = bundle_of(Tiny(), Tiny(seed=1), **SMALL)
    found = run(slide, tmp_path / "a.zarr", bundle, Fraction(0.5))
    expected = two_stage(texture(420, 333), bundle, Fraction(0.5)).labels
    assert 0.1 < expected.mean() < 0.9
    assert (found != expected).mean() <= DIFFER


def test_one_network_may_serve_both_stages(tmp_path: Path, slide: Path) -> None:
    net = Tiny()
    one, two = bundle_of(net, **SMALL), bundle_of(net, net, **SMALL)
    np.testing.assert_array_equal(run(slide, tmp_path / "a.zarr", one), run(slide, tmp_path / "b.zarr", two))


def test_a_bundle_keeps_a_copy_in_evaluation_mode() -> None:
    net, x = Tiny().train(), torch.rand(1, 3, 64, 64)
    bundle = bundle_of(net, **SMALL)
    before = bundle.f1(x)
    nn.init.zeros_(net.skip.weight)
    assert net.training
    torch.testing.assert_close(bundle.f1(x), before, rtol=0, atol=0)  # no dropout, and not the new weights


def test_inputs_are_normalised() -> None:
    net, x = Tiny().eval(), torch.rand(1, 3, 64, 64)
    bundle = bundle_of(net, **SMALL, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    expected = (x - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    torch.testing.assert_close(bundle.f1(x), net(expected))


def test_two_channels_for_one_class_are_background_and_foreground() -> None:
    net, x = Tiny(2).eval(), torch.rand(1, 3, 64, 64)
    logits = bundle_of(net, **SMALL).f1(x)
    torch.testing.assert_close(logits.sigmoid(), net(x).softmax(1)[:, 1:])


def test_probabilities_become_logits_when_that_is_said() -> None:
    net, x = nn.Sequential(Tiny(3), nn.Softmax(1)).eval(), torch.rand(1, 3, 64, 64)
    made = SMALL | {"classes": ["tumour", "stroma"]}
    with pytest.raises(BundleError, match="look like probabilities"):
        bundle_of(net, **made)
    logits = bundle_of(net, **made, probabilities=True).f1(x)
    torch.testing.assert_close(logits.softmax(1), net(x), atol=1e-4, rtol=1e-4)


def test_inputs_are_padded_to_the_multiple_that_a_network_wants() -> None:
    class Patches(nn.Module):
        """Of 14 px, and nothing else."""

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[-2] % 14 or x.shape[-1] % 14:
                raise ValueError(f"{tuple(x.shape)} is not in patches of 14 px")
            return functional.interpolate(functional.avg_pool2d(x[:, :1], 14), scale_factor=14.0) - 0.5

    with pytest.raises(BundleError, match=r"patches of 14 px.*say multiple=N"):
        bundle_of(Patches(), **SMALL)
    bundle = bundle_of(Patches(), **SMALL, multiple=14)
    assert bundle.f1(torch.rand(1, 3, 64, 96)).shape == (1, 1, 64, 96)


def test_named_outputs_are_read_as_torchvision_names_them() -> None:
    x = torch.rand(1, 3, 64, 64)

    class Named(Tiny):
        def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
            return {"aux": x, "out": super().forward(x)}

    torch.testing.assert_close(bundle_of(Named(), **SMALL).f1(x), bundle_of(Tiny(), **SMALL).f1(x))


def test_model_1_may_answer_finer_than_it_sees(tmp_path: Path, slide: Path) -> None:
    finer = nn.Sequential(Tiny(4), nn.PixelShuffle(2))
    with pytest.raises(BundleError, match="or scale=2 to keep"):
        bundle_of(finer, Tiny(), **SMALL)
    bundle = bundle_of(finer, Tiny(), **SMALL, scale=2)
    assert bundle.spec.step == 2
    assert run(slide, tmp_path / "a.zarr", bundle).any()


def test_model_2_may_see_its_surroundings() -> None:
    bundle = bundle_of(Tiny(), Guided(), **SMALL, context=True)
    fine = torch.rand(1, 3, 128, 128)
    one, two = (bundle.f2(fine, torch.rand(1, 3, 96, 96)) for _ in range(2))
    assert not torch.equal(one, two)
    assert one.shape == (1, 1, 128, 128)


def test_a_plain_function_is_a_network(tmp_path: Path, slide: Path) -> None:
    bundle = bundle_of(lambda x: 20 * (x[:, :1] - 0.5), **SMALL)
    found = run(slide, tmp_path / "a.zarr", bundle)
    np.testing.assert_array_equal(found, texture(420, 333)[..., 0] >= 128)
    with pytest.raises(BundleError, match="plain function"):
        pack(bundle, tmp_path / "a.bundle")


def test_an_answer_that_is_no_number_ends_a_run_with_one_line(tmp_path: Path, slide: Path) -> None:
    """Of small images it was one, when the bundle was made."""
    factor = 10.0
    bundle = bundle_of(lambda x: (0.5 - x[:, :1]) * factor, **SMALL)
    factor = math.nan
    with pytest.raises(BundleError, match="Model 1 gives numbers that are not finite"):
        segment(slide, tmp_path / "a.zarr", bundle=bundle)


@pytest.mark.parametrize(
    ("net", "changes", "said"),
    [
        (Tiny(3), {}, "Model 1 gives 3 channels of logits; expected for one class 1, or 2"),
        (Tiny(2), {"classes": ["a", "b"]}, "expected for 2 classes 3, background first"),
        (nn.MaxPool2d(4), {"classes": ["a", "b"]}, "128 x 256 px in, logits of 32 x 64 px out; expected 128"),
        (nn.Flatten(), {}, r"gives \(1, 98304\); expected a tensor of logits"),
        (nn.Conv2d(4, 1, 1), {}, "Model 1 cannot take 128 x 256 px .*channels"),
        (lambda x: [x], {}, "gives list; expected a tensor of logits"),
        (Tiny(), {"classes": []}, "a model needs both"),
        (Tiny(), {"mpp": 0.0}, "a model needs both"),
        (Tiny(), {"ratio": 3}, "ratio=3; use a power of two"),
        (Tiny(), {"tile": 100}, "tile=100"),
        (Tiny(), {"std": (1.0, 0.0, 1.0)}, "std above 0"),
        (Tiny(), {"mean": (0.5,)}, "three numbers each"),
        (Tiny(), {"mean": (123.675, 116.28, 103.53)}, "divide those of 0..255 by 255"),
        (Tiny(), {"probabilities": True}, "which are no probabilities; if they are logits"),
        (nn.Sequential(Tiny(3), nn.Sigmoid()), {"classes": ["a", "b"]}, "what look like probabilities"),
        ("net.pt", {}, "never loaded"),
        ("none.onnx", {}, "no such ONNX file"),
        (3, {}, "Model 1 is of .*int.*; use a torch module"),
        (lambda x: x[:, :1] * math.nan, {}, "Model 1 gives numbers that are not finite"),
        (lambda x: x * math.inf, {"classes": ["a", "b"]}, "Model 1 gives numbers that are not finite"),
        (Tiny(), {"mean": (math.nan, 0.0, 0.0)}, "three numbers each"),
        (Tiny(), {"scale": 0}, "scale=0; use one that divides ratio"),
        (
            Tiny(),
            {"colours": [(1, 2, 3), (1, 2, 3)]},
            "colours=.*; expected red, green and blue in 0..255 for",
        ),
    ],
    ids=lambda value: str(value)[:20].replace("\n", " "),
)
def test_what_keeps_no_contract_is_one_clear_line(net: Any, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(WsiError, match=said) as raised:
        bundle_of(net, **SMALL | changes)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("reach", "halo"), [(2, 32), (40, 64), (90, 96), (None, 128)], ids=["2 px", "40 px", "90 px", "all"]
)
def test_a_halo_is_as_wide_as_a_network_sees(reach: int | None, halo: int) -> None:
    def net(x: Tensor) -> Tensor:
        red = 30 * (x[:, :1] - 0.5)
        if reach is None:
            return red + 300 * (x.mean() - 0.5)
        far = functional.pad(red, (reach,) * 4)
        return red + far[..., : red.shape[-2], : red.shape[-1]]

    assert measured_halo(Stage(net, Contract(), name="Model 1")) == halo


@pytest.mark.parametrize(
    ("classes", "context"), [(1, False), (3, False), (1, True)], ids=["one class", "three classes", "context"]
)
def test_a_module_and_its_onnx_give_the_same_mask(
    tmp_path: Path, slide: Path, classes: int, context: bool
) -> None:
    pytest.importorskip("onnxscript")
    channels = 1 if classes == 1 else classes + 1
    made = SMALL | {"classes": [f"class {i}" for i in range(classes)], "mean": (0.6, 0.5, 0.6)}
    second = Guided(channels) if context else Tiny(channels, seed=1)
    bundle = bundle_of(Tiny(channels), second, **made, context=context)
    written = pack(bundle, tmp_path / "own.bundle")
    assert written.spec == bundle.spec
    before, after = run(slide, tmp_path / "a.zarr", bundle), run(slide, tmp_path / "b.zarr", written)
    assert len(np.unique(before)) > 1
    assert (before != after).mean() <= DIFFER
    from_file = run(slide, tmp_path / "c.zarr", tmp_path / "own.bundle")
    np.testing.assert_array_equal(from_file, after)


def test_a_network_of_both_stages_is_stored_once(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    net = Tiny()
    pack(bundle_of(net, **SMALL), tmp_path / "one.bundle")
    pack(bundle_of(net, net, **SMALL), tmp_path / "two.bundle")
    assert (tmp_path / "one.bundle").stat().st_size < 0.6 * (tmp_path / "two.bundle").stat().st_size
    with pytest.raises(ConfigError, match="exists"):
        pack(bundle_of(net, **SMALL), tmp_path / "one.bundle")


@pytest.fixture
def red(tmp_path: Path) -> Path:
    """Foreground is what is red enough; as a bundle of ONNX files."""
    pytest.importorskip("onnxruntime")
    pack(bundle_of(onnx_file(tmp_path / "red.onnx", RED), **SMALL), tmp_path / "red.bundle")
    return tmp_path / "red.bundle"


def test_an_onnx_bundle_segments_and_is_gone_on_with(tmp_path: Path, slide: Path, red: Path) -> None:
    """By `refine`, too; and not with another network."""
    truth = texture(420, 333)[..., 0] >= 128
    run(slide, tmp_path / "a.zarr", red, Fraction(0.5))
    again = segment(slide, tmp_path / "a.zarr", bundle=red, rule=Fraction(0.5), settings=EVERYWHERE)
    assert again.status == "done"
    assert again.store.manifest["engine"] == "onnx"
    assert again.store.manifest["model"]["sha256"] == load_bundle(red).sha256
    more = refine(tmp_path / "a.zarr", ALL)
    np.testing.assert_array_equal(labels(more), truth)
    other = tmp_path / "other.bundle"
    pack(bundle_of(onnx_file(tmp_path / "other.onnx", RED.replace("20", "21")), **SMALL), other)
    with pytest.raises(StoreError, match="holds another result"):
        run(slide, tmp_path / "a.zarr", other)


def test_processes_load_an_onnx_bundle_from_its_file(tmp_path: Path, slide: Path, red: Path) -> None:
    settings = Settings(tissue="none", workers=2, processes=2)
    result = segment(slide, tmp_path / "a.zarr", bundle=red, rule=ALL, settings=settings)
    np.testing.assert_array_equal(labels(result), texture(420, 333)[..., 0] >= 128)


def test_an_onnx_bundle_is_calibrated_on_slides_and_on_images(tmp_path: Path, slide: Path, red: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(2):
        imagecodecs.imwrite(tmp_path / "images" / f"{i}.png", texture(200, 260, seed=i))
    for inputs, unit in (([slide], "slides"), ([tmp_path / "images"], "images")):
        output = tmp_path / f"{unit}.bundle"
        spec = calibrate_bundle(inputs, output, model=red, settings=EVERYWHERE)
        assert spec.calibration is not None
        assert spec.calibration.unit == unit
        assert read_spec(output) == spec
        assert run(slide, tmp_path / f"{unit}.zarr", output).any()


def test_threads_share_a_session_and_each_has_the_cores_of_a_window(red: Path) -> None:
    net = load_bundle(red).f1.net  # type: ignore[attr-defined]
    image, before = torch.rand(1, 3, 64, 64), torch.get_num_threads()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(net, [image] * 8))
    assert all(torch.equal(each, found[0]) for each in found)
    try:
        torch.set_num_threads(2)
        net(image)
    finally:
        torch.set_num_threads(before)
    assert {count: s.get_session_options().intra_op_num_threads for count, s in net._sessions.items()} == {
        1: 1,
        2: 2,
    }


@pytest.mark.parametrize(
    ("signature", "said"),
    [
        ({"x": "float[1,3,256,256] x"}, "one by one and in many sizes"),
        ({"x": "float[8,3,H,W] x"}, "one by one and in many sizes"),
        ({"x": "float[N,H,W,3] x"}, "channels come first"),
        ({"x": "float[N,4,H,W] x"}, r"is tensor\(float\), \(N, 4, H, W\); expected"),
        ({"x": "double[N,3,H,W] x", "y": "double[N,C,h,w] y"}, r"is tensor\(double\).*expected float32"),
        ({"x": "float[N,3,H,W] x, float[N,3,h,w] z"}, "only Model 2 has a context"),
        ({"x": "float[N,3,H,W] x, float[N] z, float[N] a"}, "takes 3 inputs"),
    ],
    ids=["fixed size", "fixed batch", "channels last", "four channels", "double", "two inputs", "three"],
)
def test_an_onnx_file_that_takes_something_else_is_one_clear_line(
    tmp_path: Path, signature: dict[str, str], said: str
) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(BundleError, match=said):
        bundle_of(onnx_file(tmp_path / "a.onnx", **signature), **SMALL)


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: b"nothing of the kind", lambda data: data[: len(data) // 2]],
    ids=["empty", "foreign", "cut"],
)
def test_a_corrupt_onnx_file_is_one_clear_line(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    pytest.importorskip("onnxruntime")
    path = onnx_file(tmp_path / "a.onnx", RED)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BundleError, match="not a sound ONNX file") as raised:
        bundle_of(path, **SMALL)
    assert "\n" not in str(raised.value)


def test_a_damaged_network_in_a_bundle_is_one_clear_line(tmp_path: Path, red: Path) -> None:
    data = red.read_bytes()
    at = data.index(b"Conv")
    red.write_bytes(data[:at] + b"Kohn" + data[at + 4 :])
    with pytest.raises(BundleError, match=r"coarse.onnx: not a sound ONNX file"):
        load_bundle(red)


def test_a_torch_file_is_no_onnx_and_is_not_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return Path.touch, (tmp_path / "sprung",)

    for name in ("net.pt", "net.onnx"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
        with pytest.raises(WsiError):
            bundle_of(tmp_path / name, **SMALL)
    assert not (tmp_path / "sprung").exists()


def test_what_does_not_go_with_onnx_files_is_said(tmp_path: Path, slide: Path, red: Path) -> None:
    for settings, said in (
        (Settings(engine="openvino"), "is not for ONNX files"),
        (Settings(precision="bf16"), "export it in 16 bits"),
        (Settings(device="warp"), "use auto or cpu"),
    ):
        with pytest.raises(ConfigError, match=said):
            segment(slide, tmp_path / "a.zarr", bundle=red, settings=settings)
    with pytest.raises(BundleError, match="its networks are ONNX files"):
        load_net(red)
    with pytest.raises(ConfigError, match="is for bundles of ONNX files"):
        segment(slide, tmp_path / "a.zarr", settings=Settings(engine="onnx"))


def test_the_command_packs_two_files_and_runs_them(
    tmp_path: Path, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    onnx_file(tmp_path / "red.onnx", RED)
    words = "model pack --coarse red.onnx --fine red.onnx --mpp 0.5 --ratio 4 --class tumour --colour ff8800"
    packed = CliRunner().invoke(commands, [*words.split(), "--halo", "32", "-o", "my.bundle"])
    assert packed.exit_code == 0, packed.output
    assert "# Model card: my" in packed.output
    assert "not calibrated, so it promises nothing" in packed.output
    assert CliRunner().invoke(commands, ["model", "my.bundle"]).output == packed.output
    assert read_spec(tmp_path / "my.bundle").colours == ((255, 136, 0),)
    done = CliRunner().invoke(commands, ["run", str(slide), "--model", "my.bundle", "--refine", "all", "-q"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "slide.seg.ome.zarr").is_dir()
    again = CliRunner().invoke(commands, [*words.split(), "-o", "my.bundle"])
    assert isinstance(again.exception, ConfigError)
    assert "give --overwrite" in str(again.exception)


def smp() -> Any:
    """Segmentation models of torch; networks without weights."""
    return pytest.importorskip("segmentation_models_pytorch")


@pytest.mark.timeout(600)
def test_a_network_of_segmentation_models_pytorch_runs_in_memory_and_as_onnx(tmp_path: Path) -> None:
    """One for both stages: exporting it takes most of the time."""
    slide = write_slide(tmp_path / "slide.tiff", [texture(200, 180)])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = smp().Unet("mobilenet_v2", encoder_weights=None, classes=1)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    bundle = bundle_of(net, **SMALL, mean=mean, std=std)
    before = run(slide, tmp_path / "a.zarr", bundle)
    assert 0 < before.mean() < 1
    pytest.importorskip("onnxscript")
    pack(bundle, tmp_path / "smp.bundle")
    after = run(slide, tmp_path / "b.zarr", tmp_path / "smp.bundle")
    assert (before != after).mean() <= DIFFER


class Keeping(nn.Module):
    """Keeps on itself what it computes, for a while, as many networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 1, 9, padding=4)
        nn.init.normal_(self.body.weight, std=0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.skip = self.body(x)
        time.sleep(0.002)
        return self.skip


def test_a_network_that_keeps_what_it_computes_is_not_shared_by_threads() -> None:
    torch.manual_seed(0)
    bundle = bundle_of(Keeping(), **SMALL)
    ref = refer(bundle, device="cpu", precision="fp32")[0]
    images = [texture(128, 128, seed=seed) for seed in range(8)]
    alone = [runner(ref).f1(image) for image in images]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(runner(ref).f1, images))
    for one, two in zip(alone, found, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)
    twin, first = runner(ref)._own("f1"), bundle.f1
    assert isinstance(twin, Stage)
    assert isinstance(first, Stage)
    assert twin is not first
    assert next(twin.parameters()) is next(first.parameters())  # the weights are there once


def position_map(x: torch.Tensor) -> torch.Tensor:
    """Of a map of 500 px that was learned: larger windows do not fit it."""
    if max(x.shape[-2:]) > 500:
        raise ValueError("the size of tensor a must match")
    return x[:, :1] - 0.5


def test_a_network_that_is_too_small_for_a_window_is_refused_at_once() -> None:
    with pytest.raises(BundleError, match=r"Model 2 cannot take 512 x 512 px \(the size of tensor a"):
        bundle_of(position_map, **(SMALL | {"tile": 384, "halo": 64, "coarse_halo": 32}))


def test_of_several_outputs_none_is_taken_unasked(tmp_path: Path) -> None:
    both = "aux = Neg (x) {0} = Identity (x)"

    def written(name: str) -> Path:
        outputs = f"float[N,3,H,W] aux, float[N,3,H,W] {name}"
        return onnx_file(tmp_path / f"{name}.onnx", both.format(name), y=outputs)

    three = SMALL | {"classes": ["a", "b"]}
    with pytest.raises(BundleError, match="gives aux, main; name the logits 'out' or 'logits' or leave"):
        bundle_of(written("main"), **three)
    bundle = bundle_of(written("logits"), **three, probabilities=False)
    assert (bundle.f1(torch.ones(1, 3, 64, 64)) > 0).all()


def test_numbers_of_numpy_are_packed_as_pythons_own(tmp_path: Path) -> None:
    changes = {"mpp": np.float32(0.5), "colours": np.array([[1, 2, 3]])}
    packed = pack(bundle_of(Tiny(), **(SMALL | changes)), tmp_path / "a.bundle")
    assert (packed.spec.mpp, packed.spec.colours) == (0.5, ((1, 2, 3),))


def test_a_module_that_cannot_be_copied_is_one_line() -> None:
    net = Tiny()
    net.seen = net.skip(torch.zeros(1, 3, 8, 8))  # type: ignore[assignment]
    with pytest.raises(
        BundleError, match=r"Model 1: cannot be copied .*; give the module as its code builds it"
    ):
        bundle_of(net, **SMALL)


class Locking(nn.Module):
    """Keeps a lock on itself, once it has been used."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Tiny()
        self.lock: Any = None

    def forward(self, x: Tensor) -> Tensor:
        self.lock = self.lock or threading.Lock()
        with self.lock:
            answer: Tensor = self.net(x)
        return answer


def test_a_network_that_cannot_be_copied_any_more_is_shared(tmp_path: Path, slide: Path) -> None:
    assert run(slide, tmp_path / "a.zarr", bundle_of(Locking(), **SMALL)).any()


@pytest.mark.parametrize(
    "net",
    [
        lambda x: sum(0.1 * torch.sigmoid(20 * x[:, :1]) for _ in range(10)),  # up to 1.0000001
        nn.Sequential(Tiny(), nn.Sigmoid(), nn.AvgPool2d(4), nn.Upsample(scale_factor=4, mode="bicubic")),
    ],
    ids=["a mean of networks", "enlarged"],
)
def test_probabilities_may_lie_a_little_beside_0_and_1(net: Any) -> None:
    bundle_of(net, **SMALL, probabilities=True)


def test_sizes_are_whole_numbers() -> None:
    assert type(bundle_of(Tiny(), **(SMALL | {"tile": np.int64(128)})).spec.tile) is int
    with pytest.raises(ConfigError, match=r"halo=32\.0; expected a whole number"):
        bundle_of(Tiny(), **(SMALL | {"halo": 32.0}))
