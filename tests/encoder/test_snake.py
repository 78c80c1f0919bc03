"""The compiled Snake matches the plain one, and torch compiles it as rarely as possible."""

import os
import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import EncodeConfig
from pipeline.encoder.audio_codec import Codec
from pipeline.encoder.encoder import load_encoder, load_for_run
from pipeline.encoder.snake import LEAST_CHANNELS, ROW, fuse_snake, gains_by_fusing, snake
from tests.helpers.checkpoints import AUDIO, make_pe_audio
from tests.helpers.encoders import PARITY, error, make_embedder, noise, run_plainly

pytestmark = pytest.mark.usefixtures("one_thread")


@contextmanager
def fresh_dynamo() -> Iterator[None]:
    """Make torch forget compiled functions, before and after."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def drawn_scale(channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.linspace(0.5, 2, channels), torch.linspace(-1, 3, channels)


def test_snake_matches_definition() -> None:
    x = torch.linspace(-20, 20, 240).view(1, 30, 8)
    factor, summand = drawn_scale(8)
    u = x.double() * factor + summand
    torch.testing.assert_close(snake(x, (factor, summand)).double(), u + torch.sin(u) ** 2, rtol=1e-5, atol=1e-5)
    kept = x.clone()
    torch.testing.assert_close(snake(x, None), x + torch.sin(x) ** 2)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("failing", ["raises", "is wrong", "is not found"])
def test_snake_that_cannot_be_compiled_stays_uncompiled(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(graph: Any, inputs: Any) -> Any:
        if failing == "raises":
            raise RuntimeError("no compiler here")
        return lambda *given: [graph(*given)[0] + 0.01]

    if failing == "is not found":
        monkeypatch.setattr(torch, "compile", lambda *_, **__: (_ for _ in ()).throw(OSError("no place for a cache")))
    with fresh_dynamo(), pytest.warns(RuntimeWarning, match="slower than it could be, torch cannot compile here"):
        assert fuse_snake("cpu", torch.float32, spoil) is snake


def test_snake_compiles_twice_for_each_precision() -> None:
    """torch compiles a function eight times at most, and falls back silently then."""
    graphs: list[Any] = []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    embedder = make_embedder([2, 3, 5])
    with fresh_dynamo():
        for dtype in (torch.float32, torch.bfloat16):
            for tile_bytes in (None, 2**10, 2**12):  # three encoders in one process
                with torch.inference_mode(False):  # as they are loaded
                    codec = Codec(embedder, "cpu", dtype)
                codec.tile_bytes, codec._snake = tile_bytes, fuse_snake("cpu", dtype, count)
                assert codec._snake is not snake
                for n, hops in ((1, 1), (1, 40), (2, 1), (8, 33), (32, 9), (5, 40)):
                    samples = noise(n, hops * 30)
                    found = codec(samples).float()
                    limit = PARITY if dtype == torch.float32 else 0.02
                    assert error(found, run_plainly(embedder, samples)) < limit
    assert len(graphs) == 4


def test_rows_on_a_gpu_have_a_known_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROW, "cpu", ROW["cuda"])
    graphs: list[tuple[int, list[int]]] = []

    def look(graph: Any, inputs: Any) -> Any:
        """Note how many sizes are left open, and which widths were tried."""
        n_open = sum(isinstance(given, torch.SymInt) for given in inputs)
        graphs.append((n_open, [given.shape[-1] for given in inputs if isinstance(given, torch.Tensor)]))
        return graph.forward

    with fresh_dynamo():
        fused = fuse_snake("cpu", torch.float32, look)
        assert fused is not snake
        in_rows = [(1, [1024, 1024, 1024]), (1, [1024])]  # the number of rows is open
        others = [(2, [64, 64, 64]), (1, [3 * 64])]  # the number of channels, too
        assert graphs == in_rows + others
        for channels, length in ((64, 480), (512, 6), (1024, 2), (8, 256)):
            for n in (1, 2, 5):
                x = torch.randn((n, length, channels), generator=torch.Generator().manual_seed(n))
                for scale in (None, drawn_scale(channels)):
                    torch.testing.assert_close(fused(x, scale), snake(x, scale))
        odd = torch.randn(3, 5, 24)
        torch.testing.assert_close(fused(odd, drawn_scale(24)), snake(odd, drawn_scale(24)))
        assert len(graphs) == 4


@pytest.mark.parametrize("shape", [(1, 7, 8), (3, 5, 8)])
def test_fused_snake_matches_snake(shape: tuple[int, int, int]) -> None:
    with fresh_dynamo():
        fused = fuse_snake("cpu", torch.float32, "eager")
        assert fused is not snake
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        for scale in (None, drawn_scale(8)):
            torch.testing.assert_close(fused(x, scale), snake(x, scale))


compiler = pytest.mark.skipif(
    not (shutil.which(os.environ.get("CXX", "g++")) and Path(sysconfig.get_path("include"), "Python.h").exists()),
    reason="there is no C++ compiler on this machine, or none of Python's headers",
)


@compiler
@pytest.mark.parametrize(("dtype", "largest"), [(torch.float32, 16.0), (torch.bfloat16, 0.52)])
def test_compiled_snake_rounds_once(dtype: torch.dtype, largest: float) -> None:
    """``largest`` is in units of the precision; rounding alone takes half of one."""
    with fresh_dynamo():
        fused = fuse_snake("cpu", dtype)
        assert fused is not snake
        x = torch.randn((2, 999, 64), generator=torch.Generator().manual_seed(1)) * 5
        for scale in (None, drawn_scale(64)):
            given = x.to(dtype)
            u = given.double() if scale is None else given.double() * scale[0] + scale[1]
            exact = u + torch.sin(u) ** 2
            far = (fused(given, scale).double() - exact).abs() / exact.abs().clamp(min=1)
            assert far.max() <= torch.finfo(dtype).eps * largest


@compiler
def test_compiled_codec_matches_transformers() -> None:
    embedder = make_embedder([2, 3, 5], channels=LEAST_CHANNELS)
    codec = Codec(embedder, "cpu", torch.float32)
    codec.tile_bytes = 2**12
    assert codec._snake is snake
    with fresh_dynamo():
        codec.compile(gains=lambda device, channels: True)
        assert codec._snake is not snake
        for n, hops in ((1, 1), (1, 200), (3, 2), (2, 77)):
            samples = noise(n, hops * 30)
            assert error(codec(samples), run_plainly(embedder, samples)) < PARITY


def test_runs_compile_and_queries_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def compile_nothing(function: Any, **how: Any) -> Any:
        asked.append(function.__name__)
        return function

    monkeypatch.setattr(torch, "compile", compile_nothing)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True})
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # as `load_for_run` sets it, but only for this test
    audio = {"dac_config": {**AUDIO["dac_config"], "encoder_hidden_size": LEAST_CHANNELS}}
    config = EncodeConfig(clip_model=str(make_pe_audio(tmp_path, audio=audio)), device="cpu", precision="float32")
    windows = [noise(1, 3 * 1920)[0].numpy()]
    expected = load_encoder(config).encode(windows)  # a query by a sound
    assert asked == []
    found = load_for_run(config, True, 1).encode(windows)  # an encoder of a run
    assert asked == ["_activate", "_activate_scaled"]
    assert found[0].dtype == np.float16  # as it is stored
    assert error(torch.from_numpy(found[0]).float(), torch.from_numpy(expected[0])) < 1e-3


@pytest.mark.parametrize(
    ("device", "channels", "capability", "gains"),
    [("cpu", 64, True, True), ("cpu", 64, False, False), ("cpu", 8, True, False), ("cuda", 8, False, True)],
)
def test_snake_is_compiled_only_where_it_gains(
    device: str, channels: int, capability: bool, gains: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": capability})
    assert gains_by_fusing(device, channels) == gains
