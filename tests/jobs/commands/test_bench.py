"""What ``earshot bench`` prints."""

import pytest

from jobs.commands.bench import print_figure


def test_each_figure_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    encode = {"part": "encode", "precision": "float32", "batch": 8, "processes": 2, "x": 3.0}
    for held in (8.0, 4.0, 0):
        print_figure({**encode, "batch_held": held})
    run = {"part": "run", "files": 2, "audio_s": 20.0, "x": 4.0, "of_what_parts_allow": 0.95, "start_s": 1.0}
    print_figure({**run, "encoded_per_audio": 1.23, "write_share": 0.01, "bottleneck": "encode"})
    whole, halved, none, told = capsys.readouterr().out.splitlines()
    assert whole.endswith("2 processes: 3.00x real time")
    assert halved.endswith("3.00x real time (4 fit)")
    assert none.endswith("8 windows a batch: does not fit")
    assert "95% of the ceiling that the stages predict (windows overlap: 1.23x the audio is encoded)" in told
