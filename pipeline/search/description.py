"""What an index is and how it came about, in the words of ``earshot info`` and ``earshot history``."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pyarrow.compute as pc

from pipeline import storage
from pipeline.index import journal
from pipeline.index.handle import Generation, Handle
from pipeline.index.search_settings import SearchSettings
from pipeline.index.tuning import COMMANDS, has_vector_index, is_approximate, read_trained
from pipeline.search.tables import read_rows
from pipeline.words import count

STATUSES = ("indexed", "failed", "deleted")


def count_rows(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Files by status, rows of clips and frames, hours of indexed audio, and indexed files by codec, the most frequent
    first, in tables from ``tables.open_table``."""
    files = read_rows(tables["files"], ["status", "duration_s", "codec"])
    n_with = {status: pc.sum(pc.equal(files["status"], status)).as_py() or 0 for status in STATUSES}
    indexed = files.filter(pc.equal(files["status"], "indexed"))
    return {
        "files": files.num_rows - n_with["deleted"],
        **n_with,
        "clips": tables["clips"].count_rows(),
        "frames": tables["frames"].count_rows(),
        "hours": (pc.sum(indexed["duration_s"]).as_py() or 0.0) / 3600,
        "codecs": dict(Counter(indexed["codec"].to_pylist()).most_common()),
    }


def describe_place(handle: Handle, seq: int) -> dict[str, Any]:
    """The sources, the format and the size of an index; and when what is published was last changed, and by which
    version of Earshot.

    Args:
        seq: of the last row of the journal that counts.
    """
    live = handle.live
    rows = _read_rows(live.path, seq)
    return {
        "sources": (live.config or {}).get("sources"),
        "updated_at": max(row["committed_at"] for row in rows).isoformat(),
        "written_by": journal.writer_version(rows[-1]),
        "bytes": storage.count_bytes(handle.path),
        "format": live.format,
    }


def describe_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The models, their dimension, and how files are cut."""
    frame_model = settings["frame_model"]
    return {
        "clip_model": settings["clip_model"]["name"],
        "frame_model": frame_model and frame_model["name"],
        "dimension": settings["clip_model"]["dimension"],
        "window": {key: settings["window"][key] for key in ("length_s", "overlap_s", "tail")},
    }


def describe_recall(live: Generation) -> dict[str, Any] | None:
    """What vector indexes find, as measured last, and the settings; None where every answer is exact.

    ``of_former_index`` names the commands whose vector index was built anew since.
    """
    tuning = live.tuning
    if not is_approximate(live):
        return None
    if tuning is None:
        return {"measured_at": None, "settings": asdict(SearchSettings())}
    shown, former = dict[str, Any](), list[str]()
    for name, commands in COMMANDS.items():
        trained = read_trained(live, name)
        for command in commands:
            if command in tuning.measured and has_vector_index(live, name):
                shown[command] = asdict(tuning.measured[command])
                if trained is not None and tuning.is_about(name, trained) is False:
                    former.append(command)
    return {
        "measured_at": tuning.measured_at and tuning.measured_at.isoformat(),
        "seconds": tuning.seconds,
        "wanted": tuning.wanted,
        **shown,
        "of_former_index": former,
        "settings": asdict(tuning.settings),
    }


def describe_rebuild(handle: Handle) -> str | None:
    """How far an unfinished rebuild has come, running or stopped; None if there is none."""
    begun = handle.refresh().find_next()
    if not begun.exists:
        return None
    n_files = begun.open("files").count_rows()
    return f"{count(n_files, 'file')} done; `--rebuild` goes on with it, deleting {begun.path} gives it up"


def list_history(path: str, seq: int) -> list[dict[str, Any]]:
    """The rows of the journal at ``path`` up to ``seq``, oldest first."""
    found = []
    for row in _read_rows(path, seq):
        seconds = row["seconds"]
        found.append(
            {
                "batch": row["seq"],
                "committed_at": row["committed_at"].isoformat(),
                "kind": row["kind"],
                **{name: row[f"n_{name}"] for name in ("files", "failed", "clips", "frames")},
                "hours": row["audio_s"] / 3600,
                "speed": journal.encoded_s(row) / seconds if seconds and row["audio_s"] else None,
            }
        )
    return found


def _read_rows(path: str, seq: int) -> list[dict[str, Any]]:
    return [row for row in journal.read_journal(path).to_pylist() if row["seq"] <= seq]
