"""``earshot verify``: what is wrong with an index, and mending it."""

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.commands.index import finish, run
from jobs.shared.options import AllowDeletions, Json, Path_
from jobs.shared.output import print_json, print_line, print_table, show_count, show_path

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.index.reencode import Comparison
    from pipeline.index.verify import Finding
    from pipeline.planning.request import RunRequest


def verify(
    index: Path_,
    deep: Annotated[bool, typer.Option("--deep", help="Also encode some files again, and compare.")] = False,
    sample: Annotated[
        str | None, typer.Option(help="With --deep: how many files, others each time, or all; 10 by default.")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Take out what is wrong, and reindex the files.")] = False,
    allow_deletions: AllowDeletions = False,
    json: Json = False,
) -> None:
    """Check that INDEX has exactly the rows it should have; exit with 1 and a list where it has not.

    Example: earshot verify my-index --deep
    """
    from pipeline.index.handle import open_index
    from pipeline.index.repair import give_up_fragments, mark_damaged
    from pipeline.index.verify import verify_index
    from pipeline.planning.request import RunRequest
    from pipeline.run.prepare import read_config

    choose = _read_sample(sample, deep=deep)
    findings = _look(index, choose, json=json)
    if not findings:
        return
    if not repair:
        raise typer.Exit(1)
    config, request = read_config(open_index(index)), RunRequest(allow_deletions=allow_deletions)
    # That the sources are there comes before anything is taken out.
    _check_sources(config, request, findings)
    if any(finding.fragment is not None for finding in findings):
        give_up_fragments(index, findings)
        findings = [*verify_index(index), *(finding for finding in findings if finding.file_id is not None)]
    n_damaged = mark_damaged(index, findings)
    if not json and n_damaged:
        print_line(f"{show_count(n_damaged, 'file')} to be made anew")
    finish(config, run(config, json=json, request=request))
    if _look(index, choose, json=json):
        raise typer.Exit(1)


def _check_sources(config: "Config", request: "RunRequest", findings: "list[Finding]") -> None:
    """Refuse to repair while a disk seems to be missing: what lies on it could not be made anew."""
    from pipeline.errors import CorpusError
    from pipeline.run.prepare import plan_corpus, refuse_repair

    # Where rows of the ledger are lost, it cannot tell what would go: a fragment of it, now or in a repair before.
    is_lost = any(found.table == "files" and found.fragment is not None for found in findings)
    is_lost |= any(found.table == "clips" and found.file_id is not None and found.uri is None for found in findings)
    refused = refuse_repair(config, request) if is_lost else plan_corpus(config, request).refused
    if refused:
        raise CorpusError(refused)


@dataclass(frozen=True)
class _Sample:
    """Which files are encoded again: ``n_files``, or all; the same ones before and after a repair."""

    n_files: int | None
    seed: int


def _read_sample(sample: str | None, *, deep: bool) -> _Sample | None:
    """What ``--deep`` is to take; None without it."""
    from pipeline.errors import UsageError

    if sample is not None and not deep:
        raise UsageError("--sample: goes with --deep")
    if not deep:
        return None
    if sample is not None and sample != "all" and not (sample.isdecimal() and int(sample)):
        raise UsageError(f"--sample {sample}: expected a number of files from 1 on, or all")
    return _Sample(None if sample == "all" else int(sample or 10), secrets.randbits(32))


def _look(index: str, choose: _Sample | None, *, json: bool) -> "list[Finding]":
    """Examine the index, encode some of its files again if that is wanted, and print what is found."""
    from pipeline.index.verify import examine

    examined = examine(index)
    findings, n_without = examined.findings, examined.n_without_checksum
    summary: dict[str, Any] = {"findings": len(findings), "without_checksum": n_without}
    said = list[str]()
    if n_without:
        said.append(
            f"{show_count(n_without, 'file')} without a checksum, written by an older version: whether their vectors"
            " have changed since cannot be told; `earshot reindex --full` makes them anew"
        )
    if choose is not None and not any(finding.fragment is not None for finding in findings):
        compared = _encode_again(index, choose)
        findings += compared.findings
        summary |= {"findings": len(findings), "compared": compared.n_compared, "indexed": compared.n_indexed}
        said.append(f"{compared.n_compared} of {compared.n_indexed} files compared")
    if json:
        print_json([*findings, summary])
        return findings
    if findings:
        rows = [
            (found.table, found.what, show_path(found.uri or found.file_id or found.audio_id or ""))
            for found in findings
        ]
        are = "thing is" if len(findings) == 1 else "things are"
        print_table(f"{len(findings)} {are} wrong with {index}", ["table", "what", "of"], rows)
    else:
        print_line(f"{index}: all is well")
    for line in said:
        print_line(line)
    return findings


def _encode_again(index: str, choose: _Sample) -> "Comparison":
    from pipeline.encoder.encoder import load_encoder
    from pipeline.index.handle import open_index
    from pipeline.index.reencode import compare
    from pipeline.run.prepare import check_models_of, read_config

    config = read_config(open_index(index))
    check_models_of(config)
    encoder = load_encoder(config.encode, frames=config.store.frames == "all")
    encoder.compile()
    return compare(index, encoder, choose.n_files, choose.seed)
