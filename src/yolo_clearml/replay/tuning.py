"""A tuning to its Plan. Pure.

No callback reports one, so the names are those that its own files use: the columns of its results, the names
of its pictures. Of ClearML's own optimizer it has the type of the task, and its trainings as children.
"""

from __future__ import annotations

from ..events import STATUS, Child, Hyperparameters, Plan, Plot, Points, Properties, Report, RunState, Status
from ..rundir.identity import first_rows, run_key
from ..rundir.listing import TUNING_PICTURES
from ..rundir.places import notes
from ..rundir.release import Release
from ..rundir.run import Run, Tuning
from .draft import Draft, Iterations, sendable, storable
from .guess import era_by
from .models import report_best
from .names import Wish, save_dir, task_names
from .parameters import ITERATIONS, connected

_BEST = "best_hyperparameters"  # the section; its file is called so
# an iteration: each picture is drawn anew after every iteration, and takes the last one's place
_PICTURES_AT = 0


def plan_tuning(
    run: Run,
    tuning: Tuning,
    asked: tuple[Wish, Wish],
    tags: tuple[str, ...] | None,
    rules: Release | None,
) -> Plan:
    """Work out everything ClearML should know about a tuning; ``asked`` are project and name wished for."""
    draft, era, iterations = Draft(), era_by(run, rules), Iterations(run)
    (project, name), folder = task_names(run, era, asked, draft)
    if tuning.best:
        draft.report(f"args/{_BEST}", Hyperparameters(_BEST, connected(tuning.best, era)))
    elif run.state is not RunState.LIVE:
        draft.missing.append("the best hyperparameters (best_hyperparameters.yaml)")
    draft.report("properties", _properties(run, tuning))
    for trial in tuning.trials:
        child = Child(sendable(trial.place), trial.key, trial.first_rows)
        draft.report(f"child/{sendable(trial.place)}", child)
    curves = tuple((column, column) for column in run.table.columns)
    gaps = 0
    for row in run.table.rows:
        kept = [(c, v) for c, v in zip(curves, row.values, strict=True) if storable(v)]
        gaps += len(curves) - len(kept)
        if kept:
            names, values = zip(*kept, strict=True)
            iteration, at = iterations.of(row), run.times.at[row.epoch]
            draft.reports.append(Report(f"epoch/{iteration}", Points(names, values, iteration, at)))
    if gaps:
        draft.missing.append(f"{gaps} values of iterations that are not finite or too large")
    draft.missing.append("the time of each iteration (spread evenly over the tuning)")
    for picture in TUNING_PICTURES:
        if picture in run.files:
            title = picture.removesuffix(".png")
            draft.report(f"plot/{title}", Plot(title, _PICTURES_AT, run.files[picture], run.times.ended))
        elif run.state is not RunState.LIVE:
            draft.missing.append(picture)
    if run.state is RunState.FINISHED:
        report_best(run, era, folder[1], iterations, draft)
    draft.report(STATUS, Status(run.state))
    draft.missing += run.unfit
    draft.notes += notes(run.places)
    if tuning.asked is None:
        draft.missing.append("how many iterations were asked for")
    draft.miss_lines(run.table, "its results")
    if run.table.unfinished and run.state is not RunState.LIVE:
        draft.missing.append("the last line of its results, which has no end and may be cut short")
    return Plan(
        run_key(run),
        project,
        name,
        tags if tags is not None else (era.tag,),
        folder,
        f"Replayed by yolo-clearml from the tuning {save_dir(run)}.",
        tuple(draft.reports),
        tuple(draft.missing),
        tuple(draft.notes),
        first_rows(run),
        type="optimizer",
    )


def _properties(run: Run, tuning: Tuning) -> Properties:
    asked = "unknown" if tuning.asked is None else tuning.asked
    live = run.state is RunState.LIVE
    values = {
        "run_directory": save_dir(run),
        ITERATIONS: f"of {asked}" if live else f"{len(run.table.rows)} of {asked}",
    }
    if tuning.best_iteration is not None:
        values["best_iteration"] = str(tuning.best_iteration)
    return Properties(values)
