"""The results figure that a dead run never drew, and the sizes of pictures."""

from __future__ import annotations

import io
import math
import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import sampled

from yolo_clearml.events import DrawnPlot
from yolo_clearml.replay import figures
from yolo_clearml.replay.figures import _figure, _smooth, draw_results, picture_size

DETECT = (
    "train/box_loss",
    "train/cls_loss",
    "train/dfl_loss",
    "metrics/precision(B)",
    "metrics/recall(B)",
    "metrics/mAP50(B)",
    "metrics/mAP50-95(B)",
    "val/box_loss",
    "val/cls_loss",
    "val/dfl_loss",
)
TOP = ["train/box_loss", "train/cls_loss", "train/dfl_loss", "metrics/precision(B)", "metrics/recall(B)"]
BOTTOM = ["val/box_loss", "val/cls_loss", "val/dfl_loss", "metrics/mAP50(B)", "metrics/mAP50-95(B)"]


def drawn(
    columns: tuple[str, ...] = DETECT, epochs: int = 7, gaps: frozenset[tuple[int, int]] = frozenset()
) -> DrawnPlot:
    values = tuple(
        tuple(math.nan if (row, i) in gaps else math.sin(row / 3) + i for i in range(len(columns)))
        for row in range(epochs)
    )
    return DrawnPlot("results", 0, "results.png", columns, tuple(range(1, epochs + 1)), values, 0)


def test_panels_are_ultralytics() -> None:
    """Two rows; of losses and metrics the first halves on top, the second below, titled by column."""
    axes = _figure(drawn()).axes
    assert [a.get_title() for a in axes] == TOP + BOTTOM
    places = [a.get_subplotspec() for a in axes]
    assert [p.rowspan.start for p in places if p is not None] == [0] * 5 + [1] * 5
    assert [*range(5), *range(5)] == [p.colspan.start for p in places if p is not None]


def test_each_panel_holds_values_and_their_smooth_line() -> None:
    """The values over the epochs as printed, with dots, and a dotted line; the legend is in the second."""
    plot = drawn()
    figure = _figure(plot)
    for axes in figure.axes:
        results, smooth = axes.get_lines()
        index = plot.columns.index(axes.get_title())
        assert np.asarray(results.get_xdata()).tolist() == [1, 2, 3, 4, 5, 6, 7]
        assert [row[index] for row in plot.values] == np.asarray(results.get_ydata()).tolist()
        assert (results.get_label(), results.get_marker(), results.get_linestyle()) == ("results", ".", "-")
        assert (smooth.get_label(), smooth.get_marker(), smooth.get_linestyle()) == ("smooth", "None", ":")
        assert _smooth([row[index] for row in plot.values]) == np.asarray(smooth.get_ydata()).tolist()
    legends = [axes.get_legend() for axes in figure.axes]
    assert [i for i, legend in enumerate(legends) if legend is not None] == [1]
    assert legends[1] is not None
    assert [text.get_text() for text in legends[1].get_texts()] == ["results", "smooth"]


def test_size_in_pixels() -> None:
    """(Columns + 2) x 6 inches, 200 dots to the inch: what Ultralytics draws for the same columns."""
    assert picture_size(draw_results(drawn())) == (2400, 1200)


@pytest.mark.parametrize("count", sampled(range(1, 11), {1, 10}.__contains__))
def test_no_column_is_dropped(count: int) -> None:
    """However many losses and metrics there are, and odd numbers too, each has its panel."""
    columns = DETECT[-count:]
    assert sorted(columns) == sorted(a.get_title() for a in _figure(drawn(columns)).axes)
    assert draw_results(drawn(columns))


def test_panels_are_bounded() -> None:
    """A file of a thousand columns is no reason to draw a picture of a hundred megapixels."""
    figure = _figure(drawn(tuple(f"train/loss{n}" for n in range(980))))
    assert (62 * 200, 1200) == tuple(figure.get_size_inches() * figure.dpi)  # to draw it takes 20 seconds


def test_values_that_no_axis_holds_are_gaps() -> None:
    """A loss that exploded is no reason to fail; ClearML has no such point of its curve either."""
    plot = drawn()
    odd = tuple(
        tuple(sign * 1e308 for _ in row) for row, sign in zip(plot.values, (1, -1) * 99, strict=False)
    )
    assert draw_results(replace(plot, values=(*plot.values[:-2], *odd[-2:])))
    axes = _figure(replace(plot, values=odd)).axes[0]
    assert all(np.isnan(np.asarray(line.get_ydata(), dtype=float)).all() for line in axes.lines)


def test_other_columns_are_not_shown() -> None:
    """Learning rates have no panel."""
    assert [a.get_title() for a in _figure(drawn(("lr/pg0", "train/loss"))).axes] == ["train/loss"]


def test_nothing_to_show_is_still_a_picture() -> None:
    """A table without losses and metrics gives an empty figure."""
    assert picture_size(draw_results(drawn(("lr/pg0",)))) == (400, 1200)


def mirrored_mean(values: list[float], place: int) -> float:
    """The gaussian mean around a place, of the series mirrored at both ends: d c b a | a b c d | d c b a."""
    count = len(values)
    around = [(place + step) % (2 * count) for step in range(-12, 13)]
    seen = [values[i] if i < count else values[2 * count - 1 - i] for i in around]
    weights = [math.exp(-(step**2) / 18) for step in range(-12, 13)]
    return sum(w * v for w, v in zip(weights, seen, strict=True)) / sum(weights)


@pytest.mark.parametrize("count", [1, 2, 6, 12, 30])
def test_smoothing(count: int) -> None:
    """A gaussian of sigma 3 over mirrored ends, for series shorter than the gaussian too."""
    values = [float(i * i % 7) for i in range(count)]
    expected = [mirrored_mean(values, i) for i in range(count)]
    assert _smooth(values) == pytest.approx(expected)


def test_a_gap_stays_one() -> None:
    """A NaN is missing at its own place and spoils no other; all NaN is an empty panel."""
    smooth = _smooth([2.0, math.nan, 2.0, 2.0, math.inf])
    assert [math.isnan(v) for v in smooth] == [False, True, False, False, True]
    assert [v for v in smooth if not math.isnan(v)] == pytest.approx([2.0, 2.0, 2.0])
    assert all(math.isnan(v) for v in _smooth([math.nan] * 3))
    assert draw_results(drawn(gaps=frozenset({(3, 0), *((row, 1) for row in range(7))})))


def test_one_epoch() -> None:
    """A run that died in its second epoch has a figure."""
    assert picture_size(draw_results(drawn(epochs=1))) == (2400, 1200)


def test_the_same_plot_gives_the_same_bytes() -> None:
    """So a replay stores it once."""
    assert draw_results(drawn()) == draw_results(drawn())


def test_what_was_drawn_before_leaves_no_trace() -> None:
    """The axes of a thread are kept, and what is in them is this plot's, also of a panel without a value."""
    plots = [
        drawn(gaps=frozenset((row, 0) for row in range(7))),
        drawn(),
        drawn(epochs=1, gaps=frozenset({(0, 1)})),
        drawn(DETECT[:3]),
    ]
    with ThreadPoolExecutor(len(plots)) as fresh:  # all at once, each in a thread that has drawn nothing yet
        alone = list(fresh.map(draw_results, plots))
    assert alone == [draw_results(plot) for plot in plots]
    assert alone[::-1] == [draw_results(plot) for plot in plots[::-1]]


def test_two_are_drawn_at_a_time_and_a_failure_lets_the_next_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes tens of MB; of six at once the third waits, and those that fail keep no place."""
    under_way, most, counting = 0, 0, threading.Lock()

    def fails(plot: DrawnPlot) -> None:
        nonlocal under_way, most
        with counting:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.05)
        with counting:
            under_way -= 1
        raise ZeroDivisionError

    monkeypatch.setattr(figures, "_figure", fails)
    with ThreadPoolExecutor(6) as pool:
        begun = [pool.submit(draw_results, drawn()) for _ in range(6)]
        ended = [each.exception(timeout=60) for each in begun]
    assert {ZeroDivisionError} == set(map(type, ended))
    assert 2 == most


def test_long_training() -> None:
    """500 epochs of 10 columns."""
    assert picture_size(draw_results(drawn(epochs=500))) == (2400, 1200)


def test_a_title_is_no_formula() -> None:
    """Dollar signs in a column's name are shown, not parsed."""
    assert draw_results(drawn((r"train/$\frac{loss$", "metrics/$")))


def test_pyplot_stays_out_of_the_process() -> None:
    """Drawing imports no pyplot, and importing the module no matplotlib."""
    code = (
        "import sys\n"
        "from yolo_clearml.events import DrawnPlot\n"
        "from yolo_clearml.replay.figures import draw_results\n"
        "assert not {'matplotlib', 'numpy', 'PIL'} & set(sys.modules)\n"
        "draw_results(DrawnPlot('r', 0, 'results.png', ('a/loss',), (1,), ((1.0,),), 0))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("variable", ["MPLBACKEND", "MATPLOTLIBRC"])
def test_what_the_environment_wishes_of_matplotlib_is_nothing_to_us(tmp_path: Path, variable: str) -> None:
    """A notebook names a backend that is not there for all that it runs; it is left as it was."""
    (tmp_path / "rc").write_bytes(b"\xff\xfe")
    value = "nonsense" if variable == "MPLBACKEND" else str(tmp_path / "rc")
    code = (
        "import os\n"
        "from yolo_clearml.events import DrawnPlot\n"
        "from yolo_clearml.replay.figures import draw_results\n"
        "draw_results(DrawnPlot('r', 0, 'results.png', ('a/loss',), (1,), ((1.0,),), 0))\n"
        f"assert {value!r} == os.environ[{variable!r}]\n"
    )
    environ = {**os.environ, variable: value}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ)
    assert (done.returncode, done.stderr) == (0, "")


def png_head(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header


def png_whole_head(width: int, height: int) -> bytes:
    """All that stands before the pixels."""
    head = png_head(width, height)
    return head + struct.pack(">I", zlib.crc32(head[12:])) + struct.pack(">I", 10) + b"IDAT"


def test_size_of_jpeg_and_stream(tmp_path: Path) -> None:
    """Both formats, from bytes or a stream, which stays where it was."""
    from PIL import Image

    for name in ("a.jpg", "a.png"):
        Image.new("RGB", (30, 20)).save(tmp_path / name)
        with open(tmp_path / name, "rb") as stream:
            assert picture_size(stream) == (30, 20)
            assert stream.tell() == 0
        assert picture_size((tmp_path / name).read_bytes()) == (30, 20)


@pytest.mark.parametrize(
    "nonsense",
    [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(20), b"\xff\xd8\xff", png_head(0, 5), png_head(5, 0)],
)
def test_nonsense_has_no_size(nonsense: bytes) -> None:
    """What is no picture, is cut off, or has no pixels is laid out as the SDK would."""
    assert (640, 480) == picture_size(nonsense)


def test_a_bomb_is_not_decoded() -> None:
    """A header that claims 10 gigapixels is refused, and the pixels are never asked for."""
    assert (640, 480) == picture_size(io.BytesIO(png_whole_head(100_000, 100_000)))


@pytest.mark.filterwarnings("error")
def test_a_large_picture_has_a_size_and_no_warning() -> None:
    """Pillow warns of more than 89 megapixels when it opens one; nothing here is decoded."""
    assert (12_000, 9_000) == picture_size(png_whole_head(12_000, 9_000))
