"""The encoder runs where torch, transformers and numpy are installed and nothing else of the project's packages is."""

import re

from pipeline.encoder.encoder import resolve_precision
from pipeline.encoder.parity import LARGEST_DIFFERENCE
from tests.helpers.processes import print_of

OTHERS = "ray lancedb lance pyarrow soundfile soxr av pydantic typer rich fsspec"


def run(program: str, others: str = f"{OTHERS} yaml") -> str:
    return print_of(f"import sys; sys.modules.update(dict.fromkeys('{others}'.split()))\n{program}")


def test_every_module_of_the_encoder_imports_without_other_packages() -> None:
    program = (
        "import importlib, pkgutil, pipeline.encoder\n"
        "for module in pkgutil.iter_modules(pipeline.encoder.__path__, 'pipeline.encoder.'):\n"
        "    importlib.import_module(module.name); print(module.name)"
    )
    assert "pipeline.encoder.audio_tower" in run(program).split()


def test_bench_of_the_encoder_starts_without_other_packages() -> None:
    program = (
        "import runpy; sys.argv = ['jobs.bench', 'encoder', '--help']\nrunpy.run_module('jobs.bench', {}, '__main__')"
    )
    assert "--seconds" in run(program)


def test_the_encoder_is_measured_without_other_packages() -> None:
    """The tables have all ways and the parity. Transformers, which loads the model, needs yaml."""
    program = (
        "import runpy\n"
        "options = '--encoder --model earshot-tiny --device cpu --seconds 0.8 --rounds 1 --threads 1 --profile'\n"
        "sys.argv[1:] = options.split()\n"
        "runpy.run_module('jobs.bench', run_name='__main__')"
    )
    lines = [re.split(r"\s{2,}", line.strip()) for line in run(program, OTHERS).splitlines()]
    rows = [line for line in lines if line[0].startswith(("transformers", "earshot"))]
    precisions = list(dict.fromkeys(["float32", resolve_precision("auto", "cpu")]))
    plain = [["transformers", p, n] for p in precisions for n in "12"]
    plain += [["transformers, memory kept", p, "1"] for p in precisions]
    ours = [("earshot", "1"), ("earshot", "2"), ("earshot, from host memory", "1")]
    assert [row[:3] for row in rows] == plain + [[way, p, n] for p in precisions for way, n in ours]
    assert all(float(row[-1]) < LARGEST_DIFFERENCE for row in rows if row[1] == "float32")
    stages = [line[1] for line in lines if line[0] == "stage"]
    assert stages == [*(f"codec block {k}" for k in (1, 2, 3, 4)), "codec end", "transformer"]
    assert [line[1] for line in lines if line[0] == "operation"].count("aten::mkldnn_convolution") <= 1
    assert sum(line[0] == "operation" for line in lines) == 12
