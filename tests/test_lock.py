"""One run at a time on an output."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from wsi_twostage import lock
from wsi_twostage.errors import StoreError
from wsi_twostage.lock import locked

fcntl = pytest.importorskip("fcntl", reason="no locks here")


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(StoreError, match="is being written by process 7; wait for it"),
        locked(tmp_path, "process 7, run 1"),
    ):
        pass
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "gone"])
def test_the_lock_of_a_folder_that_was_replaced_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    """Another run replaces it after it was opened and before it was locked."""
    folder = tmp_path / "a.zarr"
    folder.mkdir()

    def flock(descriptor: int, how: int) -> None:
        folder.rename(tmp_path / "old")
        if replaced:
            folder.mkdir()
        fcntl.flock(descriptor, how)

    slow = SimpleNamespace(flock=flock, LOCK_EX=fcntl.LOCK_EX, LOCK_NB=fcntl.LOCK_NB)
    monkeypatch.setattr(lock, "_LOCKS", slow)
    with pytest.raises(StoreError, match=r"a\.zarr has just been replaced by another run"), locked(folder):
        pass
