"""Recordings over HTTP: heard as WAV files, of which any part can be asked for, and seen as scores."""

from contextlib import ExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from jobs.serve import answers, limits
from jobs.serve.byte_ranges import OutOfRange, applies, read_range
from jobs.serve.errors import NotFound
from jobs.serve.search_routes import ERRORS, THRESHOLD, At, Text, Uri, require_file, require_sound
from jobs.serve.service import Service
from jobs.serve.sounds import (
    Span,
    check_span,
    make_content_key,
    make_key,
    make_span_wave,
    require_whole,
)
from jobs.serve.states import State
from jobs.serve.streams import SourceResponse
from jobs.serve.wave import WaveStream
from pipeline.grid import FRAME_S

Start = Annotated[
    float, Query(ge=0, le=limits.MAX_S, allow_inf_nan=False, description="Seconds from the start of the file.")
]
End = Annotated[
    float | None,
    Query(
        gt=0,
        le=limits.MAX_S,
        allow_inf_nan=False,
        description="Seconds from the file's start; by default its end.",
    ),
]
BYTES = {"schema": {"type": "string", "format": "binary"}}
SOUND = {"content": {"audio/wav": BYTES}}


def make_media_router(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/api", responses=ERRORS)
    sounds = service.sounds

    async def answer_sound(request: Request, uri: str, span: Span, expand: int, at: int | None) -> Response:
        pool = service.workers.sounds
        file = await service.ask(request, at, lambda state: require_sound(state, uri), pool)
        require_whole(file, await service.find_presence(request, file, pool))
        wave = await pool.run(request, lambda: make_span_wave(uri, sounds.find(file), span, expand))
        tag = f'"{make_key(make_content_key(file), wave)[:32]}"'
        headers = {"Accept-Ranges": "bytes", "ETag": tag, "Cache-Control": "private, no-cache"}
        asked = request.headers.get("range") if applies(request.headers.get("if-range"), tag) else None
        try:
            part = read_range(asked, wave.n_bytes)
        except OutOfRange:
            said = {"error": f"the sound has {wave.n_bytes} bytes; none of those that `Range` asks for"}
            return JSONResponse(said, 416, {**headers, "Content-Range": f"bytes */{wave.n_bytes}"})
        first, stop = part or (0, wave.n_bytes)
        if part:
            headers["Content-Range"] = f"bytes {first}-{stop - 1}/{wave.n_bytes}"
        headers["Content-Length"] = str(stop - first)
        with ExitStack() as held:
            held.enter_context(service.sounds_sent.hold(1))
            stream = await pool.run(
                request, lambda: WaveStream(wave, sounds.open(file), first, stop), close=WaveStream.close
            )
            if stream.is_approximate:
                headers["X-Earshot-Approximate"] = "1"
            headers["Content-Type"] = "audio/wav"
            status = 206 if part else 200
            if request.method == "HEAD":
                pool.submit(stream.close)
                return Response(status_code=status, headers=headers)
            answer = SourceResponse(request, pool, stream, headers, held.pop_all())
        answer.status_code = status
        return answer

    @router.get(
        "/audio", response_class=Response, responses={200: SOUND, 206: SOUND | {"description": "A part."}, 416: NO_PART}
    )
    async def audio(
        request: Request,
        uri: Uri,
        start_s: Start = 0.0,
        end_s: End = None,
        expand: Annotated[int, Query(ge=1, le=100, description="Play so many times slower, for ultrasound.")] = 1,
        at: At = None,
    ) -> Response:
        """A span of a file as a WAV file, or a part of its bytes (`Range`).

        16 bits, at most two channels and 48 kHz. `X-Earshot-Approximate: 1` says that its times may be a little off.
        """
        return await answer_sound(request, uri, Span(start_s, end_s), expand, at)

    @router.head("/audio", include_in_schema=False)
    async def audio_head(
        request: Request,
        uri: Uri,
        start_s: Start = 0.0,
        end_s: End = None,
        expand: Annotated[int, Query(ge=1, le=100)] = 1,
        at: At = None,
    ) -> Response:
        return await answer_sound(request, uri, Span(start_s, end_s), expand, at)

    @router.get("/curve", response_model=answers.Curve)
    async def curve(
        request: Request,
        uri: Uri,
        text: Text,
        start_s: Start = 0.0,
        end_s: End = None,
        points: Annotated[
            int,
            Query(
                ge=1, le=limits.MAX_POINTS, description="At most so many scores: of more frames, the best of several."
            ),
        ] = limits.MAX_POINTS,
        at: At = None,
    ) -> Any:
        """The scores of the stored frames of a file for a text. They come from the index: the file may have gone.

        A score stands for one frame of 40 ms, or for as many as `points` demands: score k for `step_frames` frames
        from frame `first_frame` + k × `step_frames` on.
        """

        def look_up(state: State) -> float:
            """The length of the span."""
            file = require_file(state, uri)
            if file["status"] != "indexed":
                raise NotFound(f"{uri}: is not indexed, so it has no scores")
            check_span(uri, Span(start_s, end_s), file["duration_s"])
            return float(min(filter(None, (end_s, file["duration_s"])))) - start_s

        def find(state: State) -> dict[str, Any]:
            found = state.index.curve(text, uri, start_s, end_s)
            scores, step_frames, first_frame = found.coarsen(points)
            return {
                "uri": found.uri,
                "audio_id": found.audio_id,
                "text": text,
                "first_frame": first_frame,
                "frame_s": FRAME_S,
                "step_frames": step_frames,
                "scores": scores.astype(float).round(6).tolist(),
                "logit_scale": found.logit_scale,
                "logit_bias": found.logit_bias,
                "threshold": THRESHOLD,
            }

        is_long = await service.ask(request, at, look_up) > limits.MAX_POINTS * FRAME_S
        return await service.ask(request, at, find, service.workers.long if is_long else None)

    return router


NO_PART = {"model": answers.Error, "description": "None of the bytes that `Range` asks for exist."}
