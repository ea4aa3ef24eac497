"""Passwords, hashed so that many people can log in at once: Django's Argon2 takes 100 MB for each, and all cores."""

from django.contrib.auth import hashers


class Argon2PasswordHasher(hashers.Argon2PasswordHasher):
    """Argon2id with the memory that OWASP recommends at least; older hashes are replaced when their users log in.

    https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html#argon2id
    """

    memory_cost = 19 * 1024  # KiB
    time_cost = 2
    parallelism = 1
