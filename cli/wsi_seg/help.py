"""Help that is grouped: commands and options under headings, after examples."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from wsi_twostage.errors import did_you_mean

_VERSION = ("-v", "--version")
_HELP = ("-h", "--help")

Examples = Sequence[tuple[str, str]]
"""A command line, and what it is for."""


class Command(click.Command):
    """A command that shows examples, and its options under headings.

    Parameters
    ----------
    examples
        Shown before the options.
    sections
        Heading -> names of parameters; what is in none of them comes last. None: one list of options.
    """

    def __init__(
        self,
        *args: Any,
        examples: Examples = (),
        sections: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.examples, self.sections = examples, sections or {}

    def get_help_option_names(self, ctx: click.Context) -> list[str]:
        """Ours, also where a context has no group: click keeps the option as it was first asked for."""
        return [*_HELP]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)
        for heading, rows in self._rows(ctx):
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)

    def _rows(self, ctx: click.Context) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        home = {name: heading for heading, names in self.sections.items() for name in names}
        for heading in (*self.sections, "Options"):
            records = [
                option.get_help_record(ctx)
                for option in options
                if home.get(option.name or "", "Options") == heading
            ]
            yield heading, [record for record in records if record]


class Commands(click.Group):
    """``wsi-seg SLIDE...`` is ``wsi-seg run SLIDE...``; commands are listed in groups.

    Parameters
    ----------
    groups
        Heading -> commands.
    """

    def __init__(
        self,
        name: str,
        *,
        groups: Mapping[str, Sequence[click.Command]],
        examples: Examples = (),
        **kwargs: Any,
    ) -> None:
        every = [command for group in groups.values() for command in group]
        super().__init__(name, commands=every, **kwargs)
        self.groups, self.examples = groups, examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            args = self.meant(ctx, args)
        elif args and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def meant(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Arguments with the command that was left out; a word that is nearly a command is refused."""
        first = args[0] if args else "--help"
        if first in self.commands or first in (*_VERSION, *_HELP):
            return args or [first]
        if first.isalpha() and not Path(first).exists():
            if first == "help":
                return [*args[1:2], "--help"]
            if near := did_you_mean(first, ("help", *self.commands)):
                raise click.UsageError(f"{first!r} is neither a command nor a slide{near}", ctx)
        return ["run", *args]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)
        width = max(map(len, self.commands))
        for heading, group in self.groups.items():
            with formatter.section(heading):
                formatter.write_dl(
                    (f"{command.name:{width}}", command.get_short_help_str(formatter.width))
                    for command in group
                )
        click.Command.format_options(self, ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Commands, and files: the first word may be a slide."""
        return [*files(ctx, None, incomplete), *super().shell_complete(ctx, incomplete)]


def write_examples(examples: Examples, formatter: click.HelpFormatter) -> None:
    """Command lines with what they are for beside them; or below, where not all have room."""
    if not examples:
        return
    column = max(len(line) for line, _ in examples) + 2
    beside = all(2 + column + len(text) <= formatter.width for _, text in examples)
    with formatter.section("Examples"):
        for line, text in examples:
            shown = f"{line:{column}}{text}" if beside else f"{line}\n{'':6}{text}"
            formatter.write(f"  {shown.rstrip()}\n")


def files(ctx: click.Context, param: click.Parameter | None, incomplete: str) -> list[Any]:
    """Completes what may be a file; the first in a list of completions, or bash drops those before it."""
    from click.shell_completion import CompletionItem

    return [] if incomplete.startswith("-") else [CompletionItem(incomplete, type="file")]
