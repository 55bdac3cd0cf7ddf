"""The names people import, and the documents that must keep up with the code."""

import inspect
import subprocess
import sys
from pathlib import Path

import wsi_twostage
from wsi_twostage.export import export
from wsi_twostage.mask import MaskPyramid
from wsi_twostage.result import Result
from wsi_twostage.viewer import open_viewer

ROOT = Path(__file__).parent.parent


def test_every_public_name_is_there() -> None:
    for name in wsi_twostage.__all__:
        assert getattr(wsi_twostage, name) is not None
    assert sorted(wsi_twostage.__all__) == sorted(wsi_twostage._HOME)


def test_no_module_hides_a_public_name() -> None:
    """Importing ``wsi_twostage.x`` makes ``x`` of the package that module, for ever."""
    package = Path(wsi_twostage.__file__).parent
    modules = {path.stem for path in package.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert modules.isdisjoint(wsi_twostage.__all__)


def test_a_path_may_be_given_as_anything_that_is_one() -> None:
    names = (getattr(wsi_twostage, name) for name in wsi_twostage.__all__)
    public = [*filter(inspect.isfunction, names), export, open_viewer, MaskPyramid.open, Result.export]
    for function in public:
        for parameter in inspect.signature(function).parameters.values():
            assert "pathlib" not in str(parameter.annotation), f"{function.__name__}: {parameter}"


def test_the_example_runs(tmp_path: Path) -> None:
    example = ROOT / "examples" / "segment_slide.py"
    done = subprocess.run([sys.executable, example, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "refined 3 of 68 tissue tiles" in done.stdout
    assert (tmp_path / "cmu.preview.png").exists()


def test_what_the_readme_says_to_run_is_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    install = "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/wsi-seg "
    assert install + "examples/data/CMU-1-Small-Region.svs" in text
    assert '.venv/bin/pip install ".[test]" && .venv/bin/pytest' in text
