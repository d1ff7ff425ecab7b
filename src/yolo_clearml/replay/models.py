"""The models of a run, best.pt as the callback registered it, and other files that are asked for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..events import Artifact, FileStamp, ModelFile, OutputModel, Plan, Report, RunState
from ..rundir.choice import FileChoice
from ..rundir.exports import epoch_of, link_of, model_file
from ..rundir.places import Earlier, Empty, Torn, described
from ..rundir.release import Release
from ..rundir.run import Run
from .draft import Draft, Iterations, sendable
from .eras import Era
from .guess import era_by

_BEST = "model"  # the key of its report


def report_best(run: Run, era: Era, name: str, iterations: Iterations, draft: Draft) -> None:
    """Report best.pt, under the name of the run's own task."""
    stamp = run.files.get("weights/best.pt")
    if stamp is None or run.best is None:
        draft.missing.append("the output model (weights/best.pt)")
        place = run.places.get("weights/best.pt")
        if isinstance(place, (Torn, Empty, Earlier)):  # of others a note states what they are, and what helps
            again = "Restore it as Ultralytics wrote it, then run the same command again."
            draft.notes.append(f"The output model is not sent (weights/best.pt: {described(place)}). {again}")
        return
    labels, dropped = _labels(run.best.names)
    if dropped:
        draft.missing.append(f"{dropped} class names of the model (empty, doubled or with a leading $)")
    draft.report(_BEST, OutputModel(era.model_name.format(name=name), stamp, labels, iterations.last))


def with_models(planned: Plan, run: Run, rules: Release | None, models: frozenset[ModelFile] | None) -> Plan:
    """Give a plan with the models that were asked for, before its end; None: as the callback does.

    What is asked for is reported of a training that stopped early too.
    """
    if models is None or run.state is RunState.LIVE:
        return planned
    draft, iterations = Draft(), Iterations(run)
    *before, end = planned.reports
    kept = [report for report in before if report.key != _BEST or ModelFile.BEST in models]
    name = planned.folder[1]
    if ModelFile.BEST in models and run.state is not RunState.FINISHED:
        report_best(run, era_by(run, rules), name, iterations, draft)
    saved = run.best or run.last
    labels = _labels(saved.names)[0] if saved else {}
    for file in sorted(run.files, key=_in_order):
        kind = model_file(file)
        if kind in models and kind is not ModelFile.BEST:
            draft.reports.append(_report(run.files[file], name, labels, iterations))
    if ModelFile.LAST in models and "weights/last.pt" not in run.files:
        draft.missing.append("the model weights/last.pt")
    return replace(
        planned,
        reports=(*kept, *draft.reports, end),
        missing=(*planned.missing, *(fact for fact in draft.missing if fact not in planned.missing)),
        notes=(*planned.notes, *draft.notes),
    )


def with_artifacts(planned: Plan, run: Run, choice: FileChoice) -> Plan:
    """Give a plan with the further files of a run that were asked for, before its end.

    That a pattern fits no file, sent or left out, is missing of a training that has ended.
    """
    if run.state is RunState.LIVE:
        return planned
    none = choice.fitting_none((*run.artifacts, *run.places))
    *before, end = planned.reports
    artifacts = (
        Report(
            f"artifact/{name}",
            (Artifact(name, stamp, run.times.ended if run.copied else stamp.mtime_ns // 1_000_000),),
        )
        for name, stamp in sorted(run.artifacts.items())
    )
    return replace(
        planned,
        reports=(*before, *artifacts, end),
        missing=(*planned.missing, *(f"a file that --artifacts {pattern!r} fits" for pattern in none)),
    )


def _report(stamp: FileStamp, name: str, labels: Mapping[str, int], iterations: Iterations) -> Report:
    link, epoch = link_of(stamp.name), epoch_of(stamp.name)
    iteration = iterations.last if epoch is None else epoch
    return Report(f"{_BEST}/{link}", (OutputModel(f"{name} - {link}", stamp, labels, iteration),))


def _in_order(name: str) -> tuple[int, str]:
    """Sort epochs by their number."""
    return epoch_of(name) or 0, name


def _labels(names: Mapping[int, str]) -> tuple[dict[str, int], int]:
    """Give class indices by name, and how many names ClearML does not take."""
    labels: dict[str, int] = {}
    for index, name in names.items():
        label = sendable(name)
        if label and not label.startswith("$"):
            labels.setdefault(label, index)
    return labels, len(names) - len(labels)
