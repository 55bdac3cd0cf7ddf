"""Many slides: by file, folder, pattern or manifest; one bad one never stops the rest."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import wsi_seg
from conftest import tiny_model
from slides import texture, write_slide

from wsi_twostage import summary
from wsi_twostage.batch import Entry, entries, is_batch
from wsi_twostage.errors import ConfigError, SlideError
from wsi_twostage.mask import MaskPyramid
from wsi_twostage.pipeline import segment
from wsi_twostage.selection import NONE
from wsi_twostage.slide import open_slide
from wsi_twostage.summary import Line, Summary


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two slides, one that is none, and what is not taken for slides."""
    for seed, name in enumerate(("b.tiff", "a.tiff")):
        write_slide(tmp_path / name, [texture(300, 400, seed=seed)])
    (tmp_path / "c.svs").write_text("no slide")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "._a.tiff").write_text("of a file manager")
    (tmp_path / "old.seg.ome.zarr").mkdir()
    (tmp_path / "old.seg.ome.zarr" / "zarr.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize("given", ["", "*"])
def test_a_folder_and_a_pattern_are_their_slides(folder: Path, given: str) -> None:
    inputs = [str(folder / given)]
    found = entries(inputs, Path("out"))
    assert [Path(entry.slide).name for entry in found] == ["a.tiff", "b.tiff", "c.svs"]
    assert found[0].output == Path("out/a.seg.ome.zarr")
    assert is_batch(inputs, found)


def test_a_file_is_no_batch(folder: Path) -> None:
    inputs = [str(folder / "a.tiff")]
    found = entries(inputs, Path("x.zarr"))
    assert found == [Entry(inputs[0], Path("x.zarr"))]
    assert not is_batch(inputs, found)


def test_the_same_slide_twice_is_once(folder: Path) -> None:
    assert len(entries([str(folder / "a.tiff"), str(folder)], Path("out"))) == 3


def test_a_manifest_says_what_is_a_slides_own(folder: Path) -> None:
    (folder / "list.csv").write_text(
        "wsi,mpp,extra,mask,threshold,output\na.tiff,0.25,x,m.geojson,0.3,special.zarr\nhttps://h/b.zarr,,,,,\n"
    )
    first, second = entries([str(folder / "list.csv")], Path("out"))
    assert first == Entry(
        str(folder / "a.tiff"), folder / "special.zarr", 0.25, str(folder / "m.geojson"), 0.3
    )
    assert second == Entry("https://h/b.zarr", Path("out/b.seg.ome.zarr"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no slides; expected a header with wsi"),
        ("slide,mpp\na.tiff,\n", "no slides; expected a header with wsi.*; found slide, mpp"),
        ("wsi,mpp\na.tiff,much\n", "line 2: mpp 'much' is no number"),
        ("wsi,mpp\na.tiff,\n,0.5\n", "line 3: no slide"),
    ],
)
def test_a_bad_manifest_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ConfigError, match=message):
        entries([str(tmp_path / "list.csv")], Path())
    with pytest.raises(ConfigError, match=r"gone\.csv: does not exist"):
        entries([str(tmp_path / "gone.csv")], Path())


@pytest.mark.parametrize("place", ["../x.zarr", "/elsewhere/x.zarr", "sub/../../x.zarr"])
def test_a_manifest_writes_nothing_outside(folder: Path, place: str) -> None:
    (folder / "list.csv").write_text(f"wsi,output\na.tiff,{place}\n")
    with pytest.raises(ConfigError, match=r"line 2: output .* neither in the manifest's folder nor in out"):
        entries([str(folder / "list.csv")], Path("out"))
    found = entries([str(folder / "list.csv")], Path("/"))
    assert found[0].output.resolve().name == "x.zarr"


def test_a_manifest_may_say_otsu_or_none_as_the_command_does(folder: Path) -> None:
    (folder / "list.csv").write_text("wsi,mask,output\na.tiff,none,none\nb.tiff,mask.png,\n")
    found = entries([str(folder / "list.csv")], Path("out"))
    assert [entry.tissue for entry in found] == ["none", str(folder / "mask.png")]
    assert found[0].output == folder / "none"  # of other columns it is a name


def test_one_place_under_two_names_is_refused(folder: Path) -> None:
    (folder / "list.csv").write_text("wsi,output\na.tiff,x.zarr\nb.tiff,out/../x.zarr\n")
    with pytest.raises(ConfigError, match="would have one result"):
        entries([str(folder / "list.csv")], folder)


def test_results_of_one_name_and_nothing_found_are_refused(folder: Path) -> None:
    (folder / "sub").mkdir()
    write_slide(folder / "sub" / "a.tiff", [texture(64, 64)])
    with pytest.raises(ConfigError, match=r"would have one result, out/a\.seg\.ome\.zarr"):
        entries([str(folder / "a.tiff"), str(folder / "sub" / "a.tiff")], Path("out"))
    for given in (str(folder / "*.xyz"), str(folder / "empty")):
        (folder / "empty").mkdir(exist_ok=True)
        with pytest.raises(ConfigError, match=r"no slide matches|without slides"):
            entries([given], Path("out"))
    with pytest.raises(ConfigError, match="names one result, but 3 slides"):
        entries([str(folder)], Path("x.zarr"))


@pytest.mark.parametrize("name", ["mask.tif", "mask.ome.tif", "out/mask.PNG", "cells.geojson"])
def test_a_result_is_not_named_like_a_file(folder: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"a result is a folder, such as .*/\w+\.ome\.zarr; `wsi-seg"):
        entries([str(folder / "a.tiff")], folder / name)
    (folder / name).mkdir(parents=True)  # a folder of the user's
    assert entries([str(folder / "a.tiff")], folder / name)[0].output == folder / name / "a.seg.ome.zarr"


def test_a_result_is_no_slide(folder: Path) -> None:
    store = folder / "a.seg.ome.zarr"
    segment(folder / "a.tiff", store, bundle=tiny_model(folder / "tiny.safetensors"), rule=NONE)
    assert [entry.slide for entry in entries([str(store)], Path("out"))] == [str(store)]
    with pytest.raises(SlideError, match="a result, not a slide"):
        open_slide(store)
    with pytest.raises(ConfigError, match="no slide matches"):
        entries([str(folder / "*.seg.ome.zarr")], Path("out"))


def test_slides_that_end_at_once_are_summed_up_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Entry(f"{i}.svs", tmp_path / f"{i}.zarr") for i in range(100)]
    sizes = list[int]()
    monkeypatch.setattr(summary, "write_summary", lambda folder, lines: sizes.append(len(lines)) or folder)
    monkeypatch.setattr(summary, "WRITING", 1e12)
    table = Summary(tmp_path, found)
    for entry in found:
        table.add(entry, Line(entry.slide, str(entry.output), "ok"))
    table.write()
    assert sizes == [1, 100]


def test_one_bad_slide_does_not_stop_the_rest_and_what_is_done_stays(folder: Path) -> None:
    model = tiny_model(folder / "tiny.safetensors")
    options = ("-o", "out", "--model", model, "--tissue", "none", "--budget", "50%", "-q")
    done = wsi_seg(".", *options, cwd=folder)
    assert done.returncode == 3, done.stderr
    assert "c.svs" in done.stderr
    assert "2 ok, 0 partial, 1 failed" in done.stdout
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert [(Path(row["slide"]).name, row["status"]) for row in summary] == [
        ("a.tiff", "ok"), ("b.tiff", "ok"), ("c.svs", "failed"),
    ]  # fmt: skip
    assert summary[0]["refined"] == 6
    assert "cannot be read as a slide" in summary[2]["error"]
    with (folder / "out" / "summary.csv").open(newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["ok", "ok", "failed"]
    again = wsi_seg(".", *options, "--json", cwd=folder)
    told = [json.loads(line) for line in again.stdout.splitlines()]
    assert [(line["event"], line["slide"]) for line in told] == [
        ("result", "a.tiff"), ("result", "b.tiff"), ("failed", "c.svs"),
    ]  # fmt: skip
    assert [line["status"] for line in told[:2]] == ["done", "done"]
    assert "0 ok, 2 done, 0 partial, 1 failed" in again.stderr


@pytest.mark.parametrize(
    ("name", "text"), [("summary.csv", "wsi,patient\na.tiff,7\n"), ("summary.json", "{}")]
)
def test_a_file_of_the_users_that_is_named_as_a_summary_stays(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    done = wsi_seg(".", cwd=folder)
    assert done.returncode == 2
    assert f"{name}: no summary of wsi-seg, and one would replace it" in done.stderr
    assert (folder / name).read_text() == text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a place that is full")
def test_a_log_that_is_full_does_not_end_a_batch(folder: Path) -> None:
    model = tiny_model(folder / "tiny.safetensors")
    code = "from wsi_seg.main import main; main()"
    command = [sys.executable, "-c", code, ".", "-o", "out", "--model", str(model), "--tissue", "none"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=full, text=True)
    assert done.returncode == 3
    assert "2 ok, 0 partial, 1 failed" in done.stdout


def test_a_manifest_runs_with_each_slides_own_threshold(folder: Path) -> None:
    model = tiny_model(folder / "tiny.safetensors")
    (folder / "list.csv").write_text("wsi,threshold,output\na.tiff,0,x.zarr\nb.tiff,1,y.zarr\n")
    done = wsi_seg("list.csv", "--model", model, "--tissue", "none", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"started", "tilesdone", "finished", "result"} <= {event["event"] for event in events}
    assert [event["refined"] for event in events if event["event"] == "result"] == [12, 0]
    assert not any(event["event"] == "note" for event in events)
    assert MaskPyramid.open(folder / "y.zarr").manifest["rule"] == "threshold 1"
    done = wsi_seg("list.csv", "--model", model, "--tissue", "none", "--budget", "10%", cwd=folder)
    assert "threshold 1, as the list says, not budget 10%" in done.stderr


def test_a_bad_row_does_not_stop_the_rest(folder: Path) -> None:
    model = tiny_model(folder / "tiny.safetensors")
    (folder / "list.csv").write_text("wsi,threshold,mask\na.tiff,1.5,\na.tiff,,none.geojson\nb.tiff,1,\n")
    done = wsi_seg("list.csv", "--model", model, "--tissue", "none", "-q", cwd=folder)
    assert done.returncode == 2
    assert "would have one result" in done.stderr
    (folder / "list.csv").write_text("wsi,threshold,mask\na.tiff,1.5,\nb.tiff,1,\n")
    done = wsi_seg("list.csv", "--model", model, "--tissue", "none", "-q", cwd=folder)
    assert done.returncode == 3, done.stderr
    summary = json.loads((folder / "summary.json").read_text())
    assert [row["status"] for row in summary] == ["failed", "ok"]
    assert "wsi-seg: a.tiff: threshold=1.5" in done.stderr
    done = wsi_seg("list.csv", "--model", model, "--tissue", "none", "--json", cwd=folder)
    assert json.loads(done.stdout.splitlines()[0]) == {
        "event": "failed", "slide": "a.tiff", "path": "./a.tiff", "output": "a.seg.ome.zarr",
        "error": "threshold=1.5; it must be within 0..1",
    }  # fmt: skip


def test_the_summary_of_one_named_result_lies_beside_it(folder: Path) -> None:
    model = tiny_model(folder / "tiny.safetensors")
    (folder / "only").mkdir()
    write_slide(folder / "only" / "a.tiff", [texture(300, 400)])
    options = ("-o", "x.zarr", "--model", model, "--tissue", "none", "-q", "--preview")
    for status in ("ok", "done"):  # and a picture that is there does not stop what goes on
        done = wsi_seg("only", *options, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert json.loads((folder / "summary.json").read_text())[0]["status"] == status
    assert not list((folder / "x.zarr").glob("summary*"))


def test_what_was_not_begun_is_skipped(folder: Path) -> None:
    model = tiny_model(folder / "tiny.safetensors")
    done = wsi_seg(
        "*.tiff", "-o", "out", "--model", model, "--tissue", "none", "--max-seconds", "0.1", "-q", cwd=folder
    )
    assert done.returncode == 75, done.stderr
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert [row["status"] for row in summary] == ["stopped", "skipped"]


def test_names_that_are_no_utf_8_and_previews_do_not_spoil_a_batch(folder: Path) -> None:
    (folder / "b.tiff").rename(os.fsdecode(os.fsencode(folder) + b"/M\xfcller.tiff"))
    (folder / "c.svs").unlink()
    model = tiny_model(folder / "tiny.safetensors")
    options = ("--model", model, "--tissue", "none", "--budget", "0%", "--preview", "-q")
    for status in ("ok", "done"):
        done = wsi_seg(".", *options, cwd=folder)
        assert done.returncode == 0, done.stderr
        with (folder / "summary.csv").open(newline="", errors="surrogateescape") as file:
            rows = list(csv.DictReader(file))
        assert sorted((row["slide"], row["status"]) for row in rows) == [
            ("M\udcfcller.tiff", status),
            ("a.tiff", status),
        ]
    assert len(list(folder.glob("*.preview.png"))) == 2
    assert entries([str(folder / "a.preview.png")], folder)  # by its name it may be one


def test_what_is_refused_leaves_the_summary_of_before(folder: Path) -> None:
    (folder / "summary.csv").write_text("slide,output,status,error\na.tiff,a.seg.ome.zarr,failed,\n")
    before = (folder / "summary.csv").read_bytes()
    done = wsi_seg(".", "--model", "gone.safetensors", cwd=folder)
    assert done.returncode == 2
    assert (folder / "summary.csv").read_bytes() == before


@pytest.mark.parametrize("header", ["wsi, mpp", "WSI,MPP", "wsi ,Mpp "])
def test_a_column_is_found_whatever_its_case_and_blanks(folder: Path, header: str) -> None:
    (folder / "list.csv").write_text(f"{header}\na.tiff, 0.25\n")
    assert [entry.mpp for entry in entries([str(folder / "list.csv")], folder)] == [0.25]


def test_a_list_in_another_encoding_says_what_to_do(folder: Path) -> None:
    (folder / "list.csv").write_bytes(b"wsi\nM\xfcller.tiff\n")
    with pytest.raises(ConfigError, match="save it as UTF-8"):
        entries([str(folder / "list.csv")], folder)


def test_exports_are_no_slides_and_links_to_nowhere_are(folder: Path) -> None:
    for name in ("a.seg.ome.tif", "a.seg.png", "a.preview.png"):
        (folder / name).write_bytes(b"")
    (folder / "lost.svs").symlink_to("nowhere")
    for given in (folder, folder / "*"):
        found = {Path(entry.slide).name for entry in entries([str(given)], folder)}
        assert {"a.tiff", "b.tiff", "lost.svs"} <= found
        assert not any(name.startswith("a.seg") or "preview" in name for name in found)


def test_a_path_that_cannot_be_looked_at_is_one_slide_that_failed(folder: Path) -> None:
    """As in a folder without permission, which root does not know."""
    (folder / "b.tiff").rename(folder / f"{'b' * 235}.tiff")  # its result's name is too long
    (folder / "c.svs").unlink()
    model = tiny_model(folder / "tiny.safetensors")
    done = wsi_seg(".", "--model", model, "--tissue", "none", "--budget", "0%", "-q", cwd=folder)
    assert done.returncode == 3, done.stderr
    assert "1 ok, 0 partial, 1 failed" in done.stdout
    assert "File name too long" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_does_not_end_the_batch(folder: Path) -> None:
    (folder / "c.svs").unlink()
    model = tiny_model(folder / "tiny.safetensors")
    script = Path(sys.executable).with_name("wsi-seg")
    command = [script, ".", "--model", model, "--tissue", "none", "--budget", "0%", "-q", "--json"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=folder, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    rows = json.loads((folder / "summary.json").read_text())
    assert [row["status"] for row in rows] == ["ok", "ok"]


def test_the_summary_keeps_other_batches_and_what_slides_took(folder: Path) -> None:
    model = tiny_model(folder / "tiny.safetensors")
    options = ("--model", model, "--tissue", "none", "--budget", "0%", "-q")
    assert wsi_seg(".", *options, cwd=folder).returncode == 3
    before = {row["slide"]: row for row in json.loads((folder / "summary.json").read_text())}
    (folder / "again.csv").write_text("wsi\na.tiff\n")
    assert wsi_seg("again.csv", *options, cwd=folder).returncode == 0
    after = {Path(row["slide"]).name: row for row in json.loads((folder / "summary.json").read_text())}
    assert {name: row["status"] for name, row in after.items()} == {
        "a.tiff": "done", "b.tiff": "ok", "c.svs": "failed",
    }  # fmt: skip
    assert after["a.tiff"]["seconds"] == before["a.tiff"]["seconds"]


def test_a_url_of_a_file_is_its_path(tmp_path: Path) -> None:
    for name in ("a b.svs", "c.svs"):
        (tmp_path / name).touch()
    found = entries([tmp_path.as_uri()], Path("o"))
    assert [entry.slide for entry in found] == [str(tmp_path / "a b.svs"), str(tmp_path / "c.svs")]
    (one,) = entries([f"file://localhost{tmp_path}/a%20b.svs"], Path("o"))
    assert one.slide == str(tmp_path / "a b.svs")
    assert entries(["file://elsewhere/a.svs"], Path("o"))[0].slide == "file://elsewhere/a.svs"
