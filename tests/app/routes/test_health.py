"""`/health` and `/ready`, as those ask that watch a server."""

import pytest


@pytest.mark.parametrize("route", ["/health", "/ready"])
@pytest.mark.parametrize(("well", "status"), [(True, 200), (False, 503)])
def test_head_is_answered_as_get_without_a_body(server, route, well, status, monkeypatch):
    monkeypatch.setattr(server.app.state.service.engine, "healthy", lambda: well)
    got, head = server.get(route), server.head(route)
    assert (got.status_code, head.status_code, head.content) == (status, status, b"")
    assert head.headers["content-length"] == str(len(got.content))


def test_a_server_whose_tokenizer_is_gone_is_not_healthy(serve):
    client = serve()
    assert [client.get(path).status_code for path in ("/health", "/ready")] == [200, 200]
    client.app.state.service._tokenizing.close()
    assert [client.get(path).status_code for path in ("/health", "/ready")] == [503, 503]
