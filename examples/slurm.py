"""wsi-seg on workers that SLURM starts, as many jobs as there is work for; wants `pip install .[slurm]`.

    sbatch --time=12:00:00 --cpus-per-task=1 --mem=4G --wrap "python examples/slurm.py --jobs 20 \\
        -- slides/ -o results --budget 10% --max-seconds 42000"

What follows `--` is wsi-seg's, and so is the exit code: after 75 queue the same again. The scheduler lives in
this process, so it runs as a job of its own, not on a login node. With `--show` it prints the script of a
worker's job and submits none.
"""

import argparse
import os
import signal
import subprocess
import sys
from datetime import timedelta

from dask_jobqueue import SLURMCluster
from distributed import Client

from wsi_seg.main import main as wsi_seg

LEAVE = timedelta(minutes=6)  # before the job's limit, so that nothing is lost: a task may take minutes
STAGGER = timedelta(minutes=2)  # either way, so that not all workers leave at once


def duration(text: str) -> timedelta:
    """SLURM's hours:minutes:seconds."""
    hours, minutes, seconds = map(int, text.split(":"))
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def options() -> tuple[argparse.Namespace, list[str]]:
    """Ours, and wsi-seg's."""
    parser = argparse.ArgumentParser(usage="slurm.py [options] -- SLIDE... [options of wsi-seg]")
    parser.add_argument("--jobs", type=int, default=4, help="at most so many at a time")
    parser.add_argument("--cores", type=int, default=8, help="of each job")
    parser.add_argument("--memory", default="16GiB", help="of each job")
    parser.add_argument("--walltime", default="02:00:00", help="of each job")
    parser.add_argument("--queue", help="partition")
    parser.add_argument("--account")
    parser.add_argument("--gpu", action="store_true", help="one for each job")
    parser.add_argument("--directive", action="append", default=[], help="more of #SBATCH, --nice=100")
    parser.add_argument("--prologue", action="append", default=[], help="a line before the worker starts")
    parser.add_argument("--show", action="store_true", help="print the script of a worker's job")
    where = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    return parser.parse_args(sys.argv[1:where]), sys.argv[where + 1 :]


def make_cluster(asked: argparse.Namespace) -> SLURMCluster:
    """A cluster without jobs yet."""
    lifetime = duration(asked.walltime) - LEAVE
    if lifetime <= 2 * STAGGER:
        sys.exit(f"--walltime {asked.walltime} is too short; workers leave {LEAVE} before its end")
    worker = [
        "--no-dashboard",
        *("--memory-limit", "0"),  # SLURM has its own; near Dask's a worker would pause, for ever
        *("--dashboard-address", "127.0.0.1:0"),  # its server is there all the same
        *("--lifetime", f"{lifetime.total_seconds():.0f}s"),
        *("--lifetime-stagger", f"{STAGGER.total_seconds():.0f}s"),
        *(("--resources", "GPU=1") if asked.gpu else ()),
    ]
    return SLURMCluster(
        queue=asked.queue,
        account=asked.account,
        cores=asked.cores,
        processes=1,  # its threads share the model and the slide's tiles
        memory=asked.memory,
        walltime=asked.walltime,
        job_extra_directives=[*(("--gres=gpu:1",) if asked.gpu else ()), *asked.directive],
        job_script_prologue=asked.prologue,
        worker_extra_args=worker,
        scheduler_options={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
    )


def forget_own_job() -> None:
    """sbatch gives what describes this job to the workers' jobs, where it would win over their own."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
        if name != "SLURM_CONF":
            del os.environ[name]


def main() -> None:
    asked, arguments = options()
    forget_own_job()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(75))  # until wsi-seg has its own
    with make_cluster(asked) as cluster:
        if asked.show:
            print(cluster.job_script())
            return
        tried = subprocess.run(["sbatch", "--test-only"], input=cluster.job_script(), text=True, check=False)
        if tried.returncode:  # SLURM said why; the cluster would wait for a job that never comes
            sys.exit(2)
        # One job waits for work; workers that have none for two minutes leave.
        cluster.adapt(minimum_jobs=1, maximum_jobs=asked.jobs, interval="10s", wait_count=12)
        with Client(cluster, set_as_default=False) as client:
            client.wait_for_workers(1)  # however long the queue is
        sys.argv = ["wsi-seg", *arguments, "--scheduler", cluster.scheduler_address]
        wsi_seg()


if __name__ == "__main__":
    main()
