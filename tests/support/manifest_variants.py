"""Valid and hostile manifests, each with different bytes."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from tests.support import large_manifest

_GENERATED_AT = re.compile(rb'("generated_at": ")[^"]+')
_INVOCATION_ID = re.compile(rb'("invocation_id": ")[^"]+')
# This number of models of `large_manifest` with 20 columns has about 1 MB.
_MODELS_PER_MB = 83
_BLOCK_BYTES = 1024 * 1024
_EMPTY_LISTS = b"[]," * 300_000


def renew(manifest: bytes) -> bytes:
    """Return the manifest with the current time and a new invocation id."""
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}Z".encode()
    dated = _GENERATED_AT.sub(rb"\g<1>" + now, manifest, count=1)
    return _INVOCATION_ID.sub(rb"\g<1>" + str(uuid.uuid4()).encode(), dated, count=1)


class LargeManifest:
    """A valid manifest on disk, too large to keep several copies in memory."""

    def __init__(self, path: Path, megabytes: int) -> None:
        large_manifest.write(path, megabytes * _MODELS_PER_MB, 20)
        self._path = path
        self.size_bytes = len(self._head()) + max(0, path.stat().st_size - _BLOCK_BYTES)

    def variant(self) -> Iterator[bytes]:
        """Yield the bytes of a renewed manifest block by block."""
        yield self._head()
        with self._path.open("rb") as file:
            file.seek(_BLOCK_BYTES)
            while block := file.read(_BLOCK_BYTES):
                yield block

    def _head(self) -> bytes:
        with self._path.open("rb") as file:
            return renew(file.read(_BLOCK_BYTES))


def with_lists_in_metadata(megabytes: int) -> Iterator[bytes]:
    """Yield a manifest with empty lists in `metadata`, which decode to 20 times their size."""
    yield b'{"metadata": ' + json.dumps(_metadata()).encode()[:-1] + b', "lists": ['
    yield from _empty_lists(megabytes)
    model = large_manifest.model(0, 0)
    nodes = json.dumps({model["unique_id"]: model})
    yield f'[]]}}, "nodes": {nodes}'.encode() + _other_sections()


def with_lists_in_node(megabytes: int) -> Iterator[bytes]:
    """Yield a manifest with the same lists in the `meta` of one model."""
    before, after = _split_model("lists")
    yield _head() + before
    yield from _empty_lists(megabytes)
    yield b"[]" + after


def with_long_names(letter: str, models: int, name_bytes: int) -> Iterator[bytes]:
    """Yield a manifest with long model names that start with this letter."""
    model = large_manifest.model(0, 0)
    yield _head()
    for number in range(models):
        name = f"{letter}{number:03}" + letter * (name_bytes - 4)
        unique_id = f"model.{large_manifest.PROJECT}.{name}"
        content = json.dumps({**model, "unique_id": unique_id, "name": f"{letter}{number:03}"})
        yield b", "[: 2 * (number > 0)] + f'"{unique_id}": {content}'.encode()
    yield b"}" + _other_sections()


def _metadata() -> dict[str, object]:
    head = next(large_manifest.pieces(0, 0))
    metadata: dict[str, object] = json.loads(head + "}}")["metadata"]
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
    return {**metadata, "generated_at": now, "invocation_id": str(uuid.uuid4())}


def _head() -> bytes:
    return b'{"metadata": ' + json.dumps(_metadata()).encode() + b', "nodes": {'


def _other_sections() -> bytes:
    """Return the end of a manifest after its nodes, with the final brace."""
    text = large_manifest.text(0, 0)
    return text[text.index(', "parent_map"') :].encode()


def _split_model(mark: str) -> tuple[bytes, bytes]:
    """Return the text of a model before and after a list in its `meta`."""
    model = {**large_manifest.model(0, 0), "meta": {mark: mark}}
    text = json.dumps({str(model["unique_id"]): model})[1:-1]
    before, after = text.split(f'"{mark}": "{mark}"')
    return f'{before}"{mark}": ['.encode(), f"]{after}}}".encode() + _other_sections()


def _empty_lists(megabytes: int) -> Iterator[bytes]:
    """Yield empty lists of this total size in blocks."""
    for _ in range(megabytes * 1_000_000 // len(_EMPTY_LISTS)):
        yield _EMPTY_LISTS


def size_of(pieces: Iterator[bytes]) -> int:
    """Return the total number of bytes."""
    return sum(map(len, pieces))
