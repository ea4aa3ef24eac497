"""`manage.py config check|show|example|schema`, which work even when the settings do not."""

import argparse
import json
import sys

from .file import ConfigError, exposure, report


def main(config, arguments):
    """Run `manage.py config` with its arguments on a Config; return the exit status."""
    parser = argparse.ArgumentParser(prog="manage.py config", description="Look at the JSON config.")
    actions = parser.add_subparsers(dest="action", required=True)
    for action, help in (
        ("check", "say everything that is wrong with the config"),
        ("show", "print the values in use, secrets hidden"),
        ("example", "print a complete config with a fresh secret key"),
        ("schema", "print a JSON Schema of the config, for editors"),
    ):
        actions.add_parser(action, help=help)
    for action in ("check", "show"):
        actions.choices[action].add_argument("file", nargs="?", default=config.file(), help="by default %(default)s")
    options = parser.parse_args(arguments)

    if options.action == "example":
        return print_example(config)
    if options.action == "schema":
        print(json.dumps(config.schema(), indent=2, ensure_ascii=False))
        return 0
    return print_file(config, options)


def print_example(config):
    """Print a complete config, or for which keys there is no example; return the exit status."""
    try:
        print(json.dumps(config.example(), indent=2, ensure_ascii=False))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def print_file(config, options):
    """Print what is wrong with a file and, for `show`, the values in it; return the exit status."""
    values, problems = config.read(options.file)
    if problems:
        print(report(f"{options.file} cannot be used:", problems), file=sys.stderr)
    elif warning := exposure(options.file):
        print(warning, file=sys.stderr)
    if options.action == "show":
        defaults = {key: wanted["default"] for key, wanted in config.properties().items() if "default" in wanted}
        print(json.dumps(config.shown(defaults | values), indent=2, ensure_ascii=False))
    elif not problems:
        print(f"{options.file}: no errors")
    return 1 if problems else 0
