import pytest
from django.contrib.auth import hashers

from {{ cookiecutter.project_slug }}.scaling.passwords import Argon2PasswordHasher


def test_argon2():
    encoded = hashers.make_password("correct horse")

    assert encoded.startswith("argon2$argon2id$")
    assert f"m={Argon2PasswordHasher.memory_cost}," in encoded
    assert hashers.check_password("correct horse", encoded)
    assert not hashers.check_password("wrong horse", encoded)


@pytest.mark.parametrize("hasher", [hashers.Argon2PasswordHasher(), hashers.PBKDF2PasswordHasher()])
def test_password_of_another_hasher_is_hashed_anew_at_login(hasher):
    encoded, anew = hasher.encode("password", hasher.salt()), []

    assert hashers.check_password("password", encoded, setter=anew.append)
    assert anew == ["password"]
