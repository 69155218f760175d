"""Tokens, and what an instance signs with its own key: URLs and sessions."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
import time
import zlib
from typing import Literal, get_args

# What a token may admit to.
Scope = Literal["read", "upload", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_PREFIX = "dpd_"
_LETTERS = string.digits + string.ascii_letters
_RANDOM, _CHECK = 40, 6


def generate_token() -> str:
    """Make a token: "dpd_", 40 random letters and digits (238 bits), and 6 that check the others.

    The prefix and the check let a secret scanner recognise it without asking anybody.
    """
    random = "".join(secrets.choice(_LETTERS) for _ in range(_RANDOM))
    return f"{_PREFIX}{random}{_checksum(random)}"


def is_well_formed(token: str) -> bool:
    """Whether this can be a token at all."""
    random, check = token[len(_PREFIX) : -_CHECK], token[-_CHECK:]
    return token.startswith(_PREFIX) and len(random) == _RANDOM and same(check, _checksum(random))


def hash_token(token: str) -> str:
    """Give what is kept of a token: its sha256. It is random and long, so a slow hash would add nothing."""
    return hashlib.sha256(token.encode()).hexdigest()


def same(one: str, other: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())


def signed(key: bytes, *words: object) -> str:
    """Sign words with an instance's key; gives 64 hex digits."""
    return hmac.new(key, "\n".join(map(str, words)).encode(), hashlib.sha256).hexdigest()


def expiry(seconds: int) -> int:
    """Give the moment, in seconds since 1970, when something made now ends."""
    return int(time.time()) + seconds


def holds(key: bytes, signature: str, expires: int, *words: object) -> bool:
    """Whether `signature` is of these words and of this expiry, which is still to come."""
    return same(signature, signed(key, *words, expires)) and time.time() < expires


def _checksum(random: str) -> str:
    number, digits = zlib.crc32(random.encode()), ""
    for _ in range(_CHECK):
        number, digit = divmod(number, len(_LETTERS))
        digits += _LETTERS[digit]
    return digits
