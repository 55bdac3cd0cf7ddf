"""Cores, memory, open files and a GPU: what this process may use, against what the machine has."""

import os
import shutil
import subprocess
from collections.abc import Iterator

import psutil

from wsi_twostage.doctor.finding import Finding, note, ok
from wsi_twostage.errors import one_line
from wsi_twostage.memory import peak_memory

_FEW_FILES = 1024
_FULL = 0.8
"""Share of the memory from which it is tight."""

try:
    import resource as _resource
except ImportError:  # Windows
    _LIMITS = None
else:
    _LIMITS = _resource


def examine_cores() -> Finding:
    """Those that a run would use, by affinity and cgroup."""
    from dask.system import CPU_COUNT

    machine = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    if machine == CPU_COUNT:
        return ok("cores", f"{CPU_COUNT}, all of the machine's; a run has a thread on each")
    why = f"affinity {affinity}" if affinity == CPU_COUNT else "cgroup quota"
    return ok(
        "cores", f"{CPU_COUNT} of the machine's {machine} are allowed ({why}); a run has a thread on each"
    )


def examine_memory() -> Finding:
    """What is allowed by cgroup and limits, what is free, and what this process has taken at most so far."""
    from distributed.system import MEMORY_LIMIT

    memory = psutil.virtual_memory()
    free = min(memory.available, MEMORY_LIMIT)
    said = f"{_gib(MEMORY_LIMIT)} of {_gib(memory.total)} GiB allowed, {_gib(free)} GiB free"
    peak = peak_memory()
    said += f"; this took {_gib(peak)} GiB"
    if peak > _FULL * min(free + peak, MEMORY_LIMIT):
        return note("memory", said, "fewer threads need less: --workers; wsi-seg plan SLIDE says how much")
    return ok("memory", said)


def examine_files() -> Iterator[Finding]:
    """How many files may be open, where there is a limit."""
    if _LIMITS is None:
        return
    soft, _ = _LIMITS.getrlimit(_LIMITS.RLIMIT_NOFILE)
    if soft == _LIMITS.RLIM_INFINITY:
        yield ok("open files", "no limit")
    elif soft < _FEW_FILES:
        yield note(
            "open files", f"at most {soft}", f"ulimit -n {_FEW_FILES * 4}, for many workers or slides at once"
        )
    else:
        yield ok("open files", f"at most {soft}")


def examine_gpu() -> Finding:
    """CUDA devices; that there is none is no fault, but one that torch cannot use is worth knowing."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return note("GPU", f"torch cannot be imported: {one_line(error)}", "see the networks below")
    driver = _driver()
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        said = ", ".join(f"{device.name} with {_gib(device.total_memory)} GiB" for device in devices)
        return ok("GPU", f"{said}; CUDA {torch.version.cuda}, driver {driver or 'unknown'}")
    if driver:
        built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
        return note(
            "GPU",
            f"there is a driver, {driver}, but torch {torch.__version__} {built} and cannot use it",
            "install the torch that https://pytorch.org/get-started/locally/ names for this driver",
        )
    return ok("GPU", "none; a run uses the CPU")


def _driver() -> str:
    """The version of NVIDIA's driver, if there is one."""
    if not (program := shutil.which("nvidia-smi")):
        return ""
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return next(iter(done.stdout.split()), "")


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f}"
