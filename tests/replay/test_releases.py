"""The maintainer's command finds the release that changed something, and runs nothing of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import releases
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

CALLBACK = '''
"""{mark}"""
raise SystemExit("executed")


def _log_debug_samples(files, title: str = "x") -> None:
    """Say. {mark}"""
    task.get_logger().report_image(title=title, iteration=it)


def on_pretrain_routine_start(trainer):
    Task.init(project_name=trainer.args.project or {project!r}, tags=[{project!r}])
    task.connect(vars(trainer.args), name="General")


def on_train_epoch_end(trainer):
    if trainer.epoch == 1:
        _log_debug_samples(sorted(trainer.save_dir.glob("train_batch*.jpg")), "Mosaic")
    for k, v in trainer.lr.items():
        task.get_logger().report_scalar("lr", k, v, iteration=trainer.epoch)


def on_fit_epoch_end(trainer):
    task.get_logger().report_scalar(title="Epoch Time", series="Epoch Time", value=1)
    for k, v in trainer.metrics.items():
        title = k.split("/")[0]
        task.get_logger().report_scalar(title, k, v, iteration=trainer.epoch)


def on_train_end(trainer{note}){returns}:
    for f in trainer.plots:
        if "batch" not in f.name:
            _log_plot(title=f.stem, plot_path=f)
    task.update_output_model(model_path=str(trainer.best))
'''
TRAINER = """
class BaseTrainer:
    def save_metrics(self, metrics):
        s = "%s," % ("epoch", "time")
        f.write("%.6g," % (self.epoch{plus}, t))
    def final_eval(self):
        self.epoch += 1
    def on_plot(self, name, data=None):
        self.plots[Path(name)] = data
"""
METRICS = """
class Metric:
    def fitness(self):
        w = [0.0, 0.0, 0.1, 0.9]
        return (np.array(self.mean_results()) * w).sum()
class DetMetrics:
    def process(self):
        ap_per_class(tp, prefix="Box")
"""


def wheel(
    folder: Path,
    release: str,
    *,
    project: str = "Ultralytics",
    plus: str = " + 1",
    mark: str = "",
    names: str = "a b",
    root: str = "ultralytics",
) -> Path:
    """Make a wheel of Ultralytics with as much of it as is read."""
    path = folder / f"ultralytics-{release}-py3-none-any.whl"
    info = f"ultralytics-{release}.dist-info"
    texts = {
        f"{root}/utils/callbacks/clearml.py": CALLBACK.format(
            project=project, mark=mark, note=": object" if mark else "", returns=" -> None" if mark else ""
        ),
        f"{root}/engine/trainer.py": TRAINER.format(plus=plus),
        f"{root}/engine/validator.py": "raise SystemExit('executed')\nclass BaseValidator: ...\n",
        f"{root}/utils/metrics.py": METRICS,
        f"{root}/utils/plotting.py": "def plot_labels(): save('labels.jpg')\n",
        f"{root}/cfg/__init__.py": "def get_save_dir(args): return Path(args).resolve()\n",
        f"{root}/cfg/default.yaml": "".join(f"{name}: 1 # a: b\n" for name in names.split()),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: ultralytics\nVersion: {release}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
    return path


def test_facts_are_read_as_text(tmp_path: Path) -> None:
    """Each is an expression or a word that a person can hold against eras.py."""
    told = releases.facts_of(wheel(tmp_path, "8.5.0", names="zeta alpha"))
    assert {
        "project": "trainer.args.project or 'Ultralytics'",
        "tags": "['Ultralytics']",
        "arguments": "task.connect(vars(trainer.args), name='General')",
        "train scalars": "trainer.lr.items() as 'lr'",
        "validation scalars": "trainer.metrics.items() as k.split('/')[0]",
        "mosaics": "if trainer.epoch == 1: "
        "_log_debug_samples(sorted(trainer.save_dir.glob('train_batch*.jpg')), 'Mosaic')",
        "debug images": "task.get_logger().report_image(title=title, iteration=it)",
        "plots": "batch",
        "output model": "task.update_output_model(model_path=str(trainer.best))",
        "epoch": "one-based",
        "csv": "%s, epoch time %.6g,",
        "final evaluation": "after the last iteration",
        "fitness": "[0.0, 0.0, 0.1, 0.9]",
        "curves of boxes": "'Box'*",
        "pictures of labels": "labels.jpg",
        "save_dir": "absolute",
        "names": "alpha zeta",
    }.items() <= told.items()


def test_words_layout_and_annotations_are_no_change(tmp_path: Path) -> None:
    """Else every release would be one to look at."""
    one = releases.facts_of(wheel(tmp_path, "8.5.0", root="ultralytics/yolo"))
    two = releases.facts_of(wheel(tmp_path, "8.5.1", mark="Said otherwise."))
    assert one == two
    assert one != releases.facts_of(wheel(tmp_path, "8.5.2", plus=""))


def test_a_file_that_has_moved_is_named(tmp_path: Path) -> None:
    """Not read as one in which nothing stands."""
    with pytest.raises(LookupError, match=r"8\.5\.0-py3-none-any\.whl has no utils/callbacks/clearml\.py"):
        releases.facts_of(wheel(tmp_path, "8.5.0", root="ultralytics/new"))


@given(st.lists(st.integers(0, 400), max_size=6, unique=True), st.integers(1, 400))
def test_every_change_is_found_at_its_release(turns: list[int], count: int) -> None:
    """And nothing is looked at between two that agree, so that a range costs little."""
    looked: set[str] = set()
    wanted = [str(n) for n in range(1, count) if n in turns]

    def facts(release: str) -> dict[str, str]:
        looked.add(release)
        return {"n": str(sum(turn <= int(release) for turn in turns))}

    assert wanted == list(releases.changes([str(n) for n in range(count)], facts))
    assert len(looked) <= 2 + len(wanted) * 11


def test_names_become_intervals() -> None:
    """Those that come back have two."""
    told = {"8.0.0": "a b", "8.0.3": "b c", "8.0.5": "a b c"}
    assert {
        "a": [["8.0.0", "8.0.3"], ["8.0.5", None]],
        "b": [["8.0.0", None]],
        "c": [["8.0.3", None]],
    } == releases.intervals(told)


def test_what_is_kept_can_be_gone_on_from() -> None:
    """Intervals are turned back into names, and only what is new is put behind what was known."""
    names = releases.kept()[0]["names"]
    packaged = json.loads(releases.PACKAGED.read_text())["arguments"]
    assert packaged == releases.intervals(names)
    before = {"tags": {"8.0.0": "a", "8.0.3": "b"}}
    found = {"tags": {"8.0.3": "b", "8.0.7": "a"}}
    assert {"tags": {"8.0.0": "a", "8.0.3": "b", "8.0.7": "a"}} == releases.extended(before, found)
    assert [None, "a", "b", "b"] == [
        releases.value(before["tags"], release) for release in ("7.9.9", "8.0.2", "8.0.3", "8.0.10")
    ]


def run(index: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command against a folder of wheels in the place of the package index."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environ = {**own, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_CONFIG_FILE": os.devnull}
    command = [sys.executable, str(ROOT / "tests" / "releases.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120)


@pytest.mark.exhaustive
def test_the_command_names_which_release_changed_what(tmp_path: Path) -> None:
    """Through pip itself, for a range and up to the newest; status 1 where something changed."""
    for patch in range(6):
        wheel(
            tmp_path,
            f"8.5.{patch}",
            project="Ultra" if patch > 3 else "Ultralytics",
            names="a c" if patch > 1 else "a b",
        )
    ended = run(tmp_path, "8.5.0")
    assert 1 == ended.returncode
    assert ["8.5.2  names: +c -b", "8.5.4  project: trainer.args.project or 'Ultra'"] == [
        line for line in ended.stdout.splitlines() if "source" not in line and "tags" not in line
    ]
    ended = run(tmp_path, "8.5.2", "8.5.3")
    assert (0, "8.5.2 to 8.5.3: nothing that the rules rest on has changed.\n") == (
        ended.returncode,
        ended.stdout,
    )
    assert 2 == len(re.findall("fetching", ended.stderr))
    wheel(tmp_path, "8.4.189", project="Ultra")
    ended = run(tmp_path, "8.4.189", "8.4.189")
    assert 1 == ended.returncode
    assert "8.4.189  tags: is kept otherwise; --write --anew reads all again" in ended.stdout.splitlines()
    ended = run(tmp_path, "8.6.0", "8.6.9")
    assert (1, "The index has no release from 8.6.0 to 8.6.9.\n") == (ended.returncode, ended.stderr)
