"""`lorat serve` as a process: start, signals, crashes, the command line against it."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import torch

from app.cli import main
from app.demo import DIRECTORY
from app.main import load_model
from app.settings import Settings
from lorat import __version__
from lorat.cpu import layout_for
from lorat.layout import KERNELS, computes
from tests.app.conftest import process
from tests.oracle import make_peft


def resident_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_it_serves_the_demo_adapters_within_900_mb(tmp_path):
    names = sorted(path.parent.name for path in DIRECTORY.glob("*/adapter_config.json"))
    assert len(names) == 3
    with process(tmp_path) as (server, client):
        records = client.get("/adapters").json()["adapters"]
        assert [record["name"] for record in records] == names
        assert all(record["base_match"] == "verified" for record in records)
        for record in records:
            route = "/embed" if record["task"] == "embedding" else "/classify"
            answer = client.post(route, params={"adapter": record["name"]}, json={"inputs": "My card has not arrived"})
            assert answer.status_code == 200, answer.text
        assert resident_bytes(server.pid) < 900e6
        assert client.delete(f"/adapters/{names[0]}").status_code == 204
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    with process(tmp_path) as (_, client):
        assert [record["name"] for record in client.get("/adapters").json()["adapters"]] == names[1:]


def test_a_terminated_server_answers_what_is_running(tiny_path, tmp_path):
    flags = "--demo", "0", "--graceful-seconds", "120", "--max-queue-seconds", "120"  # a slow machine needs a while
    with process(tmp_path, *flags, base=tiny_path) as (server, client), ThreadPoolExecutor(8) as threads:
        body = {"inputs": ["word " * 500] * 40}
        asking = [threads.submit(client.post, "/embed", json=body) for _ in range(8)]
        while "lorat_running_requests 8.0" not in client.get("/metrics").text:
            assert not any(future.done() for future in asking), "too quick to be running at the signal"
        server.send_signal(signal.SIGTERM)
        assert [future.result().status_code for future in asking] == [200] * 8
        assert server.wait(30) == 0


def test_a_terminated_server_says_so_before_it_closes_its_port(tiny_path, tmp_path):
    with process(tmp_path, "--demo", "0", "--drain-seconds", "1", base=tiny_path) as (server, client):
        signalled = time.monotonic()
        server.send_signal(signal.SIGTERM)
        while client.get("/ready").status_code != 503:
            assert time.monotonic() < signalled + 0.5
        with type(client)(base_url=client.base_url) as newcomer:
            assert newcomer.post("/embed", json={"inputs": "late"}).status_code == 200
        assert server.wait(10) == 0
        assert 1 <= time.monotonic() - signalled < 5
    with process(tmp_path, "--demo", "0", "--drain-seconds", "60", base=tiny_path) as (server, client):
        server.send_signal(signal.SIGTERM)
        while client.get("/ready").status_code != 503:
            pass
        server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--port", "http"], "LORAT_PORT"),
        (["--slots", "0"], "LORAT_SLOTS"),
        (["--dtype", "int8"], "LORAT_DTYPE"),
        (["--base", "/not/there"], "/not/there"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--preload", "nobody"], "LORAT_PRELOAD"),
        (["--lora-dir", "/not/there"], "LORAT_LORA_DIR"),
        (["--follow-seconds", "0"], "LORAT_FOLLOW_SECONDS"),
        (["--host", "192.0.2.1"], "LORAT_HOST '192.0.2.1'"),
        (["--host", "nowhere.invalid"], "LORAT_HOST 'nowhere.invalid'"),
        (["--forwarded-allow-ips", "127.0.0.1,gateway"], "LORAT_FORWARDED_ALLOW_IPS"),
    ],
)
def test_a_wrong_setting_stops_the_start_and_is_named(flags, says, tiny_path, tmp_path):
    base = [] if "--base" in flags else ["--base", str(tiny_path)]
    command = [sys.executable, "-m", "app", "serve", "--port", "0", "--store", str(tmp_path), "--demo", "0"]
    ended = subprocess.run([*command, *base, *flags], capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0
    assert says in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_a_port_in_use_stops_the_start_before_anything_is_opened(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        command = [sys.executable, "-m", "app", "serve", "--port", port, "--store", str(tmp_path / "store")]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert f"LORAT_PORT {port}" in ended.stderr and ended.stderr.count("\n") == 1
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_port_of_the_system_s_choice_is_said(host, tiny_path, tmp_path):
    command = [sys.executable, "-m", "app", "serve", "--host", host, "--port", "0", "--store", str(tmp_path)]
    with subprocess.Popen(
        [*command, "--demo", "0", "--base", str(tiny_path)], stderr=subprocess.PIPE, text=True
    ) as server:
        said = next(line for line in server.stderr if "listening on" in line)
        assert httpx.get(f"{said.split()[-1]}/ready").status_code == 200
        server.terminate()
        server.stderr.read()
    assert server.returncode == 0


@pytest.fixture(scope="module")
def keyed(tiny_path, tmp_path_factory):
    """A server that asks for a key, its store, and the flags and the client that have the key."""
    store = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LORAT_ADMIN_KEY", "secret")
        with process(store, "--demo", "0", base=tiny_path) as (_, client):
            environment.undo()
            client.headers["Authorization"] = "Bearer secret"
            yield store, ["--url", str(client.base_url), "--key", "secret"], client


def test_the_command_line_pushes_lists_and_deletes(keyed, tiny_path, tmp_path, capsys):
    adapter = make_peft(tiny_path, tmp_path / "adapter", task="SEQ_CLS", num_labels=3, r=2).directory
    _, remote, client = keyed

    def run(*arguments):
        status = main([*arguments, *remote])
        return status, capsys.readouterr()

    status, said = run("push", str(adapter), "--name", "intent", "--dry-run")
    assert status == 0 and "would be accepted" in said.out
    status, said = run("push", str(adapter), "--name", "intent")
    assert status == 0 and "intent@1" in said.out and "3 labels" in said.out
    status, said = run("list")
    assert status == 0 and "intent@1\tsequence_classification, 3 labels, rank 2 on query, value" in said.out
    status, said = run("push", str(tmp_path / "nothing"), "--name", "intent")
    assert status == 1 and "does not exist" in said.err
    status, said = run("delete", "other")
    assert status == 1 and "404" in said.err
    status, said = run("delete", "intent")
    assert status == 0 and "deleted" in said.out
    assert main(["list", "--url", str(client.base_url)]) == 1
    assert "401" in capsys.readouterr().err
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert main(["list", "--url", f"http://127.0.0.1:{unused.getsockname()[1]}"]) == 1
    assert "Is the server running?" in capsys.readouterr().err


def test_the_command_line_keeps_versions(keyed, tiny_path, tmp_path, capsys):
    first, second = (make_peft(tiny_path, tmp_path / str(i), seed=i, r=2).directory for i in range(2))
    store, remote, client = keyed
    collect = ["gc", "--store", str(store), "--keep", "1", "--older-than-hours", "0"]
    assert main(collect) == 0  # what other tests left
    assert main(["push", str(first), "--name", "x", *remote]) == 0
    assert "layers 0, 1, 2; 768 parameters; base unknown" in capsys.readouterr().out
    assert main(["push", str(second), "--name", "x", "--replace", *remote]) == 0
    assert main(["rollback", "x", "1", *remote]) == 0
    assert "x@1 is served as x@3" in capsys.readouterr().out
    assert main(["versions", "x", *remote]) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == ["x@3", "x@2", "x@1"]
    assert main(["rollback", "x", "9", *remote]) == 1
    assert "404" in capsys.readouterr().err
    assert main(collect) == 0
    assert "2 versions ended, 1 contents removed" in capsys.readouterr().out
    assert client.post("/embed?adapter=x", json={"inputs": "a"}).headers["x-lorat-adapter"] == "x@3"
    assert main([*collect[:4], "0"]) == 1
    assert "at least" in capsys.readouterr().err


def test_check_says_what_an_upload_would_say(tiny_path, tmp_path, capsys):
    adapter = make_peft(tiny_path, tmp_path / "adapter", task="SEQ_CLS", num_labels=3, r=2).directory
    check = ["check", str(adapter), "--base", str(tiny_path)]
    (adapter / "training_args.bin").write_bytes(b"never opened")
    assert main(check) == 0
    said = capsys.readouterr().out
    for part in ("would be accepted", "sequence_classification, 3 labels, rank 2 on query, value", "layers 0, 1, 2"):
        assert part in said
    assert "left out training_args.bin" in said
    (adapter / "run.py").write_text("print(1)")
    assert main(check) == 1
    assert "run.py" in capsys.readouterr().err
    assert main(["check", str(tmp_path / "nothing")]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_the_command_line_explains_itself():
    done = subprocess.run([sys.executable, "-m", "app", "serve", "--help"], capture_output=True, text=True, check=True)
    for flag in ("--max-batch-tokens", "--api-key", "LORAT_STORE", "8000"):
        assert flag in done.stdout
    for value in ("--max-concurrent-per-key N", "--requests-per-second-per-adapter N", "--metrics-key true|false"):
        assert f"{value}\n" in done.stdout
    assert subprocess.run([sys.executable, "-m", "app", "nonsense"], capture_output=True).returncode == 2


@pytest.mark.parametrize(
    ("command", "opens"),
    [("list", "reading"), ("versions", "reading"), ("eval", "inference"), ("push", "writes"), ("delete", "writes")],
)
def test_a_command_s_help_says_which_key_it_needs(command, opens, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"a key that opens {opens} (LORAT_KEY)" in " ".join(capsys.readouterr().out.split())


def test_the_command_line_says_its_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"lorat {__version__}\n"


def test_commands_that_only_talk_to_a_server_do_not_import_torch():
    code = "import sys, app.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_slow_client_does_not_hold_up_others(keyed):
    _, _, client = keyed
    with ExitStack() as slow:
        for _ in range(20):
            address = client.base_url.host, client.base_url.port
            connection = slow.enter_context(socket.create_connection(address))
            connection.sendall(b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert client.post("/embed", json={"inputs": "a"}).status_code == 200
        assert client.get("/health").status_code == 200


def test_a_type_that_the_processor_lacks_is_said_at_the_start(tiny_path, caplog):
    load_model(Settings(base=str(tiny_path), dtype="bfloat16", device="cpu"))
    assert ("float32 is many times faster" in caplog.text) == (not computes(torch.bfloat16))


@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_a_type_that_the_processor_is_faster_in_is_said_at_the_start(dtype, caplog):
    caplog.set_level("INFO")
    base = load_model(Settings(dtype=dtype, device="cpu", slots=1)).base
    faster = layout_for(base.config, base.device, torch.bfloat16) is KERNELS  # which, unlike the start, loads Numba
    assert ("LORAT_DTYPE=bfloat16 is twice as fast" in caplog.text) == (faster and dtype == "auto")


@pytest.mark.parametrize(("believed", "client"), [("127.0.0.0/8", "192.0.2.7"), ("192.0.2.1, 10.0.0.0/8", "127.0.0.1")])
def test_a_proxy_s_word_for_who_asks_is_believed_where_a_setting_says_so(tmp_path, tiny_path, believed, client):
    flags = ("--demo", "0", "--access-log", "1", "--forwarded-allow-ips", believed)
    with process(tmp_path / "store", *flags, base=tiny_path) as (server, http):
        http.get("/info", headers={"X-Forwarded-For": "192.0.2.7"}).raise_for_status()
        server.terminate()
        assert server.wait(30) == 0
        [line] = [line for line in server.stderr.read().decode().splitlines() if "route=/info" in line]
    assert f"client={client}" in line


def test_an_idle_connection_is_kept_for_as_long_as_the_setting_says(tmp_path, tiny_path):
    with process(tmp_path / "store", "--demo", "0", "--keep-alive-seconds", "1", base=tiny_path) as (_, client):
        address = client.base_url.host, client.base_url.port
        with socket.create_connection(address, timeout=30) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            begun = time.monotonic()
            while connection.recv(65536):
                pass
            assert time.monotonic() - begun >= 0.9
