"""Commands that index: the summary, and the exit code of a run without audio."""

import re

from tests.helpers.commands import Call
from tests.helpers.contents import KnownCorpus


def test_folder_without_audio_exits_with_1(corpus: KnownCorpus, call: Call) -> None:
    empty, into = corpus.root / "empty", corpus.config.into
    empty.mkdir()
    (empty / "notes.txt").write_text("no sound")
    code, _, err = call("index", empty, "--into", corpus.root / "of-nothing")
    assert (code, err.count("corpus.extensions")) == (1, 1)
    (empty / "broken.wav").write_text("no sound")
    assert call("index", empty, "--into", corpus.root / "of-nothing")[0] == 1
    # All new files fail, but others are indexed: `failures` lists them, and the exit code is 0.
    assert call("reindex", into)[0] == 0
    (corpus.folder / "broken too.wav").write_text("no sound")
    code, out, _ = call("reindex", into)
    assert (code, " 0 indexed, " in out, " 1 failed, " in out) == (0, True, True)


def test_summary_of_one_file_is_singular(corpus: KnownCorpus, call: Call) -> None:
    only, into = corpus.root / "only", corpus.root / "one"
    only.mkdir()
    (only / "a.wav").write_bytes((corpus.folder / "moved.wav").read_bytes())
    code, out, err = call("index", only, "--into", into)
    assert code == 0
    assert out.startswith("1 file: 1 indexed, ")
    assert re.search(r" of \d+ s of audio in ", out)
    assert re.search(r"^1 file to encode, about \d+ s of audio; about ", err, re.MULTILINE)
