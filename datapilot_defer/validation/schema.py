"""One JSON schema, compiled part by part."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from datapilot_defer.validation.formats import FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterator

JsonSchema = dict[str, Any]

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
_RELEASE_SPECIFIC_KEYWORDS = ("enum", "const", "pattern")
# A dictionary with none of these keys is treated as a map of property names, not as a schema.
_SCHEMA_MARKS = ("type", "$ref", "anyOf", "enum", "const")
_ANY_RESOURCE_TYPE = ""


@dataclass(frozen=True, eq=False)
class ArtifactSchema:
    """The JSON schema of an artifact. It checks one section or one entry at a time.

    document: the complete schema, within which references are resolved. formats: whether `format`
    is checked. In the schema of dbt's loader, it describes strings that the loader can convert. In
    published schemas, it is only an annotation.
    """

    document: JsonSchema
    formats: bool = False
    _compiled: dict[int, Any] = field(default_factory=dict, repr=False)
    _groups: dict[int, dict[str, list[JsonSchema]]] = field(default_factory=dict, repr=False)

    def accepts(self, schema: JsonSchema, value: Any) -> bool:
        """Return whether a value is valid against a part of the document."""
        key = id(schema)
        if key not in self._compiled:
            # Keep a reference to the schema so that its id() is not reused.
            self._compiled[key] = (self._compile(schema), schema)
        is_valid = self._compiled[key][0]
        try:
            return bool(is_valid(value))
        except ValueError:
            # jsonschema-rs fails on values with hundreds of nested levels; jsonschema does not.
            validator = self._reference_validator(self._with_definitions(schema))
            return bool(validator.is_valid(value))

    def _compile(self, schema: JsonSchema) -> Any:
        import jsonschema_rs

        options: dict[str, Any] = {"validate_formats": self.formats}
        if self.formats:
            options["formats"] = FORMATS
        complete_schema = self._with_definitions(schema)
        if self.is_draft7:
            return jsonschema_rs.Draft7Validator(complete_schema, **options).is_valid
        return jsonschema_rs.Draft202012Validator(complete_schema, **options).is_valid

    def _reference_validator(self, schema: JsonSchema) -> Any:
        import jsonschema

        format_checker = None
        if self.formats:
            format_checker = _format_checker()
        if self.is_draft7:
            return jsonschema.Draft7Validator(schema, format_checker=format_checker)
        return jsonschema.Draft202012Validator(schema, format_checker=format_checker)

    def _with_definitions(self, schema: JsonSchema) -> JsonSchema:
        """Return a part of the document with all definitions that it may refer to."""
        shared = {key: value for key, value in self.document.items() if key in _DEFINITION_KEYS}
        return {**shared, **schema}

    @property
    def is_draft7(self) -> bool:
        """Return whether the document uses Draft 7 of JSON Schema rather than 2020-12.

        Old releases of dbt publish Draft 7.
        """
        if "$schema" in self.document:
            return "draft-07" in self.document["$schema"]
        return "definitions" in self.document

    def resolve(self, schema: JsonSchema) -> JsonSchema:
        """Return the schema at the end of a chain of references within the document."""
        while "$ref" in schema:
            target: Any = self.document
            for key in schema["$ref"].removeprefix("#/").split("/"):
                target = target[key]
            schema = target
        return schema

    def section_names(self) -> set[str]:
        """Return the names of the sections that the schema describes."""
        return set(self.document.get("properties", ()))

    def section(self, name: str) -> JsonSchema:
        """Return the schema of a section, such as "nodes"; {} if it is not described."""
        schema = self.document.get("properties", {}).get(name, {})
        if isinstance(schema, dict):
            return self.resolve(schema)
        return {}

    def relaxed(self) -> ArtifactSchema:
        """Return the schema without the parts that change from release to release."""
        return ArtifactSchema(_relax(self.document), formats=self.formats)

    def alternatives_for(self, schema: JsonSchema, value: Any) -> list[JsonSchema] | None:
        """Return the alternatives for a value's `resource_type`, or None if there are none.

        If no alternative specifies this type, those that specify no type are returned. A schema
        without alternatives is its own only alternative. As a result, a model is checked as a
        model, and is never reported as "not valid under any of the given schemas".
        """
        alternatives = _alternatives(schema)
        if alternatives is None:
            return [schema]
        key = id(alternatives)
        if key not in self._groups:
            self._groups[key] = self._group_by_resource_type(alternatives)
        groups = self._groups[key]
        chosen = None
        if isinstance(value, dict):
            resource_type = value.get("resource_type")
            if isinstance(resource_type, str):
                chosen = groups.get(resource_type)
        return chosen or groups.get(_ANY_RESOURCE_TYPE)

    def resource_types(self, schema: JsonSchema) -> list[str]:
        """Return the values of `resource_type` that an entry of this schema may have."""
        groups = self._group_by_resource_type(_alternatives(schema) or [schema])
        return [name for name in groups if name != _ANY_RESOURCE_TYPE]

    def _group_by_resource_type(
        self, alternatives: list[JsonSchema]
    ) -> dict[str, list[JsonSchema]]:
        """Return the alternatives for each value of `resource_type`."""
        groups: dict[str, list[JsonSchema]] = {}
        for alternative in alternatives:
            for name in _resource_types(self.resolve(alternative)):
                groups.setdefault(name, []).append(alternative)
        return groups

    def compile_entries(self) -> Iterator[None]:
        """Compile the entry schemas of all sections that are mappings, one at each step."""
        for name in sorted(self.section_names()):
            entry_schema = self.section(name).get("additionalProperties")
            if isinstance(entry_schema, dict):
                for part in _alternatives(entry_schema) or [entry_schema]:
                    self.accepts(part, None)
                    yield

    def own_errors(self, schema: JsonSchema, value: Any) -> Iterator[Any]:
        """Return jsonschema's errors for the schema's own keywords, ignoring its subschemas."""
        validator = self._reference_validator(_without_subschemas(schema))
        errors: Iterator[Any] = validator.iter_errors(value)
        return errors


def _without_subschemas(schema: JsonSchema) -> JsonSchema:
    shallow = {key: value for key, value in schema.items() if key not in _SUBSCHEMA_KEYWORDS}
    if "properties" in shallow:
        shallow["properties"] = dict.fromkeys(shallow["properties"], True)
    if isinstance(shallow.get("additionalProperties"), dict):
        del shallow["additionalProperties"]
    return shallow


def _alternatives(schema: JsonSchema) -> list[JsonSchema] | None:
    alternatives = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(alternatives, list):
        return alternatives
    return None


def _resource_types(schema: JsonSchema) -> list[str]:
    resource_type = schema.get("properties", {}).get("resource_type", {})
    if "const" in resource_type:
        return [resource_type["const"]]
    return list(resource_type.get("enum", [_ANY_RESOURCE_TYPE]))


@lru_cache(maxsize=1)
def _format_checker() -> Any:
    import jsonschema

    checker = jsonschema.FormatChecker(formats=())
    for name, is_valid in FORMATS.items():
        checker.checks(name)(is_valid)
    return checker


def _relax(schema: Any) -> Any:
    """Return the schema with fewer restrictions.

    It allows unknown properties, new values, and values that match several alternatives.
    """
    if isinstance(schema, list):
        return [_relax(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    relaxed = {key: _relax(value) for key, value in schema.items()}
    if any(mark in relaxed for mark in _SCHEMA_MARKS):
        relaxed = {
            key: value for key, value in relaxed.items() if not _is_release_specific(key, value)
        }
    if isinstance(relaxed.get("oneOf"), list):
        relaxed["anyOf"] = relaxed.pop("oneOf")
    return relaxed


def _is_release_specific(key: str, value: Any) -> bool:
    if key == "additionalProperties":
        return value is False
    return key in _RELEASE_SPECIFIC_KEYWORDS and not isinstance(value, dict)
