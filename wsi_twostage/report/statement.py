"""How good a mask is, in sentences: what was looked at, what the audit says, what the calibration says."""

from dataclasses import dataclass

import numpy as np

from wsi_twostage.audit import CONFIDENCE
from wsi_twostage.mask import Source
from wsi_twostage.quality import unlike
from wsi_twostage.report.facts import Facts
from wsi_twostage.report.words import listed, percent, tiles

FEW = 40
"""Tiles of an audit, below which its bound covers less than it says (`tests/test_audit.py`)."""

_CALIBRATE = "wsi-seg calibrate *.svs -o mine.safetensors"


@dataclass(frozen=True, slots=True)
class Statement:
    """One side of a mask's quality."""

    title: str
    text: str
    command: str = ""
    """What would say more."""


def quality(facts: Facts) -> tuple[Statement, ...]:
    """What a reader must know before using the mask, the most important first."""
    if not facts.counts.tissue:
        return (Statement("No tissue", "No tissue was found on this slide; the mask is empty."),)
    return (_coverage(facts), _audit(facts), _calibration(facts), _truth(facts))


def _coverage(facts: Facts) -> Statement:
    counts = facts.counts
    drawn = int(facts.drawn.sum())
    chosen = counts.refined - drawn
    why = [f"{tiles(chosen)} chosen by the rule ({', then '.join(facts.rules)})"] if chosen else []
    audits = "the audit" if drawn == counts.audited else "audits"
    why += [f"{tiles(drawn)} drawn at random for {audits}"] if drawn else []
    text = f"Model 2, the finer network, saw {counts.refined} of {tiles(counts.tissue)} with tissue"
    text += f" ({percent(counts.share)})" + (f": {listed(why)}." if why else ".")
    if counts.first:
        text += f" In the other {tiles(counts.first)} the mask is the answer of Model 1, the coarser network."
    elif counts.full:
        text += " This is the full-resolution result of this model."
    if counts.unreadable:
        text += f" {tiles(counts.unreadable)} could not be read, or ended their worker each time."
    return Statement("What Model 2 saw", text)


def _audit(facts: Facts) -> Statement:
    title, counts, audit = "What is left", facts.counts, facts.audit
    if counts.full:
        return Statement(title, "Nothing: Model 2 has seen all tissue.")
    if not counts.first:
        return Statement(
            title,
            f"Nothing that could be read. What Model 2 would find in the other {tiles(counts.unreadable)} is "
            f"not known.",
        )
    overall = audit.overall if audit else None
    if audit is None or overall is None:
        begun = "The audit was not finished" if audit else "It was not audited"
        return Statement(
            title,
            f"{begun}, so it is not known how far this mask is from the one that Model 2 would give "
            f"everywhere. An audit lets Model 2 see some more tiles, drawn at random, and says so; no labels "
            f"are needed:",
            f"wsi-seg refine {shown_path(facts)} --audit 50",
        )
    text = (
        f"If Model 2 saw all tissue, the mask is expected to differ from this one by {overall.gap:.3f} "
        f"and, with {100 * CONFIDENCE:g} % confidence, by no more than {overall.bound:.3f} (1 − Dice: 0 is "
        f"the same mask, 1 one that has nothing in common with it). "
        f"This was estimated on this slide, without labels, from {tiles(counts.audited)} drawn at random."
    )
    parts = [part for part in audit.left if part.name != "all"]
    if parts:
        each = [f"{part.name} {part.gap:.3f} (at most {part.bound:.3f})" for part in parts]
        text += f" By class: {listed(each)}."
    if counts.audited < FEW:
        text += f" With fewer than {FEW} tiles the bound is rough."
        return Statement(title, text, f"wsi-seg refine {shown_path(facts)} --audit 50")
    return Statement(title, text)


def _calibration(facts: Facts) -> Statement:
    title = "What the model’s calibration says"
    if facts.model is None:
        return Statement(title, "The model's file is not where it was, so its calibration cannot be shown.")
    found = facts.model.calibration
    if found is None:
        return Statement(title, "This model was not calibrated.", _CALIBRATE)
    if found.uncertainty != facts.made.get("uncertainty"):
        ranked = facts.made.get("uncertainty")
        return Statement(title, f"It is of {found.uncertainty}, while this run ranked its tiles by {ranked}.")
    if not facts.made.get("complete"):
        return Statement(title, "It is of finished runs, and this one is not.")
    threshold = least_refined(facts)
    gap = float(np.interp(threshold, found.threshold, found.gap))
    rule = f"a rule like the one of this run (all tiles of an uncertainty of {threshold:.3f} or more)"
    if threshold == 1:
        rule = "Model 1 alone" + " (no threshold gives the tiles of this run)" * bool(facts.counts.refined)
    text = (
        f"On the {found.cases} {found.unit} that the model was calibrated on, {rule} left the mask {gap:.3f} "
        f"of Dice from the full-resolution result, on average."
    )
    if other := unlike(found, facts.made):
        text += f" This run is not like those: {other}."
    if found.unit != "slides":
        text += f" These were {found.unit}, not whole slides: take it as a hint."
        return Statement(title, text, _CALIBRATE)
    return Statement(title, text + " It says nothing of this slide in particular.")


def least_refined(facts: Facts) -> float:
    """The least uncertainty from which all tiles were refined, not counting audits'; 1 where none is.

    What a region or a budget of time took beyond that is no reason to expect less to be left.
    """
    table = facts.table
    u, second = table["uncertainty"], table["source"] == Source.MODEL_2
    random = facts.drawn
    left = (table["source"] == Source.MODEL_1) | random
    if second.any() and not (left & ~second).any():
        return 0.0
    above = second & ~random & (u > np.nan_to_num(u[left]).max(initial=0.0))
    return float(u[above].min(initial=1.0))


def _truth(facts: Facts) -> Statement:
    text = (
        "The figures above compare this mask with the one that Model 2 would give everywhere. "
        "They do not say whether Model 2 is right on this slide."
    )
    figures = facts.model.card.get("figures", {}) if facts.model else {}
    known = [f"{v['model_2'][0]} % on {name} ({v['images']} images)" for name, v in figures.items()]
    if known:
        text += f" On held-out images with known truth, its Dice is {listed(known)}."
    return Statement("What is true", text)


def shown_path(facts: Facts) -> str:
    """The result's folder, as a shell takes it."""
    import shlex

    return shlex.quote(facts.path.name)
