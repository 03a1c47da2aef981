"""The stack on a real engine, from a clean clone: compose, its replicas, and the adapters that the tests ask."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
DOCKER = os.environ.get("DOCKER", "docker")
IMAGE = "lorat-test"


def run(*command: str | Path, cwd: Path = ROOT, environment: dict[str, str] | None = None, seconds: int = 900) -> str:
    """A command's output; its errors are shown with what it said."""
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | (environment or {}), capture_output=True, text=True, timeout=seconds
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def docker(*arguments: str, seconds: int = 120) -> str:
    return run(DOCKER, *arguments, seconds=seconds)


def clone(directory: Path) -> Path:
    """What is committed, as someone gets it."""
    run("git", "clone", "--quiet", ROOT, directory)
    return directory


def make_image(directory: Path) -> float:
    """`make image` there; how many seconds it took."""
    started = time.monotonic()
    run("make", "image", environment={"DOCKER": DOCKER, "IMAGE": IMAGE}, cwd=directory, seconds=1800)
    return time.monotonic() - started


@dataclass(frozen=True)
class Stack:
    """A compose project in a clone's directory."""

    directory: Path
    project: str = "lorat-test"
    port: int = 8000

    @property
    def environment(self) -> dict[str, str]:
        return {
            "COMPOSE_PROJECT_NAME": self.project,
            "GATEWAY_PORT": str(self.port),
            "LORAT_IMAGE": IMAGE,
            "LORAT_S3_IMAGE": f"{IMAGE}:s3",
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def setting(self, name: str) -> str:
        found = re.search(rf"^{name}=(.*)$", (self.directory / ".env").read_text(), re.MULTILINE)
        assert found, name
        return found[1]

    def set(self, **settings: str) -> None:
        """Change `.env`."""
        kept = [
            line for line in (self.directory / ".env").read_text().splitlines() if line.split("=")[0] not in settings
        ]
        (self.directory / ".env").write_text(
            "\n".join([*kept, *(f"{name}={value}" for name, value in settings.items()), ""])
        )

    def client(self, url: str | None = None, key: str = "LORAT_ADMIN_KEY") -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.setting(key)}"}
        return httpx.Client(base_url=url or self.url, headers=headers, timeout=60)

    def compose(self, *arguments: str, seconds: int = 600, environment: dict[str, str] | None = None) -> str:
        settings = self.environment | (environment or {})
        return run(DOCKER, "compose", *arguments, cwd=self.directory, environment=settings, seconds=seconds)

    def up(self, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.compose("up", "--detach", "--wait", *arguments, environment=environment)

    def roll(self) -> None:
        run(self.directory / "deploy/roll", environment=self.environment | {"PATH": _path()}, seconds=600)

    def replicas(self, service: str = "api") -> list[str]:
        """The containers of a service, oldest name first."""
        return self.compose("ps", "--all", "--quiet", service).split()

    def address(self, container: str, port: int = 8000) -> str:
        """Where a container answers by itself."""
        found = docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container)
        return f"http://{found.strip()}:{port}"

    def wait_healthy(self, container: str, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while docker("inspect", "--format", "{{.State.Health.Status}}", container).strip() != "healthy":
            assert time.monotonic() < end, docker("logs", "--tail", "20", container)
            time.sleep(0.5)

    def down(self) -> None:
        self.compose("--profile", "*", "down", "--volumes", "--timeout", "10")


def _path() -> str:
    """A path on which `docker` is the one that the tests use."""
    found = shutil.which(DOCKER)
    assert found, f"there is no {DOCKER}: name an engine's client by DOCKER"
    return f"{Path(found).parent}{os.pathsep}{os.environ['PATH']}"


def wait_until(condition: object, seconds: float, what: Sequence[str] | str) -> float:
    """Wait for a callable to be true; how many seconds that took."""
    assert callable(condition)
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, what
        time.sleep(0.02)
    return time.monotonic() - started
