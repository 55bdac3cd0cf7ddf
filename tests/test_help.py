"""Help, hints in errors, completion and colours: what a new user sees of the command."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from conftest import SVS, tiny_model
from slides import texture, write_slide

from wsi_seg import options
from wsi_seg.help import Command
from wsi_seg.main import EXAMPLES, GROUPS, commands, main
from wsi_twostage.errors import did_you_mean, similar_file

COMMANDS = [command for group in GROUPS.values() for command in group]
SCRIPTS = Path(sys.executable).parent
SGR = re.compile(r"\x1b\[[0-9;]*m")
"""What sets a colour or a weight on a terminal."""


def shown(*arguments: str) -> str:
    """What a command prints where all goes well."""
    done = CliRunner().invoke(commands, arguments, prog_name="wsi-seg")
    assert done.exit_code == 0, done.output
    return done.output


def refused(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the console script says of arguments that it refuses."""
    monkeypatch.setattr(sys, "argv", ["wsi-seg", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    return capfd.readouterr().err


# Help


def test_without_arguments_it_prints_its_help_and_ends_well(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["wsi-seg"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    assert "\nSegment:\n" in capfd.readouterr().out


def test_the_help_shows_every_command_in_its_group() -> None:
    text = shown("--help")
    places = [text.index(f"\n{heading}:\n") for heading in GROUPS]
    assert places == sorted(places)
    for command in COMMANDS:
        assert f"\n  {command.name} " in text
        assert command.short_help in text  # whole, not cut


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_fits_a_terminal_and_has_examples(command: click.Command) -> None:
    text = shown(command.name or "", "-h")
    assert max(map(len, text.splitlines())) <= 80
    assert "\nExamples:\n" in text
    assert text == shown("help", command.name or "")


@pytest.mark.parametrize(
    "line", [line for c in COMMANDS if isinstance(c, Command) for line, _ in c.examples] + [EXAMPLES[0][0]]
)
def test_every_example_is_understood(line: str) -> None:
    found = re.search(r"wsi-seg ([^>)]*)", line)
    assert found
    name, *rest = commands.meant(click.Context(commands), found[1].replace("'", "").split())
    with commands.commands[name].make_context(name, rest) as ctx:
        assert ctx.params


@pytest.mark.parametrize("name", ["run", "refine", "plan"])
def test_every_option_of_a_run_is_under_a_heading(name: str) -> None:
    text = shown(name, "--help")
    assert text.index("What Model 2 gets:") < text.index("The model:") < text.index("Where and how long:")
    rest = text.split("\nOptions:\n")[1]
    assert [line.split()[0] for line in rest.splitlines() if line.strip()] == ["-h,"]


@pytest.mark.parametrize("flag", ["-v", "--version"])
def test_the_version_is_said(flag: str) -> None:
    assert re.fullmatch(r"wsi-seg \d+\.\d+\.\d+\S*\n", shown(flag))


# Hints


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["repot", "x"], "'repot' is neither a command nor a slide; did you mean report?"),
        (["hlep"], "did you mean help?"),
        ([str(SVS), "--bugdet", "5%"], "--budget"),
        ([str(SVS), "--mpp", "250"], "did you mean 0.25, that is 250 nm?"),
        ([str(SVS), "--engine", "torhc"], "did you mean torch?"),
        ([str(SVS), "--precision", "FP61"], "did you mean fp16?"),
        ([str(SVS), "--uncertainty", "entrpy"], "did you mean entropy?"),
        (["info", str(SVS), "--reader", "opensldie"], "did you mean openslide?"),
        ([str(SVS), "--tissue", "ostu"], "did you mean otsu?"),
        ([str(SVS), "--tissue", "regoin.geojson"], "did you mean region.geojson?"),
        ([str(SVS), "--model", "nucelus.safetensors"], "did you mean nucleus.safetensors?"),
        (["info", "slied.svs"], "did you mean slide.svs?"),
        (["info", "slide.tif"], "did you mean slide.svs?"),
        (["slied.svs"], "did you mean slide.svs?"),
        (["verify", "a.seg.ome.zar"], "did you mean"),
        (["report", "a.seg.ome.zar"], "did you mean a.seg.ome.zarr?"),
        (["export", "a.seg.ome.zarr", "--to", "geojsn"], "did you mean geojson?"),
        (["export", "a.seg.ome.zarr", "--to", "geojson", "--as", "detecton"], "did you mean detection?"),
        (["train", "unet-bwol", "--data", ".", "-o", "o"], "did you mean unet-bowl?"),
        (["evaluate", "deeplab-bowl-patchs-4", "--data", ".", "-o", "o"], "mean deeplab-bowl-patches-4?"),
        (["train", "unet-bowl", "--set", "epocs=1", "--data", ".", "-o", "o"], "did you mean epochs?"),
        (["train", "recipes.toml", "--data", ".", "-o", "o"], "did you mean recipe.toml?"),
        (["tables", "4", "--rows", "bwol"], "did you mean bowl?"),
        (["refine", "a.seg.ome.zarr", "--region", "regoin.geojson"], "did you mean region.geojson?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_names_the_nearest(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    for name in ("slide.svs", "region.geojson", "nucleus.safetensors", "recipe.toml"):
        (tmp_path / name).touch()
    (tmp_path / "a.seg.ome.zarr").mkdir()
    monkeypatch.chdir(tmp_path)
    err = refused(monkeypatch, capfd, *arguments)
    assert said in err
    assert "Traceback" not in err


def test_a_slide_may_have_the_name_of_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "repot").mkdir()
    assert commands.meant(click.Context(commands), ["repot"]) == ["run", "repot"]


@pytest.mark.parametrize(
    ("missing", "there", "expected"),
    [
        ("CMU-1-Smal-Region.svs", "CMU-1-Small-Region.svs", True),
        ("S0001.svs", "S0002.svs", False),  # another slide, not a slip
        ("none.svs", "text.svs", False),  # alike in their suffix only
        ("slide.SVS", "slide.svs", True),
    ],
)
def test_files_are_alike_by_their_stems(tmp_path: Path, missing: str, there: str, expected: bool) -> None:
    (tmp_path / there).touch()
    said = similar_file(tmp_path / missing)
    assert said == (f"; did you mean {tmp_path / there}?" if expected else "")


def test_a_slip_in_the_name_of_a_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    assert similar_file(tmp_path / "slids" / "deep" / "a.svs") == f"; did you mean {tmp_path / 'slides'}?"
    assert similar_file(tmp_path / "xyz" / "a.svs") == ""


def test_what_is_like_nothing_has_no_hint() -> None:
    assert did_you_mean("warp", ("fp32", "fp16")) == ""


# Completion


def completed(words: str, *, shell: str = "bash", cwd: Path) -> list[str]:
    """What the shell would be offered for the last of the words."""
    asked = {
        "_WSI_SEG_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    done = subprocess.run(
        [SCRIPTS / "wsi-seg"], cwd=cwd, env=os.environ | asked, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("wsi-seg re", ["file,re", "plain,refine", "plain,report"]),
        ("wsi-seg slide.svs --ov", ["plain,--overwrite"]),  # short for run
        ("wsi-seg slide.svs --precision b", ["plain,bf16"]),
        ("wsi-seg run --tissue o", ["file,o", "plain,otsu"]),
        ("wsi-seg info sl", ["file,sl"]),
        ("wsi-seg export a.zarr --to d", ["plain,dicom-seg"]),
        ("wsi-seg completion z", ["plain,zsh"]),
        ("wsi-seg model pa", ["file,pa", "plain,pack"]),
        ("wsi-seg slide.svs --model n", ["file,n", "plain,nuclei-he"]),
    ],
)
def test_the_environment_asks_for_completions(tmp_path: Path, words: str, expected: list[str]) -> None:
    assert completed(words, cwd=tmp_path) == expected


def test_bash_completes_with_the_printed_script(tmp_path: Path) -> None:
    code = (
        'eval "$(wsi-seg completion bash)"; COMP_WORDS=(wsi-seg slide.svs --budg); COMP_CWORD=2; '
        "$(complete -p wsi-seg | grep -o '_[a-z_]*completion') wsi-seg; echo \"${COMPREPLY[@]}\""
    )
    path = f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("--budget\n", "", 0)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_each_shell(shell: str) -> None:
    assert "_WSI_SEG_COMPLETE" in shown("completion", shell)


def test_what_is_completed_is_what_the_library_knows() -> None:
    from wsi_twostage.batch import TISSUES
    from wsi_twostage.export.geojson import KINDS
    from wsi_twostage.export.writing import SUFFIXES
    from wsi_twostage.models.runner import ENGINES, PRECISIONS
    from wsi_twostage.slide.slide import _DESCRIBE
    from wsi_twostage.uncertainty import UNCERTAINTIES

    run, export = commands.commands["run"], commands.commands["export"]
    for command, name, known in (
        (run, "engine", ENGINES[:2]),  # the third is what bundles of ONNX files have
        (run, "precision", PRECISIONS),
        (run, "uncertainty", UNCERTAINTIES),
        (run, "reader", ("auto", *_DESCRIBE)),
        (run, "tissue", TISSUES),
        (export, "to", SUFFIXES),
        (export, "kind", KINDS),
    ):
        ctx = click.Context(command)
        (option,) = [param for param in command.params if param.name == name]
        offered = [item.value for item in option.shell_complete(ctx, "") if item.type == "plain"]
        assert sorted(offered) == sorted(known), name


def test_headings_name_options_that_exist() -> None:
    there = {param.name for name in ("run", "refine", "plan") for param in commands.commands[name].params}
    assert {name for names in options.SECTIONS.values() for name in names} <= there


# Colours


def on_terminal(*command: str | Path, cwd: Path, **environment: str) -> str:
    """All that a command writes to a terminal."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    told = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    told |= {"TERM": "xterm-256color", **environment}
    with subprocess.Popen(command, cwd=cwd, env=told, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        text = b""
        try:
            while part := os.read(ours, 65536):
                text += part
        except OSError:  # Linux: nobody writes any more
            pass
    os.close(ours)
    assert process.returncode == 0, text
    return text.decode()


@pytest.fixture
def run_tiny(tmp_path: Path) -> list[str | Path]:
    """A run of no time."""
    slide = write_slide(tmp_path / "slide.tiff", [texture(300, 400)])
    model = tiny_model(tmp_path / "tiny.safetensors")
    return [SCRIPTS / "wsi-seg", slide, "--model", model, "-o", "out.zarr", "--overwrite"]


def test_a_terminal_sees_bars_in_colour(tmp_path: Path, run_tiny: list[str | Path]) -> None:
    assert SGR.search(on_terminal(*run_tiny, cwd=tmp_path))


def test_no_color_is_respected(tmp_path: Path, run_tiny: list[str | Path]) -> None:
    assert not re.search(r"\x1b\[[0-9;]*3\d", on_terminal(*run_tiny, cwd=tmp_path, NO_COLOR="1"))


def test_a_file_sees_no_escapes(tmp_path: Path, run_tiny: list[str | Path]) -> None:
    done = subprocess.run(run_tiny, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize("no_color", ["", "1"])
def test_the_doctor_colours_its_states_on_a_terminal(tmp_path: Path, no_color: str) -> None:
    code = (
        "from wsi_seg.doctor import _show; from wsi_twostage.doctor.finding import problem; "
        "_show(problem('disk', 'full', 'make room'))"
    )
    text = on_terminal(sys.executable, "-c", code, cwd=tmp_path, NO_COLOR=no_color)
    assert bool(re.search(r"\x1b\[[0-9;]*31m", text)) is not bool(no_color)
