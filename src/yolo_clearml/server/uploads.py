"""Files uploaded for one task: small ones share a request, and several requests go out at a time."""

from __future__ import annotations

import io
import queue
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

from ..errors import FileServerUnreachable
from ..events import Artifact, DrawnPlot, Image, OutputModel, Plot
from ..replay.figures import draw_results, picture_size
from ..rundir.packing import open_whole
from ..sync.sinks import Sent, file_size
from . import payloads
from .api import Api
from .destination import FILES_SERVER, PLOTS_SERVER, Decide, Destination, naming

_UPLOADS = 4  # requests with files at a time
_MOST_FILE_BYTES = 900_000  # in a request with several; nginx takes 1 MiB where nobody has set more

File: TypeAlias = "Image | Plot | DrawnPlot | OutputModel | Artifact"


@dataclass(slots=True)
class Uploads:
    """The files of one task, and where each goes."""

    _api: Api
    _root: Path  # the run directory
    _folder: str  # of the task, in every storage
    _decide: Decide  # where the output model goes; may cost a request
    _decided: Destination | None = None

    def key(self, event: File) -> str:
        """Give the storage key of a file: its name below the destination."""
        match event:
            case Image():
                return payloads.image_key(self._folder, event)
            case Plot():
                return payloads.plot_key(self._folder, event.title, event.iteration, event.file.name)
            case DrawnPlot():
                return payloads.plot_key(self._folder, event.title, event.iteration, event.file_name)
            case OutputModel():
                return payloads.model_key(self._folder, event.file)
            case Artifact():
                return payloads.artifact_key(self._folder, event.name)

    def destination(self, event: File) -> Destination:
        """Give where a file goes; raises as `Api.call` does, the first time for the output model."""
        match event:
            case OutputModel() | Artifact():
                if self._decided is None:
                    self._decided = self._decide()
                return self._decided
            case Plot() | DrawnPlot() if self._api.plots_host != self._api.files_host:
                return Destination(self._api.plots_host, PLOTS_SERVER)
            case _:
                return Destination(self._api.files_host, FILES_SERVER)

    def upload(self, files: Sequence[File]) -> Generator[Sent, None, dict[str, tuple[int, int]]]:
        """Upload files, several at a time; gives the width and height of plots by storage key."""
        sizes: dict[str, tuple[int, int]] = {}
        moved: queue.SimpleQueue[int | None] = queue.SimpleQueue()

        def send(group: Sequence[File]) -> None:
            base = self.destination(group[0])
            with ExitStack() as stack:
                opened: dict[str, BinaryIO] = {}
                for event in group:
                    key = self.key(event)
                    opened[key] = file = stack.enter_context(self._content(event))
                    if isinstance(event, (Plot, DrawnPlot)):
                        sizes[key] = picture_size(file)
                try:
                    self._api.upload(base.address, opened, moved.put)
                except FileServerUnreachable as error:
                    raise naming(error, base.named_by) from error

        def done(_: Future[None]) -> None:
            moved.put(None)

        if files:
            groups = list(_groups(files, self.destination))
            with ThreadPoolExecutor(min(_UPLOADS, len(groups)), "upload") as pool:
                futures = [pool.submit(send, group) for group in groups]
                for future in futures:
                    future.add_done_callback(done)
                try:
                    left = len(futures)
                    while left:
                        size = moved.get()
                        left -= size is None
                        if size:
                            yield Sent(size)
                    for future in futures:
                        future.result()
                finally:
                    for future in futures:
                        future.cancel()
        return sizes

    @contextmanager
    def _content(self, event: File) -> Iterator[BinaryIO]:
        if isinstance(event, DrawnPlot):
            yield io.BytesIO(draw_results(event))
        else:
            with open_whole(self._root, event.file) as file:
                yield file


def _groups(files: Sequence[File], base: Callable[[File], Destination]) -> Iterator[list[File]]:
    """Group small files, in order, so that each group is one request to one base."""
    group: list[File] = []
    total = 0
    for event in files:
        size = file_size(event) or 0
        if group and (total + size > _MOST_FILE_BYTES or base(event) != base(group[0])):
            yield group
            group, total = [], 0
        group.append(event)
        total += size
    if group:
        yield group
