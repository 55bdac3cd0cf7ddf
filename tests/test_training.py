"""Training: data, split, augmentation, an interrupted run, and a bundle at the end."""

import json
import re
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import Image
from slides import texture

from wsi_twostage.dice import dices
from wsi_twostage.errors import BundleError, Busy, ConfigError, WriteError
from wsi_twostage.models.bundle import build, load_bundle, load_net
from wsi_twostage.models.header import SHIPPED, read_spec
from wsi_twostage.models.spec import NetSpec
from wsi_twostage.training import train as training
from wsi_twostage.training.augment import Augmentation, random_crops, vary
from wsi_twostage.training.config import DataConfig, Recipe, TrainConfig, read_recipe
from wsi_twostage.training.data import Folder, read_folder, read_mask, read_rgb, split, stack
from wsi_twostage.training.evaluate import CUTS, overlaps
from wsi_twostage.training.finish import evaluate_bundle
from wsi_twostage.training.recipe import train_bundle
from wsi_twostage.training.train import Step, joint_loss

TINY = NetSpec((8, 8, 8, 8, 8), (1, 1, 1, 1, 1))
CPU = torch.device("cpu")
CONFIGS = Path(training.__file__).parent


def config(**changes: object) -> TrainConfig:
    values: dict[str, object] = {
        "name": "tiny",
        "data": DataConfig(("set",), test=0.25, validation=0.25),
        "coarse": NetSpec(TINY.widths, TINY.depths, scale=2),
        "fine": TINY,
        "side": 128,
        "margin": 0,
        "image_side": 160,
        "batch": 2,
        "steps": 4,
        "warmup": 2,
        "bf16": False,
    }
    return TrainConfig(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight images of 160 x 150 px whose dark squares are foreground."""
    generator = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / "set" / kind).mkdir(parents=True)
    for i in range(8):
        image = 120 + texture(160, 150, seed=i) // 2
        mask = np.zeros((160, 150), np.uint8)
        for top, left in generator.integers(0, 120, (6, 2)):
            mask[top : top + 20, left : left + 20] = 255
        image[mask > 0] = (60, 30, 90)
        imagecodecs.imwrite(tmp_path / "set" / "images" / f"{i}.png", image)
        imagecodecs.imwrite(tmp_path / "set" / "masks" / f"{i}.png", mask)
    return tmp_path


def test_a_folder_is_read_in_order(folder: Path) -> None:
    samples = read_folder(Folder(folder / "set"))
    assert [s.name for s in samples] == [f"set/{i}" for i in range(8)]
    assert samples[0].image.shape == (3, 160, 150)
    assert set(samples[0].mask.unique().tolist()) == {0, 255}


def test_tiffs_are_images_too(folder: Path) -> None:
    """Beside PNGs they would be passed over without a word."""
    whole = read_folder(Folder(folder / "set"))
    for part in ("images", "masks"):
        path = folder / "set" / part / "3.png"
        Image.open(path).save(path.with_suffix(".tif"))
        path.unlink()
    for read, before in zip(read_folder(Folder(folder / "set")), whole, strict=True):
        assert torch.equal(read.image, before.image)
        assert torch.equal(read.mask, before.mask)
    place = folder / "set" / "images" / "3.tif"
    image, exif = Image.open(place).copy(), Image.Exif()
    exif[274] = 6
    for how, message in (
        ({"save_all": True, "append_images": [image]}, "holds several images; expected one"),
        ({"exif": exif}, r"turned or mirrored \(Orientation 6\)"),
    ):
        image.save(place, **how)
        with pytest.raises(ConfigError, match=rf"3\.tif: .*{message}"):
            read_folder(Folder(folder / "set"))
    place.write_bytes(place.read_bytes()[:9000])
    with pytest.raises(ConfigError, match=r"3\.tif: "):
        read_folder(Folder(folder / "set"))
    Image.fromarray(whole[3].image.permute(1, 2, 0).numpy()).save(place.with_suffix(".png"))
    assert torch.equal(read_folder(Folder(folder / "set"))[3].image, whole[3].image)  # its original beside it


def test_a_missing_mask_is_named(folder: Path) -> None:
    (folder / "set" / "masks" / "3.png").unlink()
    with pytest.raises(ConfigError, match=r"image 3\.png has no mask"):
        read_folder(Folder(folder / "set"))


def test_a_mask_without_an_image_is_named(folder: Path) -> None:
    """Of a folder that was copied in part."""
    (folder / "set" / "images" / "3.png").unlink()
    with pytest.raises(ConfigError, match=r"3\.png: a mask without an image in .*images"):
        read_folder(Folder(folder / "set"))


def test_a_mask_of_another_size_is_named(folder: Path) -> None:
    imagecodecs.imwrite(folder / "set" / "masks" / "3.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(ConfigError, match=r"its mask \(9, 9\) px"):
        read_folder(Folder(folder / "set"))


@pytest.mark.parametrize("part", ["images", "masks"])
def test_two_files_of_one_name_are_refused(folder: Path, part: str) -> None:
    """One of them would be left out without a word."""
    first = folder / "set" / part / "3.png"
    first.with_suffix(".jpg").write_bytes(first.read_bytes())
    with pytest.raises(ConfigError, match=r"3\.png: a second file of this name; the first is .*3\.jpg"):
        read_folder(Folder(folder / "set"))


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected folders images/ and masks/"):
        read_folder(Folder(tmp_path))


def test_grey_images_can_be_left_out(folder: Path) -> None:
    imagecodecs.imwrite(folder / "set" / "images" / "0.png", np.full((160, 150, 3), 90, np.uint8))
    assert next(s.name for s in read_folder(Folder(folder / "set", colour_only=True))) == "set/1"


def test_what_is_not_asked_for_is_not_read(folder: Path) -> None:
    """Such as images that training left out, for they are grey and have no masks."""
    (folder / "set" / "masks" / "3.png").unlink()
    names = [s.name for s in read_folder(Folder(folder / "set", only=frozenset({"5", "1", "none"})))]
    assert names == ["set/1", "set/5"]


def test_the_split_is_fixed_by_its_seed(folder: Path) -> None:
    samples = read_folder(Folder(folder / "set"))
    parts = split(samples, seed=0, test=0.25, validation=0.25)
    names = [[s.name[-1] for s in part] for part in (parts.train, parts.validation, parts.test)]
    assert names == [["0", "3", "4", "5"], ["1", "7"], ["2", "6"]]


def test_small_images_are_mirrored_outwards(folder: Path) -> None:
    sample = read_folder(Folder(folder / "set"))[0]
    images, masks = stack([sample], side=400)
    assert images.shape == (1, 3, 400, 400)
    np.testing.assert_array_equal(images[0, :, :160, 150], sample.image[:, :, 148])
    np.testing.assert_array_equal(masks[0, :, :160, :150], sample.mask)


def test_crops_keep_image_and_mask_together() -> None:
    """An image that shows its own mask still does after any crop."""
    mask = torch.zeros(1, 1, 128, 128, dtype=torch.uint8)
    mask[..., 30:90, 50:70] = 255
    image = (255 - mask).expand(-1, 3, -1, -1).contiguous()
    generator = torch.Generator().manual_seed(0)
    crops, truth = random_crops(image, mask, count=16, side=96, how=Augmentation(), generator=generator)
    torch.testing.assert_close(1 - crops[:, :1], truth, atol=1e-5, rtol=0)
    assert truth.sum() > 0


def test_crops_without_free_angles_keep_the_pixels() -> None:
    image = torch.arange(64 * 64, dtype=torch.int64).remainder(251).to(torch.uint8).view(1, 1, 64, 64)
    how = Augmentation(free=0.0)
    generator = torch.Generator().manual_seed(1)
    crops, _ = random_crops(
        image.expand(-1, 3, -1, -1).contiguous(), image * 0, count=20, side=32, how=how, generator=generator
    )
    values = crops * 255
    torch.testing.assert_close(values, values.round(), atol=2e-3, rtol=0)


def test_varied_images_stay_within_0_and_1() -> None:
    images = torch.rand(8, 3, 64, 64)
    out = vary(images, how=Augmentation(), generator=torch.Generator().manual_seed(0))
    assert out.shape == images.shape
    assert 0 <= out.min() <= out.max() <= 1


def weights(
    folder: Path,
    checkpoint: Path | None,
    steps: int,
    stop: int | None = None,
    *,
    seed: int = 5,
    darker: int = 0,
    card: dict[str, str] | None = None,
) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    settings = config(steps=steps, card=card or {})
    net = build(settings.coarse, settings.fine, context=True)
    images, masks = stack(read_folder(Folder(folder / "set")), side=160)
    images, loss = images - images.clamp(max=darker), partial(joint_loss, net, settings)
    for step in training.train(net, images, masks, settings, loss_of=loss, device=CPU, checkpoint=checkpoint):
        if step.step == stop:
            break
    return net.state_dict()


@pytest.mark.parametrize(("every", "value", "stop"), [("CHECKPOINT_EVERY", 2, 2), ("REPORT_S", 0.0, 1)])
def test_an_interrupted_training_ends_with_the_same_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: str, value: float, stop: int
) -> None:
    monkeypatch.setattr(training, every, value)
    whole = weights(folder, None, 4)
    weights(folder, tmp_path / "state", 4, stop=stop)
    resumed = weights(folder, tmp_path / "state", 4)
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, msg=name)


def test_a_training_that_diverges_leaves_no_bundle(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tiny: the loss is nan at step 4; try a learning_rate below"):
        train_bundle(Recipe(config(learning_rate=1e30)), folder, tmp_path / "x.safetensors", device=CPU)
    assert not list(tmp_path.glob("x.*"))


def test_training_ends_in_a_bundle_with_its_card(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "out" / "tiny.safetensors"
    recipe = Recipe(config(label="gland"), ((config(seed=1, steps=1), config(seed=2, steps=1)),))
    steps: list[Step] = []
    spec = train_bundle(recipe, folder, path, device=CPU, progress=steps.append)
    assert steps[-1].step == steps[-1].steps == 6
    assert read_spec(path) == spec
    assert spec.card["held_out"] == {"set": ["2", "6"]}
    assert spec.card["images"] == {"set": [4, 2, 2]}
    assert 0 <= spec.threshold <= 1
    assert evaluate_bundle(path, folder, device=CPU)["set"].images == 2
    json.dumps(spec.card)
    assert load_bundle(path).spec.scale == 2
    assert spec.classes == ("gland",)


def test_a_folder_may_lie_deeper_below_the_data(folder: Path, tmp_path: Path) -> None:
    path, name = tmp_path / "x.safetensors", f"{folder.name}/set"
    recipe = Recipe(config(data=DataConfig((name,), test=0.25, validation=0.25), steps=1))
    train_bundle(recipe, folder.parent, path, device=CPU)
    assert evaluate_bundle(path, folder.parent, device=CPU)[name].images == 2


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(config(ratio=2)),  # its Model 1 cannot be Model 2's context
        Recipe(config(coarse=NetSpec(TINY.widths, TINY.depths, scale=3))),
        Recipe(config(), student=config(ratio=64, coarse=TINY)),
    ],
    ids=["ratio", "scale", "student"],
)
def test_what_can_be_no_bundle_is_refused_before_it_is_trained(
    recipe: Recipe, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(BundleError):
        train_bundle(recipe, folder, tmp_path / "x.safetensors", device=CPU)
    assert not list(tmp_path.glob("x.*"))


@pytest.mark.parametrize("start", [SHIPPED, Path("nuclei-he")])
def test_a_bundle_of_other_networks_is_no_start(folder: Path, tmp_path: Path, start: Path) -> None:
    with pytest.raises(ConfigError, match=r"nuclei-he.*: its networks are not those of \[coarse\]"):
        train_bundle(Recipe(config()), folder, tmp_path / "x.safetensors", device=CPU, start=start)


def test_a_student_takes_model_1s_place(folder: Path, tmp_path: Path) -> None:
    """Model 2 and its context stay as they were; Model 1 works at half resolution."""
    lesson = config(ratio=2, steps=2, coarse=NetSpec((4, 4, 4, 4, 4), TINY.depths, scale=2))
    spec = train_bundle(Recipe(config(), student=lesson), folder, tmp_path / "a.safetensors", device=CPU)
    assert (spec.ratio, spec.step) == (2, 1)
    train_bundle(Recipe(config()), folder, tmp_path / "b.safetensors", device=CPU)
    taught, plain = load_net(tmp_path / "a.safetensors"), load_net(tmp_path / "b.safetensors")
    fine, around = torch.rand(1, 3, 128, 128), torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(taught.f2(fine, around), plain.f2(fine, around))
    assert taught.f1(torch.rand(1, 3, 64, 64)).shape == (1, 1, 128, 128)


def test_dice_is_of_the_masks_that_the_bundles_decisions_give() -> None:
    z, truth = torch.tensor([[-2.5, -2.0, 3.0]]), torch.tensor([False, True, True])  # 0.08, 0.12, 0.95
    assert dices(overlaps([z], [truth], np.array([0.1])).sum(0)).tolist() == [1.0]


def test_dice_by_hand() -> None:
    truth = torch.tensor([[True, True, False, False]])
    logits = torch.tensor([[[3.0, -3.0, 3.0, -3.0]]])
    counted = overlaps([logits, -50 + 0 * logits], [truth, truth & False])
    middle = int(np.flatnonzero(CUTS == 0.5)[0])
    assert dices(counted.sum(0))[middle] == 0.5
    assert dices(counted).mean(0)[middle] == 0.75  # the empty image counts 1


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_configurations_in_the_package_are_valid(path: Path) -> None:
    assert read_recipe(path).first.name


SOUND = """name = "x"
data = { folders = ["a"] }
fine = { widths = [8, 8, 8, 8, 8], depths = [1, 1, 1, 1, 1] }
"""
WHOLE = """name = "x"
[coarse]
widths = [8, 8, 8, 8, 8]
depths = [1, 1, 1, 1, 1]
[fine]
widths = [8, 8, 8, 8, 8]
depths = [1, 1, 1, 1, 1]
[data]
folders = ['a']
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "not a TOML file"),
        ("name = 'x'\nspeed = 3", "unknown key 'speed'"),
        ("name = 'x'", "missing 3 required"),
        ("name = 'x'\ndata = 3", "expected a table"),
        (f"{SOUND}coarse = {{ widths = [8, 8], depths = [1, 1] }}", "[coarse]: widths=[8, 8]"),
        (f'steps = "2"\n{WHOLE}', "steps='2' is of the wrong kind"),
        (f"seed = 1.5\n{WHOLE}", "seed=1.5 is of the wrong kind"),
        (f"bf16 = 1\n{WHOLE}", "bf16=1 is of the wrong kind"),
        (f"weight_decay = -1\n{WHOLE}", "weight_decay=-1; expected 0 or more"),
        (WHOLE.replace("[8, 8, 8, 8, 8]", "[8, 0, 8, 8, 8]", 1), "[coarse]: widths=[8, 0, 8, 8, 8]"),
        (f"batch = 0\n{WHOLE}", "batch=0; expected 1 or more"),
        (f"ratio = 3\n{WHOLE}", "ratio=3; expected a power of two"),
        (f"mpp = nan\n{WHOLE}", "mpp=nan; expected a number above 0"),
        (f"seed = 4294967296\n{WHOLE}", "seed=4294967296; expected 0 to 4294967295"),
        (f"then = [1]\n{WHOLE}", "then=[1]; expected tables"),
        (f"student = 1\n{WHOLE}", "student=1; expected a table"),
        (f"{WHOLE}[augmentation]\nscale = 0", "[augmentation]: scale=0; expected a factor above 0"),
        (f"{WHOLE}[[then]]\nbranches = []", "branches=[]; expected one or more"),
        (WHOLE.replace("['a']", "'a'"), "[data]: folders='a' is of the wrong kind"),
        (WHOLE.replace("['a']", "['a', 'a']"), "each once"),
        (WHOLE.replace("['a']", "['a']\ntest = 1.5"), "below 1 together"),
    ],
)
def test_a_bad_configuration_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_recipe(path)


def test_a_sound_configuration_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"mpp = 1\nsteps = 0\n{WHOLE}", encoding="utf-8")
    assert read_recipe(path).first.mpp == 1


def test_an_encoder_of_another_network_is_refused(folder: Path, tmp_path: Path) -> None:
    """It would be left out without a word, and training begin from random weights."""
    files = {"empty": b"", "text": b"hello\nworld", "other": b""}
    for name, content in files.items():
        (tmp_path / f"{name}.pth").write_bytes(content)
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save(torch.zeros(1), tmp_path / "tensor.pth")
    for name in (*files, "tensor"):
        with pytest.raises(ConfigError, match=r"not weights of an encoder|are not MobileNetV2's") as caught:
            train_bundle(
                Recipe(config()),
                folder,
                tmp_path / "x.safetensors",
                device=CPU,
                encoder=tmp_path / f"{name}.pth",
            )
        assert "\n" not in str(caught.value)


def test_a_missing_configuration_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_recipe(tmp_path / "none.toml")


def test_later_runs_start_from_what_the_first_one_says(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        f"""batch = 7
{WHOLE}[[then]]
steps = 5
branches = [{{ seed = 1 }}, {{ seed = 2, augmentation = {{ free = 0.0 }} }}]
""",
        encoding="utf-8",
    )
    recipe = read_recipe(path)
    one, two = recipe.then[0]
    assert (recipe.first.seed, one.seed, two.seed) == (0, 1, 2)
    assert one.batch == two.batch == 7
    assert one.steps == two.steps == 5
    assert two.augmentation.free == 0


@pytest.mark.parametrize("other", [{"steps": 4}, {"seed": 6}, {"darker": 1}])
def test_a_checkpoint_of_another_training_is_refused(
    folder: Path, tmp_path: Path, other: dict[str, int]
) -> None:
    weights(folder, tmp_path / "state", 2)
    with pytest.raises(ConfigError, match="another configuration, other images or other first weights"):
        weights(folder, tmp_path / "state", **{"steps": 2, **other})


def test_too_few_images_are_refused_before_training(folder: Path, tmp_path: Path) -> None:
    data = DataConfig(("set",), test=0.0)
    with pytest.raises(ConfigError, match="set: 8 images are too few"):
        train_bundle(Recipe(config(data=data)), folder, tmp_path / "x.safetensors", device=CPU)
    assert not list(tmp_path.glob("x.*"))


DRAWN = np.zeros((20, 30), np.uint8)
DRAWN[5:15, 5:10] = 1
CLEAR = np.dstack([np.full((20, 30, 3), 200, np.uint8), DRAWN * 255])
MASKS = {
    "0 and 1": DRAWN,
    "0 and 255": DRAWN * np.uint8(255),
    "16 bits": DRAWN.astype(np.uint16) * 3,
    "colours": np.dstack([DRAWN * 0, DRAWN * 9, DRAWN * 0]),
    "colours on nothing": CLEAR,
    "colours without alpha's say": np.dstack([DRAWN * 0, DRAWN * 9, DRAWN * 0, DRAWN * 0 + 255]),
    "grey on nothing": CLEAR[..., 2:],
}


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_is_what_is_neither_black_nor_transparent(tmp_path: Path, kind: str) -> None:
    imagecodecs.imwrite(tmp_path / "m.png", np.ascontiguousarray(MASKS[kind]))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), DRAWN > 0)


def test_colours_of_16_bits_are_refused(tmp_path: Path) -> None:
    """Pillow would give their high bytes."""
    imagecodecs.imwrite(tmp_path / "x.png", np.full((20, 30, 3), 3000, np.uint16))
    for read in (read_rgb, read_mask):
        with pytest.raises(ConfigError, match=r"x\.png: colours of 16 bits"):
            read(tmp_path / "x.png")


@pytest.mark.parametrize(("value", "said"), [(0, "no pixel"), (255, "every pixel")])
def test_masks_of_one_kind_are_refused_before_training(
    folder: Path, tmp_path: Path, value: int, said: str
) -> None:
    for path in (folder / "set" / "masks").iterdir():
        imagecodecs.imwrite(path, np.full((160, 150), value, np.uint8))
    with pytest.raises(ConfigError, match=f"set: {said} of its 8 masks is of the class"):
        train_bundle(Recipe(config()), folder, tmp_path / "x.safetensors", device=CPU)
    assert not list(tmp_path.glob("x.*"))


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_part_without_the_class_is_refused_before_training(folder: Path, tmp_path: Path, part: str) -> None:
    samples = read_folder(Folder(folder / "set"))
    parts = split(samples, seed=0, test=0.25, validation=0.25)
    for sample in getattr(parts, part):
        place = folder / f"{sample.name.replace('/', '/masks/')}.png"
        imagecodecs.imwrite(place, np.zeros((160, 150), np.uint8))
    data = DataConfig(("set",), test=0.25, validation=0.25)
    with pytest.raises(ConfigError, match=f"its {part} part: no pixel of its 2 masks .* seed or {part} in"):
        train_bundle(Recipe(config(data=data)), folder, tmp_path / "x.safetensors", device=CPU)


def test_two_trainings_of_one_bundle_are_not_made_at_the_same_time(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.safetensors"

    def begin_another(step: Step) -> None:
        train_bundle(Recipe(config()), folder, output, device=CPU)

    with pytest.raises(Busy, match="is being trained by another command"):
        train_bundle(Recipe(config()), folder, output, device=CPU, progress=begin_another)
    assert not list(tmp_path.glob("*.lock"))
    train_bundle(Recipe(config()), folder, output, device=CPU)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [output.name]


def test_a_place_that_cannot_be_written_is_told_before_training(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot be written"):
        train_bundle(Recipe(config()), folder, tmp_path / "file" / "x.safetensors", device=CPU)


def test_another_card_is_no_other_training(folder: Path, tmp_path: Path) -> None:
    weights(folder, tmp_path / "state", 2)
    weights(folder, tmp_path / "state", 2, card={"licence": "CC BY 4.0"})
