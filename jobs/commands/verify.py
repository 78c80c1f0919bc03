"""``earshot verify``: find what is wrong with an index, and repair it."""

import secrets
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.shared.indexing import exit_on_shortfall, run_index
from jobs.shared.options import AllowDeletions, Json, Path_
from jobs.shared.output import print_json, print_line, print_table
from pipeline.words import count

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.index.findings import Finding
    from pipeline.index.handle import Handle
    from pipeline.index.verify_deep import Comparison
    from pipeline.planning.request import RunRequest


def verify(
    context: typer.Context,
    index: Path_,
    deep: Annotated[bool, typer.Option("--deep", help="Also encode some files again and compare.")] = False,
    sample: Annotated[
        str | None, typer.Option(help="With --deep: how many random files, or all; by default 10.")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Remove what is wrong and reindex those files.")] = False,
    allow_deletions: AllowDeletions = False,
    json: Json = False,
) -> None:
    """Check that INDEX has exactly the rows that it should have. If not, list the findings and exit with 1.

    Example: earshot verify my-index --deep
    """
    from pipeline.index.handle import open_index
    from pipeline.index.repair import give_up_fragments, mark_damaged
    from pipeline.index.verify import verify_index
    from pipeline.planning.request import RunRequest
    from pipeline.run.prepare import read_config

    choose = _read_sample(sample, deep=deep)
    opened = open_index(index)
    findings = _look(opened, choose, json=json)
    if not findings:
        return
    if not repair:
        raise typer.Exit(1)
    config, request = read_config(opened), RunRequest(allow_deletions=allow_deletions)
    encodes = any(finding.table != "pools" for finding in findings)
    if encodes:  # nothing is removed before the sources are known to be there
        _check_sources(config, request, opened, findings)
    if any(finding.fragment is not None for finding in findings):
        give_up_fragments(index, findings)
        findings = [*verify_index(index), *(finding for finding in findings if finding.file_id is not None)]
    n_damaged = mark_damaged(index, findings)
    if not json and n_damaged:
        print_line(f"{count(n_damaged, 'file')} to encode again")
    if encodes:
        exit_on_shortfall(config, run_index(config, json=json, request=request, workers=context.obj))
    if _look(opened.refresh(), choose, json=json):
        raise typer.Exit(1)


def _check_sources(config: "Config", request: "RunRequest", opened: "Handle", findings: "list[Finding]") -> None:
    """Refuse to repair while a disk seems to be missing: its files could not be encoded again."""
    from pipeline.errors import CorpusError
    from pipeline.run.prepare import plan_corpus, refuse_repair

    # A ledger that has lost rows cannot say which files would be removed. A fragment may be lost now, or have been
    # given up in an earlier repair.
    is_lost = any(found.table == "files" and found.fragment is not None for found in findings)
    is_lost |= any(found.table == "clips" and found.file_id is not None and found.uri is None for found in findings)
    live = opened.live
    if refused := refuse_repair(config, request, live) if is_lost else plan_corpus(config, request, opened).refused:
        raise CorpusError(refused)


@dataclass(frozen=True)
class _Sample:
    """Encode ``n_files`` files again, or all; the same ones before and after a repair."""

    n_files: int | None
    seed: int


def _read_sample(sample: str | None, *, deep: bool) -> _Sample | None:
    """The files that ``--deep`` compares; None without it."""
    from pipeline.errors import UsageError

    if sample is not None and not deep:
        raise UsageError("--sample: give --deep too")
    if not deep:
        return None
    if sample is not None and sample != "all" and not (sample.isdecimal() and int(sample)):
        raise UsageError(f"--sample {sample}: expected a number of files from 1 on, or all")
    return _Sample(None if sample == "all" else int(sample or 10), secrets.randbits(32))


def _look(opened: "Handle", choose: _Sample | None, *, json: bool) -> "list[Finding]":
    """Examine the index, encode some of its files again if asked to, and print the findings."""
    from pipeline.index.verify import report_on_index

    examined = report_on_index(opened)
    findings, n_without = examined.findings, examined.n_without_checksum
    summary: dict[str, Any] = {"findings": len(findings), "without_checksum": n_without}
    notes = list[str]()
    if n_without:
        notes.append(
            f"{count(n_without, 'file')} without a checksum, written by an older version: later changes of"
            " their vectors cannot be found; `earshot reindex --full` encodes them again"
        )
    if choose is not None and not any(finding.fragment is not None for finding in findings):
        compared = _encode_again(opened, choose)
        findings += compared.findings
        summary |= {"findings": len(findings), "compared": compared.n_compared, "indexed": compared.n_indexed}
        notes.append(f"{compared.n_compared} of {count(compared.n_indexed, 'file')} compared")
        if compared.n_corrected:
            summary["corrected"] = compared.n_corrected
            notes.append(
                f"{count(compared.n_corrected, 'file')} not compared, which may decode differently since a correction:"
                f" `earshot reindex {shlex.quote(opened.path)}` brings them up to date"
            )
    if json:
        print_json([*findings, summary])
        return findings
    if findings:
        rows = [(found.table, found.what, found.uri or found.file_id or found.audio_id or "") for found in findings]
        title = f"{count(len(findings), 'finding')} in {opened.path}"
        print_table(title, ["table", "what", "of"], rows, whole=["table"], paths="of")
    else:
        print_line(f"{opened.path}: all is well")
    for note in notes:
        print_line(note)
    return findings


def _encode_again(opened: "Handle", choose: _Sample) -> "Comparison":
    from pipeline.encoder.encoder import load_encoder
    from pipeline.index.verify_deep import compare
    from pipeline.run.prepare import check_models_of, read_config

    config = read_config(opened)
    check_models_of(config, opened)
    encoder = load_encoder(config.encode, frames=config.store.frames == "all")
    encoder.compile()
    return compare(opened.live, encoder, choose.n_files, choose.seed)
