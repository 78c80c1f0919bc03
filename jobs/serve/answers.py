"""The answers of the API as models. The OpenAPI description is made of them."""

import datetime as dt
import math
from typing import Any, Literal

from pydantic import BaseModel, Field

from pipeline.schema import Row
from pipeline.search.found import Event, Hit


class Error(BaseModel):
    error: str = Field(description="One line that says what is wrong and what to do.")


Kind = Literal["text", "number", "time", "flag"]


class Column(BaseModel):
    name: str
    type: str
    kind: Kind = Field(description="How its values are compared.")


class Models(BaseModel):
    clip: str
    frame: str | None


class Info(BaseModel):
    index: str
    seq: int = Field(description="The number of the state that is open; requests pin it with `at`.")
    newest_seq: int = Field(description="The number of the newest published state.")
    is_writing: bool = Field(description="Whether a run writes to the index.")
    version: str = Field(description="Earshot's.")
    files: int
    indexed: int
    failed: int
    hours: float
    has_frames: bool = Field(description="Whether events can be located.")
    threshold: float
    frame_s: float
    models: Models
    columns: list[Column] = Field(description="The columns that `where` may name, the user's metadata first.")
    n_marks: int
    who: str = Field(description="The user that runs the server: the name on marks that are sent without one.")
    max_upload_bytes: int = Field(description="Of a sound that is sent, with the form around it.")


class Value(BaseModel):
    value: Any
    n_files: int


class Values(BaseModel):
    column: str
    values: list[Value]
    is_cut: bool = Field(description="Whether there are more values.")


class Found(BaseModel):
    rank: int
    uri: str
    start_s: float
    end_s: float
    score: float
    probability: float | None
    peak_s: float | None = Field(None, description="Of events.")
    clip_id: str | None = Field(None, description="Of clips.")
    file_id: str | None
    audio_id: str | None
    duration_s: float | None = Field(description="Of the file.")
    metadata: dict[str, Any]


class Clips(BaseModel):
    kind: Literal["query", "similar"]
    text: str | None = None
    hits: list[Found]
    took_ms: float


class EventsOfText(BaseModel):
    text: str
    hits: list[Found]
    is_cut: bool = Field(description="Whether there may be better events, which `exact` would find.")


class Located(BaseModel):
    kind: Literal["locate"]
    results: list[EventsOfText]
    took_ms: float


class File(BaseModel):
    uri: str
    file_id: str
    audio_id: str | None
    status: str
    reason: str | None
    message: str | None
    note: str | None
    duration_s: float | None
    sample_rate_hz: int | None
    channels: int | None
    codec: str | None
    size_bytes: int | None
    n_frames: int
    metadata: dict[str, Any]
    is_gone: bool = Field(description="Whether the file is not at its place now.")
    is_changed: bool = Field(description="Whether the file at its place is another than the indexed one.")


class Curve(BaseModel):
    uri: str
    audio_id: str
    text: str
    first_frame: int = Field(
        description="The frame of the file at which the first score begins, a multiple of `step_frames`; frame n begins"
        " at n times `frame_s` seconds."
    )
    frame_s: float = Field(description="Seconds of a stored frame, as in /api/info.")
    step_frames: int = Field(description="Frames for which one score stands: it is that of the best.")
    scores: list[float]
    logit_scale: float
    logit_bias: float = Field(description="The probability of a score is sigmoid(logit_scale * score + logit_bias).")
    threshold: float


class MarkAnswer(BaseModel):
    uri: str
    start_s: float
    end_s: float
    text: str
    verdict: str
    score: float | None
    who: str
    marked_at: str
    status: str = Field(description="here, or gone where no indexed file holds the content that was marked.")
    uris: list[str] = Field(description="The indexed files that hold it.")
    audio_id: str
    first_frame: int
    stop_frame: int


class Marks(BaseModel):
    marks: list[MarkAnswer]
    is_cut: bool


def to_value(value: Any) -> Any:
    """A value of metadata as JSON has it: times as in ISO 8601, numbers that are not finite as null."""
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_found(hit: Hit | Event, file: Row | None) -> dict[str, Any]:
    """A hit with the ids of its file. The fields of `earshot query --json` come first."""
    return {
        **{name: value for name, value in vars(hit).items() if name != "metadata"},
        "file_id": file and file["file_id"],
        "duration_s": file and file["duration_s"],
        "metadata": {name: to_value(value) for name, value in hit.metadata.items()},
    }
