"""The format of tokens: generation, validation and hashing."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
import zlib

_PREFIX = "dpd_"
_ALPHABET = string.digits + string.ascii_letters
_RANDOM_LENGTH = 40
_CHECKSUM_LENGTH = 6


def generate_token() -> str:
    """Return a new token: "dpd_", 40 random letters and digits (238 bits), and a checksum.

    The prefix and the checksum let a secret scanner recognize a token without a request.
    """
    random = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LENGTH))
    return f"{_PREFIX}{random}{_checksum(random)}"


def is_well_formed(token: str) -> bool:
    """Return whether a text has the format of a token."""
    random = token[len(_PREFIX) : -_CHECKSUM_LENGTH]
    if not token.startswith(_PREFIX) or len(random) != _RANDOM_LENGTH:
        return False
    checksum = token[-_CHECKSUM_LENGTH:]
    return hmac.compare_digest(checksum.encode(), _checksum(random).encode())


def hash_token(token: str) -> str:
    """Return the SHA-256 hash of a token, which is stored instead of the token.

    A slow hash would not add security, because a token is long and random.
    """
    return hashlib.sha256(token.encode()).hexdigest()


def _checksum(random: str) -> str:
    number = zlib.crc32(random.encode())
    characters = ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        characters += _ALPHABET[digit]
    return characters
