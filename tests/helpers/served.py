"""An index to be served, and a client of its app."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from starlette.testclient import TestClient

from jobs.serve.app import make_app
from jobs.serve.security import Access
from jobs.serve.service import Service, open_service
from pipeline.config import Config, make_config
from pipeline.run.driver import index_corpus
from tests.helpers.contents import SECTIONS
from tests.helpers.runs import WideEncoder, in_place

LENGTHS_S = {"a bell.wav": 3.0, "b.flac": 2.0, "雨 & Ü.wav": 1.3}
BROKEN = "broken.wav"


def make_corpus(root: Path) -> Config:
    """Three sounds with metadata and a file that is none, to be indexed in ``root``/index."""
    folder = root / "in"
    folder.mkdir(parents=True)
    for number, (name, length_s) in enumerate(LENGTHS_S.items()):
        samples = np.random.default_rng(number).normal(0, 0.1, (round(length_s * 44_100), 2))
        soundfile.write(folder / name, samples, 44_100)
    (folder / BROKEN).write_bytes(b"RIFF")
    names = [*LENGTHS_S, BROKEN]
    said = {
        "uri": [str(folder / name) for name in names],
        "place": ["yard", "yard", "O'Hare", None],
        "heard_at": pa.array([1_000_000, 2_000_000, None, None], pa.timestamp("us", tz="UTC")),
        "loudness": [1.5, float("inf"), None, 2.0],
    }
    pq.write_table(pa.table(said), root / "said.parquet")
    values: dict[str, Any] = {"sources": [str(folder)], "into": str(root / "index")}
    return make_config({**SECTIONS, **values, "corpus": {"metadata": str(root / "said.parquet")}})


def index(config: Config) -> None:
    index_corpus(config, stages=in_place(WideEncoder()))


def uri(config: Config, name: str) -> str:
    return str(Path(config.sources[0]) / name)


def make_client(service: Service | str, access: Access = Access(), **options: Any) -> TestClient:
    """A client that calls the app by the name ``localhost``."""
    served = open_service(service) if isinstance(service, str) else service
    return TestClient(make_app(served, access, **options), base_url="http://localhost:8765")
