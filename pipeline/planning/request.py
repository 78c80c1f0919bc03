"""The options of one run: what it does beyond bringing the index up to date with its sources."""

from dataclasses import dataclass

from pipeline.corpus.shards import is_member
from pipeline.corpus.time_ranges import split_uri
from pipeline.schema import Row


@dataclass(frozen=True)
class RunRequest:
    """The options of a run; the defaults are those of `earshot index`."""

    check_content: bool = False
    """Hash every file, also where size and time say that it is unchanged."""
    retry_failed: bool = False
    """Try unchanged files again that failed before."""
    reason: str | None = None
    """With ``retry_failed``: only the files that have this reason."""
    keep_decoder: bool = False
    """Leave files as they are that decode differently since an older version."""
    full: bool = False
    """Decode and encode every file anew."""
    allow_deletions: bool = False
    """Remove the rows of all deleted files, however many they are."""
    moved: tuple[str, str] | None = None
    """The former and the present place of a source that was renamed."""
    forgotten: tuple[str, ...] = ()
    """Absolute places of sources that were given up: files that only they name are removed, however many they are."""

    def renamed(self, uri: str) -> str:
        """The present uri of a file whose former uri this is."""
        old, new = self.moved or ("", "")
        return new + uri[len(old) :] if old and _lies_in(uri, old) else uri

    def former(self, uri: str) -> str:
        """The former uri of a file whose present uri this is."""
        old, new = self.moved or ("", "")
        return old + uri[len(new) :] if new and _lies_in(uri, new) else uri

    def retries(self, old: Row) -> bool:
        """Whether to decode a file again that has not changed since its ledger row was written."""
        if not self.retry_failed or self.reason not in (None, old["reason"]):
            return self.full
        # A truncated file is indexed, with a reason: only naming the reason retries it.
        return self.full or old["status"] == "failed" or self.reason is not None


def _lies_in(uri: str, source: str) -> bool:
    """Whether a file is the source, lies in it (a folder), or is a member (of a shard) or a range (of a recording)."""
    is_part = uri.startswith(f"{source}#") and (is_member(uri) or split_uri(uri)[0] == source)
    return uri == source or uri.startswith(f"{source}/") or is_part
