"""A Postgres server of our own, in a folder of its own, to measure against and to kill."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Final, final

from benchmarks.waiting import ending

# Where Debian puts what it keeps out of PATH.
_DEBIAN: Final = "/usr/lib/postgresql"
# Postgres refuses to run as root; Debian's package makes this user.
_USER: Final = "postgres"
# What a program of Postgres may take here; each is done within seconds.
_PROGRAM_SECONDS: Final = 120.0


@final
class Postgres:
    """A server on a free port of loopback, from `with` to its end."""

    def __init__(self) -> None:
        # Short, as a socket's name has to be, and within reach of the other user.
        self._folder = Path(tempfile.mkdtemp(prefix="pg"))
        self._port = _free_port()
        self._count = 0

    def __enter__(self) -> "Postgres":
        if os.geteuid() == 0:
            shutil.chown(self._folder, _USER)
        data = str(self._folder / "data")
        self._run("initdb", "-D", data, "-A", "trust", "-U", _USER, "--no-sync", "-E", "UTF8")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = (
            f"-k {self._folder} -p {self._port} -c listen_addresses=127.0.0.1 "
            "-c max_connections=300"
        )
        data, log = str(self._folder / "data"), str(self._folder / "log")
        self._run("pg_ctl", "-D", data, "-o", options, "-l", log, "-w", "start")

    def stop(self) -> None:
        """End it at once, as a crash does; what was committed stays."""
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "-w", "stop")

    def database(self) -> str:
        """Return the URL of a new and empty database."""
        self._count += 1
        name = f"mps{self._count}"
        self._run("createdb", *self._reached, name)
        return f"{self._prefix}{name}"

    def dump(self, url: str, target: Path) -> None:
        """Write a database to a file, as `pg_dump` does while it is used."""
        # Where the server's user may write.
        written = self._folder / "dump.sql"
        self._run("pg_dump", *self._reached, "-f", str(written), url.removeprefix(self._prefix))
        shutil.copyfile(written, target)

    def restored(self, source: Path) -> str:
        """Return the URL of a new database that holds what `dump` wrote."""
        url = self.database()
        read = self._folder / "restored.sql"
        shutil.copyfile(source, read)
        read.chmod(0o644)
        name = url.removeprefix(self._prefix)
        self._run("psql", *self._reached, "-q", "-v", "ON_ERROR_STOP=1", "-f", str(read), name)
        return url

    @property
    def _prefix(self) -> str:
        return f"postgresql+psycopg://{_USER}@127.0.0.1:{self._port}/"

    @property
    def _reached(self) -> tuple[str, ...]:
        return ("-h", "127.0.0.1", "-p", str(self._port), "-U", _USER)

    def _run(self, program: str, *arguments: str) -> None:
        user = _USER if os.geteuid() == 0 else None
        group = None if user is None else pwd.getpwnam(user).pw_gid
        try:
            done = subprocess.run(
                [_found(program), *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                cwd=self._folder,
                check=False,
                user=user,
                group=group,
                extra_groups=None if user is None else [],
                timeout=_PROGRAM_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"{error}: {error.stdout!r}. {self._told()}") from error
        if done.returncode:
            told = f"{program} ended with {done.returncode}: {done.stdout}"
            raise RuntimeError(f"{told} {self._told()}")

    def _told(self) -> str:
        return ending(self._folder / "log")


def _found(program: str) -> str:
    versions = sorted(Path(_DEBIAN).glob(f"*/bin/{program}"), key=lambda path: path.parts[4])
    found = str(versions[-1]) if versions else shutil.which(program)
    if found is None:
        raise RuntimeError(f"{program} is not here. Run `apt-get install postgresql`.")
    return found


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
