"""The paper's Tables 1, 3 and 4 as Markdown, ours beside what was printed; and curves as tables."""

import csv
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from wsi_twostage.errors import ConfigError
from wsi_twostage.paper.backbones import Encoder, classifier
from wsi_twostage.paper.cost import Cost, cost
from wsi_twostage.paper.networks import build_network
from wsi_twostage.paper.reports import Outcome, Report
from wsi_twostage.paper.rows import TABLE4, row, rows

SIDES = (48, 96, 192, 384, 768)
_PUBLISHED = Path(__file__).parent / "published"
_NAMES = {"fcn": "FCN", "segnet": "SegNet", "unet": "U-Net", "deeplab": "DeepLab", "resnet50": "ResNet-50"}
_THRESHOLD = 0.25  # of both tables, but for the thresholds of Table 4
_IN_PLACE_OF = {"isic": "ph2"}  # whose printed values stand beside ours


def published(table: int) -> list[dict[str, str]]:
    """The rows of a table as the paper prints them."""
    lines = (_PUBLISHED / f"table{table}.csv").read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def table1_costs(architecture: str) -> list[Cost]:
    """Of a network of the paper, or ``resnet50`` alone, at each side."""

    def make() -> torch.nn.Module:
        if architecture == "resnet50":
            return Encoder(classifier("resnet50"))
        return build_network(architecture)

    return [cost(make, side) for side in SIDES]


def table1() -> str:
    """Counted now, from the published networks as built here."""
    body = []
    for printed in published(1):
        name = printed["architecture"]
        costs = table1_costs(name)
        parameters = f"{costs[0].parameters:,} ({printed['params_millions']} M)"
        cells = [f"{round(c.table1 / 1e6)} ({printed[str(s)]})" for s, c in zip(SIDES, costs, strict=True)]
        body.append([_NAMES[name], parameters, *cells, f"{costs[-1].convolutions / 1e6:.0f}"])
    header = ["network", "parameters", *(f"{side} px" for side in SIDES), "convolutions alone, 768 px"]
    return _markdown(header, body)


def table3(reports: Sequence[Report]) -> str:
    """Each architecture on each data set: the reference against both stages."""
    printed = {(line["architecture"], line["dataset"]): line for line in published(3)}
    chosen = _of_table3(reports)
    if not chosen:
        raise ConfigError(_none(3, reports, "such as unet-bowl"))
    body = []
    for report in chosen:
        if (ours := _at(report, _THRESHOLD)) is None:
            continue
        architecture, data = report.experiment["architecture"], report.experiment["data"]
        line = printed.get((architecture, _IN_PLACE_OF.get(data, data)), {})
        paper = {key: float(value) for key, value in line.items() if key not in ("architecture", "dataset")}
        reference, took = report.reference, report.training
        two_stage = took["model1"] + took.get("model2", took["reference"])  # which may be Model 2 itself
        milliseconds = (1000 * way.time / report.images["tested"] for way in (reference, ours))
        body.append(
            [
                f"{_NAMES[architecture]}, {_label(data)}",
                _beside(100 * reference.mean, paper.get("baseline_dice_pct")),
                _beside(100 * ours.mean, paper.get("proposal_dice_pct")),
                f"{100 * reference.pooled:.1f}, {100 * ours.pooled:.1f}",
                f"{100 * ours.refined:.0f}%",
                ", ".join(f"{value:.0f}" for value in milliseconds),
                _beside(_times(reference.time, ours.time), _ratio(paper, "inference_s")),
                _beside(_times(took["reference"], two_stage), _ratio(paper, "train_s")),
            ]
        )
    header = ["", "Dice, reference", "Dice, two-stage", "pooled Dice, both", "cells refined"]
    header += ["ms per image, both", "times faster", "training, times faster"]
    return _markdown(header, body) + "\n\n" + _settings(chosen)


def table4(reports: Sequence[Report]) -> str:
    """DeepLab with one choice changed at a time."""
    found = {r.name: r for r in reports if r.name.startswith(_row(r))}
    everywhere = sorted({report.experiment["data"] for report in reports})
    sets = [data for data in everywhere if found.keys() & {f"deeplab-{data}", *rows(4, [data])}]
    if not sets:
        raise ConfigError(_none(4, reports, "such as deeplab-bowl"))
    body = []
    for line in published(4):
        cells = []
        for data in sets:
            outcome = _of_table4(found, data, line["study"], line["setting"])
            printed = line.get(_IN_PLACE_OF.get(data, data))
            value = None if printed is None else float(printed)
            cells.append("" if outcome is None else _beside(100 * outcome.mean, value))
        body.append([f"{line['study'].replace('_', ' ')}: {line['setting'].replace('_', ' ')}", *cells])
    needed = {name for data in sets for name in (f"deeplab-{data}", *rows(4, [data]))}
    used = [report for name, report in found.items() if name in needed]
    return _markdown(["", *map(_label, sets)], body) + "\n\n" + _settings(used)


def is_row(report: Report) -> bool:
    """Whether Table 3 or 4 has a row for it; whoever changes what a row is about gives it another name."""
    return report.name in (_row(report), *rows(4, [report.experiment["data"]]))


def _none(table: int, reports: Sequence[Report], such: str) -> str:
    names = ", ".join(report.name for report in reports)
    return f"no report of a row of Table {table}; expected one {such}, found {names}"


def _settings(reports: Iterable[Report]) -> str:
    """How the reports differ from the rows as published, a line for each kind of setting."""
    lines: dict[str, list[str]] = {}
    for report in reports:
        asked = json.loads(json.dumps(row(report.name).described))  # lists, as in a report
        changed = {k: v for k, v in report.experiment.items() if asked.get(k) != v}
        text = ", ".join(f"{key} {value}" for key, value in changed.items()) or "as published"
        device, threads = report.machine["device"], report.machine["threads"]
        if device.startswith("cpu"):
            device += f", {threads} thread{'s' if threads > 1 else ''}"
        text += f"; {device}, torch {report.machine['torch']}, seed {report.experiment['seed']}"
        text += f", {report.images['trained']} images trained on, {report.images['tested']} tested"
        trained = {made["machine"]["device"] for made in report.origins.values() if made}
        if elsewhere := sorted(trained - {report.machine["device"]}):
            text += f", trained on {' and '.join(elsewhere)}"
        if _at(report, _THRESHOLD) is None:
            text += f"; its report has no threshold {_THRESHOLD}"
        lines.setdefault(text, []).append(report.name)
    return "\n".join(f"- {', '.join(names)}: {text}" for text, names in lines.items())


def _row(report: Report) -> str:
    """Of Table 3, by what was run; whoever changes data or architecture of a row leaves it its name."""
    return f"{report.experiment['architecture']}-{report.experiment['data']}"


def _of_table3(reports: Sequence[Report]) -> list[Report]:
    rank = {name: i for i, name in enumerate(_NAMES)}
    chosen = [r for r in reports if r.name == _row(r)]
    return sorted(chosen, key=lambda r: (r.experiment["data"], rank[r.experiment["architecture"]]))


def _of_table4(found: dict[str, Report], data: str, study: str, setting: str) -> Outcome | None:
    """The outcome of one cell of the table; the paper's own setting is the row of Table 3."""
    own = setting in ("16", "weighted", "none") or study == "threshold"
    change = {"fine_tune": "no-fine-tune", "context": "no-context"}.get(setting, setting)
    change = f"patches-{setting}" if study == "patches" else change
    name = f"deeplab-{data}" if own else f"deeplab-{data}-{change}"
    assert own or change in TABLE4, f"{study}, {setting} is no row of Table 4"
    if name not in found:
        return None
    return _at(found[name], float(setting) if study == "threshold" else _THRESHOLD)


def _at(report: Report, threshold: float) -> Outcome | None:
    return next((outcome for outcome in report.two_stage if outcome.threshold == threshold), None)


def _ratio(paper: dict[str, float], what: str) -> float | None:
    return paper[f"baseline_{what}"] / paper[f"proposal_{what}"] if paper else None


def _label(data: str) -> str:
    return data.upper() + (f" (paper: {_IN_PLACE_OF[data].upper()})" if data in _IN_PLACE_OF else "")


def _times(slow: float, fast: float) -> float:
    """How many times faster; none where no time was measured."""
    return slow / fast if fast else math.nan


def _beside(ours: float, paper: float | None) -> str:
    return f"{ours:.1f}" if paper is None else f"{ours:.1f} ({paper:.1f})"


def _markdown(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
