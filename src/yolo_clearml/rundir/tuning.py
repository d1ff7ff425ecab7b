"""The folder of ``model.tune()``, and which trainings beside it are the tuning's own.

What it holds was read in the sources of 8.0.180 to 8.4.190 (ultralytics/engine/tuner.py):

    tune_results.csv      to 8.4.36: fitness,lr0,...; a row an iteration, appended when its training has ended
    tune_results.ndjson   from 8.4.37 on: {"iteration", "fitness", "hyperparameters", "datasets", and
                          "save_dirs"}: the trainings of the iteration by data set
    best_hyperparameters.yaml   after each row: "# 3/300 iterations complete (12.34s)", "# Best fitness=0.5
                          observed at iteration 2", "# Best fitness model is <save_dir>", and the values
    weights/*.pt          of the best iteration so far; with several data sets below a folder for each
    tune_fitness.png, tune_scatter_plots.png

The trainings lie beside it, as train, train2, ... or, from 8.4.132 on, multitrain/<data set>, multitrain2/...
No release writes into a training which tuning began it. So it is the tuning's where the tuning states its
save_dir, as the training's own args.yaml does; or where it was trained with all hyperparameters of a row that
was mutated. Those of the first row are the user's own, which any training beside it may have.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from .. import system
from ..errors import RunUnreadable
from ..events import FileStamp, RunState
from .contents import read_contents, read_weights, unfit_pictures, with_content
from .dating import Dated
from .files import place_of, read_bounded
from .identity import first_rows_of, key_of
from .listing import (
    ARGUMENT_FILES,
    TUNING_BEST,
    TUNING_PICTURES,
    TUNING_RESULTS,
    WEIGHTS,
    Listed,
    listing,
    parted,
)
from .places import Empty, Place, TooLarge, Torn, described
from .release import Releases, guess_releases
from .results_csv import Table, latest_rows, parse, repeated_epochs
from .run import NotARun, Run, Trial, Tuning
from .state import patience
from .times import Times

_MOST_RESULTS = 2**25  # bytes; a record of a hundred data sets has 20,000
_MOST_RECORDS = 100_000
_MOST_BEST = 2**16  # bytes
_MOST_ARGS = 2**16  # bytes of another training's args.yaml
_MOST_BESIDE = 5000  # folders that are looked into
_NAME = re.compile(r"[\w./-]{1,200}")  # of a hyperparameter
_HEADER = re.compile(r"^#\s*(\d{1,9})/(\d{1,9}) iterations .*\((\d{1,12}\.\d+)s\)", re.MULTILINE)
_BEST_AT = re.compile(r"^#\s*Best fitness=\S+ observed at iteration (\d{1,9})\s*$", re.MULTILINE)
_BEST_DIR = re.compile(r"^#\s*Best fitness model is (.+?)\s*$", re.MULTILINE)
_MS_NS = 1_000_000
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class _Header:
    """What the comment at the top of best_hyperparameters.yaml states."""

    done: int  # iterations
    asked: int  # iterations
    seconds: float  # since the process began
    best_at: int | None
    best_dir: str | None


def is_tuning(path: Path) -> bool:
    """Return whether a folder is that of a tuning, and of no training."""

    def there(names: Sequence[str]) -> bool:
        return any(os.path.lexists(system.reach(path / name)) for name in names)

    return there(TUNING_RESULTS) and not there((*ARGUMENT_FILES, "results.csv"))


def beside(path: Path, listed: Sequence[Listed]) -> tuple[Listed, ...]:
    """Stamp the folder a tuning lies in, which changes when a training comes or goes; of runs nothing."""
    names = {name for name, *_ in listed}
    if names.isdisjoint(TUNING_RESULTS) or not names.isdisjoint(ARGUMENT_FILES):
        return ()
    try:
        return (("..", 0, system.reach(_absolute(path).parent).stat().st_mtime_ns, None),)
    except OSError:
        return ()


def scan_tuning(path: Path, now: float, stale_after: float | None, follow: Sequence[Path]) -> Run | NotARun:
    """Read the folder of a tuning; the arguments are those of `scan.scan`. Raises RunUnreadable.

    It has finished when as many rows are there as its header states were asked for. A tuning whose trainings
    all failed has no header, so nothing shows how many there were to be.
    """
    stamps, places = parted(listing(path, follow))
    name = next((each for each in TUNING_RESULTS if each in stamps), None)
    if name is None:
        kept = next(each for each in (*TUNING_RESULTS, "") if each in places or not each)
        what = described(places[kept]) if kept else "gone"
        raise RunUnreadable(
            f"{path / (kept or TUNING_RESULTS[0])} cannot be read: it is {what}.",
            "Nothing can be reported without it: let the link be followed, or put the file in its place.",
        )
    data, stamp = read_bounded(*place_of(path, stamps[name]), _MOST_RESULTS)
    records = _records(path / name, data) if name.endswith("ndjson") else ()
    everything = _table(path / name, _as_csv(records, data) if records or name.endswith("ndjson") else data)
    held = latest_rows(everything)
    best, header, unread = _best(path, stamps)
    newest = max(each.mtime_ns for each in stamps.values()) / _SECOND_NS
    dead = newest + patience(stale_after, header.seconds / header.done if header and header.done else 0.0)
    if not held.rows:
        if now < dead:
            return NotARun(path, "has not finished an iteration yet", "Nothing to report yet.", dead)
        return NotARun(path, "died before its first iteration ended", "There is nothing to report.")
    if header is not None and header.done >= header.asked and len(held.rows) >= header.asked:
        state = RunState.FINISHED
    else:
        state = RunState.LIVE if now < dead else RunState.STOPPED
    wanted = (*WEIGHTS, *TUNING_PICTURES)
    own = {n: each for n, each in stamps.items() if n in wanted}
    places = {n: place for n, place in places.items() if n in (*wanted, "weights", TUNING_BEST)} | unread
    checkpoints, torn = read_weights(path, own)
    places = {**places, **torn, **unfit_pictures(path, own)}
    files, missing = with_content(
        path, {n: each for n, each in own.items() if n not in places}, state is RunState.FINISHED
    )
    places |= missing
    if state is RunState.LIVE:  # what is half-written now will be whole next time
        places = {n: p for n, p in places.items() if not isinstance(p, (Torn, Empty, TooLarge))}
    stated = [*_stated(records), *([header.best_dir] if header and header.best_dir else [])]
    known = list(_trials(path, stated, held if not records else Table(), follow))
    trials = tuple(trial for trial, _ in known)
    ended = stamp.mtime_ns // _MS_NS
    return Run(
        path=path,
        args=_arguments(path, trials),
        hyp={},
        yolov5=False,
        releases=known[0][1] if known else guess_releases((), 2, {}, ()),
        state=state,
        first_row=held.rows[0].raw.strip(),
        table=held,
        earlier_rows=0,
        times=_times(held, ended, round(1000 * header.seconds) if header else 0),
        copied=False,
        again=dead if state is RunState.LIVE else None,
        relative=None,
        best=checkpoints.get(WEIGHTS[0]),
        last=checkpoints.get(WEIGHTS[1]),
        files=files,
        unfit=tuple(sorted(f"{n}: {described(place)}" for n, place in places.items())),
        places=places,
        dated=Dated.FILES_ALONE,
        tuning=Tuning(header.asked if header else None, best, header.best_at if header else None, trials),
    )


# -- rows ---------------------------------------------------------------------------------------------------


def _records(path: Path, data: bytes) -> tuple[object, ...]:
    """Read the lines that have an end, in order; what is no JSON counts as None."""
    *lines, _ = data.split(b"\n")
    _require_few(path, lines)
    return tuple(_record(line) for line in lines if line.strip())


def _require_few(path: Path, lines: Sequence[bytes]) -> None:
    if len(lines) > _MOST_RECORDS:
        raise RunUnreadable(
            f"{path} holds more than {_MOST_RECORDS:,} lines.",
            "This is not a file Ultralytics writes; look at what is in it.",
        )


def _record(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _as_csv(records: Sequence[object], data: bytes) -> bytes:
    """Write records as the table of older releases, with the hyperparameters of the first that has some."""
    rows = [_tried(record) for record in records]
    names = next((list(tried) for _, tried in filter(None, rows)), [])
    lines = [",".join(["fitness", *names])]
    for row in rows:
        fitness, tried = row or (math.nan, {})
        lines.append(",".join(map(repr, [fitness, *(tried.get(n, math.nan) for n in names)])) if row else "?")
    end = "" if data.rpartition(b"\n")[2].strip() == b"" else "?"
    return ("\n".join(lines) + "\n" + end).encode("utf-8", "replace")


def _tried(record: object) -> tuple[float, dict[str, float]] | None:
    """Give the fitness and the hyperparameters of an iteration; None where a record is none."""
    if not isinstance(record, dict) or not isinstance(values := record.get("hyperparameters"), dict):
        return None
    fitness = _number(record.get("fitness"))
    tried = {name: _number(value) for name, value in values.items() if _NAME.fullmatch(name)}
    if fitness is None or len(tried) < len(values):
        return None
    return fitness, {name: math.nan if value is None else value for name, value in tried.items()}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _table(path: Path, data: bytes) -> Table:
    """Parse rows of a tuning as `results_csv.parse` does, with the number of the iteration as their epoch."""
    *lines, rest = data.split(b"\n")
    _require_few(path, lines)
    header, *rows = lines or [b""]
    numbered = [b"epoch," + header.removeprefix(b"\xef\xbb\xbf")]
    numbered += [b"%d,%b" % (number, line) for number, line in enumerate(filter(bytes.strip, rows), start=1)]
    table = parse(b"\n".join([*numbered, rest]))
    if lines and (not table.columns or table.columns[0] != "fitness"):
        raise RunUnreadable(
            f"{path} is not a table that begins with the column 'fitness'.",
            "Restore the file as Ultralytics wrote it, then run the same command again.",
        )
    raw = tuple(replace(row, raw=row.raw.partition(b",")[2]) for row in table.rows)
    return replace(table, rows=raw)


def _times(rows: Table, ended: int, took: int) -> Times:
    """Spread the iterations evenly over the milliseconds that the process took, for nothing states when."""
    began = ended - took
    share = took / len(rows.rows)
    at = {row.epoch: began + round(share * number) for number, row in enumerate(rows.rows, start=1)}
    return Times(began, ended, at, {}, exact=False)


# -- the best -----------------------------------------------------------------------------------------------


def _best(
    path: Path, stamps: Mapping[str, FileStamp]
) -> tuple[dict[str, object], _Header | None, dict[str, Place]]:
    """Read best_hyperparameters.yaml: its values, what its comment states, and what stands in its place."""
    if TUNING_BEST not in stamps:
        return {}, None, {}
    from .arguments import read_arguments  # here, as in `read_contents`

    where = place_of(path, stamps[TUNING_BEST])
    try:
        text = read_bounded(*where, _MOST_BEST)[0].decode("utf-8", "replace")
        values = read_arguments(*where)[0]
    except FileNotFoundError:
        return {}, None, {}
    except RunUnreadable:
        return {}, None, {TUNING_BEST: Torn("not what Ultralytics writes")}
    counted, at, folder = _HEADER.search(text), _BEST_AT.search(text), _BEST_DIR.search(text)
    if counted is None:
        return values, None, {}
    header = _Header(
        int(counted[1]),
        int(counted[2]),
        float(counted[3]),
        int(at[1]) if at else None,
        folder[1] if folder else None,
    )
    return values, header, {}


# -- its trainings ------------------------------------------------------------------------------------------


def _arguments(path: Path, trials: Sequence[Trial]) -> dict[str, object]:
    """Give what it states of itself: its name; and the project of a training that lies right beside it."""
    stated: dict[str, object] = {"name": _absolute(path).name}
    for trial in trials:
        project = _args_of(_absolute(path).parent / trial.place).get("project")
        if "/" not in trial.place and isinstance(project, str):
            return stated | {"project": project}
    return stated


def _stated(records: Sequence[object]) -> Iterator[str]:
    """Give the save_dirs that records state."""
    for record in records:
        folders = record.get("save_dirs") if isinstance(record, dict) else None
        if isinstance(folders, dict):
            yield from (folder for folder in folders.values() if isinstance(folder, str))


def _trials(
    path: Path, stated: Sequence[str], rows: Table, follow: Sequence[Path]
) -> Iterator[tuple[Trial, Releases]]:
    """Give the trainings on disk that are shown to be the tuning's, sorted by where they are.

    With each the releases that it may be of, and so the tuning.

    ``stated`` are the save_dirs that it names, ``rows`` those that its trainings are known by.
    """
    home = _absolute(path).parent
    places = {place for folder in stated if (place := _beside(home, folder)) is not None}
    names = rows.columns[1:]
    mutated = {row.values[1:] for row in rows.rows} - {row.values[1:] for row in rows.rows[:1]}
    if names and mutated:
        places |= {place for place in _folders(home, path) if _values(home / place, names) in mutated}
    for place in sorted(places):
        try:
            known = _identity(home / place, tuple(follow), _stamp_of(home / place))
        except RunUnreadable:
            continue  # its own visit reports that
        if known is not None:
            key, first_rows, releases = known
            yield Trial(place, key, first_rows), releases


def _beside(home: Path, folder: str) -> str | None:
    """Give where a training lies now that was trained in ``folder``: as far below ``home`` as it was then."""
    parts = [part for part in re.split(r"[\\/]", folder) if part not in ("", ".", "..")]
    for depth in (1, 2):
        place = "/".join(parts[-depth:])
        if len(parts) >= depth and _args_of(home / place).get("save_dir") == folder:
            return place
    return None


def _folders(home: Path, path: Path) -> Iterator[str]:
    try:
        with os.scandir(system.reach(home)) as entries:
            folders = [entry.name for entry in entries if system.is_folder(entry)]
    except OSError:
        return
    yield from sorted(set(folders) - {_absolute(path).name})[:_MOST_BESIDE]


def _values(path: Path, names: Sequence[str]) -> tuple[float, ...] | None:
    """Give the values of arguments; None where not each of them is a number on a line of its own."""
    try:
        text = read_bounded(path, "args.yaml", _MOST_ARGS)[0].decode("utf-8", "replace")
        lines = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line and line[0] > " ")
        return tuple(float(lines[name]) for name in names)
    except (OSError, RunUnreadable, KeyError, ValueError):
        return None


def _args_of(path: Path) -> dict[str, object]:
    from .arguments import read_arguments  # here, as in `read_contents`

    try:
        return read_arguments(path, "args.yaml")[0]
    except RunUnreadable:
        return {}


def _stamp_of(path: Path) -> tuple[int, ...]:
    """Stamp what the identity of a training follows from; rows that come later do not change it."""
    found = [0, 0, 0]
    for index, name in enumerate(("args.yaml", "results.csv")):
        try:
            status = system.reach(path / name).lstat()
        except OSError:
            continue
        found[index] = status.st_mtime_ns
        found[2] = min(status.st_size, 2**16)
    return tuple(found)


@lru_cache(maxsize=4096)
def _identity(
    path: Path, follow: tuple[Path, ...], stamp: tuple[int, ...]
) -> tuple[str, tuple[str, ...], Releases] | None:
    """Give the key, first rows and releases of a training; None where it has no row. Raises RunUnreadable."""
    held = read_contents(path, follow)
    if not held.rows.rows:
        return None
    table = latest_rows(held.rows)
    key = key_of(held.rows.rows[0].raw.strip(), held.args, table)
    releases = guess_releases(table.columns, table.rows[0].epoch, held.args, ())
    return key, first_rows_of(table, repeated_epochs(held.rows)), releases


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100  where its links lead is of no concern
