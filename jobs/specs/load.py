"""Settings from a YAML spec and flags; both derive from the one declaration, a pydantic model.

A spec has the settings of one command, and may say which (`kind`) and how a cluster is given the job (`job`).
"""

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import click
import cloup
import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from jobs.specs.settings import SPEC_KINDS, JobSettings
from pipeline.errors import SettingError
from pipeline.redaction import has_secret
from pipeline.settings import Metavar
from pipeline.texts import decode_text

Settings = TypeVar("Settings", bound=BaseModel)
READ_ONCE = {"weights"}
"""The settings that no record has: a signed URL is downloaded from, and forgotten."""
Command = Callable[..., Any]

SPEC_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
"""The type of a flag that names a spec."""
SEVERAL = "May be given several times."
METAVARS = {str: "TEXT", int: "INTEGER", float: "NUMBER", date: "YYYY-MM-DD", datetime: "TIME"}
"""The words for types of values in a command's help."""


@dataclass(frozen=True)
class Spec:
    """The contents of a spec."""

    path: Path
    kind: str | None
    """The command that it is for; None where it does not say."""
    settings: dict[str, Any]
    """The command's settings by name, not checked yet."""
    job: JobSettings


def spec_options(model: type[BaseModel]) -> Callable[[Command], Command]:
    """Give a click command `--spec`, and a flag for each field of a model."""
    spec = cloup.option(
        "--spec", type=SPEC_FILE, help="YAML file with any of the settings of this command; flags override it."
    )
    return lambda command: spec(setting_options(model)(command))


def setting_options(model: type[BaseModel]) -> Callable[[Command], Command]:
    """Give a click command a flag for each field of a model but settings within settings, in groups.

    A group is a class with a `heading`: that which declares the field, or one above it.
    """

    def decorate(command: Command) -> Command:
        for heading, names in reversed(field_groups(model).items()):
            fields = [(name, model.model_fields[name]) for name in names]
            options = [_option(name, field) for name, field in fields if _model_of(field) is None]
            command = cloup.option_group(heading, *options)(command) if options else command
        return command

    return decorate


def field_groups(model: type[BaseModel]) -> dict[str, list[str]]:
    """Return the names of a model's fields by the heading of their group.

    Groups with required fields come first, and required fields come first in their group.
    """
    groups: dict[str, list[str]] = {}
    for name in model.model_fields:
        declaring = next(kind for kind in reversed(model.__mro__) if name in getattr(kind, "__annotations__", {}))
        groups.setdefault(getattr(declaring, "heading", "Settings"), []).append(name)

    def is_optional(name: str) -> bool:
        return not model.model_fields[name].is_required()

    ordered = {heading: sorted(names, key=is_optional) for heading, names in groups.items()}
    return dict(sorted(ordered.items(), key=lambda group: all(map(is_optional, group[1]))))


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the class of settings within settings."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _option(name: str, field: FieldInfo) -> Callable[[Command], Command]:
    flag = name.replace("_", "-")
    kind = field.annotation
    help_text = field.description or ""
    is_flag, is_many = kind is bool, get_origin(kind) in (tuple, dict)
    if is_many and SEVERAL not in help_text:
        help_text += f" {SEVERAL}"
    if field.default not in (PydanticUndefined, None, False, ()) or (kind in (int, float) and field.default == 0):
        default = ", ".join(field.default) if isinstance(field.default, tuple) else field.default
        help_text += f"  [default: {default}]"
    if field.is_required():
        help_text += "  [required]"
    declaration = f"--{flag}/--no-{flag}" if is_flag else f"--{flag}"
    return cloup.option(
        declaration,
        name,
        type=None if is_flag else str,  # values are parsed and bounded by the model alone
        metavar=None if is_flag else metavar(kind, field.metadata),
        multiple=is_many,
        default=None,
        help=help_text,
    )


def metavar(kind: Any, metadata: Iterable[Any] = ()) -> str:
    """Return what stands in a command's help for a value of a type."""
    if marked := next((mark.text for mark in metadata if isinstance(mark, Metavar)), None):
        return marked
    if kind in METAVARS:
        return METAVARS[kind]
    if get_origin(kind) is Literal:
        return f"[{'|'.join(get_args(kind))}]"
    if get_origin(kind) is dict:
        return "NAME=VALUE"
    if get_origin(kind) is Annotated:
        return metavar(get_args(kind)[0], get_args(kind)[1:])
    return metavar(next(part for part in get_args(kind) if part not in (None, type(None))))


def load_settings(model: type[Settings], path: Path | None, flags: dict[str, Any]) -> Settings:
    """Return the spec's settings, overridden by the flags that were given.

    Raises:
        SettingError: each wrong field with its value, or the nearest name to an unknown one; a spec of another kind.
    """
    values: dict[str, Any] = {}
    if path:
        spec = read_spec(path)
        if spec.kind and SPEC_KINDS[spec.kind] is not model:
            raise SettingError(
                f"kind: {str(path)!r} is a spec for {spec.kind}; run ssd-batch {spec.kind} --spec {path}"
            )
        values |= spec.settings
    return check_settings(model, values | given(flags))


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """Return the flags that were given."""
    return {name: value for name, value in flags.items() if value not in (None, ())}


def check_settings(model: type[Settings], values: dict[str, Any]) -> Settings:
    """Return the settings of a class, from values by name; raises as `load_settings`."""
    values = dict(values)
    _refuse_secrets(values)
    for name, field in model.model_fields.items():
        if get_origin(field.annotation) is tuple and isinstance(values.get(name), str):
            values[name] = (values[name],)
        if get_origin(field.annotation) is dict and isinstance(values.get(name), tuple):
            values[name] = _by_name(name, values[name])
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SettingError("; ".join(_explain(model, dict(e)) for e in error.errors())) from error


def _by_name(flag: str, texts: tuple[str, ...]) -> dict[str, str]:
    """Return a flag's values by name; each is NAME=VALUE."""
    if not all("=" in text for text in texts):  # which may be secrets
        raise SettingError(f"{flag}: give each as NAME=VALUE")
    return dict(text.split("=", 1) for text in texts)


def read_spec(path: Path) -> Spec:
    """Return the parts of a spec.

    Raises:
        SettingError: it can't be read, has a secret, its kind is none, or what it says of the job is wrong.
    """
    values = _read_yaml(path)
    _refuse_secrets(values)
    kind, job = values.pop("kind", None), values.pop("job", {})
    if kind is not None and kind not in SPEC_KINDS:
        raise SettingError(f"kind: must be one of {', '.join(SPEC_KINDS)}, not {kind!r}")
    if not isinstance(job, dict):
        raise SettingError(f"job: must be a mapping of settings to values, not {job!r}")
    try:
        return Spec(path, kind, values, check_settings(JobSettings, job))
    except SettingError as error:
        raise SettingError(f"job: {error}") from error


def _refuse_secrets(values: dict[str, Any]) -> None:
    for name, value in values.items():
        if name not in READ_ONCE and any(has_secret(text) for text in _texts(value)):
            raise SettingError(
                f"{name}: has a password, a token or a signature, and settings are written down in logs, tables and the cluster's "
                "list of jobs; leave it out, and let the environment of the nodes have it"
            )


def kind_of(spec: Spec) -> str:
    """Return which command a spec is for.

    Raises:
        SettingError: it does not say.
    """
    if spec.kind is None:
        raise SettingError(f"kind: missing in {str(spec.path)!r}; say which command it is for: {', '.join(SPEC_KINDS)}")
    return spec.kind


def _texts(value: Any) -> Iterator[str]:
    """Yield all strings of a setting."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = EachKeyOnce(decode_text(path.read_bytes())).get_single_data()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingError(f"spec {str(path)!r} can't be read: {error}") from error
    if not isinstance(values, dict):
        raise SettingError(f"spec {str(path)!r} must be a mapping of settings to values")
    return values


class EachKeyOnce(yaml.SafeLoader):
    """Refuses a mapping in which a key stands twice, of which YAML's readers would take the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a mapping's values; see the class."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if repeated := [str(key) for key, count in Counter(map(str, keys)).items() if count > 1]:
            raise yaml.MarkedYAMLError(
                problem=f"{repeated[0]} is given twice; give it once", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


def _explain(model: type[BaseModel], error: dict[str, Any]) -> str:
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        *outer, unknown = error["loc"]
        within = reduce(lambda kind, part: _model_of(kind.model_fields[part]) or kind, outer, model)
        near = difflib.get_close_matches(str(unknown), within.model_fields, n=1)
        return f"{name}: no such setting" + (f"; did you mean {near[0]}?" if near else "")
    if error["type"] == "missing":
        return f"{name}: missing; give --{name.replace('_', '-')} or set it in the spec"
    message = error["msg"].removeprefix("Value error, ")
    if not name or isinstance(error["input"], dict):  # whose values may be secrets
        return f"{name}: {message}" if name else message
    return f"{name}: {message}, not {error['input']!r}"
