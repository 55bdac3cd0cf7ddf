"""The examination of a machine: what it finds where all is well, and where something is not."""

import errno
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import imagecodecs
import pytest
import torch
from conftest import tiny_model

from wsi_seg.main import main
from wsi_twostage import lock
from wsi_twostage.doctor import Finding, examine, machine, networks, place, software
from wsi_twostage.errors import ConfigError


@pytest.fixture(autouse=True)
def in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "_SECONDS", 0.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


def test_a_sound_machine_has_no_problem_and_nothing_is_left_behind(tmp_path: Path, model: Path) -> None:
    found = list(examine(tmp_path, model=model, device="cpu"))
    assert not [finding for finding in found if finding.state == "problem"]
    assert [finding.what for finding in found][:2] == ["wsi-seg", "packages"]
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_well_comes_with_what_to_do(tmp_path: Path, model: Path) -> None:
    found = examine(tmp_path, model=model, device="cpu")
    assert all(bool(finding.advice) == (finding.state != "ok") for finding in found)


# Software


def test_a_package_that_is_too_old_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    real = software.version
    monkeypatch.setattr(software, "version", lambda name: "0.1" if name == "zarr" else real(name))
    (found,) = [finding for finding in software.examine_packages() if finding.what == "packages"]
    assert found.state == "problem"
    assert found.found.startswith("zarr is 0.1, needed is ")


def test_an_optional_package_that_is_missing_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    real = software.version

    def version(name: str) -> str:
        if name.startswith("onnx"):
            raise software.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(software, "version", version)
    asked = ["numpy", "onnx ; extra == 'onnx'", "onnxscript ; extra == 'onnx'", "furo ; extra == 'docs'"]
    monkeypatch.setattr(software, "requires", lambda name: asked)
    (found,) = [finding for finding in software.examine_packages() if "onnx" in finding.found]
    assert found == Finding("ok", "optional", "not installed: wsi-twostage[onnx]")  # said once


def test_every_codec_works_here() -> None:
    found = software.examine_codecs()
    assert found == Finding("ok", "codecs", "JPEG, JPEG 2000, LZW, deflate, zstd: encoded and decoded")


def test_a_codec_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(data: bytes) -> bytes:
        raise RuntimeError("corrupt")

    monkeypatch.setattr(imagecodecs, "lzw_decode", fail)
    found = software.examine_codecs()
    assert (found.state, found.found) == ("problem", "LZW: corrupt")


def test_a_codec_that_gives_other_pixels_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagecodecs, "zstd_decode", lambda data: bytes(64 * 64 * 3))
    found = software.examine_codecs()
    assert found.state == "problem"
    assert found.found.startswith("zstd: pixels are off by ")


# Machine


def test_fewer_cores_than_the_machine_has_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 4096)
    assert "of the machine's 4096 are allowed" in machine.examine_cores().found


def test_memory_that_is_tight_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    tight = SimpleNamespace(available=2**20, total=2**40)
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: tight)
    found = machine.examine_memory()
    assert found.state == "note"
    assert "--workers" in found.advice


@pytest.mark.skipif(machine._LIMITS is None, reason="no limits on this system")
def test_few_open_files_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine._LIMITS, "getrlimit", lambda what: (256, 4096))
    (found,) = machine.examine_files()
    assert (found.state, found.found) == ("note", "at most 256")


@pytest.mark.skipif(os.name != "posix", reason="the driver's program is played by a shell script")
def test_a_gpu_that_torch_cannot_use_is_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 550.54.15\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = machine.examine_gpu()
    assert found.state == "note"
    assert "there is a driver, 550.54.15" in found.found


def test_no_gpu_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "_driver", lambda: "")
    assert machine.examine_gpu() == Finding("ok", "GPU", "none; a run uses the CPU")


def test_a_gpu_is_named_with_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="NVIDIA X", total_memory=2**34)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    assert machine.examine_gpu().found.startswith("NVIDIA X with 16.0 GiB; CUDA ")


# Networks


def test_networks_are_timed(model: Path) -> None:
    found = next(networks.examine_networks(model, "cpu"))
    assert found.state == "ok"
    assert found.found.startswith("tiny on cpu, ")


@pytest.mark.parametrize(("model", "device"), [(Path("none.safetensors"), "cpu"), (None, "warp")])
def test_a_model_or_a_device_that_is_not_there_is_a_problem(model: Path | None, device: str) -> None:
    (found,) = networks.examine_networks(model, device)
    assert found.state == "problem"
    assert "\n" not in found.found


def test_answers_that_are_not_finite_are_a_problem(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    real = networks._rate

    def broken(name: str, work: Any, workers: int) -> float:
        return real(name, lambda: work() / 0, workers)

    monkeypatch.setattr(networks, "_rate", broken)
    (found,) = networks.examine_networks(model, "cpu")
    assert (found.state, found.found) == ("problem", "Model 1 gives numbers that are not finite")


@pytest.mark.parametrize(("faster", "states"), [(1.2, ["ok"]), (1.9, ["ok", "note"])])
def test_sixteen_bits_are_named_where_they_are_worth_it(
    monkeypatch: pytest.MonkeyPatch, model: Path, faster: float, states: list[str]
) -> None:
    speeds = {"fp32": 1.0, "bf16": faster}
    monkeypatch.setattr(
        networks,
        "_time",
        lambda model, device, precision: networks._Speed("m", "cpu", 1, (1, 1), (1, speeds[precision])),
    )
    found = list(networks.examine_networks(model, "cpu"))
    assert [finding.state for finding in found] == states
    if len(found) == 2:
        assert "1.9 times" in found[1].found


def test_a_model_that_has_no_sixteen_bits_is_not_compared(
    monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    real = networks._time

    def only_32(model: Path | None, device: str, precision: str) -> Any:
        if precision != "fp32":
            raise ConfigError("not for ONNX files")
        return real(model, device, precision)

    monkeypatch.setattr(networks, "_time", only_32)
    assert [finding.state for finding in networks.examine_networks(model, "cpu")] == ["ok"]


# Place


def states(found: Any) -> dict[str, str]:
    return {finding.what: finding.state for finding in found}


def test_a_folder_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    found = list(place.examine_place(tmp_path / "a" / "b"))
    assert "is not there yet" in found[0].found
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (found,) = place.examine_place(tmp_path / "file" / "inside")
    assert found.state == "problem"
    assert os.strerror(errno.ENOTDIR) in found.found


@pytest.mark.parametrize(("free", "state"), [(2**20, "problem"), (2**30, "note"), (2**40, "ok")])
def test_little_room_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, state: str) -> None:
    monkeypatch.setattr(place.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    found = states(place.examine_place(tmp_path))
    assert found["folder"] == state
    assert ("writing" in found) == (state != "problem")


class NoLocks:
    """A file system that knows no locks."""

    LOCK_EX = LOCK_NB = 0

    def flock(self, descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")


class LocksForAll(NoLocks):
    """One that gives everybody the lock."""

    def flock(self, descriptor: int, how: int) -> None:
        pass


@pytest.mark.parametrize("locks", [None, NoLocks(), LocksForAll()], ids=["none", "refused", "to all"])
def test_locks_that_keep_nobody_away_are_noted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, locks: object
) -> None:
    monkeypatch.setattr(lock, "_LOCKS", locks)
    monkeypatch.setattr(place, "HAS_LOCKS", locks is not None)
    assert states(place.examine_place(tmp_path))["locks"] == "note"


def test_a_file_system_that_cannot_rename_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "rename", refuse)
    assert states(place.examine_place(tmp_path))["renaming"] == "problem"


# The command


def doctor(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: str | Path
) -> tuple[int, str]:
    """Exit code, and what is printed."""
    monkeypatch.setattr(sys, "argv", ["wsi-seg", "doctor", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0), capfd.readouterr().out


def test_the_command_prints_a_line_each_and_ends_with_0(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path, model: Path
) -> None:
    code, out = doctor(monkeypatch, capfd, "-o", tmp_path, "--model", model, "--device", "cpu")
    assert code == 0
    assert "ok       codecs      JPEG, " in out
    assert out.splitlines()[-1].startswith("wsi-seg: no problems, ")


def test_a_problem_ends_with_1_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out = doctor(monkeypatch, capfd, "-o", tmp_path, "--model", tmp_path / "none.safetensors")
    assert code == 1
    assert "problem  networks " in out
    assert "\n         -> " in out
    assert out.splitlines()[-1].startswith("wsi-seg: 1 problem, ")


def test_json_is_a_list_of_findings(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path, model: Path
) -> None:
    code, out = doctor(monkeypatch, capfd, "-o", tmp_path, "--model", model, "--device", "cpu", "--json")
    found = [Finding(**each) for each in json.loads(out)]
    assert code == 0
    assert "GPU" in {finding.what for finding in found}
