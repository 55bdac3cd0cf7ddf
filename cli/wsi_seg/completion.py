"""wsi-seg completion: the script that lets a shell complete our commands."""

import click

from wsi_seg.help import Command


@click.command(
    cls=Command,
    short_help="The script that lets bash, zsh or fish complete with TAB.",
    examples=(
        ('eval "$(wsi-seg completion bash)"', "now, and always if it is in ~/.bashrc; zsh the same"),
        ("wsi-seg completion fish > ~/.config/fish/completions/wsi-seg.fish", "always"),
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that lets SHELL complete commands, options, their values and files."""
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(ctx.find_root().command, {}, "wsi-seg", "_WSI_SEG_COMPLETE").source(), nl=False)
