"""The machinery of the JSON config, on which `Config` in config.py is built: how a file is read and checked."""

import json
import os
import warnings
from functools import cache
from pathlib import Path
from typing import ClassVar

import msgspec
from django.core.exceptions import ImproperlyConfigured

from . import words


class ConfigError(ImproperlyConfigured):
    """The config cannot be used; the message lists everything that is wrong with it."""


class RefusedError(Exception):
    """A value, or a whole file, is wrong; the arguments say how, a sentence each."""


class ConfigFile(msgspec.Struct, frozen=True, kw_only=True):
    """The base of Config: each of its annotated names is a key of the JSON file; one without a default is required."""

    default_file: ClassVar[str]

    def conflicts(self):
        """Yield what is wrong between keys, a sentence each; it is called when each key for itself is right."""
        return ()

    @classmethod
    def load(cls, file=None):
        """Return the config in a file, by default the one that DJANGO_CONFIG names.

        Raises ConfigError with all that is wrong with it. Warns if every user of the machine can read it.
        """
        file = file or cls.file()
        values, problems = cls.read(file)
        if problems:
            raise ConfigError(report(f"{file} cannot be used:", problems))
        if warning := exposure(file):
            warnings.warn(warning, stacklevel=2)
        return cls(**values)

    @classmethod
    def file(cls):
        """Return the name of the config file of this environment."""
        return os.environ.get("DJANGO_CONFIG") or cls.default_file

    @classmethod
    def read(cls, file):
        """Return the usable values of a file in a dict, and a list of sentences on what is wrong with the others."""
        try:
            given, problems = parsed(file)
        except RefusedError as error:
            return {}, [*error.args]
        values = {}
        for key, value in given.items():
            try:
                values[key] = cls.converted(key, value)
            except RefusedError as error:
                problems += error.args
        problems += [
            f"{key}: missing, expected {words.expected(cls.properties()[key])}"
            for key, field in cls.fields().items()
            if field.required and key not in given
        ]
        return values, problems or [*cls(**values).conflicts()]

    @classmethod
    def converted(cls, key, value):
        """Return a value from the file with the type of its key; raise RefusedError if it has another one."""
        if key not in cls.fields():
            raise RefusedError(words.unknown(key, cls.properties()))
        try:
            resolved = resolve(value)
            # Files hold nothing but text, also where a number is wanted.
            return msgspec.convert(resolved, cls.fields()[key].type, strict=resolved == value)
        except OSError as error:
            raise RefusedError(f"{key}: cannot read {error.filename}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise RefusedError(f"{key}: the file it names is not UTF-8") from error
        except msgspec.ValidationError as error:
            raise RefusedError(*cls.mismatches(key, resolved)) from error

    @classmethod
    def mismatches(cls, key, value):
        """Return what is wrong with a value that does not have the type of its key: each item of a list for itself."""
        wanted = cls.properties()[key]
        secret = words.is_secret(wanted)
        problems = []
        if words.is_list(value, wanted):
            for index, item in enumerate(value):
                try:
                    msgspec.convert([item] * len(value), cls.fields()[key].type)
                except msgspec.ValidationError:
                    accepted = words.expected(wanted["items"])
                    problems.append(f"{key}[{index}]: found {words.found(item, secret)}, expected {accepted}")
        return problems or [f"{key}: found {words.found(value, secret)}, expected {wanted['title']}"]

    @classmethod
    @cache
    def fields(cls):
        """Return what msgspec knows of each key: its type, its default, whether it is required."""
        return {field.name: field for field in msgspec.structs.fields(cls)}

    @classmethod
    @cache
    def properties(cls):
        """Return the JSON Schema of each key, with a title that says what is accepted."""
        schema = msgspec.json.schema(cls)
        properties = inlined({"$ref": schema["$ref"]}, schema["$defs"])["properties"]
        for key, wanted in properties.items():
            factory = cls.fields()[key].default_factory
            if factory is not msgspec.NODEFAULT:
                wanted["default"] = msgspec.to_builtins(factory())
            if words.sounds_secret(key, wanted):
                wanted.setdefault("writeOnly", True)
            wanted.setdefault("title", words.expected(wanted))
        return properties

    @classmethod
    def schema(cls):
        """Return the JSON Schema of a config file: each value, or the name of a file that holds it."""
        in_file = {
            "type": "object",
            "properties": {"$file": {"type": "string"}},
            "required": ["$file"],
            "additionalProperties": False,
        }
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": f"{cls.__module__.partition('.')[0]}: config",
            "type": "object",
            "properties": {key: {"anyOf": [wanted, in_file]} for key, wanted in cls.properties().items()},
            "required": [key for key, field in cls.fields().items() if field.required],
            "additionalProperties": False,
        }

    @classmethod
    def example(cls):
        """Return a complete config: every key with its default, its first example or a value that has its type.

        Raises ConfigError if none of them is right for a key: it then needs an example in config.py.
        """
        values = {key: words.example(wanted) for key, wanted in cls.properties().items()}
        problems = []
        for key, value in values.items():
            try:
                cls.converted(key, value)
            except RefusedError as error:
                problems += error.args
        if problems:
            raise ConfigError(report("Keys without an example; give one in config.py by Meta(examples=[…]):", problems))
        return values

    @classmethod
    def shown(cls, values):
        """Return values as they may be shown: of a secret URL without its password, of another secret nothing."""
        return {
            key: words.hidden(value, wanted) if words.is_secret(wanted) else value
            for key, value in msgspec.to_builtins(values).items()
            for wanted in [cls.properties()[key]]
        }

    def __repr__(self):
        return f"{type(self).__name__}({self.shown(msgspec.structs.asdict(self))})"

    def __rich_repr__(self):
        return self.shown(msgspec.structs.asdict(self)).items()


def parsed(file):
    """Return the object in a JSON file, and what is wrong with its keys; raise RefusedError if there is no object."""
    problems = []

    def unique(pairs):
        keys = [key for key, _ in pairs]
        repeated = [key for key in dict.fromkeys(keys) if keys.count(key) > 1]
        problems.extend(f"{key}: found more than once, expected once" for key in repeated)
        return dict(pairs)

    try:
        text = Path(file).read_text(encoding="utf-8-sig")
        given = json.loads(text, object_pairs_hook=unique)
    except OSError as error:
        raise RefusedError(f"{error.strerror}; set DJANGO_CONFIG to the name of the file") from error
    except UnicodeDecodeError as error:
        raise RefusedError(f"not UTF-8: look at byte {error.start + 1}") from error
    except json.JSONDecodeError as error:
        if not text.strip():
            raise RefusedError("empty; `manage.py config example` prints a complete one") from error
        raise RefusedError(f"not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from error
    if not isinstance(given, dict):
        raise RefusedError(f"found {words.found(given)}, expected an object of keys and values")
    given.pop("$schema", None)
    return given, problems


def resolve(value):
    """Return a value with each {"$file": name} in it replaced by the text of that file."""
    if isinstance(value, list):
        return [resolve(item) for item in value]
    if isinstance(value, dict) and isinstance(value.get("$file"), str):
        return Path(value["$file"]).read_text(encoding="utf-8").strip()
    return value


def inlined(schema, definitions):
    """Return a JSON Schema with the definitions that it refers to in their places."""
    if isinstance(schema, list):
        return [inlined(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        definition = definitions[schema["$ref"].rpartition("/")[2]]
        # Its title is the name of a class, which says nothing to the reader of an error message.
        definition = {name: part for name, part in definition.items() if name != "title"}
        schema = definition | {name: part for name, part in schema.items() if name != "$ref"}
    return {name: inlined(part, definitions) for name, part in schema.items()}


def exposure(file):
    """Return a warning if every user of the machine can read a file with secrets in it, otherwise None."""
    if os.name == "posix" and Path(file).stat().st_mode & 0o004:
        return f"Every user of this machine can read {file} and the secrets in it: chmod o-r {file}"
    return None


def report(title, problems):
    """Return one text of a title and what is wrong, a line each."""
    return "\n  ".join([title, *problems])
