"""Whatever bytes are in the four files anybody can write, they are understood or refused, twice the same.

A coverage-guided fuzzer has been through the same properties for minutes each; what it found, and what was
found beside it, stands here as examples.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SAMPLES
from hypothesis import example, given
from hypothesis import strategies as st
from test_checkpoint import SMALL, write
from test_scan import COLUMNS, ENDED, training

from yolo_clearml.cli.console import json_line
from yolo_clearml.cli.plan_text import plan_json, plan_lines
from yolo_clearml.cli.standings import SortKey, chosen, write_json, write_table
from yolo_clearml.errors import RunUnreadable, YoloClearmlError
from yolo_clearml.events import Hyperparameters, Points, Scalar
from yolo_clearml.replay.rules import Wishes, plan
from yolo_clearml.rundir.checkpoint import Checkpoint, CheckpointUnreadable, read_checkpoint
from yolo_clearml.rundir.results_csv import parse
from yolo_clearml.rundir.run import Run
from yolo_clearml.rundir.scan import scan
from yolo_clearml.server import payloads
from yolo_clearml.sync.ledger import LEDGER_NAME, FileLedgers, Ledger
from yolo_clearml.sync.outcomes import Delivered, Facts, Pending, UpToDate
from yolo_clearml.sync.visit import facts_of

RUNS = sorted(SAMPLES.iterdir())
NOW = ENDED + 1e6


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give one training whose files each example writes anew; it keeps nothing from one to the next."""
    path = training(tmp_path_factory.mktemp("fuzz") / "train")
    for name in ("train_batch0.jpg", "train_batch1.jpg", "train_batch2.jpg"):
        (path / name).unlink()
    return path


def mutated(whole: bytes) -> st.SearchStrategy[bytes]:
    """Give a file with pieces of it cut out, doubled, and overwritten."""
    place = st.integers(0, len(whole))
    piece = st.one_of(
        st.binary(max_size=8), st.sampled_from([b"\0", b"\n", b",", b": ", b"&a ", b"*a", b"1e999"])
    )

    def change(edits: list[tuple[int, int, bytes, bool]]) -> bytes:
        data = whole
        for start, stop, put, double in edits:
            first, last = sorted((start, stop))
            data = data[:first] + put + (data[first:last] if double else b"") + data[last:]
        return data[: 4 * len(whole)]

    return st.lists(st.tuples(place, place, piece, st.booleans()), min_size=1, max_size=6).map(change)


def understood(run: Path) -> None:
    """Go through all that a command does with a run short of sending it, twice with one result."""
    try:
        found = scan(run, NOW)
    except YoloClearmlError as error:
        assert error.hint
        return
    assert repr(found) == repr(scan(run, NOW))
    if not isinstance(found, Run):
        return
    planned = plan(found, Wishes())
    assert planned == plan(found, Wishes())
    assert len(planned.reports) == len({report.key for report in planned.reports})
    assert [report.digest for report in planned.reports] == [r.digest for r in plan(found, Wishes()).reports]
    for event in (event for report in planned.reports for event in report.events):
        if isinstance(event, Scalar):
            assert math.isfinite(event.value)
            payloads.text(payloads.scalar("x", event))
        if isinstance(event, Hyperparameters):
            json.dumps(payloads.parameters(event), allow_nan=False).encode()
    for points in (r.events for r in planned.reports if isinstance(r.events, Points)):
        assert payloads.texts("x", points) == [payloads.text(payloads.scalar("x", point)) for point in points]
    facts = facts_of(found, planned, Wishes())
    assert repr(facts) == repr(Facts.restored(json.loads(json.dumps(facts.stored()))))
    delivered = Delivered(run, facts, "", None, 0, 0, 0, planned.notes)
    assert all(line.isprintable() for line in plan_lines(delivered, planned, planned.reports))
    json.dumps(plan_json(planned, planned.reports), allow_nan=False)
    shown(Pending(run, facts, None, None, 1))


def shown(standing: UpToDate | Pending) -> None:
    for key in SortKey:
        write_table(chosen([standing, standing], (), False, key), 80, True)
    write_json([standing])


LARGEST = f"{COLUMNS}\n1,1,1,1.7e308,1.7e308,1\n2,2,1,-1.7e308,-1.7e308,1\n".encode()


@given(
    data=st.sampled_from(RUNS).flatmap(lambda sample: mutated((sample / "results.csv").read_bytes()[:2000]))
)
@example(LARGEST)  # a curve whose ends lie further apart than a float holds
@example(b"\xef\xbb\xbfepoch,time\r\n1,1e999\r\n")
@example(b"epoch,a\n" + b"1,2\n" * 100_001)
def test_results(run: Path, data: bytes) -> None:
    """Rows once read stay as they are however the file goes on; and they are the same when written again."""
    table = parse(data)
    for cut in {len(data) // 3, len(data) // 2, len(data) - 1} - {-1}:
        rows = parse(data[:cut]).rows
        assert repr(table.rows[: len(rows)]) == repr(rows)
    lines = [",".join(("epoch", *table.columns))]
    lines += [",".join((str(row.epoch), *map(repr, row.values))) for row in table.rows]
    again = parse("".join(f"{line}\n" for line in lines).encode())
    if table.columns:
        assert (table.columns, ()) == (again.columns, again.malformed)
        assert repr([row.values for row in table.rows]) == repr([row.values for row in again.rows])
    whole = (run / "results.csv").read_bytes()
    (run / "results.csv").write_bytes(data)
    try:
        understood(run)
    finally:
        (run / "results.csv").write_bytes(whole)


@given(data=st.sampled_from(RUNS).flatmap(lambda s: mutated(next(s.glob("[ao]*.yaml")).read_bytes()[:1500])))
@example(b'"\\ud800": "\\udc80"\n')
@example(b"epochs: true\nname: [1]\n1: a\n'1': b\n")
@example(f"epochs: {'9' * 99}\n".encode())
def test_arguments(run: Path, data: bytes) -> None:
    """What is plain is understood, and is the same when it is written again."""
    whole = (run / "args.yaml").read_bytes()
    (run / "args.yaml").write_bytes(data)
    try:
        understood(run)
        found = scan(run, NOW)
        assert isinstance(found, Run)
        (run / "args.yaml").write_bytes(yaml.safe_dump(dict(found.args), allow_unicode=False).encode())
        again = scan(run, NOW)
        assert isinstance(again, Run)
        assert json.dumps(found.args, sort_keys=True) == json.dumps(again.args, sort_keys=True)
    except RunUnreadable:
        pass
    finally:
        (run / "args.yaml").write_bytes(whole)


@given(data=st.one_of(mutated(SMALL), mutated((RUNS[0] / "weights/best.pt").read_bytes()[-3000:])))
def test_checkpoints(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """As a pickle in a sound zip, and as a zip: facts or a reason, twice the same."""
    folder = tmp_path_factory.mktemp("pt")
    for raw in (False, True):
        path = write(folder, data)
        if raw:
            path.write_bytes(data)
        assert read_or_refused(path) == read_or_refused(path)
    shutil.rmtree(folder)


def read_or_refused(path: Path) -> str:
    try:
        read = read_checkpoint(path)
    except CheckpointUnreadable as refusal:
        assert refusal.reason.endswith(".")
        return refusal.reason
    assert isinstance(read, Checkpoint)
    return repr(read)


ODD: Any = st.sampled_from(
    [
        *(None, True, 0, -1, 2**63, 10**400, 1e308, math.inf, math.nan),
        *("", "live", "\ud800", "\x1b[31m", "x" * 5000),
        *(
            [],
            [1],
            ["a", 1],
            ["a", math.inf],
            [[]],
            {},
            {"a": 1},
            [1e308, -1e308],
            [math.nan],
            ["a", 10**400],
        ),
    ]
)
FACTS: Any = st.dictionaries(st.sampled_from(Facts.__slots__), ODD, max_size=5)
FIELDS: Any = st.dictionaries(st.sampled_from([*Ledger.__slots__, "else"]), ODD, max_size=3)


@given(fields=FIELDS, facts=FACTS, raw=st.one_of(st.none(), st.binary(max_size=50)))
@example({}, {"epochs": math.inf}, None)  # as 1e999, which no integer is
@example({}, {"epochs": 1, "best": ["a", 10**400]}, None)
@example({}, {"project": {"a": 1}, "name": [1]}, None)
@example({}, {"of_epochs": [1]}, None)
@example({"task": "\ud800", "url": "\x1b]8;;x"}, {}, None)
def test_ledgers(run: Path, fields: dict[str, Any], facts: dict[str, Any], raw: bytes | None) -> None:
    """A ledger lies in the run, so it is anybody's as well: it is believed in part, or counts as lost."""
    found = scan(run, NOW)
    assert isinstance(found, Run)
    planned = plan(found, Wishes())
    full = Ledger(run=planned.key, task="t").acknowledge(planned.reports)
    known = {name: getattr(full, name) for name in Ledger.__slots__}
    text = json.dumps({"version": 1, **known, "facts": facts, **fields}).encode()
    (run / LEDGER_NAME).write_bytes(text if raw is None else text[: len(text) // 2] + raw)
    try:
        ledger = FileLedgers().load(run)
        assert repr(ledger) == repr(FileLedgers().load(run))
        restored = Facts.restored(ledger.facts)
        json.dumps(restored.stored())
        json_line(UpToDate(run, restored, ledger.task, ledger.url))
        shown(UpToDate(run, restored, ledger.task, ledger.url))
        with FileLedgers().hold(run) as held:
            held.save(ledger.acknowledge(ledger.pending(planned)))
        assert ledger.run != planned.key or () == FileLedgers().load(run).pending(planned)
    finally:
        (run / LEDGER_NAME).unlink(missing_ok=True)
