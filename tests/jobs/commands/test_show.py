"""``earshot show`` and ``earshot locate --picture``."""

from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.commands import Call
from tests.helpers.contents import KnownCorpus


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        picture.load()
        return picture.size


def test_picture_of_a_file(corpus: KnownCorpus, call: Call, tmp_path: Path) -> None:
    file, out = corpus.folder / "b.wav", tmp_path / "b.png"
    code, printed, err = call("show", corpus.config.into, file, "--text", "a bell", "--text", "rain", "--out", out)
    assert (code, err) == (0, "")
    assert printed.startswith(f"{out}: ")
    assert "b.wav" in printed
    width, height = size_of(out)
    call("show", corpus.config.into, file, "--out", out, "--start", "0.1", "--end", "0.2")
    assert size_of(out)[0] == width
    assert size_of(out)[1] < height


def test_file_that_is_gone_shows_its_curve(corpus: KnownCorpus, call: Call, tmp_path: Path) -> None:
    file, out = corpus.folder / "c.wav", tmp_path / "c.png"
    code, printed, _ = call("show", corpus.config.into, file, "--text", "a bell", "--out", out)
    assert code == 0
    assert "the file is gone; its scores are those stored in the index" in printed
    assert size_of(out)[0] > 1_000
    code, _, err = call("show", corpus.config.into, file, "--out", tmp_path / "none.png")
    assert code == 1
    assert "name one with --text" in err
    assert not (tmp_path / "none.png").exists()


def test_file_that_has_changed_is_said_so(corpus: KnownCorpus, call: Call, tmp_path: Path) -> None:
    arguments = ("show", corpus.config.into, corpus.folder / "b.wav", "--out", tmp_path / "b.png")
    assert "has changed" not in call(*arguments)[1]
    corpus.touch("b.wav")
    assert "has changed" not in call(*arguments)[1]
    size_bytes = (corpus.folder / "b.wav").stat().st_size
    corpus.put("b.wav", 4)
    assert (corpus.folder / "b.wav").stat().st_size == size_bytes
    assert "the file has changed since it was indexed" in call(*arguments)[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("none.wav", "--out", "a.png"), "none.wav: no such file in"),
        (("b.wav", "--out", "a.gif"), "a.gif: the name of a picture ends in .png, .svg, .pdf"),
        (("b.wav", "--out", "a.png", "--start", "50"), "nothing from 50 s: the file lasts 1.70 s"),
        (("b.wav", "--out", "a.png", *["--text", "x"] * 6), "6 texts are more than the 5"),
        (("b.wav", "--out", "a.png", "--threshold", "2"), "not a probability"),
    ],
)
def test_wrong_call_is_one_line(
    arguments: tuple[str, ...], said: str, corpus: KnownCorpus, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(corpus.folder)
    code, _, err = call("show", corpus.config.into, *arguments)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert not Path("a.png").exists()


def test_picture_of_events(corpus: KnownCorpus, call: Call, tmp_path: Path) -> None:
    arguments = ("locate", corpus.config.into, "a bell", "--threshold", "1e-4", "-k", "9")
    plain, out = call(*arguments), tmp_path / "events.png"
    code, printed, err = call(*arguments, "--picture", out)
    assert (code, printed) == plain[:2]
    assert f"{out} shows" in err
    assert size_of(out)[0] > 500
    code, _, err = call(
        "locate", corpus.config.into, "a bell", "--threshold", "0.9999", "--picture", tmp_path / "n.png"
    )
    assert code == 0
    assert "there is no event to show" in err
    assert not (tmp_path / "n.png").exists()
    code, _, err = call(*arguments, "--picture", tmp_path / "events.jpeg")
    assert code == 2
