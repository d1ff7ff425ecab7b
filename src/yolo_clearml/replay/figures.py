"""Pictures: the ``results`` figure of a run that died before Ultralytics drew it, and how large one is."""

from __future__ import annotations

import atexit
import functools
import io
import math
import os
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..errors import NoTemporaryFolder
from ..events import DrawnPlot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 200  # pixels to the inch, as Ultralytics saves the figure
_HEIGHT = 6  # inches
_MOST_PANELS = 60  # a run has 10 or so; each costs 240,000 pixels, and a file may name a thousand columns
_MOST_PIXELS = 2 * 89_478_485  # where Pillow takes a picture for a bomb
_LARGEST = 1e38  # an axis from -1e308 to 1e308 is longer than a float holds
_SIGMA = 3  # epochs; of the gaussian that smooths
_RADIUS = 4 * _SIGMA  # epochs; where scipy.ndimage cuts the gaussian off
_UNSIZED = (640, 480)  # pixels; as the SDK's report_image_plot_and_upload has it of a picture without a size
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.7, 0.25, 0.5, 0.4  # inches around the panels
_BESIDE, _BETWEEN = 0.77, 0.75  # inches between two panels, for tick labels of seven characters, and two rows
_PLAIN = (-2, 5)  # powers of ten that tick labels are written out between; beyond them they would be longer
_COMPRESSION = 3  # of zlib: a tenth larger than by its default, in half the time


_AT_A_TIME = 2  # figures; each takes tens of MB, and more would only wait for Python's own lock
_DRAWING = threading.BoundedSemaphore(_AT_A_TIME)
# Figures that are drawn and not being drawn, with their columns: to make axes takes as long as to draw them,
# and a pile has few sets of columns. A figure is of one thread at a time; no two share state of matplotlib's.
_IDLE: deque[tuple[tuple[str, ...], Figure]] = deque(maxlen=_AT_A_TIME)
_TAKING = threading.Lock()


def draw_results(plot: DrawnPlot) -> bytes:
    """Draw the ``results`` figure, panels as in Ultralytics' ``plot_results``, and give it as PNG.

    The same plot gives the same bytes. Nothing of matplotlib's global state is touched, and its import,
    which takes seconds, waits for the first call. Raises NoTemporaryFolder.
    """
    try:
        _give_cache()
        _import_plainly()
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except OSError as cause:  # it keeps a cache of fonts in the home folder, else in a temporary one
        raise NoTemporaryFolder from cause

    target = io.BytesIO()
    with _DRAWING:
        figure = _figure(plot)
        FigureCanvasAgg(figure)  # takes over the figure, so no other backend is looked for
        # no Software entry: it names matplotlib's version
        settings = {"compress_level": _COMPRESSION}
        figure.savefig(target, format="png", dpi=_DPI, metadata={"Software": None}, pil_kwargs=settings)
        with _TAKING:
            _IDLE.append((plot.columns, figure))
    return target.getvalue()


@functools.cache
def _give_cache() -> None:
    """Name a temporary folder for the cache where nobody has a home; matplotlib < 3.11 looks for none."""
    try:
        Path.home()
    except RuntimeError:
        if not os.environ.get("MPLCONFIGDIR"):
            os.environ["MPLCONFIGDIR"] = made = tempfile.mkdtemp(prefix="matplotlib-")
            atexit.register(shutil.rmtree, made, ignore_errors=True)


@functools.cache
def _import_plainly() -> None:
    """Import matplotlib without what the environment wishes of it: it fails over a backend that is not there.

    A notebook names its own for all that is run in it, and here none is needed.
    """
    wishes = {name: os.environ.pop(name) for name in ("MPLBACKEND", "MATPLOTLIBRC") if name in os.environ}
    try:
        import matplotlib  # noqa: F401
    finally:
        os.environ.update(wishes)


def picture_size(picture: bytes | BinaryIO) -> tuple[int, int]:
    """Give width and height in pixels of a PNG or JPEG from its header; nothing is decoded.

    A stream is left where it was. Where the header states no size, or more pixels than Pillow holds
    plausible, it is the SDK's own stand-in: the picture is sent as it is all the same.
    """
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

    stream = io.BytesIO(picture) if isinstance(picture, bytes) else picture
    start = stream.tell()
    kind = JpegImageFile if stream.read(1) == b"\xff" else PngImageFile
    stream.seek(start)
    try:
        # not Image.open, which warns of large pictures, and warnings are silenced for all threads or none
        width, height = kind(stream).size
    except (OSError, SyntaxError, EOFError, ValueError):
        return _UNSIZED
    finally:
        stream.seek(start)
    return (width, height) if width > 0 and height > 0 and width * height <= _MOST_PIXELS else _UNSIZED


def _figure(plot: DrawnPlot) -> Figure:
    """Give a figure of these columns, idle or new, with the values in it."""
    figure = _idle(plot.columns) or _laid_out(plot.columns)
    for panel, index in zip(figure.axes, _panels(plot.columns), strict=True):
        values = [row[index] if abs(row[index]) <= _LARGEST else math.nan for row in plot.values]
        results, smooth = panel.get_lines()
        results.set_data(plot.epochs, values)
        smooth.set_data(plot.epochs, _smooth(values))
        panel.set(xlim=(0, 1), ylim=(0, 1))  # of a panel without a value, whatever it showed before
        panel.relim()
        panel.autoscale()
    return figure


def _idle(columns: tuple[str, ...]) -> Figure | None:
    """Take an idle figure of these columns, if there is one."""
    with _TAKING:
        for place, (those, figure) in enumerate(_IDLE):
            if those == columns:
                del _IDLE[place]
                return figure
    return None


def _laid_out(columns: Sequence[str]) -> Figure:
    """Lay out a panel per column: two rows, of the losses and of the metrics the first halves on top.

    The order is Ultralytics'. Where the number of columns is odd the top row has one more, so that, unlike
    there, none is left out; but of more than 60 columns the first are drawn.
    """
    from matplotlib.figure import Figure

    panels = _panels(columns)
    per_row = max(1, math.ceil(len(panels) / 2))
    width = len(panels) + 2
    figure = Figure(figsize=(width, _HEIGHT), dpi=_DPI)
    panel_width = (width - _LEFT - _RIGHT - (per_row - 1) * _BESIDE) / per_row
    panel_height = (_HEIGHT - _BOTTOM - _TOP - _BETWEEN) / 2
    # what a layout engine would do, whose measuring of each label takes as long as all the rest
    figure.subplots_adjust(
        left=_LEFT / width,
        right=1 - _RIGHT / width,
        bottom=_BOTTOM / _HEIGHT,
        top=1 - _TOP / _HEIGHT,
        wspace=_BESIDE / panel_width,
        hspace=_BETWEEN / panel_height,
    )
    for place, index in enumerate(panels):
        panel = figure.add_subplot(2, per_row, place + 1)
        panel.plot([], [], marker=".", label="results", linewidth=2, markersize=8)
        panel.plot([], [], ":", label="smooth", linewidth=2)
        # a column is named by the file, so a dollar sign in it is no formula
        panel.set_title(columns[index], fontsize=12, parse_math=False)
        panel.ticklabel_format(axis="y", scilimits=_PLAIN)
        # there are no labels of axes; with a place of their own none is measured out for them
        panel.xaxis.set_label_coords(0.5, 0)
        panel.yaxis.set_label_coords(0, 0.5)
    if panels:
        figure.axes[min(1, len(panels) - 1)].legend()
    return figure


def _panels(columns: Sequence[str]) -> list[int]:
    """Give the indices of the columns to show, in Ultralytics' order."""
    columns = columns[:_MOST_PANELS]
    losses = [i for i, column in enumerate(columns) if "loss" in column]
    metrics = [i for i, column in enumerate(columns) if "metric" in column and i not in losses]
    half_losses, half_metrics = len(losses) // 2, len(metrics) // 2
    return losses[:half_losses] + metrics[:half_metrics] + losses[half_losses:] + metrics[half_metrics:]


def _smooth(values: Sequence[float]) -> list[float]:
    """Smooth by a gaussian, with the values mirrored at both ends, as ``scipy.ndimage.gaussian_filter1d``.

    What is not finite weighs nothing in its neighbours' means, and is NaN itself.
    """
    import numpy as np

    offsets = np.arange(-_RADIUS, _RADIUS + 1)
    weights = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    raw = np.asarray(values, dtype=float)
    finite = np.isfinite(raw)
    known = np.pad(np.where(finite, raw, 0.0), _RADIUS, mode="symmetric")
    weight = np.pad(finite.astype(float), _RADIUS, mode="symmetric")
    total = np.convolve(weight, weights, mode="valid")
    sums = np.convolve(known, weights, mode="valid")
    smooth = np.divide(sums, total, out=np.full_like(raw, np.nan), where=finite)
    return [float(value) for value in smooth]
