"""One container by itself: what it may do, and how it ends."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.deploy.stack import Stack, docker

LIMIT_BYTES = 1.3e9
PUBLISHED_BASE_BYTES = 0.15e9  # python:3.11-slim as published is below that; an engine without it has a larger stand-in


@pytest.fixture
def replica(stack: Stack) -> str:
    return stack.replicas()[0]


def test_it_may_do_nothing_but_serve(replica: str):
    status = docker("exec", replica, "python", "-c", "print(open('/proc/1/status').read())")
    said = {line.split(":")[0]: line.split(":")[1].split() for line in status.splitlines() if ":" in line}
    assert said["Uid"] == ["10001"] * 4 and said["Gid"] == ["10001"] * 4
    assert all(int(said[kind][0], 16) == 0 for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
    assert said["NoNewPrivs"] == ["1"]
    tried = "import pathlib\nfor d in ('/', '/opt/lorat', '/opt/venv', '/etc', '/var/lib/lorat', '/tmp'):\n"
    tried += " try: pathlib.Path(d, 'x').write_text(''); pathlib.Path(d, 'x').unlink(); print(d)\n"
    tried += " except OSError: pass"
    assert docker("exec", replica, "python", "-c", tried).split() == ["/var/lib/lorat", "/tmp"]


def test_its_memory_is_limited_and_enough(replica: str):
    limit = int(docker("inspect", "--format", "{{.HostConfig.Memory}}", replica))
    assert limit == 2 * 2**30
    used = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", replica)
    killed = docker("inspect", "--format", "{{.State.OOMKilled}}", replica).strip()
    print(f"\nmemory: {used.strip()}")
    assert killed == "false"


def test_it_computes_on_as_many_cores_as_it_is_granted(stack: Stack):
    image, asked = stack.environment["LORAT_IMAGE"], "from app.engine.cores import cores; print(cores())"
    said = docker("run", "--rm", "--network", "none", "--cpus", "1", "--entrypoint", "python", image, "-c", asked)
    assert said.strip() == "1"


def test_it_has_no_tools_to_build_with(replica: str):
    tools = "import shutil; print([t for t in ('gcc', 'cc', 'make', 'git', 'curl') if shutil.which(t)])"
    assert docker("exec", replica, "python", "-c", tools).strip() == "[]"
    assert (
        docker("exec", replica, "python", "-c", "import sys, os; print(os.listdir(sys.prefix + '/bin'))").count("pip")
        == 0
    )


def test_the_image_is_small(stack: Stack):
    size = int(docker("image", "inspect", "--format", "{{.Size}}", stack.environment["LORAT_IMAGE"]))
    base = int(docker("image", "inspect", "--format", "{{.Size}}", "python:3.11-slim"))
    print(f"\nimage: {size / 1e6:.0f} MB, {(size - base) / 1e6:.0f} MB of them on top of its base image")
    assert size - base + min(base, PUBLISHED_BASE_BYTES) < LIMIT_BYTES


def test_a_stopped_container_answers_what_is_running(stack: Stack):
    replica = stack.replicas()[-1]
    with stack.client(stack.address(replica)) as client, ThreadPoolExecutor(8) as threads:
        body = {"inputs": ["word " * 250] * 3}
        asking = [threads.submit(client.post, "/embed", json=body) for _ in range(8)]
        while sum(future.done() for future in asking) == 0:
            time.sleep(0.01)
        assert not all(future.done() for future in asking), "too quick to be running at the signal"
        started = time.monotonic()
        docker("stop", replica)
        lasted = time.monotonic() - started
        assert [future.result().status_code for future in asking] == [200] * 8
    state = docker("inspect", "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}", replica)
    assert state.strip() == "0 false"
    assert lasted < 45
    print(f"\ndocker stop took {lasted:.1f} s")
    docker("start", replica)
    stack.wait_healthy(replica)
