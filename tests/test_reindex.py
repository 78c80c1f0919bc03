"""Corpus edits, crashes and reruns in any order: the live rows are those of one undisturbed run over today's corpus.

The store, the plan, the commits and the recovery are the real ones, on Lance; decoding too. Only Ray is left out, and
the encoder is a cheap one, so that thousands of steps take minutes.
"""

import contextlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from pipeline import journal, schema, store
from pipeline.collect import clip_rows
from pipeline.config import Config, make_config
from pipeline.decode import decode_all, hash_file
from pipeline.errors import CorpusError, EarshotError, FileFailure
from pipeline.plan import ACTIONS, Choice
from pipeline.run import Stages, index_corpus, plan_corpus
from pipeline.window import cut_windows
from tests.fakes import noise, write_wav
from tests.test_run import WideEncoder, in_place

STEPS = [
    *(f"{step} {name}" for name in ("frames", "clips", "files") for step in ("recover", "delete", "append", "index")),
    "publish",
    "tag",
]
"""Of the commit protocol: a crash is tried before each."""

RUNS: Counter[str] = Counter()
"""How often each thing happened, over all examples: it is shown at the end, and all must have happened."""

NAMES = ["a.wav", "b.wav", "c.wav", "sub/d.wav", "sub/e.wav"]
SECTIONS: dict[str, Any] = {
    "window": {"length_s": 0.8, "overlap_s": 0.2},
    "run": {"batch_s": 2.0},
    "store": {"checkpoint_rows": 60, "keep_versions": 3},
}


class Crash(Exception):
    pass


class Contents:
    """A few contents, and what an undisturbed run makes of each: worked out once, without plan or store."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        config = make_config({"sources": "x", "into": "y", **SECTIONS})
        self.grid = config.window.grid
        lengths = [0.3, 0.3, 0.9, 1.7, 1.7, 2.5]  # equal sizes among them: what may be the same is told by hash
        self.files = [write_wav(self.folder / f"{n}", noise(length, seed=n)) for n, length in enumerate(lengths)]
        for n, data in enumerate([b"", b"no sound", b"RIFF and no more"]):
            self.files.append(self.folder / f"broken{n}")
            self.files[-1].write_bytes(data)
        self.expected = [self._expect(file, config) for file in self.files]

    def _expect(self, file: Path, config: Config) -> dict[str, Any]:
        audio_id = schema.make_audio_id(hash_file(file))
        try:
            samples, _ = decode_all(file, config.decode)
        except FileFailure as failure:
            return {"audio_id": audio_id, "reason": failure.reason, "clips": [], "frames": []}
        clips, frames = [], []
        for span, window in cut_windows([samples], self.grid):
            vectors, frame_vectors = WideEncoder().encode([window])
            [clip], [rows] = vectors, frame_vectors or []
            clips.append(clip.astype(np.float16).tobytes())
            own = rows[span.own_first - span.first : span.own_stop - span.first].astype(np.float16)
            frames += [(audio_id, span.own_first + k, row.tobytes()) for k, row in enumerate(own)]
        duration_s = len(samples) / 48_000
        return {"audio_id": audio_id, "reason": None, "clips": clips, "frames": frames, "duration_s": duration_s}


CONTENTS = Contents()
contents = st.integers(0, len(CONTENTS.files) - 1)
names = st.sampled_from(NAMES)
some = st.integers(0, 99)


def live(index: str) -> dict[str, list[Any]]:
    """The rows that an undisturbed run over the same corpus would have, in comparable form."""
    files = store.open_published(index, "files").to_table().to_pylist()
    clips = store.open_published(index, "clips").to_table().to_pylist()
    frames = store.open_published(index, "frames").to_table().to_pylist()

    def half(row: dict[str, Any]) -> bytes:
        return np.array(row["vector"], np.float16).tobytes()

    return {
        "files": sorted(
            (f["uri"], f["audio_id"], f["reason"], f["n_clips"]) for f in files if f["status"] != "deleted"
        ),
        "clips": sorted((c["clip_id"], c["file_id"], c["uri"], c["start_s"], c["end_s"], half(c)) for c in clips),
        "frames": sorted((f["audio_id"], f["frame"], half(f)) for f in frames),
    }


class Corpus(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.folder = self.root / "in"
        (self.folder / "sub").mkdir(parents=True)
        self.config = make_config({"sources": [str(self.folder)], "into": str(self.root / "index"), **SECTIONS})
        self.now = 1_000_000_000
        self.held: dict[str, int] = {}
        self.ever: set[str] = set()
        for number, name in enumerate(NAMES[:4]):
            self.put(name, number + 1)
        self.check(Choice())

    def teardown(self) -> None:
        if hasattr(self, "config"):
            self.check(Choice())
        shutil.rmtree(self.root, ignore_errors=True)

    # --- edits

    def pick(self, which: int) -> str:
        """One of the files that are there."""
        return sorted(self.held)[which % len(self.held)]

    @rule(name=names, content=contents)
    def put(self, name: str, content: int) -> None:
        """Add a file, or change one: also into a broken one, and back."""
        shutil.copyfile(CONTENTS.files[content], self.folder / name)
        self.held[name] = content
        self.set_time(name)

    @rule(which=some)
    def touch(self, which: int) -> None:
        self.set_time(self.pick(which))

    def set_time(self, name: str) -> None:
        self.now += 1
        os.utime(self.folder / name, ns=(self.now, self.now))

    @rule(which=some)
    def delete(self, which: int) -> None:
        if len(self.held) > 1:
            name = self.pick(which)
            (self.folder / name).unlink()
            del self.held[name]

    @rule(which=some, new=names)
    def move(self, which: int, new: str) -> None:
        old = self.pick(which)
        if old != new:
            (self.folder / old).rename(self.folder / new)
            self.held[new] = self.held.pop(old)

    @rule(which=some)
    def swap(self, which: int) -> None:
        one, other = self.pick(which), self.pick(which + 1)
        if one != other:
            scratch = self.root / "scratch"
            (self.folder / one).rename(scratch)
            (self.folder / other).rename(self.folder / one)
            scratch.rename(self.folder / other)
            self.held[one], self.held[other] = self.held[other], self.held[one]

    # --- runs

    @rule()
    def reindex(self) -> None:
        self.check(Choice())

    @rule(choice=st.sampled_from([Choice(check_content=True), Choice(retry_failed=True), Choice(full=True)]))
    def reindex_otherwise(self, choice: Choice) -> None:
        self.check(choice)

    def check(self, choice: Choice) -> None:
        """Run to the end, and compare with what an undisturbed run would have made."""
        RUNS["finished"] += 1
        encoder = WideEncoder()
        planned = plan_corpus(self.config, choice)
        for _, action, _ in planned.actions:
            RUNS[action] += 1
        progress = index_corpus(self.config, stages=in_place(encoder), choice=choice)
        assert sorted(uri for uri, _, _ in planned.actions) == sorted(
            self.uris() | {row["uri"] for row in planned.gone}
        )
        assert progress.n_files == progress.n_done == len(self.held)
        assert live(self.config.into) == self.expected()
        ledger = store.open_published(self.config.into, "files").to_table(["uri", "status"]).to_pylist()
        assert len(ledger) == len({row["uri"] for row in ledger})
        assert {row["uri"] for row in ledger} >= self.ever | self.uris()
        self.remember()
        if not choice.full:
            again = plan_corpus(self.config)
            assert again.n_unchanged == len(self.held)
            assert not again.gone

    @rule(name=names, content=contents, at=st.integers(0, 9))
    def crash_before_a_step(self, name: str, content: int, at: int) -> None:
        """Stop a run just before one of the steps of its commits."""
        self.put(name, content)
        left = at

        def seam(step: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                RUNS[f"crash: {step}"] += 1
                raise Crash(step)

        self.run_into_crash(in_place(WideEncoder()), seam)

    @rule(name=names, content=contents, at=st.integers(0, 2))
    def crash_while_encoding(self, name: str, content: int, at: int) -> None:
        self.put(name, content)

        def before(number: int) -> None:
            if number == at:
                RUNS["crash: encoding"] += 1
                raise Crash("while encoding")

        self.run_into_crash(in_place(WideEncoder(), before))

    def run_into_crash(self, stages: Stages, seam: journal.Seam = lambda step: None) -> None:
        with contextlib.suppress(EarshotError):  # unless there was too little to do
            index_corpus(self.config, stages=stages, seam=seam)
        self.remember()

    @rule(back=st.integers(1, 3))
    def restore(self, back: int) -> None:
        if journal.exists(self.config.into):
            writer = store.Writer(self.config.into, "e" * 32, keep_versions=3)
            seq = max(0, writer.published.seq - back)
            writer.restore(seq)
            self.ever = set()
            self.remember()

    @invariant()
    def readers_see_whole_files(self) -> None:
        """Whatever has happened, what is published fits together."""
        if not hasattr(self, "config") or not journal.exists(self.config.into):
            return
        files = store.open_published(self.config.into, "files").to_table().to_pylist()
        clips = Counter(store.open_published(self.config.into, "clips").to_table(["file_id"])["file_id"].to_pylist())
        frames = Counter(
            store.open_published(self.config.into, "frames").to_table(["audio_id"])["audio_id"].to_pylist()
        )
        assert len({row["uri"] for row in files}) == len(files)
        assert clips == {row["file_id"]: row["n_clips"] for row in files if row["n_clips"]}
        assert frames == {row["audio_id"]: row["n_frames"] for row in files if row["n_frames"]}

    # --- what is expected

    def uri(self, name: str) -> str:
        return str(self.folder / name)

    def uris(self) -> set[str]:
        return {self.uri(name) for name in self.held}

    def remember(self) -> None:
        """What the ledger has seen so far, by its own word: which files a stopped run got to is its own affair."""
        if journal.exists(self.config.into):
            self.ever |= set(store.open_published(self.config.into, "files").to_table(["uri"])["uri"].to_pylist())

    def expected(self) -> dict[str, list[Any]]:
        files, clips, frames = [], [], {}
        for name, content in self.held.items():
            known = CONTENTS.expected[content]
            uri, audio_id = self.uri(name), known["audio_id"]
            files.append((uri, audio_id, known["reason"], len(known["clips"])))
            if known["clips"]:
                row = {"file_id": schema.make_file_id(uri, audio_id), "audio_id": audio_id, "uri": uri}
                row |= {"duration_s": known["duration_s"], "codec": "", "channels": 1, "sample_rate_hz": 48_000}
                for clip, vector in zip(clip_rows(row, CONTENTS.grid), known["clips"], strict=True):
                    clips.append((clip["clip_id"], clip["file_id"], uri, clip["start_s"], clip["end_s"], vector))
                frames[audio_id] = known["frames"]
        return {
            "files": sorted(files),
            "clips": sorted(clips),
            "frames": sorted(frame for rows in frames.values() for frame in rows),
        }


def explore(n_examples: int) -> None:
    RUNS.clear()
    checks = settings(
        deadline=None, max_examples=n_examples, stateful_step_count=25, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(Corpus, settings=checks)
    print(dict(RUNS))


def test_any_edits_crashes_and_reruns_end_as_one_undisturbed_run() -> None:
    explore(6)
    assert RUNS["finished"] > 12


@pytest.mark.slow
def test_thousands_of_edits_crashes_and_reruns_end_as_one_undisturbed_run() -> None:
    explore(200)
    assert RUNS.keys() >= {"finished", "crash: encoding", *ACTIONS, *(f"crash: {step}" for step in STEPS)}


@pytest.fixture(scope="module", autouse=True)
def _clean_up() -> Iterator[None]:
    yield
    shutil.rmtree(CONTENTS.folder, ignore_errors=True)


def test_moves_and_duplicates_cost_no_encoding_and_leave_the_frames_alone(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    config = make_config({"sources": [str(folder)], "into": str(tmp_path / "index"), **SECTIONS})
    for n in (2, 3, 5):
        shutil.copyfile(CONTENTS.files[n], folder / f"{n}.wav")
    index_corpus(config, stages=in_place(WideEncoder()))
    frames = journal.read_published(config.into).versions["frames"]
    (folder / "3.wav").rename(folder / "moved.wav")
    shutil.copyfile(CONTENTS.files[5], folder / "copy.wav")
    plan = plan_corpus(config)
    actions = {Path(uri).name: (action, reason) for uri, action, reason in plan.actions}
    assert {name: action for name, (action, _) in actions.items()} == {
        "2.wav": "unchanged",
        "3.wav": "deleted",
        "5.wav": "unchanged",
        "copy.wav": "duplicate",
        "moved.wav": "moved",
    }
    assert "3.wav" in actions["moved.wav"][1]
    assert (plan.n_to_decode, plan.seconds_to_decode) == (0, 0)
    encoder = WideEncoder()
    progress = index_corpus(config, stages=in_place(encoder))
    assert (encoder.n_windows, progress.n_frames) == (0, 0)
    assert journal.read_published(config.into).versions["frames"] == frames
    (folder / "copy.wav").unlink()
    index_corpus(config, stages=in_place(encoder))
    assert journal.read_published(config.into).versions["frames"] == frames
    (folder / "5.wav").unlink()
    index_corpus(config, stages=in_place(encoder))
    left = set(store.open_published(config.into, "frames").to_table(["audio_id"])["audio_id"].to_pylist())
    assert left == {CONTENTS.expected[n]["audio_id"] for n in (2, 3)}


def test_what_a_closed_folder_holds_is_not_taken_for_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.wav", "sub/b.wav"):
        shutil.copyfile(CONTENTS.files[2], folder / name)
    config = make_config({"sources": [str(folder)], "into": str(tmp_path / "index"), **SECTIONS})
    index_corpus(config, stages=in_place(WideEncoder()))
    real = os.scandir

    def closed(path: str) -> Any:
        if str(path).endswith("/sub"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert not plan_corpus(config).gone
    index_corpus(config, stages=in_place(WideEncoder()))
    rows = store.open_published(config.into, "files").to_table(["uri", "status"]).to_pylist()
    assert {Path(row["uri"]).name: row["status"] for row in rows} == {
        "a.wav": "indexed",
        "b.wav": "indexed",
        "sub": "failed",
    }


def test_a_source_that_has_become_empty_stops_the_run_and_nothing_goes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        shutil.copyfile(CONTENTS.files[2 if name == "one" else 3], tmp_path / name / "a.wav")
    sources = [str(tmp_path / "one"), str(tmp_path / "other")]
    config = make_config({"sources": sources, "into": str(tmp_path / "index"), **SECTIONS})
    index_corpus(config, stages=in_place(WideEncoder()))
    before = live(config.into)
    (tmp_path / "other" / "a.wav").unlink()
    for action in (lambda: plan_corpus(config), lambda: index_corpus(config, stages=in_place(WideEncoder()))):
        with pytest.raises(CorpusError, match=r"other: holds no audio now, and the index has 1 files of it"):
            action()
    assert live(config.into) == before
    without = make_config({"sources": sources[:1], "into": config.into, **SECTIONS})
    assert index_corpus(without, stages=in_place(WideEncoder())).n_deleted == 1
    assert len(live(config.into)["files"]) == 1
