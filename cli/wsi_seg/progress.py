"""Progress on stderr: a bar a stage with rate and time left on a terminal, plain lines elsewhere."""

import json
import os
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict
from types import TracebackType
from typing import Self

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)  # fmt: skip

from wsi_twostage.events import Event, Finished, Listener, Note, Started, TilesDone

_EVERY_S = 10.0  # between the lines of a log


class Screen:
    """One display for all slides that are at work at the same time; two would draw over each other."""

    def __init__(self) -> None:
        self._lock, self._users = threading.Lock(), 0
        self._progress: Progress | None = None

    def enter(self, console: Console) -> Progress:
        """The display; it begins with the first who comes."""
        with self._lock:
            if self._progress is None:
                self._progress = Progress(
                    TextColumn("{task.description}"),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TextColumn("tiles  {task.fields[rate]}"),
                    TimeRemainingColumn(),
                    console=console,
                    redirect_stdout=sys.stdout.isatty(),  # what goes to a file is not for the terminal
                )
                self._progress.start()
            self._users += 1
            return self._progress

    def leave(self, tasks: Iterable[TaskID]) -> None:
        """It ends with the last who leaves, whose bars stay; those of the others go."""
        with self._lock:
            assert self._progress is not None
            self._users -= 1
            if self._users:
                for task in tasks:
                    self._progress.remove_task(task)
            else:
                self._progress.stop()
                self._progress = None


_SCREEN = Screen()


class Bars:
    """A listener that draws; for terminals."""

    def __init__(self, name: str, console: Console, screen: Screen = _SCREEN) -> None:
        self._name, self._console, self._screen = name, console, screen
        self._tasks: dict[str, Task] = {}
        self._drawn: list[TaskID] = []

    def __enter__(self) -> Self:
        self._progress = self._screen.enter(self._console)
        return self

    def __exit__(self, *_: object) -> None:
        self._screen.leave(self._drawn)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            number = self._progress.add_task(
                f"{self._name}: {event.stage}", total=event.total, rate="", megapixels=0.0
            )
            self._drawn.append(number)
            self._tasks[event.stage] = next(task for task in self._progress.tasks if task.id == number)
        elif isinstance(event, TilesDone):
            task = self._tasks[event.stage]
            megapixels = task.fields["megapixels"] + event.megapixels
            rate = f"{megapixels / max(task.elapsed or 0, 1e-3):.1f} Mpx/s"
            self._progress.update(task.id, advance=event.tiles, megapixels=megapixels, rate=rate)
        elif isinstance(event, Finished):
            if (ended := self._tasks.get(event.stage)) is not None:
                self._progress.update(ended.id, completed=ended.total)
        else:
            self._progress.console.print(f"wsi-seg: {event.text}", markup=False, highlight=False)


class Lines:
    """A listener that logs a line now and then; for files and pipes."""

    def __init__(self, name: str, console: Console) -> None:
        self._name, self._console = name, console
        self._total = self._done = 0
        self._megapixels = self._start = self._said = 0.0

    def __call__(self, event: Event) -> None:
        now = time.perf_counter()
        if isinstance(event, Started):
            self._total, self._done, self._megapixels, self._start, self._said = event.total, 0, 0.0, now, now
        elif isinstance(event, TilesDone):
            self._done += event.tiles
            self._megapixels += event.megapixels
            if now - self._said >= _EVERY_S:
                self._said = now
                spent = now - self._start
                left = spent / max(self._done, 1) * (self._total - self._done)
                self._say(
                    f"{event.stage}: {self._done} of {self._total} tiles, "
                    f"{self._megapixels / spent:.1f} Mpx/s, {left:.0f} s left"
                )
        elif isinstance(event, Finished):
            self._say(f"{event.stage}: done in {event.seconds:.1f} s")
        elif isinstance(event, Note):
            self._say(event.text)

    def _say(self, text: str) -> None:
        say(self._console, f"{self._name}: {text}")


class Silence:
    """A listener that only passes on notes; for --quiet."""

    def __init__(self, name: str, console: Console) -> None:
        self._lines = Lines(name, console)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note):
            self._lines(event)


class Json:
    """A listener that prints each event as a line of JSON on stdout; for programs."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, event: Event) -> None:
        line = json.dumps({"event": type(event).__name__.lower(), "slide": self._name, **asdict(event)})
        with suppress(OSError):  # nobody listens any more, or a log's disk is full: the run goes on
            click.echo(line)  # with its end at once: slides at work at the same time have a thread each


class Counts:
    """Long work that is counted, each by its name: bars on a terminal, lines elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, tuple[float, int]] = {}
        self._said = time.perf_counter()

    def __enter__(self) -> Self:
        self._bars.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.__exit__(kind, error, trace)

    def show(self, name: str, done: int, total: int, text: str = "") -> None:
        """So much of ``name`` is done, and how it stands."""
        now = time.perf_counter()
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total)
            self._began[name] = now, done
        described = f"{name}, {text}" if text else name
        self._bars.update(self._tasks[name], completed=done, total=total, description=described)
        if not self._console.is_terminal and (done == total or now - self._said >= _EVERY_S):
            self._said, (began, before) = now, self._began[name]
            left = (
                f", {(now - began) / (done - before) * (total - done):.0f} s left"
                if before < done < total
                else ""
            )
            self.say(f"{described}: {done} of {total}{left}")

    def say(self, text: str) -> None:
        """A line that stays."""
        say(self._console, text)


def say(console: Console, text: str) -> None:
    """A line; if nobody listens any more, or a log's disk is full, the work goes on without."""
    with suppress(OSError, SystemExit):  # the latter is rich's, of a broken pipe
        console.print(f"wsi-seg: {text}", markup=False, highlight=False, soft_wrap=True)


def tell(text: str, *, err: bool = False) -> None:
    """What a run gave; if nobody listens any more, or a disk is full, the work goes on without."""
    try:
        click.echo(text, err=err)
    except OSError:
        if err:
            return
        with suppress(OSError, ValueError):  # what is left in its buffer goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def clock(seconds: float) -> str:
    """Hours, minutes and seconds; the hours of a day and more, too."""
    minutes, left = divmod(round(seconds), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{left:02}"


def listener(name: str, *, quiet: bool, as_json: bool = False) -> AbstractContextManager[Listener]:
    """What suits where stderr goes; or, ``as_json``, lines on stdout."""
    if as_json and not quiet:
        return nullcontext(Json(name))
    console = Console(stderr=True)
    if quiet:
        return nullcontext(Silence(name, console))
    return Bars(name, console) if console.is_terminal else nullcontext(Lines(name, console))
