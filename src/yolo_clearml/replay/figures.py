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
_DRAWING = threading.Lock()  # matplotlib's font and text caches are not made for threads


def draw_results(plot: DrawnPlot) -> bytes:
    """Draw the ``results`` figure, panels as in Ultralytics' ``plot_results``, and give it as PNG.

    The same plot gives the same bytes. Nothing of matplotlib's global state is touched, and its import,
    which takes seconds, waits for the first call. Raises NoTemporaryFolder.
    """
    try:
        _give_cache()
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except OSError as cause:  # it keeps a cache of fonts in the home folder, else in a temporary one
        raise NoTemporaryFolder from cause

    target = io.BytesIO()
    with _DRAWING:
        figure = _figure(plot)
        FigureCanvasAgg(figure)  # takes over the figure, so no other backend is looked for
        # no Software entry: it names matplotlib's version
        figure.savefig(target, format="png", dpi=_DPI, metadata={"Software": None})
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
    """Lay out a panel per column: two rows, of the losses and of the metrics the first halves on top.

    The order is Ultralytics'. Where the number of columns is odd the top row has one more, so that, unlike
    there, none is left out; but of more than 60 columns the first are drawn.
    """
    from matplotlib.figure import Figure

    panels = _panels(plot.columns[:_MOST_PANELS])
    per_row = max(1, math.ceil(len(panels) / 2))
    figure = Figure(figsize=(len(panels) + 2, _HEIGHT), dpi=_DPI, layout="tight")
    for place, index in enumerate(panels):
        values = [row[index] if abs(row[index]) <= _LARGEST else math.nan for row in plot.values]
        panel = figure.add_subplot(2, per_row, place + 1)
        panel.plot(plot.epochs, values, marker=".", label="results", linewidth=2, markersize=8)
        panel.plot(plot.epochs, _smooth(values), ":", label="smooth", linewidth=2)
        # a column is named by the file, so a dollar sign in it is no formula
        panel.set_title(plot.columns[index], fontsize=12, parse_math=False)
    if panels:
        figure.axes[min(1, len(panels) - 1)].legend()
    return figure


def _panels(columns: Sequence[str]) -> list[int]:
    """Give the indices of the columns to show, in Ultralytics' order."""
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
