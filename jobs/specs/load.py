"""Settings from a YAML spec and flags; both derive from the one declaration, a pydantic model.

A spec has the settings of one command, and may say which (`kind`) and how a cluster is given the job (`job`).
"""

import difflib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar, get_origin

import click
import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from jobs.specs.settings import SPEC_KINDS, JobSettings
from pipeline.errors import SettingError
from pipeline.redaction import has_secret
from pipeline.texts import decode_text

Settings = TypeVar("Settings", bound=BaseModel)
READ_ONCE = {"weights"}
"""Settings that no record has: a signed URL is downloaded from, and forgotten."""
Command = Callable[..., Any]

SPEC_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
"""A flag's type."""
"""A user's name with a password."""


@dataclass(frozen=True)
class Spec:
    """What a file says. settings: the command's own, by name, not checked yet; kind: None where it says none."""

    path: Path
    kind: str | None
    settings: dict[str, Any]
    job: JobSettings


def spec_options(model: type[BaseModel]) -> Callable[[Command], Command]:
    """Give a click command `--spec`, and a flag for each field of a model."""
    help_text = "YAML file with any of the settings below; flags override it."
    spec = click.option("--spec", type=SPEC_FILE, help=help_text)
    return lambda command: spec(setting_options(model)(command))


def setting_options(model: type[BaseModel]) -> Callable[[Command], Command]:
    """Give a click command a flag for each field of a model but settings within settings; first those that must be given."""

    def decorate(command: Command) -> Command:
        fields = sorted(model.model_fields.items(), key=lambda item: not item[1].is_required())
        for name, field in reversed(fields):
            if _model_of(field) is None:
                command = _option(name, field)(command)
        return command

    return decorate


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    """That of settings within settings."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _option(name: str, field: FieldInfo) -> Callable[[Command], Command]:
    flag = name.replace("_", "-")
    kind = field.annotation
    help_text = field.description or ""
    if field.default not in (PydanticUndefined, None, False, ()):
        default = ", ".join(field.default) if isinstance(field.default, tuple) else field.default
        help_text += f"  [default: {default}]"
    declaration = f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}"
    is_many = get_origin(kind) in (tuple, dict)
    value_type = None if kind is bool else str  # values are parsed and bounded by the model alone
    return click.option(declaration, name, type=value_type, multiple=is_many, default=None, help=help_text)


def load_settings(model: type[Settings], path: Path | None, flags: dict[str, Any]) -> Settings:
    """The spec's settings, overridden by the flags that were given.

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
    """Those flags that were given."""
    return {name: value for name, value in flags.items() if value not in (None, ())}


def check_settings(model: type[Settings], values: dict[str, Any]) -> Settings:
    """Settings of a class, from values by name; raises as `load_settings`."""
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
    """A flag's values, each NAME=VALUE."""
    if not all("=" in text for text in texts):  # which may be secrets
        raise SettingError(f"{flag}: give each as NAME=VALUE")
    return dict(text.split("=", 1) for text in texts)


def read_spec(path: Path) -> Spec:
    """A spec's parts.

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
    """Which command a spec is for.

    Raises:
        SettingError: it does not say.
    """
    if spec.kind is None:
        raise SettingError(f"kind: missing in {str(spec.path)!r}; say which command it is for: {', '.join(SPEC_KINDS)}")
    return spec.kind


def _texts(value: Any) -> Iterator[str]:
    """All strings of a setting."""
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
                problem=f"{repeated[0]} stands there twice; give it once", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


def _explain(model: type[BaseModel], error: dict[str, Any]) -> str:
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        *outer, unknown = error["loc"]
        within = reduce(lambda some, part: _model_of(some.model_fields[part]) or some, outer, model)
        near = difflib.get_close_matches(str(unknown), within.model_fields, n=1)
        return f"{name}: no such setting" + (f"; did you mean {near[0]}?" if near else "")
    if error["type"] == "missing":
        return f"{name}: missing; give --{name.replace('_', '-')} or set it in the spec"
    message = error["msg"].removeprefix("Value error, ")
    if not name or isinstance(error["input"], dict):  # whose values may be secrets
        return f"{name}: {message}" if name else message
    return f"{name}: {message}, not {error['input']!r}"
