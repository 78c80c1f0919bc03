"""``earshot verify``: what is wrong with an index, and mending it."""

from typing import TYPE_CHECKING, Annotated

import typer

from jobs.index import finish, run
from jobs.output import print_json, print_line, print_table, show_path
from jobs.query import Json, Path_

if TYPE_CHECKING:
    from pipeline.audit import Finding


def verify(
    index: Path_,
    deep: Annotated[bool, typer.Option("--deep", help="Also encode a sample of files again, and compare.")] = False,
    sample: Annotated[int, typer.Option(help="How many files --deep takes.", min=1)] = 10,
    repair: Annotated[bool, typer.Option("--repair", help="Take out what is wrong, and reindex the files.")] = False,
    json: Json = False,
) -> None:
    """Check that INDEX has exactly the rows it should have; exit with 1 and a list where it has not.

    Example: earshot verify my-index --deep
    """
    from pipeline.prepare import plan_corpus, read_config
    from pipeline.upkeep import mark_damaged

    findings = _look(index, sample if deep else 0, json=json)
    if not findings:
        return
    if not repair:
        raise typer.Exit(1)
    config = read_config(index)
    plan_corpus(config)  # that the sources are there comes before anything is taken out
    n_files = mark_damaged(index, findings)
    if not json:
        print_line(f"{n_files} files are made anew")
    finish(config, run(config, json=json))
    if _look(index, sample if deep else 0, json=json):
        raise typer.Exit(1)


def _look(index: str, n_samples: int, *, json: bool) -> "list[Finding]":
    """Audit, and print what is found."""
    from pipeline.audit import audit, compare
    from pipeline.encode import load_encoder
    from pipeline.prepare import read_config

    findings = audit(index)
    if n_samples:
        config = read_config(index)
        encoder = load_encoder(config.encode, frames=config.store.frames == "all")
        encoder.compile()
        findings += compare(index, n_samples, encoder)
    if json:
        print_json(findings)
    elif findings:
        rows = [
            (found.table, found.what, show_path(found.uri or found.file_id or found.audio_id or ""))
            for found in findings
        ]
        print_table(f"{len(findings)} things are wrong with {index}", ["table", "what", "of"], rows)
    else:
        print_line(f"{index}: all is well")
    return findings
