"""Which configurations are valid, and how mistakes in others are told."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from pipeline.config import Config, load_config, make_config
from pipeline.errors import ConfigError
from pipeline.grid import Grid

SMALLEST = {"into": "/index", "sources": ["/sounds"]}


def write(path: Path, values: Any) -> Path:
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.mark.parametrize("into", ["sftp://h/ix", "https://h/ix", "gcs://b/ix", "oss://b/ix"])
def test_only_stores_that_lance_knows_hold_an_index(into: str) -> None:
    with pytest.raises(ConfigError, match=rf"`into`: {into}: an index cannot lie there: give a folder, or s3://"):
        make_config({"sources": "x", "into": into})
    for good in ("s3://b/ix", "gs://b/ix", "az://b/ix", "ix", "/tmp/ix"):
        assert make_config({"sources": "x", "into": good}).into == good


def test_smallest_configuration_has_windows_of_10_s_the_bundled_model_and_all_frames() -> None:
    config = make_config(SMALLEST)
    assert config.window.grid == Grid(250, 10)
    assert (config.encode.clip_model, config.encode.frame_model) == ("earshot-tiny", None)
    assert (config.store.frames, config.store.keep_hours) == ("all", 24.0)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"wndow": {}}, ["unknown key `wndow`", "known: into, sources"]),
        (
            {"window": {"lenght_s": 5}},
            ["unknown key `window.lenght_s`, did you mean length_s? (known: length_s, overlap_s, tail)"],
        ),
        ({"window": {"length_s": 0.2}}, ["`window.length_s`", "greater than or equal to 0.4", "not 0.2"]),
        ({"window": {"length_s": 500}}, ["`window.length_s`", "less than or equal to 400", "not 500"]),
        ({"window": {"length_s": 10.01}}, ["window", "length_s: 10.01 is not a multiple of 0.04 s"]),
        ({"window": {"length_s": 1.0, "overlap_s": 0.52}}, ["window", "overlap_s: 0.52 is more than half of length_s"]),
        ({"window": {"overlap_s": float("nan")}}, ["`window.overlap_s`", "nan"]),
        ({"encode": {"device": "tpu"}}, ["`encode.device`", "'cpu'", "not 'tpu'"]),
        ({"encode": {"batch_windows": 0}}, ["`encode.batch_windows`", "not 0"]),
        ({"encode": {"actors": 4, "max_actors": 3}}, ["`encode`", "max_actors: 3 is less than actors (4)"]),
        ({"encode": {"actors_per_gpu": 0}}, ["`encode.actors_per_gpu`", "not 0"]),
        ({"store": {"checkpoint_s": 0}}, ["`store.checkpoint_s`", "greater than 0", "not 0"]),
        ({"run": {"max_failed_fraction": 1.5}}, ["`run.max_failed_fraction`", "not 1.5"]),
        ({"sources": []}, ["`sources`", "at least 1"]),
        ({"into": None}, ["`into`", "not None"]),
        ({"corpus": 3}, ["`corpus`", "not 3"]),
    ],
)
def test_mistake_is_told_with_key_value_and_allowed_range(change: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        make_config(SMALLEST | change, "run.yaml")
    text = str(error.value)
    assert text.startswith("run.yaml: ")
    assert "\n" not in text
    for part in parts:
        assert part in text


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        make_config({"sources": "/a", "hidden": True})
    assert "`into` is missing" in str(error.value)
    assert "unknown key `hidden`" in str(error.value)


def test_configuration_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        make_config(SMALLEST).store.frames = "none"  # type: ignore[misc]


def test_one_source_and_extensions_are_normalised() -> None:
    config = make_config({"into": "x", "sources": "/a b", "corpus": {"extensions": [".WAV", "*.Flac", "*"]}})
    assert config.sources == ("/a b",)
    assert config.corpus.extensions == ("wav", "flac", "*")


def test_relative_paths_start_from_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    path = write(
        tmp_path / "run.yaml",
        {
            "into": "out",
            "sources": ["../a", "/b/*.wav", "~/c", "s3://bucket/d", "~nobody-of-this-name/e", "*.wav"],
            "encode": {"clip_model": "./m", "frame_model": "facebook/pe-a-frame-base"},
        },
    )
    config = load_config(path)
    assert config.into == str(tmp_path / "out")
    assert config.sources == (
        str(tmp_path / "../a"),
        "/b/*.wav",
        str(home / "c"),
        "s3://bucket/d",
        str(tmp_path / "~nobody-of-this-name/e"),
        str(tmp_path / "*.wav"),
    )
    assert config.encode.clip_model == str(tmp_path / "m")
    assert config.encode.frame_model == "facebook/pe-a-frame-base"
    (tmp_path / "facebook" / "pe-a-frame-base").mkdir(parents=True)
    assert load_config(path).encode.frame_model == str(tmp_path / "facebook" / "pe-a-frame-base")


def test_example_configurations_name_every_key() -> None:
    def keys(model: type[BaseModel]) -> dict[str, Any]:
        fields = {name: field.annotation for name, field in model.model_fields.items()}
        return {
            name: keys(kind) if isinstance(kind, type) and issubclass(kind, BaseModel) else None
            for name, kind in fields.items()
        }

    def named(values: dict[str, Any]) -> dict[str, Any]:
        return {name: named(value) if isinstance(value, dict) else None for name, value in values.items()}

    files = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
    assert [file.stem for file in files] == ["cluster", "gpu-box", "laptop"]
    for file in files:
        assert named(yaml.safe_load(file.read_text())) == keys(Config), file.name
        values = load_config(file).model_dump()
        for section in ("corpus", "decode", "window", *(("store", "run") if file.stem == "laptop" else ())):
            assert values[section] == make_config({"sources": "x", "into": "y"}).model_dump()[section], file.name


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "expected a mapping"),
        (b"- a\n", "expected a mapping"),
        (b"a: [1\n", "is not YAML"),
        (b"into: 2024-13-45\n", "is not YAML"),
        (b"a: \xff\n", "cannot be read"),
        (b"1: 2\n", "into"),
        (b"into: {}\nsources: /a\n", "`into`"),
        (None, "cannot be read"),
    ],
)
def test_file_that_is_no_configuration_is_told_in_one_line(tmp_path: Path, data: bytes | None, part: str) -> None:
    path = tmp_path / "run.yaml"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert str(error.value).startswith(f"{path}: ")
    assert part in str(error.value)
    assert "\n" not in str(error.value)


_names = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=20)
_positive = st.floats(min_value=1e-6, max_value=1e9)
_lengths = st.integers(10, 10_000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n // 2)))


def _sections(length_frames: int, overlap_frames: int) -> st.SearchStrategy[dict[str, Any]]:
    window = {"length_s": length_frames * 1920 / 48_000, "overlap_s": overlap_frames * 1920 / 48_000}
    return st.fixed_dictionaries(
        {"into": _names, "sources": st.lists(_names, min_size=1, max_size=3), "window": st.just(window)},
        optional={
            "corpus": st.fixed_dictionaries(
                {}, optional={"extensions": st.none() | st.lists(_names, max_size=3), "hidden": st.booleans()}
            ),
            "decode": st.fixed_dictionaries({"resampler": st.sampled_from(["HQ", "VHQ"])}),
            "encode": st.fixed_dictionaries(
                {"clip_model": _names, "batch_windows": st.integers(1, 1024)},
                optional={"frame_model": st.none() | _names, "actors": st.none() | st.integers(1, 99)},
            ),
            "store": st.fixed_dictionaries({"frames": st.sampled_from(["all", "none"]), "checkpoint_s": _positive}),
            "run": st.fixed_dictionaries({"max_failed_fraction": st.floats(0, 1), "batch_s": _positive}),
        },
    )


@settings(deadline=None)
@given(values=_lengths.flatmap(lambda pair: _sections(*pair)))
def test_configuration_survives_yaml_and_json(values: dict[str, Any]) -> None:
    config = make_config(values)
    again = make_config(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json"))))
    assert again == config
    assert Config.model_validate_json(config.model_dump_json()) == config


def test_a_retired_key_has_no_effect_and_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("sources: [a]\ninto: b\nstore: {keep_versions: 9, keep_hours: 2}\n")
    with pytest.warns(UserWarning, match=r"run.yaml: `store.keep_versions` has no effect any more: the newest 20"):
        assert load_config(file).store.keep_hours == 2.0
    assert "keep_versions" in file.read_text()
