"""Finished runs, checked: whether their probabilities and verdicts can be trusted, and how far runs agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldscope.core.errors import ConfigError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.service.wiring.calibrations import all_calibrations
from fieldscope.service.wiring.feedback import progress, warn
from fieldscope.service.workflows.answer_key import answer_key

if TYPE_CHECKING:
    from fieldscope.agent.calibration import Calibration
    from fieldscope.eval.measures.agreement import Agreement, Sides
    from fieldscope.eval.measures.audit import Audit, Confusion
    from fieldscope.eval.measures.calibration_report import ClaimReliability
    from fieldscope.eval.runs.annotations import Annotation
    from fieldscope.eval.runs.read import FinishedRun
    from fieldscope.eval.types import Qrels

Row = dict[str, Any]


@dataclass(frozen=True)
class RunReliability:
    """Whether the probabilities of a run mean what they say: a report for each kind of claim."""

    name: str
    benchmark: str
    split: str
    claims: Sequence[ClaimReliability]
    data: Row

    @property
    def figure(self) -> str:
        """The name of its figure's file."""
        return f"reliability-{self.name.replace('/', '-')}.png"


@dataclass(frozen=True)
class RunAudit:
    """The verdicts of a run against what is true. `marks` counts people's marks on them."""

    name: str
    audit: Audit
    marks: Mapping[str, int]
    data: Row


def measure_reliability(paths: Sequence[Path], out: Path | None) -> list[RunReliability]:
    """The reliability of every run; with `out`, figures and data are written there.

    Warns about runs that claim nothing, and raises `ConfigError` where that is all of them.
    """
    from fieldscope.eval.measures.calibration_report import claim_reliability

    reports = []
    for run in open_runs(paths):
        calibrated = run.calibration is not None
        claims = claim_reliability(run.results, answer_key(run), calibrated, _calibration_of(run))
        if claims:
            data = {**_identity(run), "calibrated": calibrated, "claims": [asdict(claim) for claim in claims]}
            reports.append(RunReliability(run.name, run.benchmark, run.split, claims, data))
        else:
            warn(f"{run.name} claims nothing with a probability whose truth is known; it is left out")
    if not reports:
        raise ConfigError("these runs claim nothing with a probability; name runs that asked a model")
    if out is not None:
        _write_reliability(reports, out)
    return reports


def measure_audit(paths: Sequence[Path], out: Path | None) -> list[RunAudit]:
    """The audit of every run; with `out`, data are written there.

    Warns about runs that asked nothing, and raises `ConfigError` where that is all of them.
    """
    from fieldscope.eval.measures.audit import audit
    from fieldscope.eval.measures.figure import write_data
    from fieldscope.eval.runs.annotations import read_annotations

    reports = []
    for run in open_runs(paths):
        annotations = read_annotations(run.folder)
        audited = audit(run.results, answer_key(run, annotations))
        if audited.kinds:
            marks = _count_marks(audited, annotations, run.judgments)
            data = {**_identity(run), **_audit_data(audited), "marks": marks}
            reports.append(RunAudit(run.name, audited, marks, data))
        else:
            warn(f"{run.name} asked nothing about its images; it is left out")
    if not reports:
        raise ConfigError("these runs asked nothing about their images; name runs that asked a model")
    if out is not None:
        runs = [report.data for report in reports]
        write_data(out, "audit", {"runs": runs}, [{"run": run["run"], **row} for run in runs for row in run["kinds"]])
        if sunk := [{"run": run["run"], **row} for run in runs for row in run["sunk"]]:
            write_data(out, "sunk", {"sunk": sunk}, sunk)
    return reports


def measure_agreement(paths: Sequence[Path], out: Path | None) -> tuple[list[str], list[Agreement], Row]:
    """The names of the runs, how far every two of them agree, and that as data; with `out`, a figure and the data are
    written there.

    Raises `ConfigError` unless there are two or more with verdicts, of one benchmark and split, whose queries ask for
    the same.
    """
    from fieldscope.eval.measures.agreement import agreements
    from fieldscope.eval.measures.figure import draw_agreement, write_data

    verdicts = _comparable_verdicts(paths)
    if len(verdicts) < 2:
        raise ConfigError("agreement is between runs; name two or more")
    names, pairs = list(verdicts), agreements(verdicts)
    rows = [asdict(pair) | {"shared": pair.shared, "equal": pair.equal, "kappa": pair.kappa} for pair in pairs]
    data = {"runs": names, "pairs": rows}
    if out is not None:
        draw_agreement(names, pairs, out / "agreement.png")
        write_data(out, "agreement", data, rows)
    return names, pairs, data


def open_runs(paths: Sequence[Path]) -> Iterator[FinishedRun]:
    """The runs in these folders, or in the output folders of `fieldscope eval`, one after the other, since they are
    large. Raises `ConfigError` for a folder without a finished run."""
    from fieldscope.eval.runs.read import names_of, read_finished, run_folders

    folders = run_folders(paths)
    with progress("reading runs") as report:
        for done, (folder, name) in enumerate(zip(folders, names_of(folders), strict=True)):
            report(done, len(folders))
            yield read_finished(folder, name)
        report(len(folders), len(folders))


def _comparable_verdicts(paths: Sequence[Path]) -> dict[str, Sides]:
    """The verdicts of each run that has some, by its name."""
    from fieldscope.eval.measures.agreement import sides

    verdicts: dict[str, Sides] = {}
    requests: dict[str, tuple[Any, ...]] = {}
    first: FinishedRun | None = None
    for run in open_runs(paths):
        first = first or run
        own = {q: (r.query_text, r.reference_image, r.dialogue) for q, r in run.results.items()}
        shared = own.keys() & requests.keys()
        same_task = (run.benchmark, run.split) == (first.benchmark, first.split)
        same_queries = all(own[query] == requests[query] for query in shared) and (shared or not requests)
        if not (same_task and same_queries):
            raise ConfigError(
                f"{first.folder} and {run.folder} are runs over different queries; name runs of one benchmark and split"
            )
        requests |= own
        if answered := sides(run.results):
            verdicts[run.name] = answered
        else:
            warn(f"{run.name} has no verdict about any image; it is left out")
    return verdicts


def _identity(run: FinishedRun) -> Row:
    """What a run is, for programs."""
    return {
        "run": run.name,
        "folder": str(run.folder),
        "benchmark": run.benchmark,
        "split": run.split,
        "strategy": run.strategy,
        "lmm": run.lmm,
        "queries": len(run.results),
    }


def _calibration_of(run: FinishedRun) -> Calibration | None:
    """What the run was calibrated with; None where it was not, and, with a warning, where that is not kept here."""
    if run.calibration is None:
        return None
    for calibration in all_calibrations():
        if fingerprint(calibration.model_dump(mode="json")) == run.calibration:
            return calibration
    warn(f"the calibration of {run.name} is not kept here, so its verdicts are shown before calibration only")
    return None


def _write_reliability(reports: Sequence[RunReliability], out: Path) -> None:
    from fieldscope.eval.measures.figure import draw_reliability, write_data

    for report in reports:
        draw_reliability(report.claims, out / report.figure, f"{report.name}: {report.benchmark}, {report.split}")
    runs = [report.data for report in reports]
    measurements = [
        ({"run": run["run"], "claim": claim["subject"], "source": claim["source"], "stage": stage}, claim[stage])
        for run in runs
        for claim in run["claims"]
        for stage in ("before", "after")
        if claim[stage]
    ]
    write_data(out, "reliability", {"runs": runs}, [_summary_row(*measurement) for measurement in measurements])
    bins = [row for measurement in measurements for row in _bin_rows(*measurement)]
    write_data(out, "reliability-bins", {"bins": bins}, bins)


def _summary_row(about: Row, measured: Row) -> Row:
    values = {name: measured[name] for name in ("claims", "queries", "mean_p", "held")}
    return about | values | _spread({name: measured[name] for name in ("ece", "ece_mass", "brier")})


def _bin_rows(about: Row, measured: Row) -> list[Row]:
    return [
        about
        | {"binning": binning}
        | {name: row[name] for name in ("low", "high", "count", "mean_p")}
        | _spread({"held": row["held"]})
        for binning, bins in (("width", measured["bins"]), ("mass", measured["mass_bins"]))
        for row in bins
    ]


def _spread(estimates: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Estimates as columns: the value under its name, and its interval beside it."""
    return {
        name if end == "value" else f"{name}_{end}": value
        for name, estimate in estimates.items()
        for end, value in estimate.items()
    }


def _audit_data(audit: Audit) -> Row:
    return asdict(audit) | {"kinds": [_kind_row(row) for row in audit.kinds], "total": _kind_row(audit.total)}


def _kind_row(row: Confusion) -> Row:
    return asdict(row) | {"seen_share": row.seen_share, "refused_share": row.refused_share}


def _count_marks(audit: Audit, annotations: Sequence[Annotation], judgments: Qrels) -> dict[str, int]:
    """How many verdicts and images people marked, how many of them wrong, and what became of the marks."""
    on_images = [annotation for annotation in annotations if annotation.predicate is None]
    judged = [(mark.mark == "right", judgments.get(mark.query_id, {}).get(mark.image_id)) for mark in on_images]
    return {
        "verdicts": audit.total.marked,
        "verdicts_wrong": audit.total.marked_wrong,
        "without_verdict": len(annotations) - len(on_images) - audit.total.marked,
        "images": len(on_images),
        "images_against_judgments": sum(
            relevance is not None and match != (relevance > 0) for match, relevance in judged
        ),
    }
