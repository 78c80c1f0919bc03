"""Recordings over HTTP: seen as spectrograms, which are kept on the disk."""

import threading
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from jobs.serve import limits
from jobs.serve.media_routes import BYTES, End, Start
from jobs.serve.search_routes import ERRORS, At, Uri, require_sound
from jobs.serve.service import Service
from jobs.serve.sounds import Span, check_span, make_content_key, make_key, require_whole
from jobs.serve.states import State
from jobs.serve.tile_cache import TileCache
from jobs.serve.workers import ClientGone
from pipeline.pictures.spectrogram import Spectrogram, View, read_spectrogram, sample_spectrogram
from pipeline.pictures.tile import draw_tile
from pipeline.schema import Row

DRAWING = 1
"""Counts on when the same samples are drawn otherwise, so that older pictures are not shown any more."""

TILE_CACHE = "private, max-age=3600"
"""How long a browser keeps a picture without asking. Its address has the state, and a state never changes."""

Side = Annotated[int, Query(ge=1, le=limits.MAX_SIDE, description="Pixels.")]
PICTURE = {"content": {"image/webp": BYTES, "image/png": BYTES}}


APPROXIMATE, SAMPLED = "X-Earshot-Approximate", "X-Earshot-Sampled"
"""Headers of pictures that are not exact: their times may be a little off; only parts of the span were read."""

Flaws = tuple[str, ...]
"""The headers that a picture has."""

ALL_FLAWS: tuple[Flaws, ...] = ((), (APPROXIMATE,), (SAMPLED,), (APPROXIMATE, SAMPLED))

Keys = dict[Flaws, str]
"""The keys of a picture in the cache, by the flaws that it may have: they are known once it is drawn."""


@dataclass(frozen=True)
class Picture:
    data: bytes
    flaws: Flaws


def make_picture_router(service: Service, tiles: TileCache) -> APIRouter:
    """The route."""
    router = APIRouter(prefix="/api", responses=ERRORS)
    workers = service.workers

    @router.get("/spectrogram", response_class=Response, responses={200: PICTURE})
    async def spectrogram(
        request: Request,
        uri: Uri,
        start_s: Start = 0.0,
        end_s: End = None,
        width: Side = 800,
        height: Side = 256,
        low_hz: Annotated[float, Query(ge=0, le=1e7, allow_inf_nan=False)] = 0.0,
        high_hz: Annotated[
            float | None, Query(gt=0, le=1e7, allow_inf_nan=False, description="By default half the sample rate.")
        ] = None,
        gain_db: Annotated[float, Query(ge=-120, le=120, allow_inf_nan=False)] = 0.0,
        sampled: Annotated[
            bool, Query(description="Read short parts of the span, evenly spaced, instead of all of it.")
        ] = False,
        at: At = None,
    ) -> Response:
        """The spectrogram of a span of a file: WebP, or PNG where `Accept` names that alone.

        `X-Earshot-Approximate: 1` says that its times may be a little off, `X-Earshot-Sampled: 1` that it shows parts
        of the span: where no part can be found without decoding all before it, all is drawn in spite of `sampled`.
        """
        kind = choose_kind(request.headers.get("accept", ""))
        view, span, stop = View(width, height, low_hz, high_hz), Span(start_s, end_s), threading.Event()

        def look_up(state: State) -> tuple[Row, float, Keys, Picture | None]:
            file = require_sound(state, uri)
            check_span(uri, span, file["duration_s"])
            end = float(min(filter(None, (span.end_s, file["duration_s"]))))
            parts = (DRAWING, make_content_key(file), span.start_s, end, view, gain_db, kind, sampled)
            keys = {flaws: make_key(*parts, flaws) for flaws in ALL_FLAWS}
            return file, end, keys, find_picture(tiles, keys)

        def draw(end: float, keys: Keys) -> Picture:
            read = sample_spectrogram if sampled else read_spectrogram
            found = read(uri, span.start_s, end, view, stop.is_set)
            if stop.is_set():
                raise ClientGone
            picture = Picture(draw_tile(found.levels_db, gain_db, kind), list_flaws(found))
            tiles.keep(keys[picture.flaws], picture.data)
            return picture

        file, end, keys, picture = await service.ask(request, at, look_up, workers.tiles)
        if picture is None:
            require_whole(file, await service.find_presence(request, file, workers.tiles))
            pool = workers.tiles if end - start_s <= limits.SHORT_PICTURE_S else workers.long_tiles
            picture = await pool.run(request, partial(draw, end, keys), stop)
        headers = {"Cache-Control": TILE_CACHE, "Vary": "Accept", **dict.fromkeys(picture.flaws, "1")}
        return Response(picture.data, media_type=f"image/{kind}", headers=headers)

    return router


def list_flaws(found: Spectrogram) -> Flaws:
    """The headers of a picture."""
    has = {APPROXIMATE: found.is_approximate, SAMPLED: found.is_sampled}
    return tuple(name for name, is_so in has.items() if is_so)


def find_picture(tiles: TileCache, keys: Keys) -> Picture | None:
    """A picture that is kept, whatever flaws it has."""
    for flaws, key in keys.items():
        if (data := tiles.find(key)) is not None:
            return Picture(data, flaws)
    return None


def choose_kind(accept: str) -> Literal["webp", "png"]:
    """The format of a picture: WebP, unless a client takes PNG and no WebP."""
    accepted = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    takes_webp = not accepted - {""} or accepted & {"image/webp", "image/*", "*/*"}
    return "webp" if takes_webp or "image/png" not in accepted else "png"
