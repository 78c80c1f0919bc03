"""``earshot verify``: what is wrong with an index, and mending it."""

from typing import TYPE_CHECKING, Annotated

import typer

from jobs.index import AllowDeletions, finish, run
from jobs.output import print_json, print_line, print_table, show_path
from jobs.query import Json, Path_

if TYPE_CHECKING:
    from pipeline.audit import Finding
    from pipeline.encode_again import Comparison


def verify(
    index: Path_,
    deep: Annotated[bool, typer.Option("--deep", help="Also encode some files again, and compare.")] = False,
    sample: Annotated[str, typer.Option(help="How many files --deep takes, others each time; or all.")] = "10",
    repair: Annotated[bool, typer.Option("--repair", help="Take out what is wrong, and reindex the files.")] = False,
    allow_deletions: AllowDeletions = False,
    json: Json = False,
) -> None:
    """Check that INDEX has exactly the rows it should have; exit with 1 and a list where it has not.

    Example: earshot verify my-index --deep
    """
    from pipeline.audit import audit
    from pipeline.errors import CorpusError
    from pipeline.plan import Choice
    from pipeline.prepare import list_files, plan_corpus, read_config
    from pipeline.record import Progress
    from pipeline.upkeep import give_up_fragments, mark_damaged

    n_files = _read_sample(sample)
    findings = _look(index, n_files, deep=deep, json=json)
    if not findings:
        return
    if not repair:
        raise typer.Exit(1)
    config = read_config(index)
    choice = Choice(allow_deletions=allow_deletions)
    # That the sources are there comes before anything is taken out.
    if any(finding.fragment is not None for finding in findings):
        list_files(config, Progress(), lambda progress: None)
        give_up_fragments(index, findings)
        findings = [*audit(index), *(finding for finding in findings if finding.file_id is not None)]
    if refused := plan_corpus(config, choice).refused:
        raise CorpusError(refused)
    n_damaged = mark_damaged(index, findings)
    if not json:
        print_line(f"{n_damaged} files are made anew")
    finish(config, run(config, json=json, choice=choice))
    if _look(index, n_files, deep=deep, json=json):
        raise typer.Exit(1)


def _read_sample(sample: str) -> int | None:
    """A number of files; None for all."""
    from pipeline.errors import UsageError

    if sample == "all":
        return None
    if not sample.isdecimal() or int(sample) < 1:
        raise UsageError(f"--sample {sample}: expected a number of files from 1 on, or all")
    return int(sample)


def _look(index: str, n_files: int | None, *, deep: bool, json: bool) -> "list[Finding]":
    """Audit, and print what is found."""
    from pipeline.audit import audit, count_without_checksum

    findings, said = audit(index), list[str]()
    if n_without := count_without_checksum(index):
        said.append(
            f"{n_without} files have no checksum, since an older version wrote them: whether their vectors have changed"
            " since cannot be told; `earshot reindex --full` makes them anew"
        )
    if deep and not any(finding.fragment is not None for finding in findings):
        compared = _encode_again(index, n_files)
        findings += compared.findings
        said.append(f"{compared.n_compared} of {compared.n_indexed} files compared")
    if json:
        print_json(findings)
        return findings
    if findings:
        rows = [
            (found.table, found.what, show_path(found.uri or found.file_id or found.audio_id or ""))
            for found in findings
        ]
        print_table(f"{len(findings)} things are wrong with {index}", ["table", "what", "of"], rows)
    else:
        print_line(f"{index}: all is well")
    for line in said:
        print_line(line)
    return findings


def _encode_again(index: str, n_files: int | None) -> "Comparison":
    from pipeline.encode import load_encoder
    from pipeline.encode_again import compare
    from pipeline.prepare import read_config

    config = read_config(index)
    encoder = load_encoder(config.encode, frames=config.store.frames == "all")
    encoder.compile()
    return compare(index, encoder, n_files)
