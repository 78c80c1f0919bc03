"""The compiled Snake is the other one, and is compiled as seldom as it can be."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from pipeline.snake import choose_snake, fuse_snake, snake
from pipeline.tower import Codec
from tests.test_tower import PARITY, error, make_embedder, noise, run_plainly


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


@contextmanager
def fresh_dynamo() -> Iterator[None]:
    """Nothing compiled before is known, nor afterwards."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def drawn_scale(channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.linspace(0.5, 2, channels), torch.linspace(-1, 3, channels)


def test_it_is_what_its_name_says() -> None:
    x = torch.linspace(-20, 20, 240).view(1, 30, 8)
    factor, summand = drawn_scale(8)
    u = x.double() * factor + summand
    torch.testing.assert_close(snake(x, (factor, summand)).double(), u + torch.sin(u) ** 2, rtol=1e-5, atol=1e-5)
    kept = x.clone()
    torch.testing.assert_close(snake(x, None), x + torch.sin(x) ** 2)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("failing", ["raises", "is wrong", "is not found"])
def test_one_that_cannot_be_compiled_stays_as_it_is(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(graph: Any, inputs: Any) -> Any:
        if failing == "raises":
            raise RuntimeError("no compiler here")
        return lambda *given: [graph(*given)[0] + 0.01]

    if failing == "is not found":
        monkeypatch.setattr(torch, "compile", lambda *_, **__: (_ for _ in ()).throw(OSError("no place for a cache")))
    with fresh_dynamo():
        assert fuse_snake("cpu", torch.float32, spoil) is snake


def test_it_is_compiled_twice_for_each_precision_whatever_is_encoded() -> None:
    """torch compiles a function eight times at most, and falls back silently then."""
    graphs: list[Any] = []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    embedder = make_embedder([2, 3, 5])
    with fresh_dynamo():
        for dtype in (torch.float32, torch.bfloat16):
            for stretch_bytes in (None, 2**10, 2**12):  # encoders in one process
                codec = Codec(embedder, "cpu", dtype)
                codec.stretch_bytes, codec._snake = stretch_bytes, fuse_snake("cpu", dtype, count)
                assert codec._snake is not snake
                for n, hops in ((1, 1), (1, 40), (2, 1), (8, 33), (32, 9), (5, 40)):
                    samples = noise(n, hops * 30)
                    found = codec(samples).float()
                    limit = PARITY if dtype == torch.float32 else 0.02
                    assert error(found, run_plainly(embedder, samples)) < limit
    assert len(graphs) == 4


@pytest.mark.parametrize("shape", [(1, 1, 8), (1, 7, 8), (3, 5, 8)])
def test_the_fused_one_is_the_other(shape: tuple[int, int, int]) -> None:
    with fresh_dynamo():
        fused = fuse_snake("cpu", torch.float32, "eager")
        assert fused is not snake
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        for scale in (None, drawn_scale(8)):
            torch.testing.assert_close(fused(x, scale), snake(x, scale))


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler")
@pytest.mark.filterwarnings("ignore::Warning:torch")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_the_compiler_makes_of_it_is_the_same(dtype: torch.dtype) -> None:
    with fresh_dynamo():
        fused = fuse_snake("cpu", dtype)
        assert fused is not snake
        x = torch.randn((2, 999, 64), generator=torch.Generator().manual_seed(1)) * 5
        factor, summand = drawn_scale(64)
        for scale in (None, (factor, summand)):
            given = x.to(dtype)
            u = given.double() if scale is None else given.double() * factor + summand
            exact = u + torch.sin(u) ** 2
            far = (fused(given, scale).double() - exact).abs() / exact.abs().clamp(min=1)
            assert far.max() <= torch.finfo(dtype).eps * 8


@pytest.mark.parametrize(
    ("device", "channels", "capability", "compiled"),
    [
        ("cpu", 64, True, True),
        ("cpu", 64, False, False),
        ("cpu", 8, True, False),
        ("cuda", 8, False, True),
    ],
)
def test_it_is_compiled_where_that_pays(
    device: str, channels: int, capability: bool, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": capability})
    asked: list[Any] = []

    def note(*given: Any) -> Any:
        asked.append(given)
        return snake

    monkeypatch.setattr("pipeline.snake.fuse_snake", note)
    choose_snake(device, torch.float32, channels)
    assert asked == [(device, torch.float32)] * compiled
