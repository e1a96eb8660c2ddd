"""Settings from a YAML spec and flags; both derive from the one declaration, a pydantic model."""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_origin

import click
import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline.errors import SettingError

Settings = TypeVar("Settings", bound=BaseModel)
Command = Callable[..., Any]


def spec_options(model: type[BaseModel]) -> Callable[[Command], Command]:
    """Give a click command `--spec` and a flag for each field of a model, first those that must be given."""

    def decorate(command: Command) -> Command:
        fields = sorted(model.model_fields.items(), key=lambda item: not item[1].is_required())
        for name, field in reversed(fields):
            command = _option(name, field)(command)
        help_text = "YAML file with any of the settings below; flags override it."
        return click.option("--spec", type=click.Path(exists=True, dir_okay=False, path_type=Path), help=help_text)(
            command
        )

    return decorate


def _option(name: str, field: FieldInfo) -> Callable[[Command], Command]:
    flag = name.replace("_", "-")
    kind = field.annotation
    help_text = field.description or ""
    if field.default not in (PydanticUndefined, None, False, ()):
        default = ", ".join(field.default) if isinstance(field.default, tuple) else field.default
        help_text += f"  [default: {default}]"
    declaration = f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}"
    is_many = get_origin(kind) is tuple
    value_type = None if kind is bool else str  # values are parsed and bounded by the model alone
    return click.option(declaration, name, type=value_type, multiple=is_many, default=None, help=help_text)


def load_settings(model: type[Settings], spec: Path | None, flags: dict[str, Any]) -> Settings:
    """The spec's settings, overridden by the flags that were given.

    Raises:
        SettingError: each wrong field with its value, or the nearest name to an unknown one.
    """
    values = _read_yaml(spec) if spec else {}
    values |= {name: value for name, value in flags.items() if value not in (None, ())}
    for name, field in model.model_fields.items():
        if get_origin(field.annotation) is tuple and isinstance(values.get(name), str):
            values[name] = (values[name],)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SettingError("; ".join(_explain(model, dict(e)) for e in error.errors())) from error


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingError(f"spec {str(path)!r} can't be read: {error}") from error
    if not isinstance(values, dict):
        raise SettingError(f"spec {str(path)!r} must be a mapping of settings to values")
    return values


def _explain(model: type[BaseModel], error: dict[str, Any]) -> str:
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, model.model_fields, n=1)
        return f"{name}: no such setting" + (f"; did you mean {near[0]}?" if near else "")
    if error["type"] == "missing":
        return f"{name}: missing; give --{name.replace('_', '-')} or set it in the spec"
    message = error["msg"].removeprefix("Value error, ")
    return f"{name}: {message}, not {error['input']!r}" if name else message
