"""The password: as a hash, in the environment or in a file that nobody else can read."""

import base64
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from hpo.errors import UsageError

HASH = "HPO_DASHBOARD_PASSWORD_HASH"
FILE = "HPO_DASHBOARD_PASSWORD_FILE"
SHORTEST = 8
COST = 15
"""log2 of scrypt's N: with r = 8 a guess takes 32 MiB and some 100 ms (OWASP, Password Storage: 14 to 17)."""
MEMORY = 256 * 2**20


@dataclass(frozen=True)
class Hash:
    """A password's scrypt hash. As text it has no `$`, which compose files would take for a variable."""

    cost: int
    salt: bytes
    digest: bytes

    @classmethod
    def of(cls, password: str) -> "Hash":
        salt = secrets.token_bytes(16)
        return cls(COST, salt, _scrypt(password, salt, COST))

    @classmethod
    def parse(cls, text: str, source: str) -> "Hash":
        """What `str` made.

        Raises:
            UsageError: it is not that; the message names `source` and does not quote it.
        """
        try:
            kind, cost, salt, digest = text.strip().split(":")
            parsed = cls(int(cost), base64.urlsafe_b64decode(salt), base64.urlsafe_b64decode(digest))
        except ValueError:
            kind = ""
        if kind != "scrypt" or not 10 <= parsed.cost <= 17 or len(parsed.digest) != 32:
            raise UsageError(f"{source}: not a hash of `hpo dashboard set-password`")
        return parsed

    def __str__(self) -> str:
        salt, digest = (base64.urlsafe_b64encode(part).decode() for part in (self.salt, self.digest))
        return f"scrypt:{self.cost}:{salt}:{digest}"

    def fits(self, password: str) -> bool:
        """Whether it is that password; takes as long for any."""
        return hmac.compare_digest(_scrypt(password, self.salt, self.cost), self.digest)


def _scrypt(password: str, salt: bytes, cost: int) -> bytes:
    text = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(text, salt=salt, n=2**cost, r=8, p=1, maxmem=MEMORY, dklen=32)


def default_file() -> Path:
    """Where the hash lies unless told otherwise."""
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder) / "hpo" / "dashboard-password"


def known_hash(file: Path | None) -> Hash | None:
    """The hash in the environment, else in `file`, else in the default file; None where there is none.

    Raises:
        UsageError: it is malformed, `file` cannot be read, or others can read it.
    """
    if text := os.environ.get(HASH):
        return Hash.parse(text, HASH)
    path = file or default_file()
    if file is None and not path.exists():
        return None
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"{path}: the password's hash cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise UsageError(f"{path}: others can read it (mode {mode & 0o777:03o}): `chmod 600 {path}`")
    return Hash.parse(text, str(path))


def write_hash(password: str, path: Path) -> None:
    """Keep the password's hash in a file of mode 600, written beside and renamed.

    Raises:
        UsageError: the file cannot be written.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside.touch(mode=0o600, exist_ok=False)
        beside.write_text(f"{Hash.of(password)}\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
