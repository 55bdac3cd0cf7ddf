"""Drafts: in their place or gone, also after a kill; and never another's."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from wsi_twostage import drafts
from wsi_twostage.drafts import draft_of, whole_folder
from wsi_twostage.errors import StoreError
from wsi_twostage.lock import locked

WRITES = """
import sys
from pathlib import Path
from wsi_twostage.drafts import draft_of

with draft_of(Path(sys.argv[1]), folder=len(sys.argv) > 2) as draft:
    (draft / "part" if draft.is_dir() else draft).write_text("half of it")
    print(draft, flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def killed(path: Path, *folder: str) -> Path:
    """The draft of a process that was killed while it wrote."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", WRITES, path, *folder], text=True, **pipes) as process:  # type: ignore[call-overload]
        draft = Path(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)
    assert draft.is_dir() or draft.read_text() == "half of it"
    return draft


def free() -> None:
    """Whatever is there may go."""


def test_a_draft_is_moved_or_removed(tmp_path: Path) -> None:
    with draft_of(tmp_path / "a.csv") as draft:
        assert (draft.parent, draft.name[0], draft.read_bytes()) == (tmp_path, ".", b"")
        draft.write_text("new")
        draft.replace(tmp_path / "a.csv")
    with pytest.raises(KeyError), draft_of(tmp_path / "a.csv") as draft:
        raise KeyError
    assert names(tmp_path) == ["a.csv"]
    assert (tmp_path / "a.csv").read_text() == "new"


def test_what_killed_processes_left_goes_with_the_next_draft(tmp_path: Path) -> None:
    path = tmp_path / "[a] *.csv"
    left = {killed(path), killed(path)}
    assert len(left) == 2
    with draft_of(path) as draft:
        assert names(tmp_path) == [draft.name]
    assert names(tmp_path) == []


def test_the_draft_of_a_living_process_stays(tmp_path: Path) -> None:
    with draft_of(tmp_path / "a.csv") as first, draft_of(tmp_path / "a.csv") as second:
        assert first != second
        assert names(tmp_path) == sorted([first.name, second.name])


def test_a_draft_that_is_taken_for_a_dead_one_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks, taken = drafts.lock_file, []

    def late(descriptor: int, *, wait: bool = False) -> bool:
        """The lock comes after another process has looked."""
        if not taken:
            taken.extend(tmp_path.iterdir())
            taken[0].unlink()
        return locks(descriptor, wait=wait)

    monkeypatch.setattr(drafts, "lock_file", late)
    with draft_of(tmp_path / "a.csv") as draft:
        assert draft != taken[0]
        assert names(tmp_path) == [draft.name]


def test_what_is_not_certainly_ours_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    draft = killed(path)
    here, token = draft.name.removeprefix(".a.csv.").removesuffix(".new").split("-")
    other = f".a.csv.{here}-00000000.new"
    for name in (
        "a.csv",
        f".b.csv.{here}-{token}.new",  # of another file
        f".a.csv.00000000-{token}.new",  # of another machine
        f".aXcsv.{here}-{token}.new",
        f".a.csv.{here}-{token}.new.txt",
        f".a.csv.{here}-{token}00.new",
    ):
        (tmp_path / name).write_text("mine")
    (tmp_path / f".a.csv.{here}-11111111.new").mkdir()
    (tmp_path / f".a.csv.{here}-22222222.new").symlink_to("a.csv")
    os.mkfifo(tmp_path / f".a.csv.{here}-33333333.new")
    before = names(tmp_path)
    with draft_of(path):
        pass
    assert names(tmp_path) == [name for name in before if name != draft.name]
    (tmp_path / other).write_text("of another user")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with draft_of(path):
        assert other in names(tmp_path)


def test_where_there_are_no_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = killed(tmp_path / "a.csv")
    monkeypatch.setattr(drafts, "lock_file", lambda descriptor, wait=False: False)
    with draft_of(tmp_path / "a.csv") as draft:
        assert names(tmp_path) == sorted([left.name, draft.name])
    assert names(tmp_path) == [left.name]


def test_a_folder_takes_its_place_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.zarr"
    for content in ("first", "second"):
        with whole_folder(path, ensure_free=free) as draft:
            (draft / "part").write_text(content)
            assert names(path.parent)[0] == draft.name
        assert names(path.parent) == ["a.zarr"]
        assert (path / "part").read_text() == content
        with locked(path):  # it is nobody's any more
            pass
    with pytest.raises(KeyError), whole_folder(path, ensure_free=free) as draft:
        raise KeyError
    assert names(path.parent) == ["a.zarr"]
    assert (path / "part").read_text() == "second"


def test_a_folder_that_came_meanwhile_stays(tmp_path: Path) -> None:
    path, asked = tmp_path / "a.zarr", list[int]()

    def ensure_free() -> None:
        asked.append(1)
        if len(asked) == 2:
            path.mkdir()
            (path / "part").write_text("another's")
            raise StoreError("exists")

    with pytest.raises(StoreError, match="exists"), whole_folder(path, ensure_free=ensure_free):
        pass
    assert (path / "part").read_text() == "another's"
    assert names(tmp_path) == ["a.zarr"]


def test_a_folder_that_somebody_writes_to_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    path.mkdir()
    (path / "part").write_text("another's")
    refused = pytest.raises(StoreError, match="is being written")
    with locked(path), refused, whole_folder(path, ensure_free=free):
        pass
    assert names(tmp_path) == ["a.zarr"]
    assert (path / "part").read_text() == "another's"


def test_a_folder_whose_new_content_cannot_come_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zarr"
    path.mkdir()
    (path / "part").write_text("old")
    rename, renamed = Path.rename, list[Path]()

    def fails_once(self: Path, target: Path) -> Path:
        renamed.append(self)
        if len(renamed) == 2:
            raise OSError
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_once)
    with pytest.raises(OSError), whole_folder(path, ensure_free=free):  # noqa: PT011
        pass
    assert (path / "part").read_text() == "old"
    assert names(tmp_path) == ["a.zarr"]


def test_what_killed_processes_left_of_folders_goes_with_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    left, file = killed(path, "folder"), killed(path)
    assert left.is_dir()
    with whole_folder(path, ensure_free=free):
        assert left.name not in names(tmp_path)
    assert names(tmp_path) == sorted([file.name, "a.zarr"])  # a file may be what somebody else calls so
