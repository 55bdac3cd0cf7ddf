"""Train the stages of an experiment: the full-resolution reference, Model 1, and Model 2 from Model 1.

A stage that another experiment has trained is not trained again, and an interrupted training goes on after
its last whole epoch.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from wsi_twostage.errors import ConfigError
from wsi_twostage.lock import in_turn
from wsi_twostage.paper import method
from wsi_twostage.paper.datasets import DATASETS, Item
from wsi_twostage.paper.experiment import Experiment
from wsi_twostage.paper.images import Augmentation, Stretched, epoch_batches, for_training, seeded
from wsi_twostage.paper.runs import Runs
from wsi_twostage.paper.weights import start_network
from wsi_twostage.training.state import read_state, write_state
from wsi_twostage.training.train import REPORT_S, Loss, half_cosine, move_average


@dataclass(frozen=True, slots=True)
class Epoch:
    """Where the training of a stage stands: in an epoch, or at its end."""

    stage: str
    epoch: int
    """From 1."""
    epochs: int
    step: int
    """Of this epoch, from 1; its state is kept after the last."""
    steps: int
    loss: float
    """Mean of this epoch so far."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A stage's file and what it took."""

    path: Path
    seconds: float
    """Wall time of all epochs, on whatever machine."""


Progress = Callable[[Epoch], None]


def train_experiment(
    experiment: Experiment,
    items: Sequence[Item],
    folder: Path,
    *,
    device: torch.device,
    workers: int = 0,
    progress: Progress = lambda epoch: None,
    waits: Callable[[str], None] = lambda stage: None,
) -> dict[str, Trained]:
    """Train whatever is not there yet; the order is that of Section 3.2.

    Parameters
    ----------
    folder
        Where the weights of this and of other experiments are.
    workers
        Threads that read images ahead; what is trained does not depend on it.
    waits
        Hears of a stage that another process is training, which is waited for.

    Raises
    ------
    ConfigError
        Too few images, or a loss that is no number any more.
    WriteError
        ``folder`` cannot be written; known before the first epoch.
    """
    done: dict[str, Trained] = {}
    images, runs = for_training(items, experiment.side), Runs.of(folder, experiment, items)
    if len(images) < experiment.batch:
        raise ConfigError(f"{experiment.name}: {len(images)} images for training; batch={experiment.batch}")
    for stage in stages(experiment):
        if not runs.path(stage).exists():
            with in_turn(runs.path(stage), partial(waits, stage)):  # experiments share stages
                if not runs.path(stage).exists():
                    _train(stage, runs, images, device=device, workers=workers, progress=progress)
        done[stage] = Trained(runs.path(stage), runs.seconds(stage))
    return done


def is_trained(experiment: Experiment, items: Sequence[Item], folder: Path) -> bool:
    """Whether `train_experiment` would find all of it there."""
    runs = Runs.of(folder, experiment, items)
    return all(runs.path(stage).exists() for stage in stages(experiment))


def stages(experiment: Experiment) -> tuple[str, ...]:
    """What has to be trained, in this order."""
    return ("reference", "model1") if experiment.model2 == "reference" else ("reference", "model1", "model2")


def _train(
    stage: str, runs: Runs, data: Stretched, *, device: torch.device, workers: int, progress: Progress
) -> None:
    experiment = runs.experiment
    torch.manual_seed(experiment.seed)
    torch.backends.cudnn.deterministic = True  # atomics in some backward passes remain
    net = _start(stage, runs).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss_of = _objective(stage, net, runs, device)
    optimiser = torch.optim.Adam(net.parameters(), lr=experiment.learning_rate)
    state = runs.path(stage).with_suffix(".checkpoint")
    kept = copy.deepcopy(net).requires_grad_(False) if experiment.average else net
    nets = {"net": net, "average": kept} if experiment.average else {"net": net}
    first, seconds = _resume(state, nets, optimiser)
    steps, epochs = len(data) // experiment.batch, experiment.epochs_of(stage)
    for epoch in range(first, epochs):
        start = said = time.perf_counter()
        torch.manual_seed(experiment.seed * 10_007 + epoch)  # of dropout
        generator = seeded(experiment.seed, epoch)
        total = torch.zeros((), device=device)
        net.train()
        batches = _batches(data, experiment, epoch, device=device, workers=workers)
        for step, (images, masks) in enumerate(batches, 1):
            rate = share_of_rate(experiment, (epoch + (step - 1) / steps) / epochs)
            for group in optimiser.param_groups:
                group["lr"] = experiment.learning_rate * rate
            with torch.autocast(device.type, torch.bfloat16, enabled=experiment.precision == "bf16"):
                loss = loss_of(images, masks, generator)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            if experiment.average:
                done = epoch * steps + step
                move_average(kept, net, min(experiment.average, done / (done + 9)))
            total += loss.detach()
            if step < steps and time.perf_counter() - said < REPORT_S:
                continue
            mean = float(total) / step  # the device has done its work by then
            if not math.isfinite(mean):  # and so are the weights, for good
                raise ConfigError(
                    f"{experiment.name}: {stage}: the loss is {mean} in epoch {epoch + 1}; try a "
                    f"learning_rate below {experiment.learning_rate:g}"
                )
            said = time.perf_counter()
            if step == steps:
                seconds += said - start
                what = {"epoch": str(epoch + 1), "seconds": f"{seconds:.1f}"}
                write_state(state, nets, optimiser, what)
            progress(Epoch(stage, epoch + 1, epochs, step, steps, mean))
    runs.save(stage, kept, seconds=seconds, device=device)
    state.unlink(missing_ok=True)


def _batches(
    data: Stretched, experiment: Experiment, epoch: int, *, device: torch.device, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    batches = epoch_batches(
        data,
        batch=experiment.batch,
        how=Augmentation(
            side=experiment.side,
            turned=DATASETS[experiment.data].turned,
            colour=experiment.colour,
            zoom=experiment.zoom,
        ),
        seed=experiment.seed,
        epoch=epoch,
        device=device,
        workers=workers,
    )
    for images, masks in batches:
        yield images.contiguous(memory_format=torch.channels_last), masks


def _objective(stage: str, net: nn.Module, runs: Runs, device: torch.device) -> Loss:
    """What the training of a stage makes small."""
    experiment = runs.experiment
    if stage == "model2":
        return partial(_loss_of_model2, net, runs.load("model1", device), experiment)
    if stage == "model1":
        teacher = runs.load("reference", device) if experiment.distil else None
        return partial(_loss_of_model1, net, teacher, experiment)
    return lambda images, masks, _: method.loss(net(images).logits, masks, experiment)


def _start(stage: str, runs: Runs) -> nn.Module:
    """Model 2 starts as Model 1 (Section 3.2 (1)), anything else from the configured weights."""
    experiment = runs.experiment
    if stage == "model2" and experiment.model2 == "fine_tuned":
        return runs.load("model1", torch.device("cpu")).requires_grad_(True)
    return start_network(
        experiment.architecture,
        backbone=experiment.backbone,
        preset=experiment.network,
        weights=experiment.weights,
    )


def share_of_rate(experiment: Experiment, done: float) -> float:
    """Share of the learning rate after that part of the epochs."""
    return 1.0 if experiment.schedule == "constant" else half_cosine(done)


def _loss_of_model1(
    net: nn.Module,
    teacher: nn.Module | None,
    experiment: Experiment,
    images: Tensor,
    masks: Tensor,
    _: torch.Generator,
) -> Tensor:
    ratio = experiment.ratio
    logits = net(method.shrink(images, ratio)).logits
    if experiment.labels == "coarse":
        middle = slice(ratio // 2, None, ratio)
        return method.loss(logits, masks[..., middle, middle], experiment)
    if teacher is not None:
        with torch.no_grad():
            answer = teacher(images).logits.float().sigmoid()
        masks = masks + experiment.distil * (answer - masks)
    return method.loss(method.enlarged(logits.float(), experiment), masks, experiment)


def _loss_of_model2(
    net: nn.Module,
    model1: nn.Module,
    experiment: Experiment,
    images: Tensor,
    masks: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """One cell of each image, drawn by Model 1's uncertainty (Section 3.1)."""
    with torch.no_grad():
        first = method.first_stage(model1, images, experiment)
    chosen = method.draw(method.scores(first.logits, experiment), experiment.selection, generator)
    truth = method.cells(masks, cell=experiment.cell, halo=experiment.halo)[torch.from_numpy(chosen)]
    return method.loss(method.second_stage(net, images, first, chosen, experiment), truth, experiment)


def _resume(path: Path, nets: dict[str, nn.Module], optimiser: torch.optim.Optimizer) -> tuple[int, float]:
    """The epoch to go on with and the seconds spent before it."""
    if not path.exists():
        return 0, 0.0
    _, what = read_state(path, nets, optimiser)
    return int(what["epoch"]), float(what["seconds"])
