"""What a report says: areas, objects, change, outliers, sentences and warnings; and what it refuses."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import wsi_seg
from conftest import small_bundle, tiny_model
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from slides import texture, write_slide

from wsi_twostage.audit import Remaining
from wsi_twostage.errors import Busy, ConfigError, SlideError, StoreError
from wsi_twostage.events import Event, Note, Started, TilesDone
from wsi_twostage.further import refine
from wsi_twostage.ledger import Ledger
from wsi_twostage.mask import MaskPyramid, MaskSpec, Source
from wsi_twostage.models.spec import Calibration
from wsi_twostage.pictures import HEAT
from wsi_twostage.pipeline import segment
from wsi_twostage.report import write_report
from wsi_twostage.report.cautions import cautions
from wsi_twostage.report.change import change_of
from wsi_twostage.report.charts import strip_chart
from wsi_twostage.report.facts import Audit, Facts, facts_of
from wsi_twostage.report.inputs import find
from wsi_twostage.report.measure import measure
from wsi_twostage.report.outliers import Feature, modified_z, oddities
from wsi_twostage.report.statement import least_refined, quality
from wsi_twostage.report.svg import ticks
from wsi_twostage.report.words import area, digits, percent, seconds
from wsi_twostage.selection import Duration, Fraction
from wsi_twostage.settings import Settings

EVERYWHERE = Settings(tissue="none", workers=2, audit=8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a slide, a model and a result with an audit."""
    folder = tmp_path_factory.mktemp("report")
    slide = write_slide(folder / "slide.tiff", [texture(900, 1100)])
    model = tiny_model(folder / "tiny.safetensors")
    segment(slide, folder / "a.seg.ome.zarr", bundle=model, rule=Fraction(0.25), settings=EVERYWHERE)
    return folder


@pytest.fixture
def store(made: Path, tmp_path: Path) -> MaskPyramid:
    """A copy of the result, to be changed."""
    shutil.copytree(made / "a.seg.ome.zarr", tmp_path / "a.seg.ome.zarr")
    return MaskPyramid.open(tmp_path / "a.seg.ome.zarr")


def facts(store: MaskPyramid) -> Facts:
    return facts_of(store, measure(store))


# Areas and objects


def test_areas_and_objects_are_those_of_the_finest_level(tmp_path: Path) -> None:
    spec = MaskSpec(2500, 2100, 0.5, 2, 512, ("one", "two"), ((255, 0, 0), (0, 0, 255)), 16, 157, 132)
    store = MaskPyramid.create(tmp_path / "m.zarr", spec, manifest={"uncertainty": "entropy"})
    labels = np.zeros((2500, 2100), np.uint8)
    labels[2040:2060, 2040:2060] = 1  # over a corner of four shards
    labels[10:20, 30:40] = labels[100:110, 2045:2050] = labels[0:4, 0:5] = 2
    labels[1000:1100, 2000:2090] = 2  # a ring over two shards, around a hole
    labels[1020:1080, 2020:2070] = 0
    for shard in store.shards():
        store.write(shard, labels[store.box(shard).slices])
    Ledger.begin(store, np.ones((5, 5), np.bool_))
    found = measure(store)
    assert found.pixels.tolist() == [400, 170 + 6000]
    assert found.objects.tolist() == [1, 4]


def test_areas_are_in_mm2_and_shares_of_the_tissue(made: Path) -> None:
    store = MaskPyramid.open(made / "a.seg.ome.zarr")
    told = facts(store)
    pixels = int((store.read(store.box(store.shards()[0])) == 1).sum())
    assert told.classes[0].mm2 == pytest.approx(pixels * 0.25 / 1e6)
    assert told.tissue_mm2 == pytest.approx(900 * 1100 * 0.25 / 1e6, rel=0.02)
    assert told.covered == pytest.approx(told.classes[0].mm2 / told.tissue_mm2)
    assert told.counts.tissue == 72
    assert (told.counts.refined, told.counts.audited) == (18 + 8, 8)


# What Model 2 changed


def table(**columns: list[float]) -> dict[str, NDArray[Any]]:
    kinds = {"row": np.int32, "col": np.int32, "round": np.int16, "rank": np.int32, "source": np.uint8}
    return {name: np.array(values, kinds.get(name, np.float32)) for name, values in columns.items()}


TILES = table(
    row=[0, 0, 0, 0],
    col=[0, 1, 2, 3],
    uncertainty=[0.1, 0.4, 0.3, 0.2],
    round=[1, 0, 0, -1],
    rank=[0, 0, 1, -1],
    disagreement=[0.25, 0.5, 0.125, np.nan],
    source=[Source.MODEL_2, Source.MODEL_2, Source.MODEL_2, Source.MODEL_1],
)
NOBODY = np.zeros(4, np.bool_)
STRIPE = MaskSpec(512, 2000, 1000 / 512, 2, 512, ("one",), ((255, 0, 0),), 16, 32, 125)  # a tile is 1 mm2


def test_change_adds_up_in_the_order_of_refinement_and_the_audit_says_what_is_left() -> None:
    change = change_of(TILES, STRIPE, Audit(1, 1, (Remaining("all", 0.1, 0.3),)), TILES["round"] == 1)
    assert change.chosen.tolist() == [0.5, 0.625]
    assert change.audited.tolist() == [0.875]
    assert change.left == pytest.approx(0.25)  # one tile is left, and the one that was drawn changed 0.25
    assert change.bound == pytest.approx(0.75)
    assert (change.refined, change.tissue) == (3, 4)


def test_without_an_audit_what_is_left_is_not_known() -> None:
    change = change_of(TILES, STRIPE, None, NOBODY)
    assert (change.left, change.bound) == (None, None)
    assert change.chosen.tolist() == [0.5, 0.625, 0.875]


def test_nothing_is_left_once_model_2_saw_all() -> None:
    seen = {**TILES, "source": np.full(4, Source.MODEL_2, np.uint8)}
    assert change_of(seen, STRIPE, None, NOBODY).left == 0


# Outliers


def test_a_slide_far_from_the_others_is_named_with_what_is_odd() -> None:
    share = Feature("share", np.array([0.10, 0.11, 0.12, 0.10, 0.11, 0.50, np.nan]), percent)
    odd = oddities([share])
    assert [bool(one.reasons) for one in odd] == [False, False, False, False, False, True, False]
    assert odd[5].reasons == ("share is high: 50.0 %; half of the slides: 10.2 % to 11.8 %",)
    assert odd[6].score == 0


def test_one_slide_among_many_of_nothing_is_odd() -> None:
    assert list(modified_z(np.array([0, 0, 0, 0, 0, 0, 0, 0.785])) > 3.5) == [False] * 7 + [True]


@pytest.mark.parametrize(
    "values",
    [[1, 1, 1, 1, 9], [0, 0, 0, 0, 0, 0], [5, 5, 5, 5, 5, 5.01, 4.99], [0, 0, 0, 0, 0, 0, 1e-4]],
    ids=["too few to tell", "all nothing", "all alike", "a speck"],
)
def test_where_no_slide_is_odd_none_is_called_so(values: list[float]) -> None:
    assert (np.abs(modified_z(np.array(values))) < 3.5).all()


# Sentences


def said(told: Facts, title: str) -> str:
    return next(f"{s.text} {s.command}" for s in quality(told) if s.title == title)


def test_the_statement_says_what_was_seen_and_what_is_left(made: Path) -> None:
    told = facts(MaskPyramid.open(made / "a.seg.ome.zarr"))
    assert told.audit is not None
    assert told.audit.overall is not None
    seen = said(told, "What Model 2 saw")
    assert "saw 26 of 72 tiles with tissue (36.1 %)" in seen
    assert "18 tiles chosen by the rule (budget 25%) and 8 tiles drawn at random for the audit" in seen
    left = said(told, "What is left")
    assert f"no more than {told.audit.overall.bound:.3f}" in left
    assert "With fewer than 40 tiles the bound is rough" in left


def test_what_earlier_audits_drew_was_not_chosen_by_the_rule(store: MaskPyramid) -> None:
    store.note(audit=None)  # as more of Model 2 does, which the audit did not know of
    told = facts(store)
    assert "18 tiles chosen by the rule (budget 25%) and 8 tiles drawn at random for audits" in said(
        told, "What Model 2 saw"
    )
    assert len(change_of(told.table, told.spec, told.audit, told.drawn).audited) == 8


def test_without_an_audit_the_command_that_makes_one_is_named(store: MaskPyramid) -> None:
    store.note(audit=None)
    left = said(facts(store), "What is left")
    assert "It was not audited" in left
    assert left.endswith("wsi-seg refine a.seg.ome.zarr --audit 50")


def test_an_audit_that_was_stopped_is_no_audit(store: MaskPyramid) -> None:
    store.note(audit={"tiles": 8, "round": 1})
    assert "The audit was not finished" in said(facts(store), "What is left")


def test_the_calibration_is_read_at_the_threshold_of_the_run(made: Path) -> None:
    told = facts(MaskPyramid.open(made / "a.seg.ome.zarr"))
    assert told.model is not None
    assert "not calibrated" in said(told, "What the model’s calibration says")
    known = Calibration(20, "slides", (0.0, 1.0), (0.25, 0.25), (1.0, 0.0))
    calibrated = replace(told, model=replace(told.model, calibration=known))
    text = said(calibrated, "What the model’s calibration says")
    assert "On the 20 slides" in text
    assert "left the mask 0.250 of Dice" in text
    assert "not whole slides" not in text
    stopped = replace(calibrated, made={**told.made, "complete": False})
    assert "finished runs, and this one is not" in said(stopped, "What the model’s calibration says")
    other = replace(told.model, calibration=replace(known, uncertainty="margin"))
    assert "It is of margin" in said(replace(told, model=other), "What the model’s calibration says")
    assert "not where it was" in said(replace(told, model=None), "What the model’s calibration says")


@pytest.mark.parametrize(
    ("tissue", "precision", "differs"),
    [
        ("otsu", "bf16", "not like those: tissue is none and was otsu, precision is fp32 and was bf16."),
        ("none", "fp32", ""),
        ("", "", ""),  # not known
    ],
)
def test_a_run_made_otherwise_than_the_calibration_is_said(
    store: MaskPyramid, tissue: str, precision: str, differs: str
) -> None:
    told = facts(store)
    assert told.model is not None
    known = Calibration(20, "slides", (0.0, 1.0), (0.25, 0.25), (1.0, 0.0), "entropy", tissue, precision)
    calibrated = replace(told, model=replace(told.model, calibration=known))
    text = said(calibrated, "What the model’s calibration says")
    assert differs in text
    assert ("not like those" in text) == bool(differs)


def test_what_a_region_took_does_not_make_the_calibration_promise_more(store: MaskPyramid) -> None:
    told = facts(store)
    table = {name: column.copy() for name, column in told.table.items()}
    rows = np.flatnonzero(table["source"] == Source.MODEL_1)
    least = rows[np.argmin(table["uncertainty"][rows])]
    table["source"][least], table["round"][least] = Source.MODEL_2, 2
    by_rule = told.table["round"] == 0
    assert least_refined(told) == table["uncertainty"][by_rule].min()
    assert least_refined(replace(told, table=table)) == least_refined(told)


# Warnings


def unreadable(store: MaskPyramid) -> None:
    source = store.tiles()["source"]
    source[:3] = Source.UNREADABLE
    store.write_tile_column("source", source)


def change_slide(store: MaskPyramid, **facts: object) -> None:
    store.note(slide={**store.manifest["slide"], **facts})


WARNINGS: dict[str, tuple[Callable[[MaskPyramid], None], str]] = {
    "stopped": (lambda store: store.note(complete=False), "The run was stopped."),
    "at work": (lambda store: store.note(held_by="process 7 on there"), "process 7 on there"),
    "killed": (lambda store: store.note(held_by="process 7", complete=False), "If it was killed, wsi-seg"),
    "unreadable": (
        unreadable,
        "or ended their worker (4.2 % of the tissue)",
    ),
    "scale by hand": (lambda store: change_slide(store, mpp_source="given"), "was given by hand"),
    "enlarged": (lambda store: change_slide(store, mpp=1.0), "the slide was enlarged"),
    "slide gone": (lambda store: change_slide(store, path="/nowhere/s.svs"), "cannot be opened where it was"),
    "another slide": (lambda store: change_slide(store, fingerprint="1"), "another file is there now"),
    "time": (lambda store: store.note(further=["budget 600s"]), "on another machine other tiles"),
    "version": (lambda store: store.note(version="0.0.1"), "version 0.0.1 of wsi_twostage"),
    "model gone": (
        lambda store: store.note(model={"name": "m", "path": "/nowhere", "sha256": "0"}),
        "The model's file is not where it was",
    ),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_what_should_make_a_reader_careful_is_said(store: MaskPyramid, name: str) -> None:
    change, text = WARNINGS[name]
    before = " ".join(caution.text for caution in cautions(facts(store)))
    change(store)
    after = " ".join(caution.text for caution in cautions(facts(store)))
    assert text not in before
    assert text in after


def test_a_sound_result_has_but_the_warning_of_its_small_audit(made: Path) -> None:
    told = facts(MaskPyramid.open(made / "a.seg.ome.zarr"))
    assert told.status == "ok"
    assert [caution.short for caution in cautions(told)] == ["small audit"]


# What is put in


def test_folders_summaries_and_results_are_found_once(made: Path, tmp_path: Path) -> None:
    rows = [
        {"slide": "/x/a.svs", "output": "elsewhere/a.seg.ome.zarr", "status": "ok", "error": ""},
        {"slide": "/x/b.svs", "output": "elsewhere/b.seg.ome.zarr", "status": "failed", "error": "no slide"},
    ]
    shutil.copytree(made / "a.seg.ome.zarr", tmp_path / "a.seg.ome.zarr")
    (tmp_path / "summary.json").write_text(json.dumps(rows))
    found = find([tmp_path, tmp_path / "summary.json", tmp_path / "a.seg.ome.zarr"])
    assert [one.name for one in found if one.path] == ["a.svs"]
    assert {(one.name, one.error) for one in found if not one.path} == {("b.svs", "no slide")}


def test_a_summary_tells_of_its_own_batch_wherever_the_command_is_given(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"slide": "a.svs", "output": "results/a.seg.ome.zarr", "status": "ok", "error": ""}
    for name in ("one", "two"):
        shutil.copytree(made / "a.seg.ome.zarr", tmp_path / name / "results" / "a.seg.ome.zarr")
        (tmp_path / name / "results" / "summary.json").write_text(json.dumps([row]))
    monkeypatch.chdir(tmp_path / "two")
    (found,) = find([Path("../one/results/summary.json")])
    assert found.path is not None
    assert found.path.resolve() == tmp_path / "one" / "results" / "a.seg.ome.zarr"


def test_results_in_folders_of_a_batch_are_not_taken_for_one_another(made: Path, tmp_path: Path) -> None:
    names = ["results/a.seg.ome.zarr", "results/scanner2/a.seg.ome.zarr"]
    rows = [{"slide": "a.svs", "output": name, "status": "ok", "error": ""} for name in names]
    for name in names:
        shutil.copytree(made / "a.seg.ome.zarr", tmp_path / name)
    (tmp_path / "results" / "summary.json").write_text(json.dumps(rows))
    assert [one.path for one in find([tmp_path / "results" / "summary.json"])] == [
        tmp_path / n for n in names
    ]


def test_a_damaged_summary_is_said(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "a.seg.ome.zarr", tmp_path / "a.seg.ome.zarr")
    (tmp_path / "summary.json").write_text('[{"slide": "b.svs", "out')
    with pytest.raises(ConfigError, match="cannot be read as the summary of a batch"):
        find([tmp_path])


def test_two_results_of_one_slide_are_told_apart(store: MaskPyramid, made: Path, tmp_path: Path) -> None:
    written = write_report([made / "a.seg.ome.zarr", store], tmp_path / "report.html").read_text("utf-8")
    for folder in (made, tmp_path):
        assert f"slide.tiff ({folder.name}/a.seg.ome.zarr)</" in written


def test_results_in_folders_of_one_name_are_told_apart(store: MaskPyramid, tmp_path: Path) -> None:
    places = [Path(name, "out", "a.seg.ome.zarr") for name in ("one", "two")]
    for place in places:
        shutil.copytree(store.path, tmp_path / place)
    written = write_report([tmp_path / place for place in places], tmp_path / "r.html").read_text("utf-8")
    for place in places:
        assert f"slide.tiff ({place.as_posix()})</" in written


def test_a_later_round_is_not_the_audit_whose_tiles_a_rule_took_over(store: MaskPyramid, made: Path) -> None:
    settings, model = replace(EVERYWHERE, audit=None), made / "tiny.safetensors"
    segment(made / "slide.tiff", store.path, bundle=model, rule=Duration(1e-3), settings=settings)
    refine(store.path, Fraction(0.1), settings=settings)
    told = facts(MaskPyramid.open(store.path))
    assert (told.table["round"] > 0).sum() == 7
    assert not told.drawn.any()


def test_a_batch_that_was_stopped_has_not_failed(store: MaskPyramid, made: Path, tmp_path: Path) -> None:
    rows = [
        {"slide": "b.svs", "output": str(store.path), "status": "stopped", "error": ""},
        {"slide": "a.svs", "output": str(made / "a.seg.ome.zarr"), "status": "ok", "error": ""},
    ]
    store.note(whole=False)
    (tmp_path / "summary.json").write_text(json.dumps(rows))
    page = write_report([tmp_path / "summary.json"], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "1 not complete" in page
    assert "1 failed" not in page


def test_what_is_gone_or_damaged_is_not_called_complete(made: Path, tmp_path: Path) -> None:
    rows = [
        {"slide": f"{name}.svs", "output": f"{name}.seg.ome.zarr", "status": "ok", "error": ""}
        for name in ("a", "gone", "damaged")
    ]
    for name in ("a", "damaged", "unlisted"):
        shutil.copytree(made / "a.seg.ome.zarr", tmp_path / f"{name}.seg.ome.zarr")
    (tmp_path / "damaged.seg.ome.zarr" / "wsi_twostage" / "zarr.json").write_text("")
    (tmp_path / "unlisted.seg.ome.zarr" / "wsi_twostage" / "zarr.json").write_text("")
    (tmp_path / "summary.json").write_text(json.dumps(rows))
    page = write_report([tmp_path], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "1 complete" in page
    assert "3 failed" in page
    assert page.count("is not a wsi_twostage result") == 2
    assert "its result, gone.seg.ome.zarr, is not there" in page


def test_a_summary_of_others_is_nobodys_business(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "a.seg.ome.zarr", tmp_path / "a.seg.ome.zarr")
    (tmp_path / "summary.json").write_text('{"pipeline": "x"}')
    assert [one.name for one in find([tmp_path])] == ["a"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.json", "the summary of a batch without slides"),
        ("empty", "a folder without results"),
        ("notes.txt", "is not a result of wsi-seg"),
        ("none.zarr", "does not exist"),
        ("bad.json", "cannot be read as the summary"),
        ("list.json", "cannot be read as the summary"),
    ],
)
def test_what_is_no_result_is_one_clear_line(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "nothing.json").write_text("[]")
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "list.json").write_text('[{"slide": 1}]')
    with pytest.raises(ConfigError, match=message):
        write_report([tmp_path / name], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


# The file


class Resources(HTMLParser):
    """What a page would fetch, and its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        wanted = ("src", "href", "xlink:href", "srcset", "data", "action", "poster", "background")
        self.fetched += [value or "" for name, value in attrs if name in wanted]


HOSTILE = "\"><script>alert(1)</script><img src='http://evil.example/x'>&.svs"


def test_the_file_holds_all_that_it_shows(store: MaskPyramid, tmp_path: Path) -> None:
    events: list[Event] = []
    page = write_report([store.path], tmp_path / "out" / "report.html", listener=events.append)
    text = page.read_text(encoding="utf-8")
    assert all(one.startswith(("data:", "#")) for one in Resources(text).fetched)
    assert "url(" not in text
    assert "@import" not in text
    assert len(text) < 1_500_000
    assert any(isinstance(event, Started) for event in events)
    assert any(isinstance(event, TilesDone) for event in events)
    assert sorted(path.name for path in page.parent.iterdir()) == ["report.html"]


def test_a_hostile_name_stays_text(store: MaskPyramid, tmp_path: Path) -> None:
    change_slide(store, path=f"/slides/{HOSTILE}", reader="<b>tiff")
    store.note(rule="<script>1</script>", tissue={"path": "<i>", "sha256": ""})
    clean = Resources(write_report([store.path], tmp_path / "one.html").read_text(encoding="utf-8"))
    assert clean.tags.count("script") == 1
    assert not {"img", "b"} & set(clean.tags)
    other = tmp_path / "b.seg.ome.zarr"
    shutil.copytree(store.path, other)
    batch = Resources(write_report([store.path, other], tmp_path / "two.html").read_text(encoding="utf-8"))
    assert batch.tags.count("script") == 1
    assert not {"img", "b"} & set(batch.tags)


def test_a_result_of_a_batch_that_cannot_be_read_is_a_row(
    store: MaskPyramid, made: Path, tmp_path: Path
) -> None:
    for shard in (store.path / "labels" / "segmentation" / "0" / "c").rglob("*"):
        if shard.is_file():
            shard.write_bytes(b"hello")
    events: list[Event] = []
    inputs = [store.path, made / "a.seg.ome.zarr"]
    page = write_report(inputs, tmp_path / "r.html", listener=events.append)
    assert "wsi-seg verify" in page.read_text(encoding="utf-8")
    assert any(isinstance(event, Note) for event in events)
    with pytest.raises(StoreError, match="wsi-seg verify says what is damaged"):
        write_report([store.path], tmp_path / "s.html")
    assert not (tmp_path / "s.html").exists()


def test_an_earlier_result_does_not_hide_that_a_batch_failed(store: MaskPyramid, tmp_path: Path) -> None:
    row = {"slide": "slide.tiff", "output": str(store.path), "status": "failed", "error": "another model"}
    (tmp_path / "summary.json").write_text(json.dumps([row, row | {"status": "ok", "error": ""}]))
    page = write_report([tmp_path / "summary.json"], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "The batch failed on this slide; what is shown is an earlier result: another model" in page


@pytest.mark.parametrize(
    ("target", "said"),
    [("slide.tiff", "must end in .html"), ("a.seg.ome.zarr/report.html", "is a Zarr of its own")],
)
def test_a_report_takes_the_place_of_nothing_else(store: MaskPyramid, target: str, said: str) -> None:
    place = store.path.parent / target
    if place.suffix == ".tiff":
        place.write_bytes(b"pixels")
    with pytest.raises(StoreError, match=said):
        write_report([store.path], place, overwrite=True)
    assert place.suffix != ".tiff" or place.read_bytes() == b"pixels"


def test_results_of_models_in_memory_of_several_classes_and_without_tissue_have_reports(
    tmp_path: Path,
) -> None:
    slide = write_slide(tmp_path / "glass.tiff", [np.full((300, 400, 3), 244, np.uint8)])
    bundle = small_bundle(classes=5)
    nothing = segment(slide, tmp_path / "n.zarr", bundle=bundle, settings=Settings(workers=1))
    settings = Settings(workers=1, tissue="none")
    some = segment(slide, tmp_path / "s.zarr", bundle=bundle, rule=Fraction(1), settings=settings)
    assert nothing.status == "empty"
    for result in (nothing, some):
        write_report([result.store.path], tmp_path / f"{result.status}.html")
    text = write_report([tmp_path / "n.zarr", tmp_path / "s.zarr"], tmp_path / "r.html").read_text()
    assert "No tissue was found on this slide" in text
    assert (text.count("What Model 2 changed"), text.count("Where the time went")) == (1, 2)
    assert "all classes, mm²" in text


def test_one_result_needs_no_list(store: MaskPyramid, tmp_path: Path) -> None:
    for one in (store, store.path, str(store.path)):
        write_report(one, tmp_path / "r.html", overwrite=True)


def test_a_report_finds_a_slide_that_was_moved(store: MaskPyramid, made: Path, tmp_path: Path) -> None:
    change_slide(store, path="/nowhere/slide.tiff")
    moved = shutil.copy(made / "slide.tiff", tmp_path / "moved.tiff")
    lost = "cannot be opened where it was"
    assert lost in write_report(store, tmp_path / "r.html").read_text()
    assert lost not in write_report(store, tmp_path / "moved.html", slide=moved).read_text()
    with pytest.raises(SlideError, match=r"no\.tiff"):
        write_report(store, tmp_path / "no.html", slide=tmp_path / "no.tiff")
    with pytest.raises(ConfigError, match="slide of one result is; here are 2"):
        write_report([store, made / "a.seg.ome.zarr"], tmp_path / "no.html", slide=moved)
    assert not (tmp_path / "no.html").exists()


@pytest.mark.parametrize("lost", [3, None])
def test_what_could_not_be_read_is_not_full_resolution(
    store: MaskPyramid, tmp_path: Path, lost: int | None
) -> None:
    source = store.tiles()["source"]
    source[:] = Source.MODEL_2
    source[:lost] = Source.UNREADABLE
    store.write_tile_column("source", source)
    page = write_report(store, tmp_path / "r.html").read_text()
    for claim in ("Model 2 saw all", "This is the full-resolution result", "has seen all tissue"):
        assert claim not in page
    assert "the rest cannot be read" in page
    assert "is not known" in said(facts(store), "What is left")
    drawn = np.zeros(len(store.tiles()["row"]), np.bool_)
    assert change_of(store.tiles(), store.spec, None, drawn).left is None


def test_without_results_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no results were given"):
        write_report([], tmp_path / "r.html")


def test_an_unfinished_store_is_refused_alone(store: MaskPyramid, tmp_path: Path) -> None:
    store.note(whole=False)
    with pytest.raises(StoreError, match="stopped before the mask was whole"):
        write_report([store.path], tmp_path / "r.html")


def test_a_result_that_is_replaced_meanwhile_has_no_report_of_both(
    store: MaskPyramid, tmp_path: Path
) -> None:
    other = tmp_path / "other.zarr"
    shutil.copytree(store.path, other)

    def replace_it(event: Event) -> None:
        if isinstance(event, Started) and event.stage == "pictures":
            store.path.rename(tmp_path / "old.zarr")
            other.rename(store.path)

    with pytest.raises(StoreError, match="was replaced while it was read; run again"):
        write_report([store.path], tmp_path / "r.html", listener=replace_it)
    assert not (tmp_path / "r.html").exists()


def test_a_result_that_another_run_changes_meanwhile_has_no_report_of_both(
    store: MaskPyramid, tmp_path: Path
) -> None:
    def change_it(event: Event) -> None:
        if isinstance(event, Started) and event.stage == "pictures":
            store.note(further=["budget 90%"])

    with pytest.raises(Busy, match="was changed by another run while it was read; give the command again"):
        write_report([store.path], tmp_path / "r.html", listener=change_it)
    assert not (tmp_path / "r.html").exists()


def test_the_command_writes_and_overwrites_only_when_told(store: MaskPyramid, tmp_path: Path) -> None:
    def report(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return wsi_seg("report", store.path.name, "-q", *arguments, cwd=tmp_path)

    first = report()
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.startswith("report.html: 0.")
    again = report()
    assert again.returncode == 2
    assert again.stderr == "wsi-seg: report.html exists; give --overwrite or another --output\n"
    told = json.loads(report("--overwrite", "--json").stdout)
    assert told == {"path": "report.html", "bytes": (tmp_path / "report.html").stat().st_size}
    assert "is a folder" in report("-o", ".").stderr


# Small things


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (percent(0.4394), "43.9 %"), (percent(0), "0 %"), (percent(1), "100 %"), (percent(0.00123), "0.12 %"),
        (area(1.2345), "1.23 mm²"), (area(0.0000432), "43.2 µm²"), (area(0), "0 mm²"),
        (digits(12345.6), "12\u202f346"), (digits(0.0471), "0.0471"), (digits(float("nan")), "–"),
        (seconds(0.21), "0.2 s"), (seconds(200), "3 min 20 s"), (seconds(7500), "2 h 05 min"),
    ],
)  # fmt: skip
def test_numbers_read_well(found: str, wanted: str) -> None:
    assert found == wanted


@given(st.floats(1e-9, 1e9))
def test_ticks_are_few_and_within(top: float) -> None:
    marks = ticks(top)
    assert 2 <= len(marks) <= 6
    assert marks[0] == 0
    assert marks[-1] <= top * (1 + 1e-9)


def test_the_colours_of_uncertainty_grow_ever_darker() -> None:
    lightness = HEAT @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    assert (np.diff(lightness) < -10).all()


@pytest.mark.parametrize(
    ("values", "at", "said"),
    [
        ([1.0, 2.0, np.nan], [10, 370], ["of tissue", "1.00", "2.00"]),
        ([2.0, 2.0], [190, 190], ["of tissue", "2.00"]),  # equals lie in the middle, and are said once
    ],
)
def test_a_strip_spans_what_there_is(values: list[float], at: list[float], said: list[str]) -> None:
    names = [f"{number}.svs" for number in range(len(values))]
    drawn = str(strip_chart(Feature("of tissue", np.array(values), digits), names, names))
    assert sorted(map(float, re.findall(r'cx="([0-9.]+)"', drawn))) == at
    assert re.findall(r"<text[^>]*>([^<]*)</text>", drawn) == said
