"""A schema, ready to answer for one section and one entry at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from datapilot_defer.validation.formats import FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterator

JsonSchema = dict[str, Any]


@dataclass(frozen=True, eq=False)
class ArtifactSchema:
    """One JSON schema of an artifact.

    document: the whole schema, to which references point. formats: whether `format` is checked: in the rules of
    dbt's loader it stands for what Python's constructors take; in published schemas it is an annotation.
    """

    document: JsonSchema
    formats: bool = False
    _compiled: dict[int, Any] = field(default_factory=dict, repr=False)
    _branches: dict[int, dict[str, list[JsonSchema]]] = field(default_factory=dict, repr=False)

    def accepts(self, schema: JsonSchema, value: Any) -> bool:
        """Whether the value is valid by this part of the document."""
        key = id(schema)
        if key not in self._compiled:
            self._compiled[key] = (self._compile(schema), schema)  # keeps the schema, and so its id
        try:
            return bool(self._compiled[key][0](value))
        except (
            ValueError
        ):  # jsonschema-rs gives up on values that are nested hundreds deep; jsonschema does not
            return bool(self._reference_validator(self._with_definitions(schema)).is_valid(value))

    def _compile(self, schema: JsonSchema) -> Any:
        import jsonschema_rs

        kind = (
            jsonschema_rs.Draft7Validator if self.is_draft7 else jsonschema_rs.Draft202012Validator
        )
        formats = FORMATS if self.formats else None
        return kind(
            self._with_definitions(schema), validate_formats=self.formats, formats=formats
        ).is_valid

    def _reference_validator(self, schema: JsonSchema) -> Any:
        import jsonschema

        kind = jsonschema.Draft7Validator if self.is_draft7 else jsonschema.Draft202012Validator
        return kind(schema, format_checker=_format_checker() if self.formats else None)

    def _with_definitions(self, schema: JsonSchema) -> JsonSchema:
        """A part of the document with all that it may refer to."""
        shared = {key: value for key, value in self.document.items() if key in _DEFINITION_KEYS}
        return {**shared, **schema}

    @property
    def is_draft7(self) -> bool:
        """Old releases of dbt publish Draft 7, new ones 2020-12."""
        return "draft-07" in self.document.get("$schema", "") or (
            "$schema" not in self.document and "definitions" in self.document
        )

    def resolve(self, schema: JsonSchema) -> JsonSchema:
        """What a chain of references within the document leads to."""
        while "$ref" in schema:
            found: Any = self.document
            for part in schema["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            schema = found
        return schema

    def sections(self) -> set[str]:
        """The names of the sections that are described."""
        return set(self.document.get("properties", ()))

    def relaxed(self) -> ArtifactSchema:
        """The same schema without what drifts from release to release."""
        return ArtifactSchema(_relax(self.document), formats=self.formats)

    def section(self, name: str) -> JsonSchema:
        """The schema of a section of the artifact, such as "nodes"; {} when it is not described."""
        found = self.document.get("properties", {}).get(name, {})
        return self.resolve(found) if isinstance(found, dict) else {}

    def alternatives_for(self, schema: JsonSchema, value: Any) -> list[JsonSchema] | None:
        """The alternatives that fit the value's `resource_type`; None when there is none for it.

        Never "not valid under any of the given schemas": a model is measured as a model.
        """
        alternatives = _alternatives(schema)
        if alternatives is None:
            return [schema]
        key = id(alternatives)
        if key not in self._branches:
            self._branches[key] = self._group_by_resource_type(alternatives)
        found = value.get("resource_type") if isinstance(value, dict) else None
        chosen = self._branches[key].get(found) if isinstance(found, str) else None
        return chosen or self._branches[key].get("")

    def resource_types(self, schema: JsonSchema) -> list[str]:
        """The values of `resource_type` that an entry of this schema may have."""
        return [
            name for name in self._group_by_resource_type(_alternatives(schema) or [schema]) if name
        ]

    def _group_by_resource_type(
        self, alternatives: list[JsonSchema]
    ) -> dict[str, list[JsonSchema]]:
        """Value of `resource_type` to the alternatives; under "" those that do not ask for one."""
        found: dict[str, list[JsonSchema]] = {}
        for alternative in alternatives:
            for name in _resource_types(self.resolve(alternative)):
                found.setdefault(name, []).append(alternative)
        return found

    def own_errors(self, schema: JsonSchema, value: Any) -> Iterator[Any]:
        """The errors of jsonschema by the keywords of this schema itself, not of what is below it."""
        found: Iterator[Any] = self._reference_validator(_without_subschemas(schema)).iter_errors(
            value
        )
        return found


_DEFINITION_KEYS = ("$schema", "$defs", "definitions")
_SUBSCHEMA_KEYWORDS = (
    "items",
    "anyOf",
    "oneOf",
    "allOf",
    "if",
    "then",
    "else",
    "$defs",
    "definitions",
    "$ref",
)


def _without_subschemas(schema: JsonSchema) -> JsonSchema:
    shallow = {key: value for key, value in schema.items() if key not in _SUBSCHEMA_KEYWORDS}
    if "properties" in shallow:
        shallow["properties"] = dict.fromkeys(shallow["properties"], True)
    if isinstance(shallow.get("additionalProperties"), dict):
        del shallow["additionalProperties"]
    return shallow


def _alternatives(schema: JsonSchema) -> list[JsonSchema] | None:
    found = schema.get("anyOf") or schema.get("oneOf")
    return found if isinstance(found, list) else None


def _resource_types(schema: JsonSchema) -> list[str]:
    found = schema.get("properties", {}).get("resource_type", {})
    if "const" in found:
        return [found["const"]]
    return list(found.get("enum", [""]))


@lru_cache(maxsize=1)
def _format_checker() -> Any:
    import jsonschema

    checker = jsonschema.FormatChecker(formats=())
    for name, takes in FORMATS.items():
        checker.checks(name)(takes)
    return checker


_RELEASE_SPECIFIC_KEYWORDS = ("enum", "const", "pattern")


def _relax(schema: Any) -> Any:
    """Unknown properties and new values allowed; of several forms any."""
    if isinstance(schema, list):
        return [_relax(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    loose = {key: _relax(value) for key, value in schema.items()}
    if (
        "type" in loose
        or "$ref" in loose
        or "anyOf" in loose
        or "enum" in loose
        or "const" in loose
    ):
        loose = {key: value for key, value in loose.items() if not _is_release_specific(key, value)}
    if isinstance(loose.get("oneOf"), list):
        loose["anyOf"] = loose.pop("oneOf")
    return loose


def _is_release_specific(key: str, value: Any) -> bool:
    return (key == "additionalProperties" and value is False) or (
        key in _RELEASE_SPECIFIC_KEYWORDS and not isinstance(value, dict)
    )
