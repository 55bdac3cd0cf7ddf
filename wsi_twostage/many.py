"""segment_many(): a batch of slides on the same workers; one bad slide never stops the rest."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from distributed import Client

from wsi_twostage import stopping
from wsi_twostage.batch import Entry
from wsi_twostage.errors import Busy, ClusterError, ConfigError, WsiError
from wsi_twostage.events import Listener, Note, ignore
from wsi_twostage.pipeline import segment
from wsi_twostage.preparing import model_of, resolve
from wsi_twostage.result import Result
from wsi_twostage.selection import Duration, Rule, TargetGap, Threshold
from wsi_twostage.settings import Settings
from wsi_twostage.slide.contents import cannot_open

AT_ONCE = 4
"""Slides at the same time on a scheduler's workers: while one ends, or is looked at, the others fill them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one slide of a batch ended; with neither result nor error it was not begun."""

    entry: Entry
    result: Result | None = None
    error: WsiError | None = None

    @property
    def status(self) -> str:
        """One of `result.STATUSES`."""
        if self.result is not None:
            return self.result.status
        if self.error is None:
            return "skipped"
        return "stopped" if isinstance(self.error, (Busy, ClusterError)) else "failed"


def segment_many(
    entries: Sequence[Entry],
    *,
    bundle: str | os.PathLike[str] | None = None,
    rule: Rule | TargetGap | None = None,
    settings: Settings | None = None,
    listener_of: Callable[[Entry], AbstractContextManager[Listener]] = lambda entry: nullcontext(ignore),
    at_once: int | None = None,
    fail_fast: bool = False,
    since: float | None = None,
) -> Iterator[Outcome]:
    """Segment each slide as `segment` does, and tell how each ended, as they end.

    Parameters
    ----------
    listener_of
        Who hears of a slide's run; called in the thread that leads the run.
    at_once
        Slides that share the workers at the same time, the earlier ones first; None: one, or `AT_ONCE` with a
        scheduler.
    fail_fast
        Begin no more slides once one has failed.
    since
        When the clock of the first slide's time budget began; those of the others begin with them.

    A slide that fails is told, not raised. Once the run is asked to stop, or the cluster is lost, what was
    not begun is skipped.

    Raises
    ------
    ConfigError, BundleError
        What no slide could be segmented with: a cluster that is not there, a model that is none, a rule that
        the model does not carry; or a budget of time is to be spent on several slides at once.
    """
    settings = settings or Settings()
    _, spec = model_of(bundle, settings)
    if any(entry.threshold is None for entry in entries):
        resolve(rule, spec, settings, ignore)
    at_once = at_once or (1 if settings.scheduler is None or isinstance(rule, Duration) else AT_ONCE)
    if isinstance(rule, Duration) and at_once > 1:
        raise ConfigError(f"{rule} is for one slide at a time; leave --at-once away")

    def work(number: int, entry: Entry, client: Client) -> Outcome:
        with listener_of(entry) as listener:
            own = None if entry.threshold is None else Threshold(entry.threshold)
            if own and rule:
                listener(Note(f"{own}, as the list says, not {rule}"))
            result = segment(
                entry.slide,
                entry.output,
                bundle=bundle,
                rule=own or rule,
                settings=entry.settings(settings),
                listener=listener,
                since=time.time() if since is None or number else since,
                client=client,
                priority=-number,
            )
        return Outcome(entry, result)

    waiting, ended = list(enumerate(entries))[::-1], False
    with settings.connect() as client, ThreadPoolExecutor(at_once) as pool:
        at_work: dict[Future[Outcome], Entry] = {}
        while waiting or at_work:
            while waiting and len(at_work) < at_once:
                number, entry = waiting.pop()
                if ended or (number and stopping.over(settings.until)):
                    yield Outcome(entry)
                else:
                    at_work[pool.submit(work, number, entry, client)] = entry
            for future in wait(at_work, return_when=FIRST_COMPLETED).done if at_work else ():
                entry = at_work.pop(future)
                try:
                    outcome = future.result()
                except OSError as error:  # a path that the system will not even look at
                    outcome = Outcome(entry, error=cannot_open(entry.slide, error))
                    ended |= fail_fast
                except WsiError as error:
                    outcome = Outcome(entry, error=error)
                    ended |= isinstance(error, ClusterError) or (fail_fast and outcome.status == "failed")
                yield outcome
