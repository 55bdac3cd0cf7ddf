"""Experiments from a configuration to a table: rows, training, interruption, reports."""

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from paper_trees import folder, write
from safetensors.torch import load_file

from wsi_seg.main import commands
from wsi_twostage.curves.curve import Curve, read_curve
from wsi_twostage.curves.experiments import measure_experiments
from wsi_twostage.errors import ConfigError, WriteError, WsiError
from wsi_twostage.paper import origin, tables
from wsi_twostage.paper import train as training
from wsi_twostage.paper.configuration import as_toml, is_experiment, read_experiment
from wsi_twostage.paper.datasets import Parts, open_set
from wsi_twostage.paper.evaluate import evaluate_experiment
from wsi_twostage.paper.experiment import Experiment
from wsi_twostage.paper.reports import Outcome, Report, read_report, write_report
from wsi_twostage.paper.rows import ALL_THRESHOLDS, OURS, row, rows
from wsi_twostage.paper.runs import Runs
from wsi_twostage.paper.train import Epoch, share_of_rate, train_experiment

CPU = torch.device("cpu")
TINY = Experiment(
    "tiny",
    "folder",
    "unet",
    "mobilenet_v2",
    weights="random",
    side=64,
    patches=4,
    epochs=2,
    batch=3,
    learning_rate=1e-3,
    thresholds=(0.0, 0.25, 1.0),
)
CHANGES = ["backbone=mobilenet_v2", "weights=random", "side=64", "patches=4", "epochs=1", "batch=3"]


def test_the_defaults_are_the_papers() -> None:
    paper = row("deeplab-bowl")
    assert (paper.side, paper.patches, paper.ratio, paper.cell) == (768, 16, 4, 192)
    assert (paper.epochs, paper.learning_rate, paper.loss, paper.selection) == (20, 1e-4, "focal", "weighted")
    assert paper.thresholds == ALL_THRESHOLDS
    assert row("unet-bowl").thresholds == (0.25,)


def test_the_learning_rate_falls_along_a_cosine_where_asked() -> None:
    falling = replace(TINY, schedule="cosine", epochs=4)
    shares = [share_of_rate(falling, at) for at in (0.0, 0.5, 1.0)]
    assert shares == pytest.approx([1, 0.505, 0.01])
    assert share_of_rate(TINY, 1.0) == 1


def test_there_is_a_row_for_every_line_of_the_tables() -> None:
    printed = {f"{line['architecture']}-{line['dataset']}" for line in tables.published(3)}
    assert {row(name).name for name in rows(3)} == printed
    for line in tables.published(4):  # raises for a line without a row
        for data in ("bdd", "kitti", "bowl", "ph2"):
            tables._of_table4({}, data, line["study"], line["setting"])
    assert len({row(name).name for name in rows(4)}) == 28


@pytest.mark.parametrize("change", ["no-context", "random", "highest", "no-fine-tune"])
def test_what_changes_nothing_in_ours_is_no_row(change: str) -> None:
    with pytest.raises(ConfigError, match="no row of a table"):
        row(f"ours-deeplab-bowl-{change}")
    assert row("ours-deeplab-bowl-patches-4").patches == 4


def test_an_experiment_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    for experiment in (row("ours-unet-isic"), row("deeplab-bowl"), TINY):
        path.write_text(as_toml(experiment), encoding="utf-8")
        assert read_experiment(str(path)) == experiment


def test_a_file_may_start_from_a_row(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('row = "deeplab-bowl-no-context"\nside = 256\n', encoding="utf-8")
    assert read_experiment(str(path), ["epochs=3"]) == replace(
        row("deeplab-bowl-no-context"), name="mine", side=256, epochs=3
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("speed=3", "unknown key 'speed'"),
        ("side", "expected KEY=VALUE"),
        ("side=big", "side='big' is of the wrong kind"),
        ("context=1", "context=1 is of the wrong kind"),
        ("side=200", "patches must be a square, and the side a multiple"),
        ("patches=128", "patches must be a square"),
        ("loss=dice", "known: focal, bce_dice"),
        ("halo=3", "not a multiple of the ratio 4"),
        ("thresholds=[2.0]", "within 0..1"),
        ("thresholds=[]", "one or more"),
        ("thresholds=[true]", "is of the wrong kind"),
        ("name=", "a name must be given"),
        ("learning_rate=nan", "no infinity"),
        ("seed=4294967296", "below 4294967296"),
        ("split_seed=99999999999999999999", "below 4294967296"),
        ("distil=0.5", "needs fine labels"),
        ("average=1.0", "below 1, and zoom"),
        ("colour=-0.1", "below 1, and zoom"),
        ("zoom=0.5", "zoom=0.5 at least 1"),
        ("zoom=inf", "zoom=inf at least 1, and no infinity"),
        ("batch=1", "at least 1, 0 and 2"),
        ("model2=reference", "takes no context"),
        ("split_seed=-1", "at least 0"),
        ("learning_rate=0.0", "must be above 0"),
        ("side=0", "patches must be a square"),
    ],
)
def test_a_bad_setting_is_one_clear_line(change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_experiment("unet-bowl", [change])


@pytest.mark.parametrize("name", ["unet", "unet-", "vgg-bowl", "unet-bowl-fast", "none.json"])
def test_an_unknown_row_says_what_rows_look_like(name: str) -> None:
    with pytest.raises(ConfigError, match="rows are, for example, unet-bowl"):
        read_experiment(name)


def test_recipes_are_told_from_experiments(tmp_path: Path) -> None:
    recipe = Path(tables.__file__).parents[1] / "training" / "nuclei-he.toml"
    assert not is_experiment(str(recipe))
    assert not is_experiment("missing.toml")
    (tmp_path / "bare.toml").write_text('architecture = "unet"\n', encoding="utf-8")
    assert is_experiment(str(tmp_path / "bare.toml"))
    assert is_experiment("unet-bowl")
    path = tmp_path / "mine.toml"
    path.write_text(as_toml(TINY), encoding="utf-8")
    assert is_experiment(str(path))


def test_stages_are_shared_by_experiments_that_agree_on_them(tmp_path: Path) -> None:
    def same(one: Experiment, two: Experiment, stage: str) -> bool:
        paths = [Runs(tmp_path, experiment, "", "").path(stage) for experiment in (one, two)]
        return paths[0] == paths[1]

    paper = row("deeplab-bowl")
    coarser, sharper = row("deeplab-bowl-patches-64"), row("deeplab-bowl-highest")
    assert same(paper, coarser, "reference")
    assert not same(paper, coarser, "model1")
    assert same(paper, sharper, "model1")
    assert not same(paper, sharper, "model2")
    assert not same(paper, replace(paper, seed=1), "reference")
    assert same(paper, replace(paper, thresholds=(0.1,)), "model2")
    longer = replace(paper, model1_epochs=40)
    assert same(paper, longer, "reference")
    assert not same(paper, longer, "model1")
    assert not same(paper, longer, "model2")
    assert not same(paper, replace(paper, average=0.9), "reference")


def test_model_1_can_be_trained_longer_than_the_others(data: Path, tmp_path: Path) -> None:
    trained: list[tuple[str, int, int]] = []
    train_experiment(
        replace(TINY, epochs=1, model1_epochs=2),
        open_set("folder", data).train,
        tmp_path,
        device=CPU,
        progress=lambda epoch: trained.append((epoch.stage, epoch.epoch, epoch.epochs)),
    )
    assert trained == [("reference", 1, 1), ("model1", 1, 2), ("model1", 2, 2), ("model2", 1, 1)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    folder(root)
    return root


def weights(experiment: Experiment, data: Path, output: Path, workers: int = 0) -> dict[str, torch.Tensor]:
    items = open_set("folder", data).train
    trained = train_experiment(experiment, items, output, device=CPU, workers=workers)
    return {f"{s}.{k}": v for s, done in trained.items() for k, v in load_file(done.path).items()}


def test_an_interrupted_training_ends_with_the_same_weights(data: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(epoch: Epoch) -> None:
        if (epoch.stage, epoch.epoch) == ("model2", 1):
            raise Stop

    whole = weights(TINY, data, tmp_path / "whole")
    items = open_set("folder", data).train
    with pytest.raises(Stop):
        train_experiment(TINY, items, tmp_path / "cut", device=CPU, progress=stop)
    assert len(list((tmp_path / "cut" / "weights").glob("*.checkpoint"))) == 1
    resumed = weights(TINY, data, tmp_path / "cut")
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0, msg=name)
    assert not list((tmp_path / "cut" / "weights").glob("*.checkpoint"))


def test_averaged_weights_are_kept_and_interrupted_like_others(data: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(epoch: Epoch) -> None:
        if (epoch.stage, epoch.epoch) == ("model1", 1):
            raise Stop

    averaged = replace(TINY, average=0.9)
    whole, last = weights(averaged, data, tmp_path / "whole"), weights(TINY, data, tmp_path / "last")
    assert not all(torch.equal(whole[name], last[name]) for name in whole)
    items = open_set("folder", data).train
    with pytest.raises(Stop):
        train_experiment(averaged, items, tmp_path / "cut", device=CPU, progress=stop)
    resumed = weights(averaged, data, tmp_path / "cut")
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0, msg=name)


def test_the_number_of_workers_changes_nothing(data: Path, tmp_path: Path) -> None:
    short = replace(TINY, epochs=1)
    alone, helped = weights(short, data, tmp_path / "0"), weights(short, data, tmp_path / "1", workers=1)
    for name, value in alone.items():
        torch.testing.assert_close(helped[name], value, rtol=0, atol=0, msg=name)


def test_too_few_images_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="7 images for training; batch=8"):
        weights(replace(TINY, batch=8), data, tmp_path)


@pytest.fixture(scope="module")
def report(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    output = tmp_path_factory.mktemp("runs")
    weights(TINY, data, output)
    return evaluate_experiment(TINY, open_set("folder", data), output, device=CPU, repeats=1)


def test_a_report_has_every_threshold_and_stage(report: Report) -> None:
    assert [o.threshold for o in report.two_stage] == [0.0, 0.25, 1.0]
    assert [o.refined for o in report.two_stage] == sorted(
        (o.refined for o in report.two_stage), reverse=True
    )
    assert report.two_stage[0].refined == 1
    assert report.two_stage[-1].refined == 0
    assert set(report.two_stage[0].seconds) == {"read", "model 1", "selection", "model 2", "merge"}
    assert len(report.reference.per_image) == report.images["tested"] == 3
    assert set(report.training) == {"reference", "model1", "model2"}
    assert {made["machine"]["threads"] for made in report.origins.values()} == {torch.get_num_threads()}


def test_a_report_survives_its_file(report: Report, tmp_path: Path) -> None:
    path = write_report(report, tmp_path)
    again = read_report(path)
    assert again.reference == report.reference
    assert again.two_stage == report.two_stage
    assert again.origins.keys() == {"reference", "model1", "model2"}
    assert json.loads(path.read_text())["experiment"]["weights"] == "random"


def test_a_file_that_is_no_report_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="not the report of an experiment"):
        read_report(path)


def test_our_choices_run(data: Path, tmp_path: Path) -> None:
    ours = replace(TINY, **{**OURS, "epochs": 1})
    weights(ours, data, tmp_path)
    done = evaluate_experiment(ours, open_set("folder", data), tmp_path, device=CPU, repeats=1)
    assert set(done.training) == {"reference", "model1"}  # Model 2 is the reference
    assert done.two_stage[0].refined == 1


def test_distilled_training_runs(data: Path, tmp_path: Path) -> None:
    ours = replace(TINY, network="default", upsampling="bilinear", labels="fine", distil=0.5, epochs=1)
    assert weights(ours, data, tmp_path).keys() >= {"model1.final.weight", "model2.mix.weight"}


def outcome(threshold: float | None, dice: float, seconds: float) -> Outcome:
    return Outcome(threshold, dice, [dice, dice], 0.5, {"read": 9.0, "model 2": seconds})


def made_up(name: str, **changes: object) -> Report:
    experiment = {**row(name).described, **changes}
    results = [outcome(t, 0.8 + t / 100, 1.0) for t in experiment["thresholds"]]
    training_s = {"reference": 60.0, "model1": 20.0, "model2": 10.0}
    machine = {"device": "cpu (x)", "threads": 2, "torch": "2"}
    images = {"trained": 469, "tested": 2}
    made = Report(experiment, images, ["a", "b"], outcome(None, 0.9, 4.0), results, training_s, 3, machine)
    with tempfile.TemporaryDirectory() as place:
        return read_report(write_report(made, Path(place)))


def test_table_3_shows_ours_beside_the_papers() -> None:
    text = tables.table3([made_up("deeplab-bowl", side=256), made_up("unet-isic")])
    assert (
        "| DeepLab, BOWL | 90.0 (87.0) | 80.2 (81.7) | 90.0, 80.2 | 50% | 2000, 500 | 4.0 (2.6) | 2.0 (1.2) |"
        in text
    )
    assert "| U-Net, ISIC (paper: PH2) | 90.0 (90.5) |" in text
    assert (
        "- deeplab-bowl: side 256; cpu (x), 2 threads, torch 2, seed 0, 469 images trained on, 2 tested"
        in text
    )
    assert "- unet-isic: as published;" in text


def test_training_counts_the_reference_where_it_is_model_2() -> None:
    made = made_up("unet-bowl", model2="reference", context=False)
    made = replace(made, training={"reference": 60.0, "model1": 20.0})
    assert "| 4.0 (2.3) | 0.8 (1.2) |" in tables.table3([made])  # 60 / (60 + 20)


def test_a_report_without_the_papers_threshold_costs_its_own_row_only() -> None:
    reports = [made_up("deeplab-bowl"), made_up("unet-bowl", thresholds=[0.5])]
    text = tables.table3(reports)
    assert "| DeepLab, BOWL |" in text
    assert "| U-Net, BOWL |" not in text
    assert "- unet-bowl: thresholds [0.5]; cpu (x), 2 threads, torch 2, seed 0, " in text
    assert "tested; its report has no threshold 0.25" in text
    lacking = made_up("deeplab-bowl", thresholds=[0.25, 0.5])
    text = tables.table4([lacking])
    assert "| threshold: 0.5 | 80.5 (78.0) |" in text
    assert "| threshold: 0.75 |  |" in text


def test_tables_name_the_device_that_trained() -> None:
    trained = {"reference": {"machine": {"device": "cuda (X)"}, "commit": "a"}, "model1": {}}
    made = replace(made_up("unet-bowl"), origins=trained)
    assert "2 tested, trained on cuda (X)" in tables.table3([made])
    assert "trained on cpu" not in tables.table3([made_up("unet-bowl")])


def test_what_took_no_time_is_no_error() -> None:
    made = replace(made_up("unet-bowl"), training={"reference": 0.1, "model1": 0.0, "model2": 0.0})
    assert "| nan (1.2) |" in tables.table3([made])


def test_tables_without_a_row_of_theirs_say_what_was_found() -> None:
    made = made_up("unet-bowl")
    mine = replace(made, experiment={**made.experiment, "name": "mine"})
    with pytest.raises(ConfigError, match="row of Table 3; expected one such as unet-bowl, found mine"):
        tables.table3([mine])
    with pytest.raises(ConfigError, match="row of Table 4; expected one such as deeplab-bowl, found unet"):
        tables.table4([made])
    assert "ISIC" not in tables.table4([made_up("deeplab-bowl"), made_up("unet-isic")])


def test_table_4_leaves_out_what_was_not_run() -> None:
    text = tables.table4([made_up("deeplab-bowl"), made_up("deeplab-bowl-patches-256")])
    assert "| patches: 16 | 80.2 (81.7) |" in text
    assert "| patches: 256 | 80.2 (75.1) |" in text
    assert "| patches: 64 |  |" in text
    assert "| threshold: 1 | 81.0 (76.5) |" in text
    assert "| disabled: none | 80.2 (81.7) |" in text


def test_a_row_on_other_data_is_not_taken_for_its_name() -> None:
    made = [made_up("deeplab-bowl"), made_up("deeplab-bowl-random", data="isic")]
    assert "| selection: random |  |" in tables.table4(made)


def test_the_commands_go_from_a_folder_to_a_table(data: Path, tmp_path: Path) -> None:
    run, output = CliRunner(), str(tmp_path / "runs")
    config = tmp_path / "deeplab.toml"
    config.write_text('row = "unet-folder"\nname = "unet-folder"\n', encoding="utf-8")
    settings = [x for change in CHANGES for x in ("--set", change)]
    common = [str(config), "--data", str(data), "-o", output, *settings, "--device", "cpu"]
    done = run.invoke(commands, ["train", *common], catch_exceptions=False)
    assert done.output.count("trained in") == 3
    done = run.invoke(commands, ["evaluate", *common, "--repeats", "1"], catch_exceptions=False)
    assert "unet-folder.json: Dice" in done.output
    done = run.invoke(commands, ["tables", "3", output], catch_exceptions=False)
    assert "| U-Net, FOLDER |" in done.output
    assert run.invoke(commands, ["tables", "1"]).output.count("|") > 40
    assert (
        run.invoke(commands, ["tables", "4", "--rows", "bowl"]).output.split()[0] == "deeplab-bowl-patches-4"
    )


def test_a_damaged_test_image_is_told_before_the_training(tmp_path: Path) -> None:
    folder(tmp_path)
    damaged = open_set("folder", tmp_path).test[-1].image
    damaged.write_bytes(damaged.read_bytes()[:90])
    settings = [x for change in CHANGES for x in ("--set", change)]
    common = ["unet-folder", "--data", str(tmp_path), "-o", str(tmp_path / "runs"), *settings]
    done = CliRunner().invoke(commands, ["train", *common, "--device", "cpu"])
    assert str(done.exception).startswith(f"{damaged}: not an image")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recipe.toml", "-o", "x"], "recipe.toml: a recipe, or missing; --model tests"),
        (["--set", "side=3"], "--set and --output go with experiments"),
        (["-o", "x"], "--set and --output go with experiments"),
    ],
)
def test_what_a_recipe_made_is_not_evaluated_as_an_experiment(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(commands, ["evaluate", "--data", ".", *arguments])
    assert done.exit_code == 2
    assert message in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nothing.toml", "--data", ".", "-o", "x"], "cannot be read"),
        (["train", "unet-nothing", "--data", ".", "-o", "x"], "rows are, for example"),
        (["train", "unet-bowl", "--data", "/none", "-o", "x"], "no bowl here; expected"),
        (["evaluate", "unet-bowl", "--data", "/none", "-o", "x"], "no bowl here; expected"),
        (["tables", "3"], "no reports"),
        (["tables", "3", "/none"], "no reports"),
    ],
)
def test_bad_input_is_one_clear_line(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(commands, arguments)
    assert isinstance(done.exception, WsiError)
    assert message in str(done.exception)


def test_the_means_of_a_report_by_hand() -> None:
    made = Outcome(0.25, 0.5, [0.25, 0.75], 0.1, {"read": 5.0, "model 1": 1.0, "merge": 0.5})
    assert made.mean == 0.5
    assert made.time == 1.5


def test_training_state_is_kept_each_epoch(data: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    def count(epoch: Epoch) -> None:
        seen.append(len(list((tmp_path / "weights").glob("*.checkpoint"))))

    items = open_set("folder", data).train
    training.train_experiment(replace(TINY, epochs=1), items, tmp_path, device=CPU, progress=count)
    assert seen == [1, 1, 1]
    assert np.isfinite(Runs.of(tmp_path, replace(TINY, epochs=1), items).seconds("model1"))


def test_a_long_epoch_is_reported_while_it_lasts(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Epoch] = []
    monkeypatch.setattr(training, "REPORT_S", 0.0)
    items = open_set("folder", data).train
    training.train_experiment(replace(TINY, epochs=2), items, tmp_path, device=CPU, progress=seen.append)
    steps = len(items) // TINY.batch
    assert steps > 1
    assert [(at.stage, at.epoch, at.step) for at in seen] == [
        (stage, epoch, step)
        for stage in ("reference", "model1", "model2")
        for epoch in (1, 2)
        for step in range(1, steps + 1)
    ]
    assert {(at.epochs, at.steps) for at in seen} == {(2, steps)}


def test_other_images_or_other_starting_weights_make_other_files(data: Path, tmp_path: Path) -> None:
    items = open_set("folder", data).train
    start = tmp_path / "start.safetensors"
    start.write_bytes(b"one")
    experiment = replace(TINY, weights=str(start))
    paths = {Runs.of(tmp_path, experiment, part).path("model1") for part in (items, items[1:])}
    start.write_bytes(b"two")
    assert len(paths | {Runs.of(tmp_path, experiment, items).path("model1")}) == 3
    start.unlink()
    with pytest.raises(ConfigError, match=r"start\.safetensors: no such file, nor random, imagenet, coco"):
        Runs.of(tmp_path, experiment, items)


def test_an_image_that_was_changed_is_another_one_though_as_large(data: Path, tmp_path: Path) -> None:
    items = open_set("folder", data).train
    before = Runs.of(tmp_path, TINY, items).path("reference")
    assert Runs.of(tmp_path, TINY, items).path("reference") == before
    mask = items[0].masks[0]
    content = mask.read_bytes()
    mask.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        assert Runs.of(tmp_path, TINY, items).path("reference") != before
    finally:
        mask.write_bytes(content)


def test_two_commands_do_not_train_one_stage_at_the_same_time(data: Path, tmp_path: Path) -> None:
    """The second waits, and finds the stage done."""
    items, waited, epochs = open_set("folder", data).train, list[str](), list[tuple[str, str]]()
    second: list[Thread] = []

    def train(who: str) -> None:
        training.train_experiment(
            TINY, items, tmp_path, device=CPU, waits=waited.append, progress=lambda at: heard(who, at)
        )

    def heard(who: str, at: Epoch) -> None:
        epochs.append((who, at.stage))
        if not second:
            second.append(Thread(target=train, args=("second",)))
            second[0].start()
            while not waited:
                time.sleep(0.01)

    train("first")
    second[0].join()
    assert waited[0] == "reference"
    assert len([stage for _, stage in epochs]) == 3 * TINY.epochs  # each stage once
    assert sorted(path.suffix for path in (tmp_path / "weights").iterdir()) == [".safetensors"] * 3


def test_a_place_that_cannot_be_written_is_one_clear_line(data: Path, report: Report, tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.touch()
    with pytest.raises(WriteError, match="cannot be written"):  # before the first epoch
        training.train_experiment(
            TINY,
            open_set("folder", data).train,
            place,
            device=CPU,
            progress=lambda epoch: pytest.fail("trained"),
        )
    with pytest.raises(WriteError, match="cannot be written"):
        write_report(report, place)


def test_a_training_that_diverges_leaves_no_weights(data: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"reference: the loss is nan in epoch 1; try a learning_rate below"
    ):
        weights(replace(TINY, learning_rate=1e30), data, tmp_path)
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize("suffix", [".safetensors", ".checkpoint"])
def test_damaged_weights_are_one_clear_line(suffix: str, data: Path, tmp_path: Path) -> None:
    path = Runs.of(tmp_path, TINY, open_set("folder", data).train).path("reference").with_suffix(suffix)
    path.parent.mkdir()
    path.write_bytes(b"cut off")
    with pytest.raises(ConfigError, match=r"damaged .*; remove it, and train again"):
        weights(TINY, data, tmp_path)


def test_a_report_of_other_settings_is_not_replaced(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path)
    write_report(report, tmp_path)
    with pytest.raises(ConfigError, match="the report of other settings"):
        write_report(replace(report, experiment={**report.experiment, "seed": 1}), tmp_path)


def test_two_experiments_of_one_name_are_refused_before_the_first_test(tmp_path: Path) -> None:
    arguments = [
        "evaluate",
        "segnet-bowl",
        "unet-bowl",
        "--set",
        "name=x",
        "--data",
        "/none",
        "-o",
        str(tmp_path),
    ]
    done = CliRunner().invoke(commands, arguments)
    assert "two experiments are called x" in str(done.exception)


SPOILT: dict[str, Callable[[dict[str, Any]], object]] = {
    "machine lacks device": lambda content: content.pop("machine"),
    "training lacks model1": lambda content: content["training"].pop("model1"),
    "experiment lacks architecture": lambda content: content.update(experiment={"name": "x", "data": "bowl"}),
    "has no attribute": lambda content: content.update(experiment=None),
    "no image was tested": lambda content: content["reference"].update(per_image=[]),
}


def test_what_is_no_row_is_said_and_spoils_no_table(tmp_path: Path) -> None:
    write_report(made_up("unet-bowl"), tmp_path)
    (tmp_path / "copy.json").write_bytes((tmp_path / "unet-bowl.json").read_bytes())
    write_report(made_up("ours-unet-bowl"), tmp_path)
    wanted = ["ours-unet-bowl is no row of Table 3 or 4", "another report of unet-bowl"]
    for number, (message, spoil) in enumerate(SPOILT.items()):
        content = json.loads((tmp_path / "unet-bowl.json").read_text())
        spoil(content)
        (tmp_path / f"spoilt-{number}.json").write_text(json.dumps(content))
        wanted.append(message)
    done = CliRunner().invoke(commands, ["tables", "3", str(tmp_path)])
    assert done.exit_code == 0, done.exception
    assert done.stdout.count("U-Net, BOWL") == 1
    for message in wanted:
        assert message in done.stderr
    assert done.stderr.count("left out: ") == len(wanted)


def test_a_report_of_other_settings_is_refused_before_the_first_test(tmp_path: Path) -> None:
    made = made_up("unet-bowl", seed=1)
    write_report(made, tmp_path)
    arguments = ["evaluate", "segnet-bowl", "unet-bowl", "--data", "/none", "-o", str(tmp_path)]
    done = CliRunner().invoke(commands, arguments)
    assert "the report of other settings" in str(done.exception)


def test_an_installed_package_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment often lies in the checkout of whatever it is used in."""
    if shutil.which("git") is None:
        pytest.skip("no git here")
    git = ("git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org")
    installed = tmp_path / ".venv" / "origin.py"
    installed.parent.mkdir()
    installed.touch()
    monkeypatch.setattr(origin, "__file__", str(installed))
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "of the project that uses it"], check=True)
    assert origin.commit() == ""
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "ours"], check=True)
    assert len(origin.commit()) == 12


def test_what_a_reading_process_says_stays_one_line(tmp_path: Path) -> None:
    folder(tmp_path)
    write(tmp_path / "masks" / "3.png", np.zeros((9, 9), np.uint8))
    items = open_set("folder", tmp_path, seed=3)
    with pytest.raises(ConfigError) as caught:
        train_experiment(TINY, (*items.train, *items.test), tmp_path / "out", device=CPU, workers=1)
    assert str(caught.value).endswith("(9, 9) px; its image has (40, 60)")
    assert "\n" not in str(caught.value)


def test_a_curve_begins_with_model_1_and_ends_with_model_2(data: Path, tmp_path: Path) -> None:
    run, output = CliRunner(), str(tmp_path / "runs")
    settings = [x for change in CHANGES for x in ("--set", change)]
    common = ["ours-unet-folder", "unet-folder", "--data", str(data), *settings, "--device", "cpu"]
    run.invoke(commands, ["train", *common, "-o", output], catch_exceptions=False)
    report, picture = tmp_path / "curve.json", tmp_path / "curve.png"
    files = ["--runs", output, "-o", str(report), "--picture", str(picture), "--repeats", "1"]
    done = run.invoke(commands, ["curve", *common, *files], catch_exceptions=False)
    assert "| ours-unet-folder | 100% |" in done.output
    assert picture.stat().st_size > 10_000
    curve = read_curve(report)
    assert [line.name for line in curve.lines][:3] == [
        "ours-unet-folder",
        "ours-unet-folder, oracle",
        "ours-unet-folder, random",
    ]
    ours, oracle, random = curve.lines[:3]
    for line in (oracle, random):
        assert line.points[0] == ours.points[0]
        assert line.points[-1] == ours.points[-1]
    assert all(
        o.dice >= max(a.dice, b.dice) - 1e-9
        for o, a, b in zip(oracle.points, ours.points, random.points, strict=True)
    )


def test_a_curve_pools_the_test_images_of_several_splits(data: Path, tmp_path: Path) -> None:
    splits = {seed: open_set("folder", data, seed=seed) for seed in (1, 2)}
    for seed, parts in splits.items():
        train_experiment(replace(TINY, split_seed=seed), parts.train, tmp_path, device=CPU)

    def of(*seeds: int) -> Curve:
        some = {seed: splits[seed] for seed in seeds}
        return measure_experiments([TINY], some, tmp_path, device=CPU, repeats=1)

    first, second, pooled = of(1), of(2), of(1, 2)
    assert pooled.images == first.images + second.images
    assert [setting["split_seed"] for setting in pooled.settings] == [1, 2]
    for value in ("dice", "agreement"):
        low, middle, high = (getattr(c.lines[0].points[0], value) for c in (first, pooled, second))
        assert min(low, high) <= middle <= max(low, high)


def test_lines_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="on the same images"):
        measure_experiments([TINY, replace(TINY, side=128)], {}, tmp_path, device=CPU)
    with pytest.raises(ConfigError, match="of one name"):
        measure_experiments([TINY, replace(TINY, epochs=9)], {}, tmp_path, device=CPU)
    own = Parts((), ())
    with pytest.raises(ConfigError, match="several splits test the same images"):
        measure_experiments([TINY], {1: own, 2: own}, tmp_path, device=CPU)
