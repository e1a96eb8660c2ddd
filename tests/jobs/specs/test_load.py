import json
from pathlib import Path
from typing import Annotated

import click
import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from pydantic import Field

from jobs.specs.load import check_settings, load_settings, read_spec, spec_options
from jobs.specs.schema import spec_schema
from jobs.specs.settings import SPEC_KINDS, AlertSettings, JobSettings
from model.config import Frozen
from pipeline.errors import SettingError
from pipeline.inference.settings import InferSettings
from pipeline.training.settings import TrainSettings


class Settings(Frozen):
    """Of each kind one."""

    input: Annotated[tuple[str, ...], Field(min_length=1)]
    """What to read."""
    batch_size: Annotated[int, Field(ge=1, le=16)] = 8
    """Images a forward pass."""
    interval_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds between commits."""
    limit: int | None = None
    """At most so many."""
    dry_run: bool = False
    """Plan and stop."""
    factors: dict[str, float] = Field(default_factory=dict)
    """By name."""


@click.command()
@spec_options(Settings)
def command(spec, **flags) -> None:
    settings = load_settings(Settings, spec, flags)
    click.echo(settings.model_dump_json())


@pytest.fixture
def load(tmp_path):
    """Settings from the text of a spec, or none, and flags as a person types them."""

    def load(spec: str | None = None, *flags: str) -> Settings:
        path = tmp_path / "spec.yaml"
        if spec is not None:
            path.write_text(spec)
            flags = ("--spec", str(path), *flags)
        result = CliRunner().invoke(command, flags, catch_exceptions=True)
        if isinstance(result.exception, SettingError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return Settings.model_validate_json(result.output)

    return load


def test_what_nothing_sets_has_its_default(load):
    assert load("input: a") == Settings(input=("a",), batch_size=8, interval_s=30.0, limit=None, dry_run=False)


def test_a_spec_is_typed(load):
    assert load("input: [a, b]\nbatch_size: 4\ninterval_s: 2\nlimit: 5\ndry_run: true") == Settings(
        input=("a", "b"), batch_size=4, interval_s=2.0, limit=5, dry_run=True
    )


def test_flags_are_typed(load):
    flags = "--input", "a", "--input", "b", "--batch-size", "4", "--interval-s", "0.5", "--limit", "5", "--dry-run"
    by_name = "--factors", "x=2", "--factors", "y z=0.5"
    assert load(None, *flags, *by_name) == Settings(
        input=("a", "b"), batch_size=4, interval_s=0.5, limit=5, dry_run=True, factors={"x": 2, "y z": 0.5}
    )


def test_flags_override_the_spec(load):
    spec = "input: [a, b]\nbatch_size: 4\nlimit: 0\ndry_run: true"
    assert load(spec, "--input", "c", "--no-dry-run") == Settings(input=("c",), batch_size=4, limit=0)
    assert load(spec, "--batch-size", "1").batch_size == 1
    assert load("input: a\nfactors: {x: 1, y: 2}", "--factors", "x=3").factors == {"x": 3}


@pytest.mark.parametrize(
    ("spec", "flags", "message"),
    [
        ("input: a\nbatchsize: 4", (), "^batchsize: no such setting; did you mean batch_size[?]$"),
        ("input: a\nbatch-size: 4", (), "did you mean batch_size[?]"),
        ("input: a\ncolour: red", (), "^colour: no such setting$"),
        ("input: a\nbatch_size: many", (), "^batch_size: .*integer.*, not 'many'$"),
        ("input: a\nbatch_size: 4.5", (), "^batch_size: .*integer.*, not 4.5$"),
        ("input: a\nbatch_size: 0", (), "^batch_size: .*greater than or equal to 1, not 0$"),
        ("input: a\nbatch_size: 17", (), "^batch_size: .*less than or equal to 16, not 17$"),
        ("input: a\ninterval_s: 0", (), "^interval_s: .*greater than 0, not 0$"),
        ("input: a", ("--interval-s", "soon"), "^interval_s: .*number.*, not 'soon'$"),
        ("input: a", ("--factors", "x:2"), "^factors: give each as NAME=VALUE$"),
        ("input: a", ("--factors", "x=two"), "^factors.x: .*number.*, not 'two'$"),
        ("input: 5", (), "^input: .*tuple.*, not 5$"),
        ("input: []", (), "^input: .*at least 1"),
        ("dry_run: perhaps\ninput: a", (), "^dry_run: .*boolean.*, not 'perhaps'$"),
        ("batch_size: 0\nlimit: x\ninput: a", (), "^batch_size: .*; limit: "),
        ("batch_size: 4", (), "^input: missing; give --input or set it in the spec$"),
        (None, (), "^input: missing; give --input"),
        ("", (), "must be a mapping"),
        ("- a", (), "must be a mapping"),
        ("input: [a", (), "spec '.*spec.yaml' can't be read"),
        ("!!python/object/apply:os.getcwd []", (), "can't be read"),
    ],
)
def test_what_is_wrong_is_named(spec, flags, message, load):
    with pytest.raises(SettingError, match=message):
        load(spec, *flags)


def test_help_has_each_flag_its_text_and_default():
    text = CliRunner().invoke(command, ["--help"], terminal_width=200).output
    for line in (
        "--input",
        "--dry-run / --no-dry-run",
        "Images a forward pass.  [default: 8]",
        "--interval-s",
        "--limit",
    ):
        assert line in text


def test_a_flag_that_does_not_exist_is_wrong_usage():
    result = CliRunner().invoke(command, ["--batchsize", "4"])
    assert result.exit_code == 2
    assert "--batch-size" in result.output


def test_every_setting_of_infer_says_what_it_is():
    assert all(field.description for field in InferSettings.model_fields.values())


JOBS = Path(__file__).parents[3] / "jobs"
SPECS = sorted(JOBS.glob("*.yaml"))


def test_the_example_spec_is_valid() -> None:
    assert load_settings(InferSettings, JOBS / "nightly.yaml", {"table": "elsewhere"}).table == "elsewhere"


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_specs_can_be_used(path: Path) -> None:
    """By the command itself, and by editors, for which they name their schema."""
    spec = read_spec(path)
    assert spec.kind
    check_settings(SPEC_KINDS[spec.kind], spec.settings)
    jsonschema.validate(yaml.safe_load(path.read_text()), spec_schema())
    assert path.read_text().startswith("# yaml-language-server: $schema=spec.schema.json\n")


def test_the_schema_is_the_present_one() -> None:
    assert json.loads((JOBS / "spec.schema.json").read_text()) == spec_schema(), (
        "ssd-batch spec schema > jobs/spec.schema.json"
    )


@pytest.mark.parametrize(
    "wrong",
    [
        "kind: infer\ninput: a",
        "kind: fly",
        "input: a\ntable: b\nmodel: c",
        "kind: infer\ninput: a\ntable: b\nmodel: c\ntabel: d",
    ],
)
def test_the_schema_refuses(wrong: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(wrong), spec_schema())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: fly", "^kind: must be one of infer, train, evaluate, maintain, not 'fly'$"),
        ("job: 5", "^job: must be a mapping of settings to values, not 5$"),
        ("job: {schedul: x}", "^job: schedul: no such setting; did you mean schedule[?]$"),
        ("job: {alerts: {late: 1}}", "^job: alerts.late: no such setting; did you mean late_h[?]$"),
        ("job: {alerts: {slow_share: 2}}", "^job: alerts.slow_share: .*less than or equal to 1, not 2$"),
        ("job: {schedule: at two}", "^job: schedule: is no cron expression such as 30 1 [*] [*] [*] .*, not 'at two'$"),
        ("job: {time_zone: Mars/Base}", "^job: time_zone: is no time zone such as Europe/Berlin, not 'Mars/Base'$"),
        ("job: {name: Nightly!}", "^job: name: .*pattern"),
        ("job: {address: head}", "^job: address: .*pattern"),
        ("job: {max_package_mib: 0}", "^job: max_package_mib: .*greater than 0, not 0$"),
    ],
)
def test_what_is_wrong_with_a_job_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(SettingError, match=message):
        read_spec(tmp_path / "spec.yaml")


def test_the_place_of_a_secret_is_none(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("job: {env_vars: {AWS_WEB_IDENTITY_TOKEN_FILE: /var/run/token}}")
    assert read_spec(tmp_path / "spec.yaml").job.env_vars == {"AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token"}


@pytest.mark.parametrize(
    "text",
    [
        "job: {env_vars: {AWS_SECRET_ACCESS_KEY: hush}}",
        "job: {env_vars: {API_TOKEN: hush}}",
        "job: {address: 'http://me:hush@head'}",
    ],
)
def test_secrets_are_refused_and_not_repeated(text: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(SettingError) as found:
        read_spec(tmp_path / "spec.yaml")
    assert "hush" not in str(found.value)


@pytest.mark.parametrize(
    "secret",
    [
        "s3://key:hush@bucket/photos",
        "https://key:hu/sh@host/photos",
        "https://hush@host/photos",
        "https://host/a.jpg?X-Amz-Credential=K&X-Amz-Signature=hush",
        "abfs://c/a.jpg?sig=hush",
        "AccountName=n;AccountKey=hush",
        "https://host/a.jpg?api_key=hush",
    ],
)
def test_secrets_in_settings_are_refused_and_not_repeated(secret: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(f"input: [a, '{secret}']")
    for refused in (
        lambda: read_spec(tmp_path / "spec.yaml"),
        lambda: load_settings(InferSettings, None, {"input": (secret,), "table": "t", "model": "m"}),
    ):
        with pytest.raises(SettingError, match=r"^input: has a password, a token or a signature") as found:
            refused()
        assert "hush" not in str(found.value).replace("hu/sh", "hush")


def test_a_spec_is_for_one_command(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("kind: evaluate\nmodel: m\ndata: d")
    with pytest.raises(SettingError, match=r"^kind: '.*' is a spec for evaluate; run ssd-batch evaluate --spec "):
        load_settings(InferSettings, tmp_path / "spec.yaml", {})


def test_every_setting_of_a_job_says_what_it_is() -> None:
    assert all(field.description for some in (JobSettings, AlertSettings) for field in some.model_fields.values())


@pytest.mark.parametrize("name", ["bccd", "voc_ssd300", "voc_ssd512", "coco_ssd300"])
def test_the_specs_of_trainings_can_be_used(name):
    path = JOBS / f"{name}.yaml"
    settings = load_settings(TrainSettings, path, {"num_workers": "2", "milestones": ()})
    assert (settings.num_workers, settings.output.startswith("models/")) == (2, True)


def test_scales_that_do_not_fit_the_architecture():
    path = JOBS / "voc_ssd300.yaml"
    with pytest.raises(SettingError, match="scales has 7 entries; give 8"):
        load_settings(TrainSettings, path, {"architecture": "ssd512_vgg16"})


@pytest.mark.parametrize(
    "text",
    ["batch_size: 4\nbatch_size: 8\n", "job:\n  name: a\n  name: b\n", "job: {alerts: {late_s: 1, late_s: 2}}\n"],
)
def test_a_key_that_stands_twice_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(SettingError, match=r"can't be read: \S+ is given twice; give it once"):
        read_spec(tmp_path / "spec.yaml")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_spec_as_editors_write_it(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_bytes("table: /tmp/é\n".encode(encoding))
    assert read_spec(tmp_path / "spec.yaml").settings == {"table": "/tmp/é"}
