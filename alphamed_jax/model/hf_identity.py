"""Which weights are these? A digest of a folder's tensors that costs seconds, not a full read.

It covers every tensor by name, type, shape and bytes, in no way the files: the same weights in
other shards, as another host may hold them, have the same digest, and no clock enters it.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from alphamed_jax.errors import UserError
from alphamed_jax.model.hf_folder import INDEX, SINGLE, read_json

WHOLE = 2**30
"""Weights up to so many bytes are read whole: about two seconds."""
# Of larger ones, each tensor up to 64 KiB is read whole (norms and biases are), of the others 16
# pieces of 4 KiB, first and last included: 8B is 15 MB in 300 places, where all of it would keep a
# host busy for half a minute at each start, and 70B for minutes. Training moves nearly every
# element, so that a fine-tune differs in nearly every piece; a few elements changed by hand within
# a large tensor are what this does not see.
SMALL, PIECES, PIECE = 2**16, 16, 2**12
_CHUNK = 2**22


def weights_digest(folder: Path, whole: int = WHOLE) -> str:
    """Hexadecimal SHA-256 of the weights of a folder that `hf.inspect` has accepted.

    Args:
      whole: see `WHOLE`; how much is read depends on the sizes alone.

    Raises:
      UserError: a file ends early.
    """
    single = folder / SINGLE
    if single.is_file():
        files = [single]
    else:
        names = set(read_json(folder / INDEX)["weight_map"].values())
        files = [folder / name for name in sorted(names)]
    return files_digest(files, whole)


def files_digest(files: Sequence[Path], whole: int = WHOLE) -> str:
    """The same of the tensors of some safetensors files."""
    places = {}
    for path in files:
        places |= {name: (path, *place) for name, place in _tensors(path).items()}
    total = sum(end - begin for _, _, begin, end in places.values())
    result = hashlib.sha256()
    for name, (path, kind, begin, end) in sorted(places.items()):
        result.update(f"{name} {kind}\n".encode())
        with path.open("rb") as file:
            result.update(_content(file, pieces(begin, end, whole=total <= whole)))
    return result.hexdigest()


def _tensors(path: Path) -> dict[str, tuple[str, int, int]]:
    """Tensor -> (type and shape, first byte, end) of a safetensors file.

    The format: eight bytes that tell the header's length, the header in JSON, the tensors' bytes.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {
        name: (
            f"{entry['dtype']} {entry['shape']}",
            *(8 + length + offset for offset in entry["data_offsets"]),
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }


def pieces(begin: int, end: int, whole: bool) -> list[tuple[int, int]]:
    """What is read of a tensor from byte `begin` to `end`: (first byte, length) of each piece."""
    if whole or end - begin <= SMALL:
        return [(at, min(_CHUNK, end - at)) for at in range(begin, end, _CHUNK)]
    last = end - PIECE
    return [(begin + (last - begin) * n // (PIECES - 1), PIECE) for n in range(PIECES)]


def _content(file: BinaryIO, places: list[tuple[int, int]]) -> bytes:
    """Digest of pieces of a file."""
    digest = hashlib.sha256()
    for at, length in places:
        file.seek(at)
        piece = file.read(length)
        if len(piece) < length:
            raise UserError(f"{file.name}: the file ends early. Download it again.")
        digest.update(piece)
    return digest.digest()
