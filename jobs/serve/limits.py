"""What one request may ask of a server, and what all requests may take together."""

from jobs.shared.servers import ANSWER_S, MAX_SENT_BYTES

# --- questions --------------------------------------------------------------------------------------------------------

MAX_K, MAX_EXPORTED_K = 1_000, 10_000
"""Results for a text; and in an export."""

MAX_TEXTS, MAX_TEXT = 20, 2_000
"""Texts of a question, and characters of one."""

MAX_WHERE, MAX_URI, MAX_NAME = 10_000, 10_000, 200
"""Characters of a filter, of the uri of a file, and of the name of a person."""

MAX_MARKS = 10_000
"""Marks that are made together."""

MAX_POINTS = 100_000
"""Scores of a curve: the frames of more than an hour. Curves of more frames take long, and hold up no questions."""

MAX_SIDE = 4_096
"""Pixels of a picture, in width and height."""

# --- time -------------------------------------------------------------------------------------------------------------

SHORT_S = 60.0
"""A sound to compare with that is longer takes long, as an exact scan does: such questions do not hold up others."""

SHORT_PICTURE_S = 120.0
"""Pictures of longer spans take a while, and wait for each other."""

MAX_ANSWER_S = ANSWER_S
"""What takes longer is refused, and stopped where it can be: a command that asks gives up then, too."""

MAX_S = 1e9
"""The latest time in a file that can be named: thirty years."""

MAX_BODY_S = 600.0
"""What a request sends has to arrive within this time: 200 MB at 0.3 MB a second."""

MAX_TAKE_S = 300.0
"""A client has to take each piece of what it is sent, of 64 kB or some more, within this time."""

# --- bytes ------------------------------------------------------------------------------------------------------------

MAX_UPLOAD_BYTES, MAX_UPLOADS_BYTES = MAX_SENT_BYTES, 1_000_000_000
"""Of a form with a sound; and of all that are on the disk at the same time."""

MAX_JSON_BYTES = 300_000
"""Of a JSON body that asks: a filter, a uri and a text of the greatest lengths fit, however they are escaped."""

MAX_MARKS_BYTES = MAX_HITS_BYTES = 8_000_000
"""Of a JSON body with marks, or with hits to be exported: 800 bytes for each of as many as may be."""

MAX_BODIES_BYTES = 100_000_000
"""Of all JSON bodies that are in memory at the same time; and of those with hits, which have a room of their own: they
wait as long as exports do, and must not keep anyone from marking meanwhile."""

MAX_FIELD_BYTES, MAX_PARTS, MAX_HEAD_BYTES = 100_000, 20, 8_192
"""Of a form: bytes of its fields, its parts, and bytes of the head of a part."""

# --- requests ---------------------------------------------------------------------------------------------------------

MAX_WAITING = 500
"""Requests that wait in one pool of threads. Further ones are refused, so that memory stays bounded."""

MAX_SOUNDS, MAX_EXPORTS = 200, 20
"""Sounds and exports that are being sent. Each keeps a file open, an export a cut of up to 64 MB in memory, too."""
