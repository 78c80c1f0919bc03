"""``earshot plan``: what a run would do and cost. It writes nothing."""

from collections import Counter
from typing import Annotated, Any

import typer

from jobs.shared.indexing import print_notes
from jobs.shared.options import (
    AllowDeletions,
    Check,
    Full,
    Json,
    KeepDecoder,
    Reason,
    Rebuild,
    RetryFailed,
    is_config,
    read_request,
)
from jobs.shared.output import print_json, print_line, print_table
from pipeline.words import show_bytes, show_duration


def plan(
    index: Annotated[str, typer.Argument(metavar="INDEX|CONFIG", help="Folder of the index, or a configuration.")],
    check: Check = None,
    retry_failed: RetryFailed = False,
    reason: Reason = None,
    keep_decoder: KeepDecoder = False,
    full: Full = False,
    allow_deletions: AllowDeletions = False,
    rebuild: Rebuild = False,
    json: Json = False,
) -> None:
    """Show what `reindex`, or `index` with a configuration, would do with each file, and what it would cost.

    Example: earshot plan my-index --json
    """
    from pipeline.config import load_config
    from pipeline.index.handle import find_index, open_index
    from pipeline.planning.guard import count_by_folder
    from pipeline.planning.plan import ACTIONS
    from pipeline.run.prepare import estimate_times, keep_tail, plan_corpus, read_config

    request = read_request(
        check,
        retry_failed=retry_failed,
        reason=reason,
        keep_decoder=keep_decoder,
        full=full,
        allow_deletions=allow_deletions,
    )
    if is_config(index):
        config = load_config(index)
        opened = find_index(config.into)
    else:
        opened = open_index(index)
        config = read_config(opened, rebuild=rebuild)
    made = plan_corpus(config, request, opened, rebuild=rebuild)
    counts = Counter(action for _, action, _ in made.actions)
    times = estimate_times(made, opened.live, keep_tail(config, opened, rebuild=rebuild).window.grid)
    summary: dict[str, Any] = {
        **{action: counts[action] for action in ACTIONS},
        "hours": made.seconds_to_decode / 3600,
        "hours_examined": made.seconds_examined / 3600,
        "bytes": made.bytes_to_write,
        "bytes_examined": made.bytes_examined,
        "seconds": times and times[0],
        "seconds_examined": times and times[1],
        "notes": list(made.notes),
        "not_looked_at": made.not_looked_at,
        "refused": made.refused,
        "lack_of_space": made.lack_of_space,
    }
    if json:
        print_json({"uri": uri, "action": action, "reason": reason} for uri, action, reason in made.actions)
        print_json([summary])
        return
    rows = [(action, counts[action]) for action in ACTIONS if counts[action]]
    print_table(f"what a run into {config.into} would do", ["action", "files"], rows, right=["files"])
    if made.removed:
        print_line(f"indexed files that would be removed: {count_by_folder(made.removed.values())}")
    print_notes(made)
    if made.lack_of_space:
        print_line(f"warning: {made.lack_of_space}")
    if made.refused:
        print_line(f"a run would refuse: {made.refused}")
    print_line(_describe_cost(summary))


def _describe_cost(summary: dict[str, Any]) -> str:
    """What will be encoded and written, and how long that takes: at most, if all that is examined is encoded, too."""
    hours, n_bytes, seconds = (summary[name] for name in ("hours", "bytes", "seconds"))
    about = "about"
    if summary["hours_examined"]:
        about = "up to"
        hours, n_bytes = hours + summary["hours_examined"], n_bytes + summary["bytes_examined"]
        seconds = None if seconds is None else seconds + summary["seconds_examined"]
    takes = f", {about} {show_duration(seconds)} at the speed of the last run" if seconds else ""
    return (
        f"{about} {show_duration(hours * 3600)} of audio to encode; {about} {show_bytes(n_bytes)} to be written{takes}"
    )
