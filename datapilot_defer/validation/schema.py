"""A schema, ready to answer for one section and one entry at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from datapilot_defer.validation.formats import FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterator

Schema = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Rules:
    """One JSON schema of an artifact.

    document: the whole schema, to which references point. formats: whether `format` is checked: in the rules of
    dbt's loader it stands for what Python's constructors take; in published schemas it is an annotation.
    """

    document: Schema
    formats: bool = False
    _compiled: dict[int, Any] = field(default_factory=dict, repr=False)
    _branches: dict[int, dict[str, list[Schema]]] = field(default_factory=dict, repr=False)

    def fits(self, schema: Schema, value: Any) -> bool:
        """Whether the value is valid by this part of the document."""
        key = id(schema)
        if key not in self._compiled:
            self._compiled[key] = (self._compile(schema), schema)  # keeps the schema, and so its id
        try:
            return bool(self._compiled[key][0](value))
        except (
            ValueError
        ):  # jsonschema-rs gives up on values that are nested hundreds deep; jsonschema does not
            return bool(self._slow(self._whole(schema)).is_valid(value))

    def _compile(self, schema: Schema) -> Any:
        import jsonschema_rs

        kind = (
            jsonschema_rs.Draft7Validator if self.is_draft7 else jsonschema_rs.Draft202012Validator
        )
        formats = FORMATS if self.formats else None
        return kind(self._whole(schema), validate_formats=self.formats, formats=formats).is_valid

    def _slow(self, schema: Schema) -> Any:
        import jsonschema

        kind = jsonschema.Draft7Validator if self.is_draft7 else jsonschema.Draft202012Validator
        return kind(schema, format_checker=_format_checker() if self.formats else None)

    def _whole(self, schema: Schema) -> Schema:
        """A part of the document with all that it may refer to."""
        shared = {key: value for key, value in self.document.items() if key in _SHARED}
        return {**shared, **schema}

    @property
    def is_draft7(self) -> bool:
        """Old releases of dbt publish Draft 7, new ones 2020-12."""
        return "draft-07" in self.document.get("$schema", "") or (
            "$schema" not in self.document and "definitions" in self.document
        )

    def resolve(self, schema: Schema) -> Schema:
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

    def loosened(self) -> Rules:
        """The same schema without what drifts from release to release."""
        return Rules(_loosen(self.document), formats=self.formats)

    def section(self, name: str) -> Schema:
        """The schema of a section of the artifact, such as "nodes"; {} when it is not described."""
        found = self.document.get("properties", {}).get(name, {})
        return self.resolve(found) if isinstance(found, dict) else {}

    def choose(self, schema: Schema, value: Any) -> list[Schema] | None:
        """The alternatives that fit the value's `resource_type`; None when there is none for it.

        Never "not valid under any of the given schemas": a model is measured as a model.
        """
        alternatives = _alternatives(schema)
        if alternatives is None:
            return [schema]
        key = id(alternatives)
        if key not in self._branches:
            self._branches[key] = self._by_type(alternatives)
        found = value.get("resource_type") if isinstance(value, dict) else None
        chosen = self._branches[key].get(found) if isinstance(found, str) else None
        return chosen or self._branches[key].get("")

    def kinds(self, schema: Schema) -> list[str]:
        """The values of `resource_type` that an entry of this schema may have."""
        return [name for name in self._by_type(_alternatives(schema) or [schema]) if name]

    def _by_type(self, alternatives: list[Schema]) -> dict[str, list[Schema]]:
        """Value of `resource_type` to the alternatives; under "" those that do not ask for one."""
        found: dict[str, list[Schema]] = {}
        for alternative in alternatives:
            for name in _resource_types(self.resolve(alternative)):
                found.setdefault(name, []).append(alternative)
        return found

    def leaves(self, schema: Schema, value: Any) -> Iterator[Any]:
        """The errors of jsonschema by the keywords of this schema itself, not of what is below it."""
        found: Iterator[Any] = self._slow(_shallow(schema)).iter_errors(value)
        return found


_SHARED = ("$schema", "$defs", "definitions")
_BELOW = ("items", "anyOf", "oneOf", "allOf", "if", "then", "else", "$defs", "definitions", "$ref")


def _shallow(schema: Schema) -> Schema:
    shallow = {key: value for key, value in schema.items() if key not in _BELOW}
    if "properties" in shallow:
        shallow["properties"] = dict.fromkeys(shallow["properties"], True)
    if isinstance(shallow.get("additionalProperties"), dict):
        del shallow["additionalProperties"]
    return shallow


def _alternatives(schema: Schema) -> list[Schema] | None:
    found = schema.get("anyOf") or schema.get("oneOf")
    return found if isinstance(found, list) else None


def _resource_types(schema: Schema) -> list[str]:
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


_DRIFTING = ("enum", "const", "pattern")


def _loosen(schema: Any) -> Any:
    """Unknown properties and new values allowed; of several forms any."""
    if isinstance(schema, list):
        return [_loosen(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    loose = {key: _loosen(value) for key, value in schema.items()}
    if (
        "type" in loose
        or "$ref" in loose
        or "anyOf" in loose
        or "enum" in loose
        or "const" in loose
    ):
        loose = {key: value for key, value in loose.items() if not _drifts(key, value)}
    if isinstance(loose.get("oneOf"), list):
        loose["anyOf"] = loose.pop("oneOf")
    return loose


def _drifts(key: str, value: Any) -> bool:
    return (key == "additionalProperties" and value is False) or (
        key in _DRIFTING and not isinstance(value, dict)
    )
