"""Earshot makes audio corpora searchable, by sound and by words.

    import pipeline

    ix = pipeline.open("my-index")
    ix.search("dog barking")

Importing this loads nothing heavy; ``open`` does.
"""

import os
from typing import TYPE_CHECKING

# Lance reads these variables when it is first imported. Its log is for its developers.
os.environ.setdefault("LANCE_LOG", "error")
os.environ.setdefault("LANCEDB_LOG", "error")
if (os.cpu_count() or 1) <= 3:  # Lance leaves two cores to reading, so one of so few would compute
    os.environ.setdefault("LANCE_CPU_THREADS", "2")

if TYPE_CHECKING:
    from pipeline.search.client import Index

__all__ = ["open"]
__version__ = "0.1.0"


def open(path: str) -> "Index":
    """Open the newest published version of the index at ``path``.

    Raises:
        IndexMissing: there is no index at ``path``.
    """
    from pipeline.search.client import Index

    return Index(path)
