"""Keys: what is one, what it opens, that none is shown."""

import re
import string
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.access.caller import ANYONE
from app.access.keys import identify, parse_keys
from app.cli import main
from app.commands.process import SettingsError, read_settings
from app.errors import ForbiddenError
from app.settings import Settings

secrets = st.text(string.ascii_letters + string.digits + "-_.~+/=ß€", min_size=1, max_size=40)
names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)
patterns_text = r"[a-z0-9][a-z0-9._-]{0,63}\*?|\*"
patterns = st.builds(str.__add__, names, st.sampled_from(["", "*"])) | st.just("*")


@given(secrets, st.lists(patterns, max_size=4), names)
def test_a_key_opens_the_names_that_it_says_and_no_others(secret, opens, name):
    keys = parse_keys([":".join([secret, *opens])])
    caller = identify(secret.encode(), keys, ())
    assert caller.key == "api-0" and not caller.admin
    allowed = (
        not opens
        or name == "base"
        or any(name.startswith(one[:-1]) if one.endswith("*") else name == one for one in opens)
    )
    assert caller.may(name) == allowed
    for reference in (name, f"{name}@3"):
        if allowed:
            caller.require(reference)
        else:
            with pytest.raises(ForbiddenError, match="opens only"):
                caller.require(reference)


@given(secrets, secrets)
def test_only_the_key_itself_is_known(one, other):
    keys = parse_keys([one])
    assert identify(one.encode(), keys, ()) is not None
    assert (identify(other.encode(), keys, ()) is None) == (one != other)
    assert identify(b"", keys, ()) is None
    assert identify(one.encode(), (), ()) == ANYONE


@given(st.text(max_size=30).filter(lambda text: "," not in text))
def test_whatever_is_written_is_a_key_or_named_by_its_place_and_never_shown(text):
    secret, _, opens = text.partition(":")
    if secret and (":" not in text or all(re.fullmatch(patterns_text, one) for one in opens.split(":"))):
        [key] = parse_keys([text])
        assert key.digest == sha256(secret.encode("utf-8", "surrogatepass")).digest()
        assert key.digest.hex() not in repr(key) and (len(secret) < 8 or secret not in repr(key))
    else:
        with pytest.raises(ValueError, match="key 1 ") as caught:
            parse_keys([text])
        assert len(text) < 8 or text not in str(caught.value)


@pytest.mark.parametrize("text", ["sk:Secret", "sk:", ":team-*", "sk:team-a*b", "sk:a*:", "sk:UPPER-*", "sk::a"])
def test_what_is_no_pattern_stops_the_start_and_is_not_shown(text):
    with pytest.raises(SettingsError, match=r"LORAT_API_KEY: .*key 2 ") as caught:
        read_settings(api_key=f"first,{text}")
    assert "Secret" not in str(caught.value) and "first" not in str(caught.value)


def test_a_key_written_twice_stops_the_start():
    with pytest.raises(SettingsError, match="twice"):
        read_settings(api_key="one:a-*, two, one:b-*")


def test_settings_never_show_a_key(monkeypatch, capsys):
    settings = Settings(api_key="hidden-one,hidden-two:team-*", admin_key="hidden-three")
    assert "hidden" not in repr(settings) + str(settings.model_dump())
    monkeypatch.setenv("LORAT_API_KEY", "hidden-one:Hidden!")
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert "idden" not in str(caught.value)
    assert main(["serve", "--port", "0"]) == 1
    assert "idden" not in capsys.readouterr().err


def test_one_that_is_an_admin_s_as_well_is_an_admin_s():
    api, admin = parse_keys(["reader", "both:a-*"]), parse_keys(["both"])
    assert (identify(b"both", api, admin).key, identify(b"reader", api, admin).key) == ("admin-0", "api-0")
    assert identify(b"both", api, admin).admin and identify(b"both", api, admin).may("b")
