"""Scalars for TensorBoard, each on disk when the call returns.

tensorboardX's event writer is used without its SummaryWriter, which hands events to a thread
through a queue: a kill would lose the last of them.
"""

import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import (  # protobuf makes these names when imported
    Event,  # pyright: ignore[reportAttributeAccessIssue]
    SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
)
from tensorboardX.summary import scalar


class EventFile:
    """A file that hides what earlier files of its folder hold from a step on."""

    def __init__(self, folder: Path, *, purge_step: int) -> None:
        """Start a file in `folder`, taking back `purge_step` and all later steps."""
        # The step in the name keeps two starts within one second from sharing a file.
        self._writer = EventsWriter(str(folder / "events"), f".from_step_{purge_step:06d}")
        start = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(wall_time=time.time(), step=purge_step, session_log=start))
        self._writer.flush()

    def scalars(self, step: int, values: Mapping[str, float | int | None]) -> None:
        """Append the value of each tag; None has none."""
        for tag, value in values.items():
            if value is not None:
                summary = scalar(tag, value)
                self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
