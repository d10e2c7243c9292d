"""Replay what docker/Dockerfile runs in a fresh folder, and try the programs that it starts.

No container engine is needed: files are copied where COPY puts them, RUN lines are run by a
shell that knows nothing but the file's own ARG and ENV, and every absolute folder lies under
a temporary one. So a package that is not copied, a wrong pin or a missing extra is found.

Run as `python docker/replay.py [--variant cpu]`.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import Final, final

import yaml
from dockerfile_parse import DockerfileParser

_REPOSITORY: Final = Path(__file__).parent.parent
# What the files name as folders of the image, by the ARG that holds it.
_FOLDERS: Final = ("PREFIX", "DATA")
# Where packages come from is a matter of the machine, in an image as well as here.
_KEPT: Final = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE", "HOME", "LANG")
# Says what an image does not hold: who runs it, and what a container is asked and offered.
_OF_CONTAINERS: Final = frozenset({"USER", "VOLUME", "EXPOSE", "HEALTHCHECK"})


@final
class Replay:
    """One walk through a Dockerfile under a folder that stands for the root of the image."""

    def __init__(self, root: Path, *, arguments: dict[str, str]) -> None:
        self.environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self.started: dict[str, list[str]] = {}
        self._root = root
        self._given = arguments
        self._work = root
        self._programs = root / "programs"
        self._programs.mkdir()
        (self._programs / "python").symlink_to(getattr(sys, "_base_executable", sys.executable))

    def run(self, dockerfile: Path) -> None:
        """Do what each line says.

        Raises:
            SystemExit: A line failed, or is of a kind that is not known here.
        """
        for line in DockerfileParser(fileobj=dockerfile.open("rb")).structure:
            kind, value = line["instruction"], line["value"]
            if kind == "COMMENT" or kind in _OF_CONTAINERS:
                continue
            step = getattr(self, f"_{kind.lower()}", None)
            if step is None:
                sys.exit(f"{dockerfile.name} has {kind}, which is not replayed. Add it here.")
            step(value)

    def _from(self, _: str) -> None:
        """Forget the settings of the stage before, not what it has made."""
        self.environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self.environment["PATH"] = f"{self._programs}:/usr/local/bin:/usr/bin:/bin"

    def _arg(self, value: str) -> None:
        name, _, default = value.partition("=")
        given = self._given.get(name, default.strip('"'))
        self.environment[name] = self._placed(given) if name in _FOLDERS else given

    def _env(self, value: str) -> None:
        for setting in shlex.split(value):
            name, _, text = setting.partition("=")
            self.environment[name] = self._filled(text)

    def _workdir(self, value: str) -> None:
        self._work = Path(self._placed(self._filled(value)))
        self._work.mkdir(parents=True, exist_ok=True)

    def _copy(self, value: str) -> None:
        *sources, target = shlex.split(value)
        if sources[0].startswith("--from="):
            made, wanted = Path(self._filled(sources[1])), Path(self._filled(target))
            if made != wanted or not made.is_dir():
                sys.exit(f"COPY {value} moves a virtual environment, which must keep its place.")
            return
        into = self._work / self._filled(target)
        for source in sources:
            path = _REPOSITORY / source
            if path.is_dir():
                shutil.copytree(path, into, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, into)

    def _run(self, value: str) -> None:
        print(f"RUN {value}", flush=True)
        subprocess.run(
            ["/bin/sh", "-e", "-c", value], cwd=self._work, env=self.environment, check=True
        )

    def _entrypoint(self, value: str) -> None:
        self.started["entrypoint"] = yaml.safe_load(value)

    def _cmd(self, value: str) -> None:
        self.started["command"] = yaml.safe_load(value)

    def _filled(self, text: str) -> str:
        return Template(text).substitute(self.environment)

    def _placed(self, folder: str) -> str:
        return f"{self._root}{folder}"


def check_commands(replay: Replay, compose: Path) -> None:
    """Ask the installed program about every option that the files start it with.

    Raises:
        SystemExit: An option or a command is unknown.
    """
    services = yaml.safe_load(compose.read_text(encoding="utf-8"))["services"]
    commands = [replay.started["command"]]
    commands += [each["command"] for each in services.values() if "command" in each]
    for command in commands:
        asked = [*replay.started["entrypoint"], command[0], "--help"]
        program = shutil.which(asked[0], path=replay.environment["PATH"])
        if program is None:
            sys.exit(f"The image has no program {asked[0]!r}.")
        shown = subprocess.run(
            [program, *asked[1:]],
            env=replay.environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        unknown = [word for word in command if word.startswith("--") and word not in shown]
        if unknown:
            sys.exit(f"`{' '.join(command)}` has options that are unknown: {unknown}.")
        print(f"known: {' '.join(command)}", flush=True)


def main() -> None:
    """Replay the file and try what it starts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", choices=("cpu", "cuda"), default="cpu", help="of torch")
    chosen = parser.parse_args()
    here = _REPOSITORY / "docker"
    with TemporaryDirectory(prefix="mpsearch-image-") as folder:
        given = {name: os.environ[name] for name in ("PIP_EXTRA_INDEX_URL",) if name in os.environ}
        replay = Replay(Path(folder), arguments={"VARIANT": chosen.variant, **given})
        replay.run(here / "Dockerfile")
        check_commands(replay, here / "compose.yaml")
        installed = shutil.which("mpsearch", path=replay.environment["PATH"])
        subprocess.run([str(installed), "doctor"], env=replay.environment, check=True)
    print("The image's lines were replayed, and what it starts is known.")


if __name__ == "__main__":
    main()
