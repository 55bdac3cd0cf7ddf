"""What a result's runs were told to refine, and how far that is: in the manifest, for those that go on."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.ledger import Ledger
from wsi_twostage.mask import MaskPyramid
from wsi_twostage.selection import Duration, Rule


@dataclass(frozen=True)
class Agenda:
    """The rule of a run, which may go on with what an earlier one did."""

    mask: MaskPyramid
    rule: Rule
    spent: bool
    """An earlier run came to the end of this budget of time: what it chose stays."""
    until: float | None
    """When to be ready, as `end_of` says; None, too, where the time is ``spent``."""

    @classmethod
    def begin(cls, mask: MaskPyramid, rule: Rule, said: str, since: float) -> Self:
        """Note the rule, in the words ``said``; what an earlier run had chosen by another one is void."""
        timed, told = isinstance(rule, Duration), mask.manifest
        same = told.get("rule") == said
        spent = timed and same and bool(told.get("spent"))
        audit = told.get("audit") if same and (spent or not timed) else None
        mask.note(rule=said, audit=audit, chosen=spent, spent=spent, complete=False)
        return cls(mask, rule, spent, None if spent else end_of(rule, since))

    def choose(self, ledger: Ledger) -> None:
        """Line 2 of Algorithm 1; nothing new where the time is spent."""
        let_go(self.mask, ledger)
        if not self.spent:
            self.mask.note(lapses=0 if isinstance(self.rule, Duration) else None)
            ledger.choose(self.rule)
            self.mask.note(chosen=True)

    def spend(self) -> None:
        """Note that a budget of time is over."""
        self.mask.note(spent=isinstance(self.rule, Duration))


def end_of(rule: Rule | None, since: float) -> float | None:
    """When a budget of time is over, in seconds of `time.time`."""
    return since + rule.value if isinstance(rule, Duration) else None


def let_go(mask: MaskPyramid, ledger: Ledger) -> None:
    """What a budget of time, of this run or of one that was stopped, did not get to is not chosen."""
    lapses = mask.manifest.get("lapses")
    if lapses is not None:
        ledger.release(lapses)
        mask.note(lapses=None)


def forget_audit(mask: MaskPyramid, ledger: Ledger, todo: NDArray[np.bool_]) -> None:
    """Once tiles, (rows, cols), get refined that it did not know of; those of its sample make it."""
    told = mask.manifest.get("audit")
    if told and (todo & (("left" in told) | (ledger.grid("round", -1) != told["round"]))).any():
        mask.note(audit=None)
