"""What a record is on the wire.

Owns how a record becomes bytes, and back. Knows nothing of how bytes are sent.

A record is split in three, because a thousand ranks that fail alike differ in
little:

- the *shape*: types and frames of the exception, its causes and members;
- the *variant*: messages, notes, and the pickled exception objects;
- the *origin*: host, process and time.

The shape and the variant are bytes when they travel, so that records merge by
comparing bytes (see `grouping`), and a shape is decoded once for all the ranks
that share it. In place of its frames a shape may hold a fingerprint of them (see
`outline`): a shape all the same, of a record without frames.

The text travels as JSON in builtins, decoded by an unpickler that refuses every
class: a record can always be read, whatever is installed where, without running
anything that came with it. Exception objects are opaque bytes here.
"""

from __future__ import annotations

import io
import json
import pickle
import zlib
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from allraise.damage import WireError, check_links, is_whole, require
from allraise.record import FAILURE, NOWHERE, Frame, Link, Origin, Record

if TYPE_CHECKING:
    from collections.abc import Sequence

# Raised when a field is added or changes its meaning; both ends of a job run
# the same allraise, so a mismatch means two installations in one job.
WIRE_VERSION: Final = 2


class Packed(NamedTuple):
    """A record in the parts that merge, and the origin, which does not.

    ``shape`` and ``variant`` are JSON: unlike a pickle, the same content gives
    the same bytes on every rank, whichever strings happen to be one object.
    """

    shape: bytes
    variant: bytes
    bodies: tuple[bytes, ...] = ()
    origin: tuple[str, int, float] = NOWHERE


class _BuiltinsOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        msg = f"a record holds builtins only, this one names {module}.{name}"
        raise WireError(msg)


# Encodes plain data: numbers, text, bytes, tuples, lists, dicts, None.
dump_plain: Final = partial(pickle.dumps, protocol=5)


def load_plain(data: bytes) -> Any:
    """Decode plain data, refusing anything else.

    Raises:
        WireError: The bytes are damaged, or hold more than plain data.
    """
    try:
        return _BuiltinsOnly(io.BytesIO(data)).load()
    except WireError:
        raise
    except Exception as error:
        msg = f"unreadable bytes ({len(data)}): {type(error).__name__}: {error}"
        raise WireError(msg) from error


_PLAIN: Final = b"\0"
_ZLIB: Final = b"\1"
_WORTH_COMPRESSING_BYTES: Final = 1024


def dump_compressed(data: object) -> bytes:
    """Encode plain data, compressed where that pays."""
    plain = dump_plain(data)
    if len(plain) < _WORTH_COMPRESSING_BYTES:
        return _PLAIN + plain
    return _ZLIB + zlib.compress(plain, 1)


def load_compressed(data: bytes) -> Any:
    """Decode what `dump_compressed` has made.

    Raises:
        WireError: As `load_plain`.
        zlib.error: The bytes are damaged.
    """
    return load_plain(zlib.decompress(data[1:]) if data[:1] == _ZLIB else data[1:])


# Not in ASCII: two lone surrogates side by side would come back as one character.
# A file name that is no UTF-8 is made of surrogates. One encoder, because
# ``json.dumps`` makes another for every call with options.
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False)
_DECODER: Final = json.JSONDecoder()
_quote: Final = json.encoder.encode_basestring  # what it does with a text


def _to_json(data: object) -> bytes:
    return _ENCODER.encode(data).encode("utf-8", "surrogatepass")


def _from_json(data: bytes) -> Any:
    text = data.decode("utf-8", "surrogatepass")
    value, end = _DECODER.raw_decode(text)  # `json.loads` looks for spaces around it
    require(end == len(text), "what follows a record")
    return value


def pack(record: Record) -> Packed:
    """Split a record into the parts that travel."""
    return Packed(
        pack_shape(record.kind, record.links),
        pack_variant(record),
        record.bodies,
        (record.origin.host, record.origin.pid, record.origin.time),
    )


def pack_shape(kind: str, links: Sequence[Link]) -> bytes:
    """Return a shape as it travels."""
    shape = [
        (link.type_name, link.frames, link.cause, link.context, link.members)
        for link in links
    ]
    return _to_json((WIRE_VERSION, kind, shape))


def pack_outline(
    kind: str, name: str, message: str, reason: str, fingerprint: str
) -> tuple[bytes, bytes]:
    """Return shape and variant of an exception alone, with a fingerprint of its frames.

    The same JSON, written by hand: each rank that fails does this, and to run less code
    is what makes it fast where many share a core.
    """
    line = f"{name}: {message}\n" if message else f"{name}\n"
    shape = (
        f"[{WIRE_VERSION}, {_quote(kind)}, [[{_quote(name)}, [], -1, -1, null]],"
        f" {_quote(fingerprint)}]"
    )
    told = f"[[[{_quote(message)}, [{_quote(line)}], [], 0]], [{_quote(reason)}]]"
    return shape.encode("utf-8", "surrogatepass"), told.encode("utf-8", "surrogatepass")


def pack_variant(record: Record) -> bytes:
    """Return the variant of a record as it travels."""
    variant = [
        (link.message, link.lines, link.notes, link.hidden) for link in record.links
    ]
    return _to_json((variant, record.reasons))


class _Shape(NamedTuple):
    kind: str
    links: list[Link]
    fingerprint: str


@lru_cache(maxsize=64)  # a shape is shared by many ranks; decode it once
def _load_shape(shape: bytes) -> _Shape:
    version, kind, links, *rest = _from_json(shape)
    if version != WIRE_VERSION:
        msg = f"record version {version}, this allraise reads {WIRE_VERSION}"
        raise WireError(msg)
    require(type(kind) is str, "the kind of a record")
    fingerprint = "".join(rest)
    made = [
        Link(
            type_name,
            frames=tuple(Frame(*frame) for frame in frames),
            cause=cause,
            context=context,
            members=None if members is None else tuple(members),
        )
        for type_name, frames, cause, context, members in links
    ]
    check_links(tuple(made))
    return _Shape(kind, made, fingerprint)


def peek(shape: bytes, variant: bytes) -> tuple[str, str, str]:
    """Return the kind, the type's name and the message of a packed record.

    Not collective. A fraction of what `unpack` costs.

    Raises:
        WireError: The bytes are damaged or of another version.
    """
    try:
        kind, links, _ = _load_shape(shape)
        message = _from_json(variant)[0][0][0]
    except WireError:
        raise
    except Exception as error:
        msg = f"a damaged record: {type(error).__name__}: {error}"
        raise WireError(msg) from error
    require(type(message) is str, "a link's text")
    return kind, links[0].type_name, message


def kind_of(shape: bytes) -> str:
    """Return the kind of a packed record; damaged ones are failures."""
    try:
        return _load_shape(shape).kind
    except Exception:
        return FAILURE


def is_outline(shape: bytes) -> bool:
    """Tell whether a shape holds a fingerprint in place of its frames."""
    try:
        return _load_shape(shape).fingerprint != ""
    except Exception:  # damaged
        return False


def unpack(packed: Packed) -> Record:
    """Put a record together again.

    Raises:
        WireError: The bytes are damaged or of another version.
    """
    try:
        kind, shape, _ = _load_shape(packed.shape)
        variant, reasons = _from_json(packed.variant)
        if len(shape) != len(variant):
            msg = f"{len(shape)} links and {len(variant)} texts"
            raise ValueError(msg)
        links = []
        for link, told in zip(shape, variant):  # noqa: B905 strict takes a microsecond
            message, lines, notes, hidden = told
            texts = (message, *lines, *notes, *reasons)
            require({*map(type, texts)} == {str}, "a link's text")
            require(is_whole(hidden) and hidden >= 0, "a link's hidden")
            name, frames, rest = link.type_name, link.frames, link[5:8]
            made = Link(
                name, message, tuple(lines), tuple(notes), frames, *rest, hidden
            )
            links.append(made)
        origin = Origin(*packed.origin)
    except WireError:
        raise
    except Exception as error:
        msg = f"a damaged record: {type(error).__name__}: {error}"
        raise WireError(msg) from error
    return Record(tuple(links), packed.bodies, tuple(reasons), origin, kind)
