"""TensorBoard: one folder of curves for each row, RUN/tensorboard/ROW.

Event files are written at once, by the thread that trains: a full disk is then an error at the call that meets it, not
a traceback from a thread in the background, and a run that is killed has all its points. metrics.jsonl stays the truth.
When a run goes on, its curves are drawn anew from there, because only that file was cut back to the checkpoint the run
goes on from.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from peftx.errors import RunError
from peftx.runs import folder as files
from peftx.runs import record as records

__all__ = ["TensorBoard"]

FOLDER, FILES = "tensorboard", "events.out.tfevents.*"


class TensorBoard:
    """Listener to one run: draws `train/*` by optimizer step, `val/*` by validation, `final/val/*` and `test/*` of the
    adapter that was kept, and adds the configuration as text."""

    def __init__(self, run: Any, resumed: bool) -> None:
        self.folder: Path = run.folder
        self.resumed = resumed
        self._curves: dict[str, Curves] = {}

    def peftx_step(self, row: str, step: int, metrics: Mapping[str, float]) -> None:
        """Draw a point of the training curves."""
        self._of(row).step(step, metrics)

    def peftx_evaluated(self, row: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        """Draw a split's scores."""
        self._of(row).evaluated(split, step, metrics)

    def peftx_run_finished(self) -> None:
        """Close the files."""
        for curves in self._curves.values():
            curves.file.close()

    def peftx_run_stopped(self) -> None:
        """Close the files."""
        self.peftx_run_finished()

    def _of(self, row: str) -> Curves:
        if row not in self._curves:
            self._curves[row] = self._open(row)
        return self._curves[row]

    def _open(self, row: str) -> Curves:
        """Begin a row's file at the first event of the row; metrics.jsonl is cut back by then, and has that event."""
        folder = self.folder / FOLDER / row
        folder.mkdir(parents=True, exist_ok=True)
        former = sorted(folder.glob(FILES))
        times = _times(former)
        curves = Curves(EventFile(folder / FILES.replace("*", f"{time.time_ns()}.peftx")), times)
        for tag, text in _texts(self.folder, row).items():
            curves.file.add(0, text_pb(tag, text))
        if self.resumed:
            for line in _lines(self.folder, row)[:-1]:  # the last one is the event under way
                curves.line(line)
        for path in former:
            path.write_bytes(b"")  # not deleted: a TensorBoard that is reading it would look for it for ever
        return curves


class Curves:
    """The curves of one row. `times`: when points of it were drawn first, by tag and step."""

    def __init__(self, file: EventFile, times: Mapping[tuple[str, int], float]) -> None:
        self.file, self.times = file, times
        self._validated = -1

    def step(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Draw what an optimizer step logged."""
        self._draw("train", step, metrics)

    def evaluated(self, split: str, step: int, metrics: Mapping[str, Any]) -> None:
        """Draw a split's scores. The second ones on validation data at a step are those of the adapter that was kept,
        which may be an earlier epoch's."""
        if split == "val" and step == self._validated:
            split = "final/val"
        elif split == "val":
            self._validated = step
        self._draw(split, step, metrics)

    def line(self, line: Mapping[str, Any]) -> None:
        """Draw a line of metrics.jsonl, as its event was."""
        values = dict(line)
        event, step = values.pop("event"), values.pop("step")
        if event == "step":
            self.step(step, values)
        elif event == "epoch":
            scores = {name[4:]: value for name, value in values.items() if name.startswith("val_")}
            if scores:
                self.evaluated("val", step, scores)
        elif event == "evaluated":
            self.evaluated(values.pop("split"), step, values)

    def _draw(self, group: str, step: int, metrics: Mapping[str, Any]) -> None:
        values = [
            Summary.Value(tag=f"{group}/{name}", simple_value=value)
            for name, value in metrics.items()
            # how many samples there are is no curve; JSON has no NaN, so a figure may be None
            if isinstance(value, int | float) and name != "n"
        ]
        if values:
            self.file.add(step, Summary(value=values), self.times.get((values[0].tag, step)))


class EventFile:
    """A new event file, which has every event as soon as it is added.

    TensorBoard, where it is watching, forgets what it read of the row before when it comes to this file.
    """

    def __init__(self, path: Path) -> None:
        self._records = RecordWriter(path.open("xb", buffering=0))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._write(Event(wall_time=time.time(), session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, summary: Summary, when: float | None = None) -> None:
        """Append a summary; `when` is in seconds since 1970, by default now."""
        self._write(Event(wall_time=time.time() if when is None else when, step=step, summary=summary))

    def close(self) -> None:
        """End the file."""
        self._records.close()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())


def _texts(folder: Path, row: str) -> dict[str, str]:
    """The run's configuration, and the row's own options and settings, as Markdown by tag."""
    found = {}
    with suppress(OSError):
        found["run"] = _block((folder / files.CONFIG).read_text(encoding="utf-8"))
    with suppress(RunError):
        for own in records.read(folder).get("plan", []):
            if own["method"] == row:
                found["row"] = _block(json.dumps(own, indent=2))
    return found


def _block(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _lines(folder: Path, row: str) -> list[dict[str, Any]]:
    """The lines a row has in metrics.jsonl."""
    try:
        text = (folder / files.METRICS).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    found = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
    return [line for line in found if line["row"] == row]


def _times(paths: list[Path]) -> dict[tuple[str, int], float]:
    """When the points of event files were drawn; a file that breaks off is read up to there."""
    found: dict[tuple[str, int], float] = {}
    for path in paths:
        events = EventAccumulator(str(path), size_guidance={"scalars": 0}, purge_orphaned_data=False)
        events.Reload()
        for tag in events.Tags()["scalars"]:
            for point in events.Scalars(tag):
                found[tag, point.step] = point.wall_time
    return found
