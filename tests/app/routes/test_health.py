"""`/health` and `/ready`, as those ask that watch a server."""

import pytest


@pytest.mark.parametrize("route", ["/health", "/ready"])
@pytest.mark.parametrize(("well", "status"), [(True, 200), (False, 503)])
def test_head_is_answered_as_get_without_a_body(server, route, well, status, monkeypatch):
    monkeypatch.setattr(server.app.state.service.engine, "healthy", lambda: well)
    got, head = server.get(route), server.head(route)
    assert (got.status_code, head.status_code, head.content) == (status, status, b"")
    assert head.headers["content-length"] == str(len(got.content))
