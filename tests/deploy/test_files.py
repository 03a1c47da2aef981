"""What the tools of each format say of its files."""

import subprocess
import sys
from pathlib import Path

import yaml

from tests.deploy.stack import DOCKER, ROOT, Stack, docker, run


def test_hadolint_has_nothing_to_say():
    assert run(Path(sys.executable).with_name("hadolint"), "Dockerfile") == ""


def test_compose_takes_the_file_with_every_profile(stack: Stack):
    stack.compose("--profile", "*", "config", "--quiet")


def test_only_the_gateway_is_published(stack: Stack):
    services = yaml.safe_load(stack.compose("--profile", "*", "config"))["services"]
    assert set(services) == {"api", "gateway", "prometheus", "grafana", "api-gpu", "single", "s3"}
    assert {name for name, service in services.items() if "ports" in service} == {"gateway", "single"}
    assert {name for name, service in services.items() if not service.get("profiles")} == {"api", "gateway"}
    assert all(service["read_only"] and service["cap_drop"] == ["ALL"] for service in services.values())
    assert all(service["mem_limit"] for service in services.values())


def test_without_keys_nothing_starts(stack: Stack, tmp_path: Path):
    (tmp_path / "docker-compose.yml").write_text((ROOT / "docker-compose.yml").read_text())
    (tmp_path / ".env").touch()
    said = subprocess.run([DOCKER, "compose", "config"], cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode != 0
    assert "make image" in said.stderr


def test_the_gateway_takes_its_configuration(stack: Stack):
    [gateway] = stack.replicas("gateway")
    said = docker("exec", gateway, "haproxy", "-c", "-f", "/usr/local/etc/haproxy/haproxy.cfg")
    assert "Warning" not in said


def test_no_key_is_in_an_image(stack: Stack):
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", stack.environment["LORAT_IMAGE"])
    inside = docker(
        "run", "--rm", "--entrypoint", "sh", stack.environment["LORAT_IMAGE"], "-c", "env; ls -a /opt/lorat"
    )
    assert stack.setting("LORAT_ADMIN_KEY") not in history + inside
    assert ".env" not in inside
