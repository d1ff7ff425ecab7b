"""A Run to its Plan, as the callback of its era would have reported it. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..events import (
    FINAL,
    STATUS,
    Hyperparameters,
    Plan,
    Points,
    Report,
    RunState,
    SingleValue,
    Status,
)
from ..rundir.dating import Dated
from ..rundir.fitness import fitness
from ..rundir.identity import first_rows, run_key
from ..rundir.places import notes
from ..rundir.release import Release
from ..rundir.results_csv import Row
from ..rundir.run import Run
from .draft import Draft, Iterations, storable, why_not_storable
from .eras import Era
from .guess import era_by, note_of_guess, note_of_relative
from .models import report_best
from .names import Wish, save_dir, task_names
from .parameters import connected, user_properties
from .pictures import note_unsent_pictures, report_pictures
from .tuning import plan_tuning

_LONGEST_METRIC = 200  # characters; ClearML's index refuses names of more than 32,766 bytes
_MAIN_METRICS = (
    "metrics/mAP50-95(M)",
    "metrics/mAP50-95(P)",
    "metrics/mAP50-95(B)",
    "metrics/accuracy_top1",
    "metrics/mIoU",
    "metrics/delta1",
    "metrics/mAP_0.5:0.95",
    "fitness",  # a tuning's
)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked for instead of what the run itself states."""

    project: Wish = None
    name: Wish = None
    tags: tuple[str, ...] | None = None
    rules: Release | None = None


def plan(run: Run, wishes: Wishes) -> Plan:
    """Work out everything ClearML should know about ``run`` by now; the same run gives the same plan.

    Where the release is not known, and those that it may be did not all report this alike, a note states it.
    """
    if run.tuning is not None:
        asked = (wishes.project, wishes.name)
        return plan_tuning(run, run.tuning, asked, wishes.tags, wishes.rules)
    planned = _plan(run, wishes, era_by(run, wishes.rules))
    if run.releases.known or run.relative is not None or wishes.rules is not None:
        return planned
    note = note_of_guess(run, planned, lambda era: _plan(run, wishes, era))
    return replace(planned, notes=(*planned.notes, note)) if note else planned


def _plan(run: Run, wishes: Wishes, era: Era) -> Plan:
    draft = Draft()
    (project, name), folder = task_names(run, era, (wishes.project, wishes.name), draft)
    iterations = Iterations(run)
    for section, source in era.sections:
        values = run.hyp if source == "hyp" else {**run.args, **era.extra_arguments}
        parameters = connected(values, era)
        if parameters.pop("", None) is not None:  # ClearML refuses it
            draft.missing.append("an argument without a name")
        draft.report(f"args/{section}", Hyperparameters(section, parameters))
    draft.report("properties", user_properties(run))
    _epochs(run, era, iterations, draft)
    if run.state is RunState.FINISHED:
        _final_values(run, era, draft)  # before the pictures: numbers then share a request
    report_pictures(run, era, iterations, draft)
    if run.state is RunState.FINISHED and wishes.rules is None:
        note_unsent_pictures(run, era, draft)
    if run.state is RunState.FINISHED:
        report_best(run, era, folder[1], iterations, draft)
    draft.report(STATUS, Status(run.state))
    draft.missing += run.unfit
    draft.notes += notes(run.places)
    if run.earlier_rows:
        draft.missing.append(
            f"{run.earlier_rows} rows of an earlier training at the top of the same results.csv"
        )
    if run.table.unfinished and run.state is not RunState.LIVE:
        # an editor may have taken its end, or a kill or a copy the last digits of it: nothing shows which
        draft.missing.append("the last line of results.csv, which has no end and may be cut short")
        draft.notes.append(
            "The last line of results.csv has no line end, so it may be cut short and is not reported;"
            " add one if the line is whole."
        )
    draft.miss_lines(run.table, "results.csv")
    if run.relative is not None:
        draft.notes.append(note_of_relative(run.relative, run, wishes.rules))
    tags = wishes.tags if wishes.tags is not None else (era.tag,)
    comment = f"Replayed by yolo-clearml from the run directory {save_dir(run)}."
    return Plan(
        run_key(run),
        project,
        name,
        tags,
        folder,
        comment,
        tuple(draft.reports),
        tuple(draft.missing),
        tuple(draft.notes),
        first_rows(run),
        frozenset(epoch - iterations.first for epoch in run.repeated),
    )


def main_metric(run: Run) -> tuple[str, float, float] | None:
    """Give the run's main metric: its name, its best and its latest finite value; None where it has none."""
    for name in _MAIN_METRICS:
        values = [value for value in run.table.column(name) or () if math.isfinite(value)]
        if values:
            return name.removeprefix("metrics/"), max(values), values[-1]
    return None


def fitness_by_epoch(run: Run, wishes: Wishes) -> tuple[float, ...]:
    """Give Ultralytics' fitness of each epoch, as its release reckons it; epochs without one are left out."""
    if run.tuning is not None:
        return tuple(filter(math.isfinite, run.table.column("fitness") or ()))
    era = era_by(run, wishes.rules)
    named = [(i, name) for i, name in enumerate(run.table.columns) if name.startswith("metrics/")]
    metrics = ({name: row.values[i] for i, name in named} for row in run.table.rows)
    values = (_fitness(of_epoch, era) for of_epoch in metrics)
    return tuple(value for value in values if math.isfinite(value))


# -- curves -------------------------------------------------------------------------------------------


def _epochs(run: Run, era: Era, iterations: Iterations, draft: Draft) -> None:
    gaps: dict[str, list[tuple[int, float]]] = {}  # iteration and value, by column
    indices, curves = _curves(run.table.columns, era)
    timed = (*curves, ("Epoch Time", "Epoch Time"))
    for row in run.table.rows:
        iteration, at = iterations.of(row), run.times.at[row.epoch]
        values = tuple([row.values[index] for index in indices])
        if all(map(storable, values)):
            kept = curves
        else:
            for index, value in zip(indices, values, strict=True):
                if not storable(value):
                    gaps.setdefault(run.table.columns[index], []).append((iteration, value))
            kept = tuple(curve for curve, value in zip(curves, values, strict=True) if storable(value))
            values = tuple(filter(storable, values))
        took = run.times.took.get(row.epoch)  # storable, or there are no times at all
        if took is not None and not run.yolov5:
            kept, values = timed if kept is curves else (*kept, timed[-1]), (*values, took)
        if values:
            draft.reports.append(Report(f"epoch/{iteration}", Points(kept, values, iteration, at)))
        if row is run.table.rows[0]:
            _model_facts(run, era, at, draft)
    for column, where in gaps.items():
        shown = ", ".join(str(at) for at, _ in where[:10]) + (", ..." if len(where) > 10 else "")
        count = f"{len(where)} value{'s' if len(where) > 1 else ''}"
        why = why_not_storable(*(value for _, value in where))
        draft.missing.append(f"{column}: {count} {why} (iteration {shown})")
    if not run.times.took and not run.yolov5:
        draft.missing.append("Epoch Time")
    if run.dated is Dated.NOTHING:
        draft.missing.append(f"when it was trained ({run.dated.value})")
    if run.clock is not None:
        draft.missing.append(run.clock)
    if not run.times.exact:
        draft.missing.append("the time of each epoch (spread evenly over the training)")


def _curves(columns: Sequence[str], era: Era) -> tuple[list[int], tuple[tuple[str, str], ...]]:
    """Give the indices of the columns that are curves, as ``time`` is not, and their titles and series."""
    indices = [index for index, column in enumerate(columns) if "/" in column]
    parts = [(columns[index], *columns[index].split("/", 1)) for index in indices]
    return indices, tuple(
        (era.titles.get(prefix, prefix), column if era.series_keeps_prefix else rest)
        for column, prefix, rest in parts
    )


def _model_facts(run: Run, era: Era, at: int, draft: Draft) -> None:
    """``model/parameters`` is reported at the first epoch, beside facts that no file holds."""
    if era.single_values:
        checkpoint = run.best or run.last
        if checkpoint is not None and checkpoint.parameters is not None:
            draft.report("parameters", SingleValue("model/parameters", float(checkpoint.parameters), at))
        else:
            draft.missing.append("model/parameters")
    draft.missing += era.never_on_disk


# -- the end of a training --------------------------------------------------------------------------------


def _final_values(run: Run, era: Era, draft: Draft) -> None:
    """Report the final metrics: those best.pt records of its own epoch, else the best row of results.csv.

    The callback reported those of one more validation of best.pt, which is not on disk.
    """
    if not era.single_values:
        return
    recorded = run.best.train_metrics if run.best else {}
    row = max(run.table.rows, key=lambda row: (_fitness(_metrics(run, row), era), row.epoch))
    named = {k: v for k, v in recorded.items() if k.startswith("metrics/") and len(k) <= _LONGEST_METRIC}
    metrics = named or _metrics(run, row)
    if any(len(k) > _LONGEST_METRIC for k in recorded):
        draft.missing.append(f"final metrics with names of more than {_LONGEST_METRIC} characters")
    fitness = recorded.get("fitness", _fitness(metrics, era))
    values = {**metrics, "fitness": fitness}
    sent = {name: value for name, value in values.items() if storable(value)}
    draft.report(FINAL, *(SingleValue(name, value, run.times.ended) for name, value in sent.items()))
    draft.missing += [
        f"the final {name}: {why_not_storable(value)}" for name, value in values.items() if name not in sent
    ]
    draft.missing.append(era.final_evaluation)
    instead = "of the epoch that best.pt was saved at" if named else "of the best row of results.csv"
    draft.missing.append(f"the exact final metrics (sent: those {instead})")


def _metrics(run: Run, row: Row) -> dict[str, float]:
    pairs = zip(run.table.columns, row.values, strict=True)
    return {column: value for column, value in pairs if column.startswith("metrics/")}


def _fitness(metrics: Mapping[str, float], era: Era) -> float:
    return fitness(metrics, era.fitness, era.class_fitness)
