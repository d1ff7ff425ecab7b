"""A save_dir to a Run: what it holds, which files are its own, who wrote them, when, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RunHeldOpen, RunUnreadable
from ..events import FileStamp, RunState
from .contents import Contents, read_contents, read_weights, unfit_pictures, with_content
from .dating import Dating, dated, file_times_fit, taken_for_stopped
from .ending import is_complete
from .listing import WEIGHTS
from .mixed import whose_rows
from .places import (
    Earlier,
    Empty,
    LfsPointer,
    Link,
    Place,
    TooLarge,
    Torn,
    Unreadable,
    described,
    in_place_of,
    notes,
)
from .relatives import Relative, relative_of
from .release import Releases, guess_releases, known_release, parse_release
from .results_csv import Table, latest_rows, repeated_epochs
from .run import NotARun, Run
from .state import (
    before_first_epoch,
    last_row_written,
    newest_write,
    own_files,
    own_since,
    patience,
    state_of,
)
from .times import Times, when
from .tuning import is_tuning, scan_tuning

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

_MS_NS = 1_000_000
_HELD = 5.0  # seconds until a file that another program holds open is looked at again


def scan(
    path: Path, now: float, stale_after: float | None = None, follow: Sequence[Path] = ()
) -> Run | NotARun:
    """Read one run directory.

    ``now`` is seconds since the epoch, ``stale_after`` the seconds after which an unfinished run that
    nothing has written to has died; None: half an hour, or three of its longest epochs. Links are followed
    into the folders ``follow``, real paths, alone. Raises RunUnreadable.
    """
    try:
        if is_tuning(path):
            return scan_tuning(path, now, stale_after, follow)
        held = read_contents(path, follow)
    except RunHeldOpen as error:
        return NotARun(
            path, "has a file that another program holds open", f"{error} {error.hint}", now + _HELD
        )
    newest, waited = newest_write(held), patience(stale_after)
    fresh = now - newest < waited
    nothing = before_first_epoch(held, fresh, newest + waited)
    if nothing is not None:
        return nothing
    _raise_if_mixed(held)

    fit = file_times_fit(held.listed, held.args_stamp, held.csv_stamp, held.rows, held.resumed)
    own, earlier_files = own_files(held, fit)
    checkpoints, unfit_weights = read_weights(path, own)
    places = {
        **held.places,
        **dict.fromkeys(earlier_files, Earlier()),
        **unfit_weights,
        **unfit_pictures(path, own),
    }
    best, last = (checkpoints.get(name) for name in WEIGHTS)
    relative, releases = _trainer(held, own, best, last)
    times, dating, moved = _dates(held, own, last or best, fit, fresh)

    waited = patience(stale_after, times.longest_epoch)
    dead = (dating.written / 1000 if moved else newest) + waited
    # where git-lfs has yet to fetch the weights nothing trains, however new the clone is
    cloned = not checkpoints and any(isinstance(place, LfsPointer) for place in places.values())
    live = now < dead and not cloned
    rows = latest_rows(held.rows)
    state = state_of(
        held,
        own,
        checkpoints,
        [name for name in own if isinstance(places.get(name), (Torn, Empty))],
        live=live,
        complete=is_complete(rows, held.args) and not (live and fit is not False),
        fit=fit,
    )
    as_copy = state is RunState.STOPPED and moved and now < newest + waited
    if state is RunState.LIVE and not checkpoints and held.args.get("save", True) and not held.yolov5:
        # the release decides the titles, and the checkpoint that names it follows the first row at once
        return _without_release(path, places, dead)
    fit_files = {name: stamp for name, stamp in own.items() if name not in places}
    files, unread = with_content(path, fit_files, state is RunState.FINISHED)
    places |= unread
    if state is RunState.LIVE:
        # what is half-written now will be whole next time
        places = {n: p for n, p in places.items() if not isinstance(p, (Torn, Empty, TooLarge))}
    return Run(
        path=path,
        args=held.args,
        hyp=held.hyp,
        yolov5=held.yolov5,
        releases=releases,
        state=state,
        first_row=held.rows.rows[0].raw.strip(),
        table=rows,
        earlier_rows=held.earlier_rows,
        times=times,
        copied=dating.copied,
        again=dead if state is RunState.LIVE else None,
        relative=relative,
        best=best,
        last=last,
        files=files,
        unfit=tuple(sorted(f"{name}: {described(place)}" for name, place in places.items())),
        places=places,
        repeated=repeated_epochs(held.rows),
        dated=dating.rests_on,
        clock=taken_for_stopped(dating) if as_copy else dating.clock,
        since=own_since(held, fit),
    )


def _raise_if_mixed(held: Contents) -> None:
    """Raise RunUnreadable where the rows may be those of another training than args.yaml's."""
    second = held.earlier_rows > 0 or held.args_stamp.mtime_ns > held.csv_stamp.mtime_ns
    mixed = whose_rows(held.everything, held.args, second)
    if mixed is not None:
        raise RunUnreadable(f"{held.path / 'results.csv'} {mixed[0]}.", mixed[1])


def _trainer(
    held: Contents, own: Mapping[str, FileStamp], best: Checkpoint | None, last: Checkpoint | None
) -> tuple[Relative | None, Releases]:
    """Give which fork or elder relative trained a run, if one did, and which releases it may be of."""
    versions = [saved.release for saved in (last, best) if saved and saved.release]
    release = next((r for v in versions if (r := parse_release(v)) and r[0] == 8), None)
    strange = versions[0] if versions and release is None else None
    relative = relative_of(held.yolov5, held.rows.columns, held.args, strange)
    if held.yolov5:
        return relative, replace(known_release((7, 0, 0)), known=relative is None)
    if release is not None:
        return relative, known_release(release)
    return relative, guess_releases(held.rows.columns, held.rows.rows[0].epoch, held.args, own)


def _dates(
    held: Contents, own: Mapping[str, FileStamp], newer: Checkpoint | None, fit: bool | None, fresh: bool
) -> tuple[Times, Dating, bool]:
    """Give the times of all rows, what they rest on, and whether that is another time than the files'."""
    batch = own.get("train_batch0.jpg", held.args_stamp)
    end = last_row_written(held, own) // _MS_NS
    times = when(held.rows, end, batch.mtime_ns // _MS_NS)
    dating = dated(end, newer.date if newer else None, _since(newer, held.rows, times), fit, fresh)
    if dating.copied:
        times = when(held.rows, dating.written, None)
    return times, dating, dating.written != end


def _since(saved: Checkpoint | None, rows: Table, times: Times) -> int:
    """Give the milliseconds from a checkpoint's row to the last one.

    While an epoch is on, its row may lie long after the newest checkpoint.
    """
    if saved is None or saved.epoch is None or saved.epoch < 0:
        return 0
    first = 0 if rows.rows[0].epoch == 0 else 1
    return times.ended - times.at.get(saved.epoch + first, times.ended)


def _without_release(path: Path, places: Mapping[str, Place], dead: float) -> NotARun:
    """Give why a live run is not reported yet; raises RunUnreadable."""
    found = {name: place for name in WEIGHTS if (place := in_place_of(name, places)) not in (None, Earlier())}
    for name, place in found.items():
        if isinstance(place, Unreadable):
            raise RunUnreadable(
                f"{path / name} cannot be read: {place.reason}.",
                "Make it readable, then run the same command again.",
            )
    links = notes({n: p for n, p in places.items() if n in ("weights", *WEIGHTS) and isinstance(p, Link)})
    what = "checkpoint that can be read" if found else "checkpoint"
    hint = " ".join(links) or "It is looked at again next time."
    return NotARun(path, f"has no {what} yet", hint, dead)
