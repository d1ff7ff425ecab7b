"""How fast, how large, how many requests: this program beside what a user would write, in one run.

    .venv/bin/python tests/benchmark.py            all of it, some minutes
    .venv/bin/python tests/benchmark.py one help   some of it

It talks to the server double on loopback, so what it shows is the client's own share; the ratios carry over
to another machine, the seconds do not. Nothing else should be at work on the machine meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from double import ClearMLDouble

SAMPLE = Path(__file__).parent.parent / "sample_runs" / "v8.4.190-detect"
SERIES = 14
TOOL = [str(Path(sys.executable).with_name("yolo-clearml"))]
PYTHON = [sys.executable, "-c"]

# What a user would write: the calls of Ultralytics' callback, fed from the run directory.
SCRIPT = """
import csv, sys
from pathlib import Path
from clearml import OutputModel, Task
import matplotlib
matplotlib.use("Agg")
import matplotlib.image as mpimg, matplotlib.pyplot as plt
run = Path(sys.argv[1])
task = Task.init(project_name="Ultralytics", task_name="train", tags=["Ultralytics"], output_uri=True,
                 reuse_last_task_id=False, auto_connect_frameworks={"pytorch": False, "matplotlib": False})
import yaml
task.connect(yaml.safe_load((run / "args.yaml").read_text()), name="General")
log = task.get_logger()
for row in csv.DictReader((run / "results.csv").open()):
    for name, value in row.items():
        if "/" in name:
            log.report_scalar(name.split("/")[0], name, float(value), int(row["epoch"]) - 1)
for image in sorted([*run.glob("train_batch*.jpg"), *run.glob("val*.jpg")]):
    log.report_image("Mosaic", image.name, 0, local_path=str(image))
for plot in sorted(run.glob("*.png")):
    figure = plt.figure()
    axes = figure.add_axes([0, 0, 1, 1], frameon=False, aspect="auto", xticks=[], yticks=[])
    axes.imshow(mpimg.imread(str(plot)))
    log.report_matplotlib_figure(title=plot.stem, series="", figure=figure, report_interactive=False)
    plt.close(figure)
task.update_output_model(model_path=str(run / "weights/best.pt"), model_name="train", auto_delete_file=False)
task.close()
"""

# What nobody can do without: the SDK's import, and the bytes.
BARE = """
import os, sys
from pathlib import Path
import clearml, requests
run = Path(sys.argv[1])
for file in [*run.glob("*.jpg"), *run.glob("*.png"), run / "weights/best.pt"]:
    requests.post(os.environ["CLEARML_FILES_HOST"], files={file.name: file.open("rb")})
"""

ONE_COMMAND = """
import typer
app = typer.Typer()
@app.command()
def run(name: str = typer.Option("x", help="A name.")) -> None:
    print(name)
app()
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process took."""

    wall: float  # seconds
    cpu: float  # seconds
    rss: float  # MiB, at its peak
    requests: int = 0
    sent: int = 0  # bytes


# A process begins with the peak of the one that forks it, so a small one does, which measures as well.
LAUNCHER = """
import json, os, subprocess, sys, time
began = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps([status, time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]))
"""


def measure(command: Sequence[str], server: ClearMLDouble | None = None) -> Cost:
    """Run a process to its end; raises where it fails."""
    already = len(server.requests) if server else 0
    env = {name: value for name, value in os.environ.items() if not name.startswith(("CLEARML_", "YOLO_"))}
    env |= {"CLEARML_CONFIG_FILE": "/nonexistent", **(server.environ if server else {})}
    env["YOLO_CLEARML_STATE_DIR"] = tempfile.gettempdir() + "/nonexistent"
    launched = [sys.executable, "-S", "-c", LAUNCHER, *command]
    ended = subprocess.run(launched, env=env, capture_output=True, text=True, check=True)
    status, wall, cpu, peak = json.loads(ended.stdout)
    if status != 0:
        raise RuntimeError(f"{command[:4]} ended with {status}: {ended.stderr[-2000:]}")
    requests = server.requests[already:] if server else []
    rss = peak / (1024 if sys.platform == "linux" else 1024**2)
    return Cost(wall, cpu, rss, len(requests), sum(request.size for request in requests))


def quickest(times: int, *actions: Callable[[], Cost]) -> list[Cost]:
    """Do each so many times, in turns, and take the quickest of each: what is slower was disturbed."""
    costs = [[action() for action in actions] for _ in range(times)]
    return [min(of_one, key=lambda cost: cost.wall) for of_one in zip(*costs, strict=True)]


def make_run(
    path: Path, epochs: int, pictures: int = 9, plots: int = 9, model: int | None = 6_000_000
) -> Path:
    """Make a finished run, its checkpoint padded to so many bytes; None: one that goes on and saves none."""
    (path / "weights").mkdir(parents=True)
    arguments = (SAMPLE / "args.yaml").read_text() + ("save: false\n" if model is None else "")
    (path / "args.yaml").write_text(re.sub(r"(?m)^save_dir: .*$", f"save_dir: {path}", arguments))
    losses = [f"train/loss{n}" for n in range(SERIES - 7)]
    columns = [*losses, "metrics/mAP50(B)", "metrics/mAP50-95(B)", *(f"val/loss{n}" for n in range(3))]
    columns += ["lr/pg0", "lr/pg1"]
    random.seed(path.name)
    rows = [
        ",".join([str(n), f"{n * 9.5:.6g}", *(f"{random.random():.5f}" for _ in columns)])
        for n in range(1, epochs + 1)
    ]
    (path / "results.csv").write_text("\n".join([",".join(["epoch", "time", *columns]), *rows, ""]))
    names = [f"train_batch{n}.jpg" for n in range(3)]
    names += [f"val_batch{n}_{what}.jpg" for n in range(3) for what in ("labels", "pred")]
    for name in names[:pictures]:
        shutil.copy(SAMPLE / "val_batch0_pred.jpg", path / name)
    names = [f"Box{n}_curve.png" for n in ("F1", "P", "PR", "R")]
    names += ["confusion_matrix.png", "confusion_matrix_normalized.png", "results.png"]
    names += [f"Extra{n}_curve.png" for n in range(9)]
    for name in names[:plots]:
        shutil.copy(SAMPLE / "results.png", path / name)
    for name in ("best.pt", "last.pt") if model is not None else ():
        shutil.copy(SAMPLE / "weights" / name, path / "weights" / name)
        missing = (model or 0) - (path / "weights" / name).stat().st_size
        if missing > 0:
            with zipfile.ZipFile(path / "weights" / name, "a") as archive:
                archive.writestr("best/padding", random.randbytes(missing))
    return path


# -- scenes ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def workplace(latency: float = 0.0) -> Iterator[tuple[Path, ClearMLDouble]]:
    """Give an empty folder and a server that takes so many seconds more for each request."""
    with tempfile.TemporaryDirectory() as folder, ClearMLDouble() as server:
        server.latency = latency
        yield Path(folder), server


def times(ours: Cost, other: Cost) -> str:
    """Write how many times as long something took."""
    return f"{ours.wall / other.wall:.2f}"


def row(what: str, goal: str, seen: str) -> None:
    """Print a line of the table."""
    print(f"| {what} | {goal} | {seen} |", flush=True)


def one() -> None:
    """One run beside the script a user would write, and beside what nobody can do without."""
    for latency in (0.0, 0.05):

        def alone(command: Sequence[str], latency: float = latency) -> Cost:
            with workplace(latency) as (folder, server):
                return measure([*command, str(make_run(folder / "run", 300))], server)

        theirs = alone([*PYTHON, SCRIPT])
        ours, bare = quickest(3, lambda: alone([*TOOL, "upload"]), lambda: alone([*PYTHON, BARE]))
        shorter = f"1/{theirs.wall / ours.wall:.1f} ({ours.wall:.2f} s)"
        row(f"one run, {latency * 1000:.0f} ms a request: wall", "1/12", shorter)
        row("CPU", "", f"1/{theirs.cpu / ours.cpu:.1f} ({ours.cpu:.2f} s)")
        row("requests", "30", f"{ours.requests} (script: {theirs.requests})")
        row("bytes sent", "", f"{ours.sent / 1e6:.1f} MB (script: {theirs.sent / 1e6:.1f} MB)")
        row("peak RSS", "90 MB", f"{ours.rss:.0f} MB (script: {theirs.rss:.0f} MB)")
        goal = "1.2" if latency else "1.4"
        row("wall, beside `import clearml` and a bare POST of each file", goal, times(ours, bare))


def again() -> None:
    """The same run a second time, beside --version; and how the first time sent its scalars."""
    with workplace() as (folder, server):
        run = make_run(folder / "run", 300)
        measure([*TOOL, "upload", str(run)], server)
        batches = [request.payload for request in server.requests if request.endpoint == "events.add_batch"]
        scalars = sum(any(line["type"] == "training_stats_scalar" for line in batch) for batch in batches)
        row("requests for a run's scalars", "3", f"{scalars}")
        version, second = quickest(
            9,
            lambda: measure([*TOOL, "--version"]),
            lambda: measure([*TOOL, "upload", str(run)], server),
        )
        row("its second upload, beside `--version`", "1.3", times(second, version))
        row("requests", "0", str(second.requests))


def many() -> None:
    """A thousand runs, four at a time; and the memory that a tenth of them takes."""
    for said, model in (("", None), (" and a model", 0)):
        with workplace() as (folder, server):
            for n in range(1000):
                make_run(folder / ("few" if n < 100 else "most") / f"train{n}", 100, 3, 0, model)
            few = measure([*TOOL, "upload", "-q", "-j", "4", str(folder / "few")], server)
            most = measure([*TOOL, "upload", "-q", "-j", "4", str(folder / "most")], server)
            row(f"1,000 runs of 100 epochs, 3 pictures{said}", "20 runs/s", f"{900 / most.wall:.0f} runs/s")
            row("requests for each", "10", f"{most.requests / 900:.1f}")
            row("its peak RSS, 900 runs beside 100", "1.0", f"{most.rss / few.rss:.2f} ({most.rss:.0f} MB)")
            read = measure([*TOOL, "verify", "-q", "-j", "4", str(folder / "most")], server)
            row("`verify` of them, beside their upload", "1.0", times(read, most))


def died() -> None:
    """Runs that died, whose ``results`` figure is drawn, beside the same with the figure on disk."""
    killed = SAMPLE.with_name("v8.4.190-detect-killed")
    with workplace() as (folder, server):
        for n in range(80):
            run = make_run(folder / ("there" if n % 2 else "drawn") / f"train{n}", 100, 3, 0, None)
            shutil.copy(killed / "args.yaml", run / "args.yaml")
            shutil.copy(killed / "weights" / "last.pt", run / "weights" / "last.pt")
            if n % 2:
                shutil.copy(SAMPLE / "results.png", run / "results.png")
            for file in run.rglob("*.*"):
                os.utime(file, (1.7e9, 1.7e9))  # long ago, so it goes on no more
        drawn, there = (
            measure([*TOOL, "upload", "-q", "-j", "4", str(folder / name)], server)
            for name in ("drawn", "there")
        )
        more = (drawn.cpu - there.cpu) / 40
        row("a run whose `results` figure is drawn, beside one that has it", "+0.25 s CPU", f"+{more:.2f} s")
        row("40 such runs, `-j 4`: wall, beside those that have it", "", times(drawn, there))
        row("their peak RSS", "", f"{drawn.rss:.0f} MB, {there.rss:.0f} MB")


def adoption() -> None:
    """A run whose live task is looked for among a thousand of its name, of as many places or of one."""
    for places, asked in ((1000, "of its name"), (1, "of its name and place")):
        with workplace() as (folder, server):
            other, run = (make_run(folder / name, 100, 3, 0, None) for name in ("other", "run"))
            measure([*TOOL, "upload", "-q", str(other)], server)
            (told,) = server.tasks.values()
            for n in range(1000):
                live = deepcopy(told) | {"id": f"{n:032x}", "runtime": {}}
                del live["hyperparams"]["properties"]
                place = f"{run}/{n}" if places > 1 else str(run)
                live["hyperparams"]["General"]["save_dir"]["value"] = place
                server.tasks[live["id"]] = live
            cost = measure([*TOOL, "upload", "-q", str(run)], server)
            row(f"a run among 1,000 tasks {asked}: requests", "20", str(cost.requests))
            row("its peak RSS", "90 MB", f"{cost.rss:.0f} MB")


def sharded() -> None:
    """A thousand runs by four workers at once; raises where anything is lost, doubled or left to send."""
    with workplace() as (folder, server):
        for n in range(1000):
            make_run(folder / "runs" / f"p{n // 100}" / f"train{n}", 20, 1, 0, 0)
        began = time.perf_counter()
        with ThreadPoolExecutor(4) as workers:
            # all four wait for one double, on the same cores
            command = [*TOOL, "upload", "-q", "-j", "2", "--timeout", "600", str(folder / "runs"), "--shard"]
            commands = [[*command, f"{n}/4"] for n in range(1, 5)]
            list(workers.map(lambda command: measure(command, server), commands))
        wall = time.perf_counter() - began
        tasks = server.tasks
        told = (
            len(tasks),
            len({task["hyperparams"]["properties"]["run_directory"]["value"] for task in tasks.values()}),
            len(server.models),
        )
        seen = {
            (
                *(task["status"], server.events_received(name), len(server.scalars(name))),
                *(len(server.single_values(name)), len(server.images(name)), len(server.plots(name))),
                len(server.logs(name)),
            )
            for name, task in tasks.items()
        }
        rest = measure([*TOOL, "upload", str(folder / "runs")], server).requests
        ((status, received, *stored),) = seen  # of each task the same
        if (told, status, received, rest) != ((1000,) * 3, "completed", sum(stored), 0):
            raise RuntimeError(f"{told} {seen} {rest}")
        row(
            "1,000 runs of 20 epochs by four workers, each with its `--shard`",
            "20 runs/s",
            f"{1000 / wall:.0f} runs/s",
        )


def delivered() -> None:
    """Ten thousand delivered runs: nothing new, and status."""
    with workplace() as (folder, server):
        proto = make_run(folder / "runs" / "proto", 100, pictures=3, plots=0, model=0)
        measure([*TOOL, "upload", "-q", str(proto)], server)
        for n in range(9999):
            copy = folder / "runs" / f"p{n // 100}" / f"train{n}"
            (copy / "weights").mkdir(parents=True)
            for file in proto.rglob("*"):
                if file.name == ".yolo-clearml.json":
                    shutil.copy2(file, copy / file.name)
                elif file.is_file():
                    os.link(file, copy / file.relative_to(proto))
        nothing, shown, stats = quickest(
            3,
            lambda: measure([*TOOL, "upload", str(folder / "runs")], server),
            lambda: measure([*TOOL, "status", str(folder / "runs")], server),
            lambda: measure([*PYTHON, STATS, str(folder / "runs")]),
        )
        row("10,000 delivered runs, nothing new", "0.8 s", f"{nothing.wall:.2f} s")
        row("its requests and peak RSS", "0, 60 MB", f"{nothing.requests}, {nothing.rss:.0f} MB")
        row("beside the bare listing of all their files", "2", f"{nothing.wall / stats.wall:.1f}")
        row("`status` of 10,000 runs", "2 s", f"{shown.wall:.2f} s")


STATS = """
import os, sys
for folder, _, files in os.walk(sys.argv[1]):
    for file in files:
        os.stat(os.path.join(folder, file))
"""


def follow() -> None:
    """Two thousand runs that are done and twenty that grow: how long a row takes, and what idling costs."""
    with workplace() as (folder, server):
        for n in range(2000):
            make_run(folder / "runs" / f"p{n // 100}" / f"train{n}", 3, pictures=0, plots=0, model=0)
        growing = [make_run(folder / "runs" / "now" / f"train{n}", 1, 3, 0, None) for n in range(20)]
        with watching(folder / "runs", server) as pid:
            wait_until(lambda: len(server.tasks) == 2020)
            time.sleep(5)
            waited = sorted(rows_to_server(growing, server, 200))
            p50, p99 = waited[len(waited) // 2], waited[int(len(waited) * 0.99)]
            row(
                "watch, 2,000 + 20 runs, 2 rows/s: row to server, 99 %",
                "1 s",
                f"{p99:.2f} s (half: {p50:.2f} s)",
            )
            before = cpu_of(pid)
            time.sleep(300)  # a whole round of its looks
            idle = (cpu_of(pid) - before) / 300
            row("watch, idle: CPU of a core", "0.5 %", f"{idle * 100:.2f} %")
            row("watch: RSS", "120 MB", f"{rss_of(pid):.0f} MB")


@contextlib.contextmanager
def watching(folder: Path, server: ClearMLDouble) -> Iterator[int]:
    """Watch a folder; gives the process's id."""
    env = {**os.environ, **server.environ, "CLEARML_CONFIG_FILE": "/nonexistent"}
    process = subprocess.Popen([*TOOL, "watch", "-q", str(folder)], env=env)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def rows_to_server(runs: Sequence[Path], server: ClearMLDouble, rows: int) -> list[float]:
    """Append rows to runs, by chance, two a second; gives the seconds each took to the server."""
    chance = random.Random(0)
    epochs = {run: (run / "results.csv").read_text().count("\n") - 1 for run in runs}
    written: dict[float, float] = {}  # a value that no other row has: when it was written
    arrived: dict[float, float] = {}
    seen = len(server.requests)

    def look() -> None:
        nonlocal seen
        now = time.perf_counter()
        for request in server.requests[seen:]:
            seen += 1
            for line in request.payload if request.endpoint == "events.add_batch" else ():
                if line.get("variant") == "train/loss0" and line["value"] in written:
                    arrived.setdefault(line["value"], now)

    for number in range(rows):
        run = chance.choice(runs)
        epochs[run] += 1
        line = (run / "results.csv").read_text().splitlines()[1].split(",")
        line[:3] = str(epochs[run]), f"{epochs[run] * 9.5:.6g}", str(100.0 + number)
        with (run / "results.csv").open("a") as file:
            file.write(",".join(line) + "\n")
        written[100.0 + number] = time.perf_counter()
        until = time.perf_counter() + chance.expovariate(2.0)
        while time.perf_counter() < until:
            look()
            time.sleep(0.005)

    def all_there() -> bool:
        look()
        return len(arrived) == rows

    wait_until(all_there)
    return [arrived[value] - begun for value, begun in written.items()]


def wait_until(condition: Callable[[], bool]) -> None:
    """Look every few milliseconds, ten minutes at most."""
    end = time.monotonic() + 600
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.005)


def cpu_of(pid: int) -> float:
    """Read a process's CPU time, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_of(pid: int) -> float:
    """Read a process's resident memory, in MiB."""
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def growing() -> None:
    """One more row of a long run and of a short one, as watch sees it, beside reading the file."""
    from yolo_clearml.rundir.results_csv import parse

    taken: dict[int, float] = {}
    for epochs in (50, 5000):
        with workplace() as (folder, server):
            run = make_run(folder / "runs" / "train", epochs, 3, 0, None)
            with watching(folder / "runs", server) as pid:
                rows_to_server([run], server, 1)
                time.sleep(2)
                before = cpu_of(pid)
                for _ in range(20):
                    rows_to_server([run], server, 1)
                time.sleep(2)
                taken[epochs] = (cpu_of(pid) - before) / 20
            data = (run / "results.csv").read_bytes()
    began = time.process_time()
    for _ in range(5):
        parse(data)
    read = (time.process_time() - began) / 5
    more = taken[5000] - taken[50]
    seen = f"+{more:.2f} s, {read:.2f} s of it the read"
    row("a row more at 5,000 epochs, beside 50: CPU", "+0.06 s", seen)


def help_() -> None:
    """--help and --version beside a Typer program of one command."""
    single, *ours = quickest(
        15,
        lambda: measure([*PYTHON, ONE_COMMAND, "--help"]),
        lambda: measure([*TOOL, "--help"]),
        lambda: measure([*TOOL, "--version"]),
    )
    for option, cost in zip(("--help", "--version"), ours, strict=True):
        row(f"`{option}`, beside the help of a Typer program of one command", "1.5", times(cost, single))


SCENES = {
    "one": one,
    "again": again,
    "many": many,
    "adoption": adoption,
    "died": died,
    "sharded": sharded,
    "delivered": delivered,
    "follow": follow,
    "growing": growing,
    "help": help_,
}


def main() -> None:
    """Play the scenes that are asked for, or all."""
    cores = os.cpu_count()
    print(f"{platform.system()}, {platform.machine()}, {cores} cores, Python {platform.python_version()}\n")
    print("| work | goal | seen |\n|---|---|---|")
    for name in sys.argv[1:] or SCENES:
        SCENES[name]()


if __name__ == "__main__":
    main()
