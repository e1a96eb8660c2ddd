"""The JSON schema of specs, for editors."""

from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, create_model

from jobs.specs.settings import SPEC_KINDS, JobSettings


def spec_schema() -> dict[str, Any]:
    """Return the schema of a spec of any kind. A setting that may be a list may also be one value of it."""
    create: Any = create_model  # its types have no place for a kind that is not known beforehand
    specs = [
        create(
            f"{kind.title()}Spec",
            __base__=settings,
            __doc__=f"Settings of ssd-batch {kind}.",
            kind=(Literal[kind], Field(description="Command that the spec is for.")),
            job=(JobSettings, Field(JobSettings(), description="How and when the job is submitted to a cluster.")),
        )
        for kind, settings in SPEC_KINDS.items()
    ]
    any_of_them: Any = Annotated[reduce(or_, specs), Field(discriminator="kind")]
    schema: dict[str, Any] = TypeAdapter(any_of_them).json_schema()
    for definition in schema["$defs"].values():
        for name, field in definition.get("properties", {}).items():
            if field.get("type") == "array" and "items" in field:
                description = {key: field.pop(key) for key in ("description", "default", "title") if key in field}
                definition["properties"][name] = {"anyOf": [field, field["items"]]} | description
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A spec of ssd-batch"} | schema
