"""What the command line does, for programs: its options as a value, its commands as iterators."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from . import __version__
from .errors import NoTemporaryFolder, OurFault, UsageError
from .events import ModelFile, Part, Plan
from .replay.names import SHORTEST_NAME, Wish
from .replay.placeholders import NoTemplate, Template, template
from .replay.rules import Wishes, plan
from .replay.wanted import Wanted, named
from .rundir.choice import EVERY_RUN, Choice, FileChoice
from .rundir.finding import Found, require_validation
from .rundir.further import with_further
from .rundir.release import parse_release
from .rundir.run import NotARun, Run
from .rundir.scan import scan
from .sync.checks import Check, failed, not_checked, releases, surroundings
from .sync.engine import sync
from .sync.ledger import FileLedgers, Ledgers, NoLedgers, ReadOnlyLedgers, configuration_stamp
from .sync.outcomes import Facts, Failed, Outcome, Pending, Skipped, UpToDate
from .sync.silence import LONGEST
from .sync.sinks import RecordingSink, Sink
from .sync.visit import standing
from .sync.work import Aim, Lazily, Work

_LONGEST = 10**9  # seconds; 30 years, so that no clock overflows
_MOST_JOBS = 64


def require(right: bool, text: str, hint: str = "") -> None:
    """Raise UsageError unless something is ``right``."""
    if not right:
        see = "See the command's --help; an option may also come from a variable YOLO_CLEARML_*."
        raise UsageError(text, hint or see)


def require_seconds(option: str, seconds: float | None) -> None:
    """Raise UsageError unless an option is a number of seconds to wait, or not given."""
    right = seconds is None or (math.isfinite(seconds) and 1 <= seconds <= _LONGEST)
    require(right, f"{option} needs a number of seconds from 1 to {_LONGEST}.")


@dataclass(frozen=True, slots=True)
class Options:
    """How runs are reported; each field is the option of that name on the command line."""

    project: str | None = None
    name: str | None = None  # for one run, but for placeholders
    tags: tuple[str, ...] | None = None
    output_uri: str | None = None
    only: tuple[str, ...] | None = None  # kinds of things, by the names of `events.Part`
    without: tuple[str, ...] | None = None  # the same, left out
    models: tuple[str, ...] | None = None  # by the names of `events.ModelFile`
    artifacts: tuple[str, ...] = ()  # patterns as in .gitignore, of files below a run
    validations: tuple[Path, ...] = ()  # directories of `yolo val`, whose pictures go to the one run's task
    rules: str | None = None  # a release, as 8.3.100
    offline: Path | None = None
    force: bool = False
    new: bool = False
    verify: bool = False
    task_id: str | None = None  # for one run
    jobs: int = 4
    stale_after: float | None = None  # seconds
    follow_links: tuple[Path, ...] = ()  # folders that links in a run may lead into
    timeout: float = 30.0  # seconds
    move: bool = False  # a task that ClearML holds already goes where project and name say, too
    roots: tuple[Path, ...] = ()  # that runs are looked for in, for the placeholder {path}

    def __post_init__(self) -> None:
        """Check what can be checked without a run or a server; raises UsageError."""
        self.wishes()
        self._require_validations()
        require(not (self.force and self.new), "--force and --new cannot be had together.")
        require(not (self.verify and self.offline), "--verify and --offline cannot be had together.")
        for option, excluded in (
            ("--new", self.new),
            ("--offline", self.offline is not None),
            ("--task-id", self.task_id is not None),
        ):
            require(not (self.move and excluded), f"--move and {option} cannot be had together.")
        nowhere = self.project is None and self.name is None
        require(not (self.move and nowhere), "--move needs --project or --name, for where it is to go.")
        for option, excluded in (("--new", self.new), ("--offline", self.offline is not None)):
            both = excluded and self.task_id is not None
            require(not both, f"--task-id and {option} cannot be had together.")
        require(self.task_id is None or bool(self.task_id.strip()), "--task-id is empty.")
        require(1 <= self.jobs <= _MOST_JOBS, f"--jobs needs a number from 1 to {_MOST_JOBS}.")
        require_seconds("--timeout", self.timeout)
        require_seconds("--stale-after", self.stale_after)
        self.follow()

    def follow(self) -> tuple[Path, ...]:
        """Give the real paths of the folders that may be followed into; raises UsageError."""
        for folder in self.follow_links:
            require(folder.is_dir(), f"--follow-links {folder} is no folder.")
        return tuple(folder.resolve() for folder in self.follow_links)

    def wanted(self) -> Wanted:
        """Collect what of a run is to be reported; raises UsageError."""
        only, without = named("--only", Part, self.only), named("--without", Part, self.without)
        require(only is None or without is None, "--only and --without cannot be had together.")
        left_out = frozenset(Part) - only if only is not None else without or frozenset()
        models, artifacts = named("--models", ModelFile, self.models), FileChoice(self.artifacts)
        validations = tuple(sorted({folder.resolve() for folder in self.validations}))
        return Wanted(left_out, models, artifacts, validations)

    def _require_validations(self) -> None:
        names = [folder.name for folder in self.wanted().validations]
        for folder in self.validations:
            require_validation(folder)
            name = folder.resolve().name
            require(
                names.count(name) == 1,
                f"Two validations are called {name!r}, and so would be their pictures in ClearML.",
                "Give one of them another name.",
            )

    def wishes(self) -> Wishes:
        """Collect what is wished for instead of what a run states; raises UsageError."""
        for option, values in (
            ("--project", (self.project,)),
            ("--name", (self.name,)),
            ("--tags", self.tags or ()),
        ):
            for value in values:
                odd = value is not None and any("\ud800" <= c <= "\udfff" for c in value)
                require(not odd, f"ClearML refuses {option} {value!r}: it holds what is no character.")
        project, name, release = self._wish("--project", self.project), self._wish("--name", self.name), None
        require(all(tag.strip() for tag in self.tags or ()), "--tags is empty.")
        if self.rules is not None:
            release = parse_release(self.rules)
            known = release is not None and release[0] == 8
            hint = (
                "Give a release of Ultralytics 8, such as 8.3.100; those of YOLOv5 have rules of their own."
            )
            require(known, f"--rules {self.rules!r} is no release of Ultralytics 8.", hint)
        return Wishes(project, name, self.tags or None, release)

    def _wish(self, option: str, asked: str | None) -> Wish:
        """Read a name that may have placeholders, and which ClearML takes; raises UsageError."""
        if asked is None:
            return None
        try:
            wish = template(asked, self.roots)
        except NoTemplate as error:
            raise UsageError(f"{option} {error}", error.hint) from error
        parts = [part.strip() for part in (asked.split("/") if option == "--project" else [asked])]
        # what placeholders give is made to fit
        plain = [text for part in parts if isinstance(text := template(part), str)]
        long = all(len(text) >= SHORTEST_NAME for text in plain)
        require(long, f"ClearML refuses {option} {asked!r}: names need three characters or more.")
        return wish if isinstance(wish, Template) else "/".join(plain)


def read_run(path: Path, options: Options = Options()) -> Run | NotARun:
    """Read one run directory; raises RunUnreadable."""
    run = scan(path, time.time(), options.stale_after, options.follow())
    further = options.wanted().further(options.follow())
    return run if isinstance(run, NotARun) else with_further(run, further)


def plan_run(run: Run, options: Options = Options()) -> Plan:
    """Work out everything ClearML should know about a run by now, without sending anything."""
    wishes = options.wishes()
    return options.wanted().chosen(plan(run, wishes), run, wishes.rules)


def upload(
    runs: Iterable[Found],
    options: Options = Options(),
    stop: threading.Event | None = None,
    *,
    rehearsal: RecordingSink | None = None,
) -> Iterator[Outcome]:
    """Report each run once, as ``yolo-clearml upload`` does; yields what happens.

    ``runs`` is what `find_runs` gives. The last outcome of a run is Delivered, UpToDate, Skipped or Failed;
    no error of a run is raised. After ``stop`` is set no further run is begun. A ``rehearsal`` records what
    would be sent, one run at a time, and nothing is touched.
    """
    stop = stop or threading.Event()
    work = _work(options, stop)
    if rehearsal is None:
        work = replace(work, silence=LONGEST if options.offline is None else None)
        return sync(runs, work, options.jobs, stop)
    # one at a time, it plans the same in the same order every time
    return sync(runs, replace(work, sink=Lazily(lambda: rehearsal), ledgers=ReadOnlyLedgers()), 1, stop)


def verify(
    runs: Iterable[Found],
    options: Options = Options(),
    stop: threading.Event | None = None,
) -> Iterator[Outcome]:
    """Read each run's task back and compare it with the disk, as ``yolo-clearml verify`` does.

    Nothing is changed, and what the last upload was asked to leave out is not compared.
    The last outcome of a run is UpToDate, Skipped or Failed; the ``proof`` of an UpToDate is a Verdict,
    whose ``differences`` are none where the run is verified.
    """
    stop = stop or threading.Event()
    return sync(runs, replace(_work(options, stop), aim=Aim.VERIFY, wanted=None), options.jobs, stop)


def watch(
    roots: Iterable[Path],
    options: Options = Options(),
    stop: threading.Event | None = None,
    *,
    poll: float | None = None,
    once: bool = False,
    choice: Choice = EVERY_RUN,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Outcome]:
    """Report runs below ``roots`` as they appear and grow, as ``yolo-clearml watch`` does, until ``stop``.

    ``poll`` are the seconds between two looks where changes are not announced; with ``once`` it ends when
    all runs have ended and are delivered; only runs that ``choice`` takes are followed. ``say`` gets, from
    any thread, what a person should know of the watch itself. Raises UsageError where a root does not exist.
    """
    from .sync.agenda import Agenda, follow
    from .sync.triggers import Lookout

    require_seconds("--poll", poll)
    stop, roots = stop or threading.Event(), list(roots)
    options = replace(options, roots=options.roots or tuple(roots))
    require(not options.move, "--move is for an upload, which moves a task once.")
    require(
        not isinstance(options.wishes().name, str),
        f"--name of a watch is for many runs, and {options.name!r} is the same for all.",
        "Put a placeholder into it, such as {parent} or {name}.",
    )
    work = _work(options, stop)
    # whatever comes, it will need the sink; when what is there was looked at, there is time for that
    agenda = Agenda(work.sink.renew, stop, once, idle=work.sink.begin)
    further = options.wanted().further(work.follow)
    with Lookout(roots, agenda, say, stop, poll, choice, follow=work.follow, further=further):
        if not (agenda.open_runs or (once and agenda.elsewhere)):
            say("There is no run yet; waiting for the first.")
        yield from follow(agenda, work, options.jobs, stop)


def status(
    runs: Iterable[Found],
    options: Options = Options(),
) -> Iterator[UpToDate | Pending | Skipped | Failed]:
    """Give how each run stands, from its directory and its ledger, as ``yolo-clearml status`` does."""
    work = replace(_work(options, threading.Event()), wanted=None)
    for found in runs:
        if isinstance(found, NotARun):
            yield Skipped(found.path, found.reason, found.hint)
        else:
            try:
                stands = standing(found, work)
            except Exception as fault:  # noqa: BLE001  reported, and the other runs are not to blame
                stands = Failed(found, Facts(), OurFault.over(fault))
            yield stands


def diagnose(
    paths: Iterable[Path] = (), options: Options = Options(), stop: threading.Event | None = None
) -> Iterator[Check]:
    """Check what an upload or a watch of ``paths`` rests on, as ``yolo-clearml doctor`` does.

    Of the options ``output_uri``, ``timeout`` and ``follow_links`` count. What is wrong is a Check that has
    failed, and no error; what could not be looked into, because something before it failed, is one as well.
    Nothing of what is made on the way stays, but where a Check warns of it.
    """
    paths = list(paths)
    stop = stop or threading.Event()
    yield releases(__version__)
    try:
        _require_temporary_folder()
    except NoTemporaryFolder as error:
        yield failed("temporary files", error)
        yield not_checked("server", "ClearML's SDK cannot be imported.")
    else:
        from .server.diagnosis import connection

        yield from connection(options.output_uri, options.timeout, stop)
    yield from surroundings(paths, options.follow())


def _require_temporary_folder() -> None:
    import tempfile

    try:
        tempfile.gettempdir()
    except FileNotFoundError as cause:
        raise NoTemporaryFolder from cause


def _work(options: Options, stop: threading.Event) -> Work:
    """Choose where reports go and what remembers them; the heavy imports wait until a run needs them."""

    def offline() -> Sink:
        from .server.offline import OfflineSink

        return OfflineSink(options.offline or Path(), options.output_uri)

    def online() -> Sink:
        _require_temporary_folder()
        from .server.sink import ClearmlSink

        return ClearmlSink(options.timeout, options.output_uri, stop)

    def load() -> None:
        from .server import sink  # noqa: F401  takes more than a second
        from .server.session import configured_host

        configured_host()  # the SDK reads its configuration once, which takes it half a second

    wanted = options.wanted()
    ledgers: Ledgers = FileLedgers() if options.offline is None else NoLedgers()
    return Work(
        sink=Lazily(online, load) if options.offline is None else Lazily(offline),
        ledgers=ledgers,
        server_hint=configuration_stamp(),
        wishes=options.wishes(),
        wanted=wanted,
        validations=wanted.validations,
        stale_after=options.stale_after,
        follow=options.follow(),
        force=options.force,
        new=options.new,
        move=options.move,
        aim=Aim.DELIVER_AND_VERIFY if options.verify else Aim.DELIVER,
        task_id=options.task_id.strip() if options.task_id is not None else None,
    )
