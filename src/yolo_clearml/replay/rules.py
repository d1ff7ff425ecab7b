"""A Run to its Plan, as the callback of its era would have reported it. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import PurePosixPath

from ..events import (
    FINAL,
    GUESSED,
    STATUS,
    DrawnPlot,
    Event,
    FileStamp,
    Hyperparameters,
    Image,
    OutputModel,
    Parameter,
    Plan,
    Plot,
    Points,
    Properties,
    Report,
    RunState,
    SingleValue,
    Status,
)
from ..rundir.dating import Dated
from ..rundir.fitness import fitness
from ..rundir.identity import first_rows, run_key
from ..rundir.places import Earlier, Empty, Torn, described, notes
from ..rundir.relatives import Relative
from ..rundir.release import Release
from ..rundir.results_csv import Row
from ..rundir.run import Run, plots_wanted
from .eras import ERAS, YOLOV5, Era, PlotRule, era_of, eras_between, likeliest_era

SHORTEST_NAME = 3  # characters; ClearML refuses shorter projects, tasks and models
_DEEPEST_PROJECT = 10  # levels; ClearML refuses deeper ones
_LONGEST_NAME = 256  # characters
_LONGEST_METRIC = 200  # characters; ClearML's index refuses names of more than 32,766 bytes
_LARGEST = (2 - 2**-23) * 2.0**127  # of a 32-bit float; the server refuses a whole batch for a larger one
_BATCH = re.compile(r"(?P<before>.*)_batch(?P<number>\d{1,9})(?!\d)(?P<after>.*)", re.DOTALL)
_CHANGED = {  # what differs between two plans, by the first part of a report's key
    **{"args": "the hyperparameters", "epoch": "the titles of curves", "image": "the debug images"},
    **{"plot": "the plots", "final": "the final values"},
}
_MOST_NAMED = 3  # pictures in a sentence
_MAIN_METRICS = (
    "metrics/mAP50-95(M)",
    "metrics/mAP50-95(P)",
    "metrics/mAP50-95(B)",
    "metrics/accuracy_top1",
    "metrics/mAP_0.5:0.95",
)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked for instead of what the run itself says."""

    project: str | None = None
    name: str | None = None
    tags: tuple[str, ...] | None = None
    rules: Release | None = None


@dataclass(slots=True)
class _Draft:
    """What a plan is collected in."""

    reports: list[Report] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def report(self, key: str, *events: Event) -> None:
        if events:
            self.reports.append(Report(key, events))


def plan(run: Run, wishes: Wishes) -> Plan:
    """Work out everything ClearML should know about ``run`` by now; the same run gives the same plan.

    Where the release is not known, and those that it may be did not all report this alike, a note says so.
    """
    planned = _plan(run, wishes, _era(run, wishes))
    if run.releases.known or run.relative is not None or wishes.rules is not None:
        return planned
    note = _note_of_guess(run, wishes, planned)
    return replace(planned, notes=(*planned.notes, note)) if note else planned


def _plan(run: Run, wishes: Wishes, era: Era) -> Plan:
    draft = _Draft()
    (project, name), folder = _names(run, era, wishes, draft)
    iterations = _Iterations(run)
    for section, source in era.sections:
        values = run.hyp if source == "hyp" else {**run.args, **era.extra_arguments}
        parameters = _parameters(values, era)
        if parameters.pop("", None) is not None:  # ClearML refuses it
            draft.missing.append("an argument without a name")
        draft.report(f"args/{section}", Hyperparameters(section, parameters))
    draft.report("properties", _properties(run))
    _epochs(run, era, iterations, draft)
    if run.state is RunState.FINISHED:
        _final_values(run, era, draft)  # before the pictures: numbers then share a request
    _pictures(run, era, iterations, draft)
    if run.state is RunState.FINISHED and wishes.rules is None:
        _unsent_pictures(run, era, draft)
    if run.state is RunState.FINISHED:
        _output_model(run, era, folder[1], iterations, draft)
    draft.report(STATUS, Status(run.state))
    draft.missing += run.unfit
    draft.notes += notes(run.places)
    if run.earlier_rows:
        draft.missing.append(
            f"{run.earlier_rows} rows of an earlier training at the top of the same results.csv"
        )
    if run.table.malformed:
        lines = ", ".join(map(str, run.table.malformed[:10]))
        draft.missing.append(f"{len(run.table.malformed)} unreadable lines of results.csv (line {lines})")
    if run.relative is not None:
        draft.notes.append(_nearest(run.relative, run, wishes))
    tags = wishes.tags if wishes.tags is not None else (era.tag,)
    comment = f"Replayed by yolo-clearml from the run directory {_save_dir(run)}."
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


def _nearest(relative: Relative, run: Run, wishes: Wishes) -> str:
    """Say by whose rules a training of a fork or an elder relative is reported."""
    if run.yolov5:
        return f"{relative.text}; it is reported as the callback of YOLOv5 7.0, the nearest, would have."
    rules = _dotted(wishes.rules or _nearest_release(run, wishes))
    chosen = "" if wishes.rules else ", the nearest known; --rules chooses others"
    return f"{relative.text}; it is reported by the rules of {rules}{chosen}."


def _era(run: Run, wishes: Wishes) -> Era:
    if run.yolov5:
        return YOLOV5
    return era_of(wishes.rules) if wishes.rules else likeliest_era(run.releases)


def _nearest_release(run: Run, wishes: Wishes) -> Release:
    """Give the oldest release that a run may be of and whose rules it is reported by."""
    nearest = run.releases.early[0] if run.releases.contradictory else run.releases.first
    return max(_era(run, wishes).since, nearest)


def _note_of_guess(run: Run, wishes: Wishes, planned: Plan) -> str | None:
    """Say what is not certain because no checkpoint names the release; None where nothing hangs on it."""
    unfit = "; ".join(it for it in run.unfit if it.startswith("weights"))
    unknown = f"No checkpoint names the release{unfit and f' ({unfit})'}"
    era = _era(run, wishes)
    used = f"reported by the rules of {_dotted(_nearest_release(run, wishes))}, --rules chooses others."
    if run.releases.contradictory:
        return f"{unknown}, and args.yaml, results.csv and the pictures fit no release together; {used}"
    eras = eras_between(run.releases.first, run.releases.last)
    plans = [planned if each is era else _plan(run, wishes, each) for each in eras]
    turns = [
        f"{_dotted(each.since)} changed {' and '.join(changed)}"
        for each, (before, after) in zip(eras[1:], pairwise(plans), strict=True)
        if (changed := _changed(before, after))
    ]
    if not turns:
        return None
    return f"{unknown}; it may be {run.releases}, of which {', '.join(turns)}; {used}"


def _changed(before: Plan, after: Plan) -> list[str]:
    """Name what two releases report differently of the same run."""
    words = []
    if (before.project, before.folder) != (after.project, after.folder):
        words.append("the project")
    if before.tags != after.tags:
        words.append("the tag")
    old, new = ({report.key: report for report in each.reports} for each in (before, after))
    keys = {key.partition("/")[0] for key in {*old, *new} if old.get(key) != new.get(key)}
    return [*words, *(word for key, word in _CHANGED.items() if key in keys)]


def _dotted(release: Release) -> str:
    return ".".join(map(str, release))


class _Iterations:
    """Epochs as printed to ClearML's zero-based iterations."""

    def __init__(self, run: Run) -> None:
        # zero-based to 8.0.161 and in YOLOv5, one-based from 8.0.162; a file that shows epoch 0 settles it
        rows = run.table.rows
        self.first = 0 if run.yolov5 or rows[0].epoch == 0 else 1
        self.last = rows[-1].epoch - self.first

    def of(self, row: Row) -> int:
        return row.epoch - self.first


def _save_dir(run: Run) -> str:
    """Where the run says it was trained; not where it lies now, for every copy of it is the same run."""
    return _sendable(str(run.args.get("save_dir") or run.path.name))


def main_metric(run: Run) -> tuple[str, float, float] | None:
    """Give the run's main metric: its name, its best and its latest finite value; None where it has none."""
    for name in _MAIN_METRICS:
        values = [value for value in run.table.column(name) or () if math.isfinite(value)]
        if values:
            return name.removeprefix("metrics/"), max(values), values[-1]
    return None


def fitness_by_epoch(run: Run, wishes: Wishes) -> tuple[float, ...]:
    """Give Ultralytics' fitness of each epoch, as its release reckons it; epochs without one are left out."""
    era = _era(run, wishes)
    values = (_fitness(_metrics(run, row), era) for row in run.table.rows)
    return tuple(value for value in values if math.isfinite(value))


# -- names --------------------------------------------------------------------------------------------


def _names(run: Run, era: Era, wishes: Wishes, draft: _Draft) -> tuple[tuple[str, str], tuple[str, str]]:
    """Give the task's project and name, and those that the run itself asks for."""
    project, name = _stated_project(run, era), _stated_name(run, era)
    parts = [_acceptable(part) for part in (project or "").split("/") if part not in ("", ".", "..")]
    own = ("/".join(parts[-_DEEPEST_PROJECT:]) or era.project, _acceptable(name))
    for what, stated, is_now, accepted, wish in (
        ("project", project, "in", own[0], wishes.project),
        ("name", name, "called", own[1], wishes.name),
    ):
        if wish is None and stated is not None and stated != accepted:
            draft.notes.append(
                f"ClearML refuses the {what} {stated!r}; the task is {is_now} {accepted!r}, --{what} chooses."
            )
    return (wishes.project or own[0], wishes.name or own[1]), own


def _stated_project(run: Run, era: Era) -> str | None:
    stated, prefix = run.args.get("project"), era.default_project_prefix
    if stated is None or (prefix and str(stated).startswith(prefix)):
        return None
    return str(stated).lstrip(era.project_stripped_of) or None


def _stated_name(run: Run, era: Era) -> str:
    stated = run.args.get("name")
    if era.default_task_name and str(stated) == era.default_name:
        return era.default_task_name
    directory = PurePosixPath(_save_dir(run).replace("\\", "/")).name
    return str(stated) if stated not in (None, "") else directory or run.path.name


def _acceptable(name: str) -> str:
    """Make a name ClearML takes: printable, with at least three characters and not too many."""
    printable = "".join(c if c.isprintable() else "_" for c in name).strip()[:_LONGEST_NAME].strip()
    return printable.ljust(SHORTEST_NAME, "_")


# -- hyperparameters and properties ---------------------------------------------------------------------


def _parameters(values: Mapping[str, object], era: Era) -> dict[str, Parameter]:
    """Store arguments as ``task.connect(dict)`` does: dictionaries become ``a/b``, None becomes ""."""
    stored = {}
    for name, value in _flat(values):
        text = "" if value is None else json.dumps(value) if isinstance(value, list) else str(value)
        kind = era.none_type if value is None else _type_name(value)
        stored[_sendable(name)] = Parameter(_sendable(text), era.argument_types.get(name, kind))
    return stored


def _sendable(text: str) -> str:
    """Replace what has no UTF-8 form: half a surrogate pair, or a byte of an undecodable file name."""
    return text.encode("utf-8", "replace").decode()


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _type_name(value: object) -> str:
    if isinstance(value, list) and value and all(type(item) is type(value[0]) for item in value):
        return f"list/{type(value[0]).__name__}"
    return type(value).__name__


def _properties(run: Run) -> Properties:
    """What ClearML has no field for that could be set: true times, and where the run came from."""
    values = {
        "trained_from": _date(run, run.times.began),
        "run_directory": _save_dir(run),
        "release": f"{run.releases}{'' if run.releases.known else GUESSED}",
    }
    # the same names in every state: a run that is resumed writes over what was said when it had stopped
    live, asked = run.state is RunState.LIVE, run.args.get("epochs", "unknown")
    values["trained_until"] = "still training" if live else _date(run, run.times.ended)
    values["epochs"] = f"of {asked}" if live else f"{len(run.table.rows)} of {asked}"
    return Properties(values)


def _date(run: Run, milliseconds: int) -> str:
    """Say when something happened and, where it is not as sure as can be, what that rests on."""
    if run.dated is Dated.NOTHING:
        return f"unknown: {run.dated.value}, {_iso(run.times.ended)}"
    return _iso(milliseconds) + (f" ({run.dated.value})" if run.dated.value else "")


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).isoformat(timespec="seconds")


# -- curves -------------------------------------------------------------------------------------------


def _epochs(run: Run, era: Era, iterations: _Iterations, draft: _Draft) -> None:
    gaps: dict[str, list[tuple[int, float]]] = {}  # iteration and value, by column
    indices, curves = _curves(run.table.columns, era)
    timed = (*curves, ("Epoch Time", "Epoch Time"))
    for row in run.table.rows:
        iteration, at = iterations.of(row), run.times.at[row.epoch]
        values = tuple([row.values[index] for index in indices])
        if all(map(_storable, values)):
            kept = curves
        else:
            for index, value in zip(indices, values, strict=True):
                if not _storable(value):
                    gaps.setdefault(run.table.columns[index], []).append((iteration, value))
            kept = tuple(curve for curve, value in zip(curves, values, strict=True) if _storable(value))
            values = tuple(filter(_storable, values))
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
        why = _why_not_storable(*(value for _, value in where))
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


def _storable(value: float) -> bool:
    return abs(value) <= _LARGEST  # NaN is not either


def _why_not_storable(*values: float) -> str:
    return "not finite or too large" if any(map(math.isfinite, values)) else "not finite"


def _model_facts(run: Run, era: Era, at: int, draft: _Draft) -> None:
    """``model/parameters`` is reported at the first epoch, beside facts that no file holds."""
    if era.single_values:
        checkpoint = run.best or run.last
        if checkpoint is not None and checkpoint.parameters is not None:
            draft.report("parameters", SingleValue("model/parameters", float(checkpoint.parameters), at))
        else:
            draft.missing.append("model/parameters")
    draft.missing += era.never_on_disk


# -- pictures -----------------------------------------------------------------------------------------


def _pictures(run: Run, era: Era, iterations: _Iterations, draft: _Draft) -> None:
    mosaics = [s for n, s in run.files.items() if fnmatchcase(n, "train_batch*.jpg")]
    if iterations.last >= era.mosaic_epoch:
        for stamp in mosaics:
            image = _debug_image(era.mosaic_title, stamp, _drawn(run, stamp, run.times.began))
            draft.report(f"image/{stamp.name}", image)
    for stamp in (s for n, s in run.files.items() if fnmatchcase(n, "val*.jpg")):
        image = _debug_image("Validation", stamp, _drawn(run, stamp, run.times.ended))
        draft.report(f"image/{stamp.name}", image)
    if run.state is RunState.FINISHED:
        for rule in era.plots:  # of which one at the most is a picture's
            for stamp in (s for n, s in run.files.items() if fnmatchcase(n, rule.pattern)):
                plot = _plot(run, rule, stamp, iterations)
                draft.report(f"plot/{PurePosixPath(stamp.name).stem}", plot)
    if plots_wanted(run.args, run.yolov5):
        if run.state is RunState.STOPPED and "results.png" not in run.files:
            rule = next(rule for rule in era.plots if rule.pattern == "results.png")
            draft.report("plot/results", _drawn_results(run, rule, iterations))
        if not mosaics and iterations.last >= era.mosaic_epoch and run.state is not RunState.LIVE:
            draft.missing.append("train_batch*.jpg")
        if "results.png" not in run.files and run.state is RunState.FINISHED:
            draft.missing.append("results.png and the plots beside it")


def _unsent_pictures(run: Run, era: Era, draft: _Draft) -> None:
    """Name pictures that the callback of this release never set out to report, and a later one did."""
    for each in ERAS[ERAS.index(era) + 1 :] if era in ERAS else ():
        if extra := sorted(_plotted(run, each) - _plotted(run, era)):
            more = f" and {len(extra) - _MOST_NAMED} more pictures" if len(extra) > _MOST_NAMED + 1 else ""
            shown = ", ".join(extra[: _MOST_NAMED if more else None]) + more
            draft.notes.append(
                f"Not sent, as this release did not report {'it' if len(extra) == 1 else 'them'}: {shown}; "
                f"--rules {_dotted(each.since)} reports as the first that did."
            )
            return


def _plotted(run: Run, era: Era) -> set[str]:
    return {name for name in run.files if any(fnmatchcase(name, rule.pattern) for rule in era.plots)}


def _drawn(run: Run, stamp: FileStamp, otherwise: int) -> int:
    """When a picture was drawn, in milliseconds since the epoch; a copy's file times do not tell."""
    return otherwise if run.copied else stamp.mtime_ns // 1_000_000


def _debug_image(title: str, stamp: FileStamp, at: int) -> Image:
    """``val_batch0_pred.jpg`` is series ``val_pred.jpg`` at iteration 0."""
    name = _sendable(stamp.name)
    match = _BATCH.fullmatch(name)
    if match is None:
        return Image(title, name, 0, stamp, at)
    return Image(title, match["before"] + match["after"], int(match["number"]), stamp, at)


def _plot(run: Run, rule: PlotRule, stamp: FileStamp, iterations: _Iterations) -> Plot:
    title = rule.title.format(stem=PurePosixPath(_sendable(stamp.name)).stem)
    iteration = iterations.last if rule.at_last_epoch else 0
    return Plot(title, iteration, stamp, _drawn(run, stamp, run.times.ended))


def _drawn_results(run: Run, rule: PlotRule, iterations: _Iterations) -> DrawnPlot:
    kept = [i for i, column in enumerate(run.table.columns) if "loss" in column or "metric" in column]
    return DrawnPlot(
        title=rule.title.format(stem="results"),
        iteration=iterations.last if rule.at_last_epoch else 0,
        file_name="results.png",
        columns=tuple(run.table.columns[i] for i in kept),
        epochs=tuple(row.epoch for row in run.table.rows),
        values=tuple(tuple(row.values[i] for i in kept) for row in run.table.rows),
        at=run.times.ended,
    )


# -- the end of a training --------------------------------------------------------------------------------


def _final_values(run: Run, era: Era, draft: _Draft) -> None:
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
    sent = {name: value for name, value in values.items() if _storable(value)}
    draft.report(FINAL, *(SingleValue(name, value, run.times.ended) for name, value in sent.items()))
    draft.missing += [
        f"the final {name}: {_why_not_storable(value)}" for name, value in values.items() if name not in sent
    ]
    draft.missing.append(era.final_evaluation)
    draft.missing.append("the exact final metrics (sent: those of the epoch that best.pt was saved at)")


def _metrics(run: Run, row: Row) -> dict[str, float]:
    pairs = zip(run.table.columns, row.values, strict=True)
    return {column: value for column, value in pairs if column.startswith("metrics/")}


def _fitness(metrics: Mapping[str, float], era: Era) -> float:
    return fitness(metrics, era.fitness, era.class_fitness)


def _output_model(run: Run, era: Era, name: str, iterations: _Iterations, draft: _Draft) -> None:
    stamp = run.files.get("weights/best.pt")
    if stamp is None or run.best is None:
        draft.missing.append("the output model (weights/best.pt)")
        place = run.places.get("weights/best.pt")
        if isinstance(place, (Torn, Empty, Earlier)):  # of others it is said what they are, and what helps
            again = "Restore it as Ultralytics wrote it, then run the same command again."
            draft.notes.append(f"The output model is not sent (weights/best.pt: {described(place)}). {again}")
        return
    labels: dict[str, int] = {}
    for index, name_of_class in run.best.names.items():
        label = _sendable(name_of_class)
        if label and not label.startswith("$"):
            labels.setdefault(label, index)
    dropped = len(run.best.names) - len(labels)
    if dropped:
        draft.missing.append(f"{dropped} class names of the model (empty, doubled or with a leading $)")
    draft.report("model", OutputModel(era.model_name.format(name=name), stamp, labels, iterations.last))
