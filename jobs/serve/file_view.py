"""What the page shows of a file."""

from typing import Any

from pipeline.schema import Row
from pipeline.search.presence import Presence


def describe(file: Row, presence: Presence, metadata: dict[str, Any]) -> dict[str, Any]:
    """The answer about a row of ``files``, JSON."""
    shown = ("uri", "file_id", "audio_id", "status", "reason", "message", "duration_s", "sample_rate_hz", "channels")
    return {
        **{name: file[name] for name in (*shown, "codec", "size_bytes", "n_frames")},
        "note": file.get("note"),
        "metadata": metadata,
        "is_gone": presence.is_gone,
        "is_changed": presence.is_changed,
    }
