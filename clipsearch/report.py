"""What became of every picture, told to a person or a program."""

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from .errors import ImageError, SourceError


class Failure(NamedTuple):
    """A picture that is not in the collection, and why."""

    path: str
    reason: str


@dataclass(slots=True)
class Report:
    """What `add` did: every picture of the source is in exactly one of the first six.

    Attributes:
        added: new pictures.
        updated: known pictures whose bytes changed.
        moved: known pictures found under a new name; their ids stay.
        unchanged: known pictures, not read again unless their time stamp had changed.
        new_metadata: how many of the unchanged are told otherwise now than before.
        same_content: new names for bytes that are there already; they share one vector.
        failed: pictures that cannot be read, now or when last tried, with the reason.
        missing: pictures that went since the last time; hidden, and kept until removed.
        encoded: how many went through the model.
        warnings: what is to be said of the source as a whole.
        device, precision: what the model ran on and in; empty if it was not needed or does not tell.
        seconds: wall time, of which loading the model took `loading`.
        decoding: seconds each decoding thread worked; encoding: each of the model's; writing: to disk.
    """

    source: str
    model: str
    device: str = ""
    precision: str = ""
    added: int = 0
    updated: int = 0
    moved: int = 0
    unchanged: int = 0
    new_metadata: int = 0
    same_content: int = 0
    failed: list[Failure] = field(default_factory=list)
    missing: int = 0
    encoded: int = 0
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    loading: float = 0.0
    decoding: float = 0.0
    encoding: float = 0.0
    writing: float = 0.0

    @property
    def images_per_second(self) -> float:
        """Pictures encoded per second, the loading of the model left out; 0.0 when none was."""
        return self.encoded / (self.seconds - self.loading) if self.encoded else 0.0

    @property
    def bottleneck(self) -> str:
        """Which of decoding, encoding and writing took longest; empty when nothing was encoded."""
        parts = {"decoding": self.decoding, "encoding": self.encoding, "writing": self.writing}
        return max(parts, key=lambda part: parts[part]) if self.encoded else ""

    @property
    def on(self) -> str:
        """The model, and the device and precision it ran on and in, as far as it tells."""
        where = f" on {self.device}" if self.device else ""
        return self.model + where + (f" ({self.precision})" if self.precision else "")

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        derived = {"images_per_second": round(self.images_per_second, 2), "bottleneck": self.bottleneck}
        return asdict(self) | derived | {"failed": [failure._asdict() for failure in self.failed]}

    def __str__(self) -> str:
        named = ("added", "updated", "moved", "unchanged", "same_content", "missing")
        notes = {"unchanged": f" ({self.new_metadata:,} with new metadata)" if self.new_metadata else ""}
        counts = [
            f"{getattr(self, name):,} {name.replace('_', '-')}{notes.get(name, '')}"
            for name in named
            if getattr(self, name)
        ]
        counts += [f"{len(self.failed):,} failed"] if self.failed else []
        line = ", ".join(counts) or "nothing to do"
        line += f" in {self.seconds:.1f} s"
        if self.encoded:
            speed = f"{self.images_per_second:.1f} images/s with {self.on}"
            line += f": {speed}, bound by {self.bottleneck}"
        return "; ".join([line, *self.warnings])


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in long work: what was done is committed, and the same call goes on from there.

    Attributes:
        report: what was done until then.
        safe: how much of it is new, for a person.
    """

    def __init__(self, report: Any, safe: str) -> None:
        super().__init__(f"stopped; {safe} are safe, the same call goes on")
        self.report, self.safe = report, safe


def reason_of(error: Exception) -> str:
    """Why one picture failed, in a line that SQLite takes: it wants no lone surrogates."""
    if isinstance(error, ImageError | SourceError):
        text = str(error)
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror.lower()
    else:
        text = f"{type(error).__name__}: {error}"
    return text.encode("utf-8", "backslashreplace").decode()
