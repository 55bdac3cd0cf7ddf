"""The networks compiled by OpenVINO give what torch gives."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import small_bundle
from numpy.typing import NDArray
from slides import texture

from wsi_twostage.errors import ConfigError
from wsi_twostage.models import compiled, runner
from wsi_twostage.models.compiled import Compiled
from wsi_twostage.models.header import SHIPPED, read_spec

openvino = pytest.importorskip("openvino")

LOGITS = 1e-3  # the stated tolerance; they are about 10 in size


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compiled]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        ref, _ = runner.refer(None, device="auto", precision="fp32", engine="openvino")
        found = runner.runner(ref)
        assert isinstance(found, Compiled)
        yield found
        runner._runner.cache_clear()


def windows(rows: int, cols: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Model 2's input for a core of so many px, with the shipped halos."""
    spec = read_spec(SHIPPED)
    fine, around = 2 * spec.halo, 2 * spec.context_halo
    return texture(rows + fine, cols + fine), texture(rows // 4 + around, cols // 4 + around, seed=1)


def test_logits_are_torchs_for_windows_of_any_size(fast: Compiled) -> None:
    slow = runner.runner(runner.refer(None, device="cpu", precision="fp32")[0])
    for size in ((128, 128), (128, 256), (384, 128)):
        fine, around = windows(*size)
        np.testing.assert_allclose(fast.f2(fine, around), slow.f2(fine, around), atol=LOGITS)
        np.testing.assert_allclose(fast.f1(fine), slow.f1(fine), atol=LOGITS)


def test_threads_do_not_mix_their_windows(fast: Compiled) -> None:
    images = [texture(256, 256, seed=seed) for seed in range(8)]
    alone = [fast.f1(image).numpy() for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(fast.f1, images * 2))
    for expected, found in zip(alone * 2, together, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_what_was_traced_is_kept(fast: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fast.f1(texture(256, 256))
    monkeypatch.setattr(openvino, "convert_model", None)  # would fail
    runner._runner.cache_clear()
    ref, _ = runner.refer(None, device="cpu", precision="fp32", engine="openvino")
    np.testing.assert_array_equal(runner.runner(ref).f1(texture(256, 256)), expected)
    assert len(list(compiled._cache().iterdir())) == 4


def test_a_damaged_trace_is_made_anew(fast: Compiled) -> None:
    for file in compiled._cache().glob("*-first-*.xml"):
        file.write_bytes(file.read_bytes()[:100])
    runner._runner.cache_clear()
    ref, _ = runner.refer(None, device="cpu", precision="fp32", engine="openvino")
    image = texture(256, 256)
    np.testing.assert_array_equal(runner.runner(ref).f1(image), fast.f1(image))
    assert len(list(compiled._cache().iterdir())) == 4


def test_what_cannot_be_compiled_is_refused() -> None:
    for bundle, device, precision, engine, said in (
        (None, "cpu", "fp32", "onnx", "torch or openvino"),
        (None, "cpu", "fp16", "openvino", "fp32, bf16"),
        (small_bundle(), "cpu", "fp32", "openvino", "bundles in files"),
    ):
        with pytest.raises(ConfigError, match=said):
            runner.refer(bundle, device=device, precision=precision, engine=engine)
