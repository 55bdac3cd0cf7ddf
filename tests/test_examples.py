"""The examples for clusters and workflow managers, run as real processes where their programs are there."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT, SVS, tiny_model

from wsi_twostage import Fraction, Settings, segment
from wsi_twostage.mask import MaskPyramid

EXAMPLES = ROOT / "examples"
SCRIPTS = Path(sys.executable).parent


def environment(**more: str) -> dict[str, str]:
    """As in an environment that was activated."""
    return {**os.environ, "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}", **more}


def labels(store: Path) -> dict[str, bytes]:
    """The files of the mask; an all-background shard has none."""
    inside = store / "labels" / "segmentation"
    return {str(p.relative_to(inside)): p.read_bytes() for p in sorted(inside.rglob("c/**/*")) if p.is_file()}


def left_over(mark: Path) -> list[psutil.Process]:
    """Processes that have a path in their command line."""
    return [p for p in psutil.process_iter(["cmdline"]) if str(mark) in " ".join(p.info["cmdline"] or [])]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "tiny.safetensors")


@pytest.mark.timeout(400)
def test_two_workers_started_by_hand_give_the_bytes_of_a_local_run(tmp_path: Path, model: Path) -> None:
    options = ("-o", tmp_path / "far.zarr", "--model", model, "--budget", "20%", "-q")
    done = subprocess.run(
        [EXAMPLES / "two_workers.sh", SVS, *options],
        env=environment(TMPDIR=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    settings = Settings(workers=1)
    segment(SVS, tmp_path / "near.zarr", bundle=model, rule=Fraction(0.2), settings=settings)
    near = labels(tmp_path / "near.zarr")
    assert len(near) > 4
    assert labels(tmp_path / "far.zarr") == near
    assert left_over(tmp_path) == []
    assert not list(tmp_path.glob("tmp.*"))


@pytest.mark.timeout(400)
def test_two_workers_that_are_told_to_end_leave_a_valid_store_and_no_process(tmp_path: Path) -> None:
    store = tmp_path / "far.zarr"
    running = subprocess.Popen(
        [EXAMPLES / "two_workers.sh", SVS, "-o", store, "--refine", "all"],  # the shipped model: seconds
        env=environment(TMPDIR=str(tmp_path)),
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (store / "wsi_twostage" / "tiles").is_dir() and running.poll() is None:
        time.sleep(0.05)
    begun = psutil.Process(running.pid).children(recursive=True)
    ports = [port for process in begun for port in process.net_connections() if port.status == "LISTEN"]
    assert len(ports) >= 5  # of a scheduler, two nannies and two workers
    assert {port.laddr.ip for port in ports} == {"127.0.0.1"}
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate()
    assert running.returncode == 75, said
    assert "the same command goes on" in said
    assert not MaskPyramid.left(store).manifest["complete"]
    assert left_over(tmp_path) == []


def shown(*options: str) -> list[str]:
    """The script of a worker's job."""
    script = [sys.executable, str(EXAMPLES / "slurm.py"), *options, "--show"]
    return subprocess.run(script, capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_slurm_job_asks_for_what_was_said_and_its_worker_leaves_before_the_limit() -> None:
    pytest.importorskip("dask_jobqueue")
    lines = shown("--cores", "4", "--memory", "8GiB", "--walltime", "01:00:00", "--queue", "long")
    assert {"#SBATCH -p long", "#SBATCH --cpus-per-task=4", "#SBATCH --mem=8G", "#SBATCH -t 01:00:00"} <= set(
        lines
    )
    worker = next(line for line in lines if "dask_worker" in line)
    assert "--nthreads 4" in worker
    assert "--lifetime 3240s --lifetime-stagger 120s" in worker
    assert "gpu" not in "".join(lines).lower()


def test_a_slurm_job_with_a_gpu_asks_for_one_and_says_so_to_dask() -> None:
    pytest.importorskip("dask_jobqueue")
    lines = shown("--gpu", "--directive=--constraint=a100", "--prologue", "module load cuda")
    assert {"#SBATCH --gres=gpu:1", "#SBATCH --constraint=a100", "module load cuda"} <= set(lines)
    assert "--resources GPU=1" in next(line for line in lines if "dask_worker" in line)


def fake(folder: Path, name: str, script: str) -> None:
    """A program of that name for PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"),
    [(75, 0, True), (75, 50, False), (0, 0, False), (3, 0, False), (1, 0, False)],
)
def test_an_array_task_is_queued_again_after_75_only(
    tmp_path: Path, code: int, restarts: int, requeued: bool
) -> None:
    programs = tmp_path / "bin"
    fake(programs, "scontrol", f"echo scontrol $* >>{tmp_path}/calls")
    fake(programs, "wsi-seg", f"echo wsi-seg $* >>{tmp_path}/calls; exit {code}")
    (tmp_path / "slides.txt").write_text("first.svs\nthe second.svs\n")
    job = {
        "SLURM_ARRAY_JOB_ID": "7",
        "SLURM_ARRAY_TASK_ID": "2",
        "SLURM_JOB_ID": "7",  # the last task of an array has the array's id
        "SLURM_JOB_END_TIME": str(int(time.time()) + 3600),
        "SLURM_CPUS_PER_TASK": "3",
        "SLURM_RESTART_COUNT": str(restarts),
    }
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    script = [EXAMPLES / "slurm_array.sh", "slides.txt", "out", "--budget", "5%"]
    done = subprocess.run(script, cwd=tmp_path, env=os.environ | job | {"PATH": path}, check=False)
    assert done.returncode == code
    called, *more = (tmp_path / "calls").read_text().splitlines()
    assert called.startswith("wsi-seg run the second.svs -o out --workers 3 --max-seconds 34")
    assert called.endswith("--budget 5%")
    assert more == (["scontrol requeue 7_2"] if requeued else [])


@pytest.mark.parametrize(("restarts", "again"), [(0, False), (1, True)])
def test_an_array_task_has_options_of_its_own_and_begins_anew_but_once(
    tmp_path: Path, restarts: int, again: bool
) -> None:
    programs = tmp_path / "bin"
    fake(programs, "scontrol", "exit 1")
    fake(programs, "wsi-seg", f'printf "%s\\n" "$@" >{tmp_path}/given; exit 75')
    (tmp_path / "slides.txt").write_text("the first.svs\t--mpp\t0.25\t-o\tout/a b.seg.ome.zarr\r\n")
    job = {
        "SLURM_ARRAY_JOB_ID": "7",
        "SLURM_ARRAY_TASK_ID": "1",
        "SLURM_JOB_END_TIME": str(int(time.time()) + 60),  # less than the margin
        "SLURM_RESTART_COUNT": str(restarts),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }
    script = [EXAMPLES / "slurm_array.sh", "slides.txt", "out", "--overwrite"]
    done = subprocess.run(script, cwd=tmp_path, env=os.environ | job, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (
        75,
        b"it was not queued again\n",
    )  # not what scontrol ended with
    given = (tmp_path / "given").read_text().splitlines()
    own = ["--mpp", "0.25", "-o", "out/a b.seg.ome.zarr"]
    common = ["run", "the first.svs", "-o", "out", "--workers", "1", "--max-seconds", "1"]
    assert given == [*common, *(["--overwrite"] if not again else []), *own]


def test_an_array_task_without_a_slide_is_refused(tmp_path: Path) -> None:
    (tmp_path / "slides.txt").write_text("first.svs\n")
    job = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", "SLURM_JOB_ID": "9"}
    script = [EXAMPLES / "slurm_array.sh", "slides.txt", "out"]
    done = subprocess.run(
        script, cwd=tmp_path, env=os.environ | job, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, "slides.txt has no line 2\n")


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.sh")), ids=lambda path: path.name)
def test_shell_scripts_are_sound_and_can_be_run(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)


STOPPED_ONCE = """
if [ ! -e {state}/first ]; then
    touch {state}/first
    {real} "$@" &
    until [ -d {store}/wsi_twostage/tiles ]; do kill -0 $! || exit 1; sleep 0.05; done
    stat -c %i {store} >{state}/inode
    kill -TERM $!
    wait $!
    exit
fi
echo "$@" >>{state}/again
exec {real} "$@"
"""
"""wsi-seg, whose first call is told to end as soon as its store is there."""


def stopped_once(folder: Path, store: Path) -> str:
    """PATH with a wsi-seg of that kind."""
    script = STOPPED_ONCE.format(state=folder, store=store, real=SCRIPTS / "wsi-seg")
    fake(folder / "bin", "wsi-seg", script)
    return f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"


def went_on(folder: Path, store: Path) -> bool:
    """Whether the second call completed the store that the first one had begun."""
    begun = int((folder / "inode").read_text())
    assert len((folder / "again").read_text().splitlines()) == 1
    return store.stat().st_ino == begun and bool(MaskPyramid.open(store).manifest["complete"])


@pytest.mark.timeout(400)
def test_a_snakemake_job_that_was_stopped_is_tried_again_and_keeps_its_store(
    tmp_path: Path, model: Path
) -> None:
    snakemake = shutil.which(os.environ.get("SNAKEMAKE", "snakemake"))
    if snakemake is None:
        pytest.skip("no snakemake on PATH; or name it in SNAKEMAKE")
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "good.svs").symlink_to(SVS)
    store = tmp_path / "results" / "good.seg.ome.zarr"
    command = [snakemake, "--snakefile", EXAMPLES / "snakemake" / "Snakefile", "--cores", "1", "--config"]
    done = subprocess.run(
        [*command, f"options=--model {model} --budget 30%"],
        cwd=tmp_path,
        env=os.environ | {"PATH": stopped_once(tmp_path, store)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert went_on(tmp_path, store)
    assert json.loads((tmp_path / "results" / "good.json").read_text())["status"] == "ok"
    assert sorted(p.name for p in (tmp_path / "results").iterdir()) == ["good.json", "good.seg.ome.zarr"]


def test_a_snakemake_job_that_cannot_end_well_begins_wsi_seg_once(tmp_path: Path) -> None:
    snakemake = shutil.which(os.environ.get("SNAKEMAKE", "snakemake"))
    if snakemake is None:
        pytest.skip("no snakemake on PATH; or name it in SNAKEMAKE")
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "bad.svs").write_text("no slide")
    fake(tmp_path / "bin", "wsi-seg", f"echo $* >>{tmp_path}/calls; exit 2")
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    command = [snakemake, "--snakefile", EXAMPLES / "snakemake" / "Snakefile", "--cores", "1"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert len((tmp_path / "calls").read_text().splitlines()) == 1


MAIN_NF = (EXAMPLES / "nextflow" / "main.nf").read_text(encoding="utf-8")


def process_script(store: Path, *, options: str = "", partial: str = "keep") -> str:
    """What bash gets from main.nf, for a slide and its values as Nextflow would put them in."""
    (body,) = re.findall(r'"""\n(.*?)"""', MAIN_NF, re.DOTALL)
    values = {
        "slide": str(SVS),
        "store": str(store),
        "name": "slide",
        "limit": "--max-seconds 600",
        "task.cpus": "1",
        "params.options": options,
        "params.partial": partial,
    }
    filled = re.sub(r"(?<!\\)\$\{([\w.]+)\}", lambda found: values[found[1]], body)
    return filled.replace("\\\n", "").replace("\\$", "$")


@pytest.mark.parametrize(
    ("code", "partial", "ends"), [(75, "keep", 75), (3, "keep", 0), (3, "fail", 3), (2, "keep", 2)]
)
def test_a_nextflow_task_passes_exit_codes_on(tmp_path: Path, code: int, partial: str, ends: int) -> None:
    fake(tmp_path / "bin", "wsi-seg", f"exit {code}")
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    script = process_script(tmp_path / "store.seg.ome.zarr", partial=partial)
    done = subprocess.run(
        ["bash", "-ue", "-c", script], cwd=tmp_path, env=environment(PATH=path), check=False
    )
    assert done.returncode == ends
    assert (tmp_path / "store.seg.ome.zarr").is_symlink() == (ends == 0)


def test_a_nextflow_task_is_tried_again_after_75() -> None:
    (strategy,) = re.findall(r"errorStrategy \{(.*)\}", MAIN_NF)
    assert re.search(r"task\.exitStatus in \[75\b.*\? 'retry' : 'ignore'", strategy)


@pytest.mark.timeout(400)
def test_a_nextflow_task_that_was_stopped_is_tried_again_and_keeps_its_store(
    tmp_path: Path, model: Path
) -> None:
    nextflow = shutil.which("nextflow")
    if nextflow is None:
        pytest.skip("no nextflow on PATH")
    store = tmp_path / "results" / f"{SVS.stem}.seg.ome.zarr"
    done = subprocess.run(
        [
            *(nextflow, "run", EXAMPLES / "nextflow", "--slides", SVS, "--outdir", tmp_path / "results"),
            *("--options", f"--model {model} --budget 30%"),
        ],
        cwd=tmp_path,
        env=os.environ | {"PATH": stopped_once(tmp_path, store)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert went_on(tmp_path, store)
    assert (tmp_path / "results" / "results.jsonl").is_file()
