"""``python -m jobs.bench serve`` with an index of the tests and little load."""

from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.bench.__main__ import make_app
from jobs.bench.browser import find_chromium
from jobs.bench.serve import MIX, Client, Load, measure, serving
from tests.helpers import pages


@pytest.fixture
def index(tmp_path: Path) -> str:
    config = pages.make_corpus(tmp_path, ["a day.flac"])
    pages.index(config)
    return config.into


@pytest.mark.slow
def test_every_kind_of_request_is_answered(index: str, tmp_path: Path) -> None:
    figures = list(measure(tmp_path, index, None, Load(clients=3, seconds=5.0, requests=60)))
    measured = [figure.measurement for figure in figures]
    expected = ["page", *(["browser"] * 4 if find_chromium() else []), "question", "question", "tile", "sound", "curve"]
    assert measured == [*expected, "question", "clients", "clients", "memory", "shell"]
    [errors] = [figure for figure in figures if figure.what.endswith(": errors")]
    assert (errors.value, errors.detail) == (0, "")
    assert all(figure.value > 0 for figure in figures if figure.unit in ("ms", "s"))


@pytest.mark.slow
def test_refused_request_has_no_time(index: str, tmp_path: Path) -> None:
    with serving(index, tmp_path, MIX) as (served, _):
        served.files[:] = [("no such file.wav", 10.0)]
        with (
            closing(Client(served, seed=0)) as client,
            pytest.raises(RuntimeError, match="file: the server answered with status 404"),
        ):
            client.time("file")


def test_index_is_given_or_made() -> None:
    done = CliRunner().invoke(make_app(), ["serve", "--hours", "1", "--index", "x.index"])
    assert done.exit_code == 2
    assert "leave out --index" in done.output
