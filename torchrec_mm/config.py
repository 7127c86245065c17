"""Typed dataclasses from the command line and YAML; the user's mistakes in one line.

A command is ``main(argv)``: it calls ``parse(Config, argv)``, does its work, and raises InputError
for what the user can fix. ``run`` turns that into the promised exit status.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from torchrec_mm.errors import InputError

set_parsing_settings(docstring_parse_attribute_docstrings=True)

ConfigT = TypeVar("ConfigT")


def parse(config_class: type[ConfigT], argv: Sequence[str] | None = None) -> ConfigT:
    """Build ``config_class`` (a frozen dataclass) from flags and an optional ``--config`` YAML.

    Flags win over YAML. ``--help`` shows the class docstring and the docstring under each field;
    ``--print_config`` prints the resulting YAML. Both leave with status 0.

    Raises:
        InputError: an unknown flag or YAML key, a value of the wrong type, or a ValueError from
            the dataclass's own ``__post_init__``.
    """
    parser = ArgumentParser(
        prog=f"python -m {config_class.__module__ if config_class.__module__ != '__main__' else Path(sys.argv[0]).stem}",
        description=config_class.__doc__,
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the flags below")
    parser.add_class_arguments(config_class, as_group=False)
    try:
        namespace = parser.parse_args(argv)
        namespace = parser.instantiate_classes(namespace)
    except ArgumentError as error:
        raise InputError(_one_line(error)) from error
    fields = {key: value for key, value in vars(namespace).items() if key != "config"}
    try:
        return config_class(**fields)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(_one_line(error)) from error


def to_yaml(config: Any) -> str:
    """The config as YAML that ``--config`` reads back to an equal config."""
    return yaml.safe_dump(_plain(asdict(config)), sort_keys=False)


def run(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> int:
    """Run a command: 0 done, 2 the user's mistake in one line on stderr, 130 interrupted."""
    try:
        main(argv)
    except InputError as error:
        if int(os.environ.get("RANK", "0")) == 0:
            print(f"error: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
