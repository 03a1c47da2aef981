"""The openai package for Node."""

import json
import subprocess

import pytest

from tests.clients.conftest import IN_THE_DOCS, ROOT, TEXTS, examples, same_bits

PLACE = ROOT / "build" / "node"


@pytest.fixture
def run(server, tmp_path):
    """Run a module in Node beside its packages; what it prints, as JSON."""

    def execute(code: str, printed: str) -> object:
        assert IN_THE_DOCS in code
        module = PLACE / f"{tmp_path.name}.mjs"
        module.write_text(f"{code.replace(IN_THE_DOCS, server.url)}\nconsole.log(JSON.stringify({printed}));\n")
        try:
            done = subprocess.run(["node", str(module)], capture_output=True, text=True, timeout=120)
        finally:
            module.unlink()
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return execute


def test_the_example(run, server):
    (code,) = examples("openai for Node", "js")
    assert same_bits(run(code, "vectors"), server.vectors("intent-search"))


CLIENT = f"""
import OpenAI from "openai";
const client = new OpenAI({{ baseURL: "{IN_THE_DOCS}/v1", apiKey: "KEY", maxRetries: 0 }});
"""


@pytest.mark.parametrize("encoding", ["", ', encoding_format: "float"'])
@pytest.mark.parametrize("dimensions", [16, 384])
def test_encodings_and_dimensions(run, server, encoding, dimensions):
    create = f'await client.embeddings.create({{ model: "base", input: {json.dumps(TEXTS)}, dimensions: {dimensions}{encoding} }})'
    found = run(CLIENT, create)
    assert same_bits([row["embedding"] for row in found["data"]], server.vectors("base", dimensions=dimensions))
    assert found["usage"]["total_tokens"] > 0


def test_models_and_errors(run):
    listed = run(CLIENT, "(await client.models.list()).data.map((model) => model.id)")
    assert listed[0] == "base" and "intent-search" in listed
    create = 'client.embeddings.create({ model: "nobody", input: "x" })'
    caught = run(CLIENT, f"await {create}.catch((error) => [error.constructor.name, error.status, error.code])")
    assert caught == ["NotFoundError", 404, "model_not_found"]
