"""Every block in the guides runs, or says why it cannot."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from pages import blocks, page

GUIDES = ("thousand", "clusters", "your-model")
LONG = ("thousand", "your-model")  # a minute and a half each
SCRIPTS = Path(sys.executable).parent


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "guide", [pytest.param(guide, marks=pytest.mark.pages if guide in LONG else ()) for guide in GUIDES]
)
def test_the_blocks_of_a_guide_run_one_after_the_other(tmp_path: Path, guide: str) -> None:
    if guide == "your-model":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    path = f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"
    for block in blocks(page(guide)):
        if block.reason is not None or block.language not in ("bash", "python"):
            continue
        program = (
            ["bash", "-euo", "pipefail"] if block.language == "bash" else [sys.executable, "-W", "error"]
        )
        done = subprocess.run(
            [*program, "-c", block.text],
            cwd=tmp_path,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
        print(done.stdout)
    assert not (tmp_path / "unsound.txt").exists()


@pytest.mark.parametrize("guide", GUIDES)
def test_bash_in_a_guide_is_sound_and_what_it_names_is_there(guide: str) -> None:
    for block in blocks(page(guide)):
        if block.language == "bash":
            subprocess.run(["bash", "-n", "-c", block.text], check=True)
            for name in re.findall(r"examples/[\w./-]+", block.text):
                assert (ROOT / name).exists(), name


def test_kubernetes_objects_are_yaml_with_one_scheduler_name() -> None:
    found = [yaml.safe_load(block.text) for block in blocks(page("clusters")) if block.language == "yaml"]
    objects = {each["kind"]: each for each in found}
    assert set(objects) == {"PersistentVolumeClaim", "DaskCluster", "Job"}
    dask, job = objects["DaskCluster"], objects["Job"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert f"tcp://{dask['metadata']['name']}-scheduler:8786" in container["args"]
    (worker,) = dask["spec"]["worker"]["spec"]["containers"]
    assert (
        worker["volumeMounts"] == container["volumeMounts"]
    )  # the same slides and results, at the same path
    assert 75 not in job["spec"]["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"]


CONTAINERFILE = (ROOT / "Containerfile").read_text(encoding="utf-8")


def test_the_container_copies_what_is_there_and_what_the_package_is_built_from() -> None:
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*)", CONTAINERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert all((ROOT / source).exists() for source in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    built = {
        package.split("/")[0] for package in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    }
    named = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"}
    assert copied == built | named
    sent = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line.removeprefix("!") for line in sent if line.startswith("!")} == copied


def test_the_container_runs_the_command_as_an_ordinary_user_on_a_python_that_is_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (entry,) = re.findall(r'^ENTRYPOINT \["(.*)"\]', CONTAINERFILE, re.MULTILINE)
    assert entry in project["scripts"]
    (user,) = re.findall(r"^USER (\d+)", CONTAINERFILE, re.MULTILINE)
    assert int(user) > 0
    (python,) = re.findall(r"^ARG PYTHON=3\.(\d+)", CONTAINERFILE, re.MULTILINE)
    assert f"Python :: 3.{python}" in " ".join(project["classifiers"])
    (torch,) = re.findall(r'"(torch>=[\d.]+)"', CONTAINERFILE)
    assert torch in project["dependencies"]
