"""Folders that ``model.tune()`` leaves, with their trainings, written as the tuner's own source writes them.

To 8.4.36 (``engine/tuner.py`` of 8.3.100): tune_results.csv, appended a row at a time by ``",".join(map(str,
[round(fitness, 5), *values]))``; trainings train, train2, ... beside it. Of 8.4.190: tune_results.ndjson, a
``json.dumps`` of each record; trainings multitrain/<data set>, multitrain2/<data set>, ... In both,
best_hyperparameters.yaml is a comment and ``yaml.dump(..., sort_keys=False, allow_unicode=True)``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conftest import MakeRun

TRAINED = "v8.4.190-detect-noplots"
WHERE = "/home/user/runs/detect"  # that the tuning was run in
ROWS: tuple[tuple[float, dict[str, float | int]], ...] = (
    (0.41234, {"lr0": 0.01, "momentum": 0.937, "box": 7.5, "close_mosaic": 10}),
    (0.52345, {"lr0": 0.00954, "momentum": 0.91402, "box": 7.61032, "close_mosaic": 9}),
    (0.5, {"lr0": 0.01103, "momentum": 0.93211, "box": 8.20011, "close_mosaic": 10}),
)
BEGAN = 1_700_000_000  # seconds since the epoch


@dataclass
class Tuned:
    """A tuning and its trainings, on disk."""

    folder: Path
    trainings: list[Path]
    new: bool

    def write(self, rows: int, asked: int | None = 3) -> None:
        """Write what is there after so many iterations; ``asked`` None: every training has failed."""
        done = ROWS[:rows]
        if self.new:
            records = [
                {
                    "iteration": number,
                    "fitness": fitness,
                    "hyperparameters": values,
                    "datasets": {"coco8": {"metrics/mAP50(B)": 0.6, "fitness": fitness}},
                    "save_dirs": {"coco8": f"{WHERE}/{_new(number)}"},
                }
                for number, (fitness, values) in enumerate(done, start=1)
            ]
            results = "".join(json.dumps(record) + "\n" for record in records)
        else:
            results = "fitness," + ",".join(ROWS[0][1]) + "\n"
            results += "".join(",".join(map(str, [f, *values.values()])) + "\n" for f, values in done)
        self._put("ndjson" if self.new else "csv", results)
        if asked is None:
            return
        best = max(range(rows), key=lambda row: ROWS[row][0])
        model = f"{WHERE}/tune/weights" if self.new else f"{WHERE}/{_old(best + 1)}"
        comment = (
            f"# {rows}/{asked} iterations complete ✅ ({60.0 * rows:.2f}s)\n"
            f"# Results saved to {WHERE}/tune\n"
            f"# Best fitness={ROWS[best][0]} observed at iteration {best + 1}\n"
            "# Best fitness metrics are {'metrics/mAP50(B)': 0.6, 'fitness': 0.5}\n"
            f"# Best fitness model is {model}\n\n"
        )
        values = "".join(f"{name}: {value}\n" for name, value in ROWS[best][1].items())
        (self.folder / "best_hyperparameters.yaml").write_text(comment + values, encoding="utf-8")
        donor = self.folder.parent / "donor"
        for name in ("tune_fitness.png", "tune_scatter_plots.png"):
            shutil.copy(donor / "results.png", self.folder / name)
        for name in ("best.pt", "last.pt"):
            shutil.copy(donor / "weights" / name, self.folder / "weights" / name)
        self.date(rows)

    def date(self, rows: int) -> None:
        """Give every file the time at which that many iterations were done."""
        for path in [self.folder, *self.folder.rglob("*")]:
            os.utime(path, (BEGAN + 60 * rows, BEGAN + 60 * rows))

    def _put(self, ending: str, text: str) -> None:
        (self.folder / f"tune_results.{ending}").write_text(text, encoding="utf-8")


def _old(number: int) -> str:
    return f"train{'' if number == 1 else number}"


def _new(number: int) -> str:
    return f"multitrain{'' if number == 1 else number}/coco8"


def tuned(make_run: MakeRun, new: bool = True, rows: int = 3, trainings: Sequence[int] = (1, 2, 3)) -> Tuned:
    """Write a tuning after ``rows`` iterations, with the trainings of these that are still on disk."""
    donor = make_run("v8.4.190-detect", "donor")
    for path in donor.iterdir():  # a run no more: only a picture and the weights are wanted
        if path.is_file() and path.name != "results.png":
            path.unlink()
    home = donor.parent
    made = []
    for number in trainings:
        place = (_new if new else _old)(number)
        run = make_run(TRAINED, place)
        arguments = (run / "args.yaml").read_text(encoding="utf-8")
        for name, value in {**ROWS[number - 1][1], "save_dir": f"{WHERE}/{place}", "name": run.name}.items():
            arguments = re.sub(rf"^{name}: .*$", f"{name}: {value}", arguments, flags=re.MULTILINE)
        stamp = (run / "args.yaml").stat().st_mtime_ns
        (run / "args.yaml").write_text(arguments, encoding="utf-8")
        os.utime(run / "args.yaml", ns=(stamp, stamp))
        made.append(run)
    folder = home / "tune"
    (folder / "weights").mkdir(parents=True)
    it = Tuned(folder, made, new)
    it.write(rows)
    return it


def as_tuning(run: Path) -> Path:
    """Put a training beside where it is, and into its place a tuning that it alone is of; gives where."""
    arguments = (run / "args.yaml").read_text(encoding="utf-8")
    (stated,) = re.findall(r"^save_dir: (.*)$", arguments, re.MULTILINE)
    training = run.with_name(Path(stated).name)
    shutil.rmtree(training, ignore_errors=True)
    shutil.copytree(run, training)
    for path in run.iterdir():
        if path.is_file() and path.name != "results.png":
            path.unlink()
    (run / "results.png").rename(run / "tune_fitness.png")
    fitness, values = ROWS[0]
    record = {"iteration": 1, "fitness": fitness, "hyperparameters": values, "save_dirs": {"coco8": stated}}
    (run / "tune_results.ndjson").write_text(json.dumps(record) + "\n", encoding="utf-8")
    best = "# 1/1 iterations complete ✅ (60.00s)\n" + "".join(f"{n}: {v}\n" for n, v in values.items())
    (run / "best_hyperparameters.yaml").write_text(best, encoding="utf-8")
    for path in run.rglob("*"):
        os.utime(path, (BEGAN, BEGAN))
    return training
