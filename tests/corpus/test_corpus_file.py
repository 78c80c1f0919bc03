"""A file of the corpus knows its recording and estimates its duration."""

import pytest

from pipeline.corpus.corpus_file import CorpusFile
from pipeline.corpus.time_ranges import TimeRange, recording_of


@pytest.mark.parametrize(("start_s", "end_s"), [(None, None), (0.0, None), (1.5, None), (None, 2.0), (0.1, 1e16)])
@pytest.mark.parametrize("name", ["a.wav", "a#t=1,2", "s.tar#a.wav"])
def test_file_knows_its_recording_and_time_range(name: str, start_s: float | None, end_s: float | None) -> None:
    part = TimeRange(start_s, end_s)
    file = CorpusFile(f"{name}{part}", start_s, end_s, 1, 1, None)
    assert (file.recording, str(file.time_range), bool(file.time_range)) == (name, str(part), bool(part))
    assert recording_of({"uri": file.uri, "start_s": start_s, "end_s": end_s}) == name
