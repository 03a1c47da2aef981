"""The profiles: one container, and adapters in a bucket."""

from pathlib import Path

import numpy as np

from tests.app.conftest import upload
from tests.deploy.stack import Stack, clone
from tests.oracle import make_peft

S3 = {
    "LORAT_STORE": "s3://lorat/adapters",
    "AWS_ENDPOINT_URL": "http://s3:9000",
    "AWS_ALLOW_HTTP": "true",
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
}


def _fresh(stack: Stack, directory: Path, project: str) -> Stack:
    made = Stack(clone(directory / "lorat"), project=project, port=8002)
    (made.directory / ".env").write_text((stack.directory / ".env").read_text())
    return made


def test_a_single_container_serves(stack: Stack, tmp_path: Path):
    alone = _fresh(stack, tmp_path, "lorat-single")
    try:
        alone.up("single")
        with alone.client() as client:
            assert len(client.get("/adapters").json()["adapters"]) == 3
            assert client.post("/embed", json={"inputs": "hello"}).status_code == 200
        assert len(alone.compose("ps", "--quiet").split()) == 1
    finally:
        alone.down()


def test_replicas_share_a_bucket(stack: Stack, minilm_path: Path, tmp_path: Path):
    adapter = make_peft(minilm_path, tmp_path / "adapter", seed=70, r=4)
    bucket = _fresh(stack, tmp_path, "lorat-bucket")
    bucket.set(**S3)
    try:
        bucket.compose("--profile", "s3", "up", "--detach", "--wait")
        with bucket.client() as client:
            assert upload(client, "kept", adapter.directory).status_code == 201
        for replica in bucket.replicas():
            with bucket.client(bucket.address(replica)) as client:
                [got] = client.post("/embed?adapter=kept", json={"inputs": "hello"}).json()
                assert np.abs(np.array(got) - adapter.answers(["hello"])[0].numpy()).max() < 2e-3
    finally:
        bucket.down()
