"""Everything that splitcodec refuses, by name.

Every refusal is a subclass of `SplitcodecError`; its message says what came, what was expected and what to do.
The command line prints that message on one line of stderr and exits with 2; the server answers with a problem document.

    SplitcodecError
    |-- PacketError               bytes that are not a packet this edge can answer
    |   |-- PacketTooShort        fewer than 13 bytes
    |   |-- PacketChecksum        CRC-32 differs: damaged on the way
    |   |-- PacketVersion         a packet format that this version does not know
    |   |-- PacketBundle          made with a bundle that is not loaded here
    |   |-- PacketLevel           a rate level that the bundle does not have
    |   |-- PacketCoding          a coding id that the bundle does not have
    |   |-- PacketTableSet        a table set that the bundle does not have
    |   |-- PacketGrid            more symbols than the bundle or the edge allows
    |   `-- PacketPayload         the entropy coder did not end where it must
    |-- FileTooLarge              a file of more bytes than any packet has, so it is not read whole
    |-- BundleError
    |   |-- BundleNotFound        no such zoo name, folder or zip
    |   |-- BundleFormat          manifest, tables or golden vectors that do not parse
    |   |-- BundleHash            a file differs from its hash in the manifest
    |   |-- BundleUnsafe          zip-slip, zip bomb, external data, sizes out of bounds
    |   |-- BundlePart            a graph that this half of a bundle does not hold
    |   `-- GoldenMismatch        golden vectors do not replay on this machine
    |-- TablesError               frequencies, gains or symbols that break the rules of the tables
    |-- PictureError
    |   |-- PictureNotFound
    |   |-- PictureUnreadable     not a picture, or a truncated one
    |   `-- PictureTooLarge       more pixels than allowed: a decompression bomb
    |-- LinkError
    |   |-- LinkDown              nobody answers: connection refused, time-out, retries used up
    |   |-- LinkRefused           the edge answered that it refuses this packet
    |   `-- LinkGarbled           the edge answered with something that is not an answer
    |-- FrameError                bytes that are not a frame of a fragmented message
    |-- SpoolError                a spool that another process uses, or that is damaged
    |-- CameraError               a camera that does not open or gives no picture
    |-- BudgetTooSmall            no packet of this picture fits the bytes or the deadline
    |-- GraphError                ONNX Runtime refuses a graph, or a graph refuses its input
    |-- TaskError                 a task that the bundle does not have
    |-- AnswerTooLarge            an answer of more bytes than devices take: it is not sent
    |-- EdgeRefusal               what a server turns away for its own sake, whatever the packet says
    |   |-- EdgeBusy              its queue is full: come again in a moment
    |   |-- EdgeUnready           it is starting up or shutting down
    |   |-- TokenRefused          no bearer token, or one that is not known
    |   |-- RateExceeded          more requests or symbols a second than one client may have
    |   |-- IdempotencyKey        an idempotency key that is malformed
    |   `-- IdempotencyMismatch   an idempotency key that came before with another packet
    |-- RecipeError               a wrong key or value in a recipe
    |-- DataError                 an empty folder, no photographs, no labels
    |-- TeacherError              a teacher that cannot be loaded or cut at that layer
    |-- RunError                  a training run that cannot be resumed or exported
    |-- SettingsError             an option of the command line or the server that does not make sense
    |-- MissingExtra              an optional dependency that this command needs
    `-- OutputError               a file that cannot be written: disk full, no permission
"""

from __future__ import annotations


class SplitcodecError(Exception):
    """Base of everything that splitcodec refuses on purpose."""


class PacketError(SplitcodecError):
    """Bytes that are not a packet this edge can answer."""


class PacketTooShort(PacketError):
    """Fewer bytes than the smallest packet has."""


class PacketChecksum(PacketError):
    """The CRC-32 at the end differs from that of the bytes before it."""


class PacketVersion(PacketError):
    """A packet format version that this code does not know."""


class PacketBundle(PacketError):
    """The fingerprint belongs to no bundle that is loaded here."""


class PacketLevel(PacketError):
    """A rate level that the bundle does not have."""


class PacketCoding(PacketError):
    """A coding id that the bundle does not have."""


class PacketTableSet(PacketError):
    """A table set that the bundle does not have."""


class PacketGrid(PacketError):
    """A latent grid with more symbols than the bundle or the edge allows, or none."""


class PacketPayload(PacketError):
    """The payload does not decode to exactly the announced number of symbols."""


class FileTooLarge(SplitcodecError):
    """A file with more bytes than any packet has."""


class BundleError(SplitcodecError):
    """A bundle that cannot be used."""


class BundleNotFound(BundleError):
    """No zoo name, folder or zip of that name."""


class BundleFormat(BundleError):
    """A manifest, table file or golden file that does not parse."""


class BundleHash(BundleError):
    """A file differs from what the manifest says of it."""


class BundleUnsafe(BundleError):
    """An archive or graph that reaches outside the bundle or is larger than allowed."""


class BundlePart(BundleError):
    """The bundle (or this half of it) does not hold that graph."""


class GoldenMismatch(BundleError):
    """Golden vectors do not replay on this machine."""


class TablesError(SplitcodecError):
    """Frequencies, gains or symbols that break the rules of the tables."""


class PictureError(SplitcodecError):
    """Something that cannot be used as a picture."""


class PictureNotFound(PictureError):
    """No file of that name."""


class PictureUnreadable(PictureError):
    """Not a picture, a truncated one, or an array of another shape."""


class PictureTooLarge(PictureError):
    """More pixels than allowed; refused from the header, before decoding."""


class LinkError(SplitcodecError):
    """The trip to the edge and back failed."""


class LinkDown(LinkError):
    """Nobody answers: connection refused, time-out, retries used up."""


class LinkRefused(LinkError):
    """The edge answered that it refuses this packet.

    `status` is HTTP's, also over other links (none: not known); `reason` is the name that the edge gives its refusal,
    such as "PacketBundle" ("": none).
    """

    def __init__(self, message: str, *, status: int | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class LinkGarbled(LinkError):
    """The edge answered with something that is not an answer."""


class FrameError(SplitcodecError):
    """Bytes that are not a frame of a fragmented message."""


class SpoolError(SplitcodecError):
    """A spool that another process uses, or that is damaged."""


class CameraError(SplitcodecError):
    """A camera that does not open or gives no picture."""


class BudgetTooSmall(SplitcodecError):
    """No packet of this picture fits the bytes or the deadline; `smallest` is the size in bytes that it can have."""

    def __init__(self, message: str, *, smallest: int = 0) -> None:
        super().__init__(message)
        self.smallest = smallest


class GraphError(SplitcodecError):
    """ONNX Runtime refuses a graph, or a graph refuses its input."""


class TaskError(SplitcodecError):
    """A task that the bundle does not have."""


class AnswerTooLarge(SplitcodecError):
    """An answer of more bytes than a device takes; whoever asked should ask for less."""


class EdgeRefusal(SplitcodecError):
    """What a server turns away for its own sake; `retry_after_s` says when to come again, if that helps."""

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EdgeBusy(EdgeRefusal):
    """The server's queue is full."""


class EdgeUnready(EdgeRefusal):
    """The server is starting up or shutting down."""


class TokenRefused(EdgeRefusal):
    """No bearer token, or one that the server does not know."""


class RateExceeded(EdgeRefusal):
    """More requests or symbols a second than one client may have."""


class IdempotencyKey(EdgeRefusal):
    """An idempotency key that is malformed."""


class IdempotencyMismatch(EdgeRefusal):
    """An idempotency key that came before with another packet."""


class RecipeError(SplitcodecError):
    """A wrong key or value in a recipe; the message names the key."""


class DataError(SplitcodecError):
    """A folder without what is needed from it."""


class TeacherError(SplitcodecError):
    """A teacher that cannot be loaded, or not be cut at that layer."""


class RunError(SplitcodecError):
    """A training run that cannot be resumed or exported."""


class SettingsError(SplitcodecError):
    """An option that does not make sense, alone or with another."""


class MissingExtra(SplitcodecError):
    """An optional dependency is missing; the message names the extra to install."""


class OutputError(SplitcodecError):
    """A file cannot be written."""


def one_line(error: object, *, most: int = 200) -> str:
    """Return what somebody else's error says, in one line of `most` characters; its type's name if it says nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__
