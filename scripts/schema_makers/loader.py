"""Print a JSON schema of the manifests that dbt-core's own loader accepts.

`scripts/schemas` runs it inside dbt 1.11.

`WritableManifest.read_and_check_versions` does not use the published schema. It upgrades older
versions in place and then builds dataclasses with code that mashumaro generates from their types.
`List[str]` accepts any iterable, `str` and `bool` accept anything, `int` accepts the values that
`int()` accepts, and a union accepts the values of any member. This program walks the same types and
writes the same rules. KNOWN_HOOKS lists the methods that do more than the types
(`__pre_deserialize__`, `__post_init__`). The program stops at an unknown hook.

`title` is the text for messages: "expected <title>".
"""

import dataclasses
import enum
import json
import re
import sys
import typing
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime

import dbt.cli.main  # noqa: F401  when dbt starts, dbt-adapters adds a language for macros
from dbt.artifacts.resources import Exposure, Metric
from dbt.artifacts.resources.v1.components import HasRelationMetadata
from dbt.artifacts.schemas.manifest import WritableManifest
from dbt.artifacts.schemas.manifest.v12.manifest import DisabledManifestResource, ManifestResource
from dbt.artifacts.utils.validation import HTML_COLORS
from dbt.version import __version__
from dbt_common.contracts.config.properties import AdditionalPropertiesMixin
from dbt_common.dataclass_schema import dbtClassMixin

ANYTHING = {}
NUMBERS = {
    int: {
        "title": "a whole number",
        "type": ["number", "boolean", "string"],
        "format": "python-int",
    },
    float: {"title": "a number", "type": ["number", "boolean", "string"], "format": "python-float"},
    datetime: {"title": "a date and time", "type": "string", "format": "dateutil"},
    uuid.UUID: {"title": "a UUID", "type": "string", "format": "python-uuid"},
}
CASELESS_COLORS = "|".join("".join(f"[{c}{c.upper()}]" for c in color) for color in HTML_COLORS)
COLOR = {
    "title": "the name of an HTML color, or its hexadecimal code",
    "anyOf": [
        {"type": "string", "pattern": f"^$|#([0-9a-fA-F]{{3}}){{1,2}}\n?$|^({CASELESS_COLORS})$"},
        {"enum": [None, False, 0, [], {}]},
    ],
}
HOOK_TEXT = {"title": "SQL, or JSON with sql", "type": "string", "format": "dbt-hook"}
# An incremental model with a contract needs a careful on_schema_change
# (NodeConfig.__post_init__).
TRUTHY_CONTRACT = {
    "properties": {"enforced": {"not": {"enum": [None, False, 0, "", [], {}]}}},
    "required": ["enforced"],
}
CONTRACT = {
    "if": {
        "properties": {"contract": TRUTHY_CONTRACT, "materialized": {"const": "incremental"}},
        "required": ["contract", "materialized"],
    },
    "then": {
        "properties": {
            "on_schema_change": {
                "title": "append_new_columns or fail (the model has an enforced contract)",
                "enum": ["append_new_columns", "fail"],
            }
        },
        "required": ["on_schema_change"],
    },
}
UPGRADED = (
    *typing.get_args(ManifestResource),
    Exposure,
    Metric,
)  # The classes whose refs `upgrade_ref_content` changes.
DISABLED_RESOURCES = typing.get_args(DisabledManifestResource)
KNOWN_HOOKS = {
    "AdditionalPropertiesMixin.__pre_deserialize__",
    "ColumnInfo.__pre_deserialize__",
    "ExternalPartition.__post_init__",
    "HasRelationMetadata.__pre_deserialize__",
    "ModelConfig.__post_init__",
    "ModelConfig.__pre_deserialize__",
    "NodeAndTestConfig.__post_init__",
    "NodeConfig.__post_init__",
    "NodeConfig.__pre_deserialize__",
    "SourceConfig.__post_init__",
    "UnitTestConfig.__post_init__",
}
HOOKS = ("__pre_deserialize__", "__post_deserialize__", "__post_init__")


class Walk:
    """A walk through the classes of one variant.

    before: None for version 12, otherwise the highest version of the variant.
    disabled: whether the classes are in the section `disabled`, in which more is upgraded.
    """

    def __init__(self, before=None, disabled=False):
        self.before = before
        self.disabled = disabled
        self.defs = {}

    def value(self, kind):
        """Return the schema of the values that the generated code accepts for a type."""
        origin = typing.get_origin(kind)
        args = typing.get_args(kind)
        if origin is typing.Annotated:
            return self.value(args[0])
        if origin is typing.Union:
            return self.union(args)
        if origin is typing.Literal:
            return {"const": getattr(args[0], "value", args[0])}
        if dataclasses.is_dataclass(kind):
            return self.reference(kind)
        return self.plain(kind, origin, args)

    def plain(self, kind, origin, args):
        if kind in NUMBERS:
            return dict(NUMBERS[kind])
        if kind in (typing.Any, object, bool, type(None)):
            return ANYTHING
        base = origin or kind
        if issubclass(base, enum.Enum):
            return enumeration(base)
        if issubclass(base, str):
            return ANYTHING
        if issubclass(base, Mapping):
            return {
                "title": "an object",
                "type": "object",
                **when("additionalProperties", self.value(args[1])),
            }
        if issubclass(base, Sequence):
            return sequence(self.value(args[0]))
        raise TypeError(f"no rule for {kind!r}: look at how mashumaro unpacks it")

    def union(self, args):
        branches = [self.value(arg) for arg in args]
        if len(args) == 2 and type(None) in args:  # Optional accepts null or the other type.
            return nullable(self.value(next(arg for arg in args if arg is not type(None))))
        if ANYTHING in branches:
            # The generated code for None among three or more types accepts every value.
            return ANYTHING
        return {"anyOf": branches}

    def reference(self, cls):
        if cls.__name__ not in self.defs:
            self.defs[cls.__name__] = {}  # This stops the recursion.
            self.defs[cls.__name__] = self.fields(cls)
        return {"$ref": f"#/$defs/{cls.__name__}{self.suffix}"}

    @property
    def suffix(self):
        if not self.before:
            return ""
        if self.disabled:
            return f"-{self.before}-disabled"
        return f"-{self.before}"

    def fields(self, cls):
        check_hooks(cls)
        hints = typing.get_type_hints(cls, include_extras=True)
        properties = {}
        required = []
        for field in dataclasses.fields(cls):
            name = field.metadata.get("alias", field.name)
            rule = self.value(hints[field.name])
            optional = (
                field.default is not dataclasses.MISSING
                or field.default_factory is not dataclasses.MISSING
            )
            if field.default is None:
                rule = nullable(rule)
            if rule:
                properties[name] = rule
            if not optional:
                required.append(name)
        schema = {
            "title": "an object",
            "type": "object",
            "properties": properties,
            "required": required,
        }
        self.apply_hooks(cls, schema)
        if self.before:
            return upgraded(cls, schema, self.before, self.disabled)
        return schema

    def apply_hooks(self, cls, schema):
        properties = schema["properties"]
        required = schema["required"]
        if issubclass(cls, AdditionalPropertiesMixin):
            properties["_extra"] = {"title": "an object", "type": "object"}
        if issubclass(cls, HasRelationMetadata):
            required.remove("database")
        if "pre-hook" in properties or "post-hook" in properties:
            for name in ("pre-hook", "post-hook"):
                properties[name] = self.hooks()
            schema.update(CONTRACT)
            self.colored_docs(properties)
        if cls.__name__ == "ModelConfig":
            self.freshness(properties)
        if cls.__name__ == "ExternalPartition":
            for name in ("name", "data_type"):
                properties[name] = {"not": {"const": ""}}
                required.append(name)

    def hooks(self):
        hook = {"$ref": f"#/$defs/Hook{self.suffix}"}
        items = {"anyOf": [hook, HOOK_TEXT]}
        return {
            "title": "a list",
            "type": ["array", "object", "string"],
            "format": "dbt-hook-letters",
            "items": items,
        }

    def colored_docs(self, properties):
        """Check the color of a node's docs like NodeConfig, but not that of a macro's docs."""
        docs = self.defs["Docs"]
        self.defs["NodeDocs"] = {**docs, "properties": {**docs["properties"], "node_color": COLOR}}
        properties["docs"] = {"$ref": f"#/$defs/NodeDocs{self.suffix}"}

    def freshness(self, properties):
        """Require both count and period if there is a build_after."""
        no_period = {"enum": [None, "", False, 0, [], {}]}
        both = {
            "properties": {"count": {"not": {"type": "null"}}, "period": {"not": no_period}},
            "required": ["count", "period"],
        }
        neither = {"properties": {"count": {"type": "null"}, "period": no_period}}
        pair = {"title": "count and period, or neither", "anyOf": [both, neither]}
        inner = properties["freshness"]["anyOf"][1]
        rules = {"allOf": [inner, {"properties": {"build_after": pair}}]}
        properties["freshness"] = {
            "if": {"type": "object", "required": ["build_after"]},
            "then": rules,
        }


def upgraded(cls, schema, before, disabled):
    """Return the schema of the values that `upgrade_manifest_json` upgrades to match `schema`."""
    properties = schema["properties"]
    required = schema["required"]
    refs = {
        "title": "a list",
        "type": ["array", "object", "string"],
        "items": {"if": {"type": "array"}, "then": {"minItems": 1}},
    }
    upgraded_classes = UPGRADED
    if disabled:
        upgraded_classes = DISABLED_RESOURCES
    if cls in upgraded_classes:
        properties["refs"] = refs
    if cls.__name__ == "Seed":
        for name in (
            "language",
            "sources",
            "metrics",
            "compiled_path",
            "compiled",
            "compiled_code",
            "extra_ctes_injected",
            "extra_ctes",
            "relation_name",
        ):
            properties.pop(name, None)
    if cls.__name__ == "Documentation":
        properties.pop("resource_type")
        required.remove("resource_type")
    if cls.__name__ == "Metric" and before <= 9:  # They are dropped before anything reads them.
        return {
            "title": "a metric",
            "type": "object",
            "required": ["resource_type"],
            "properties": {"resource_type": {"const": "metric"}},
        }
    if before == 10 and "filter" in properties:
        properties["filter"] = nullable({"$ref": "#/$defs/WhereFilter-10"})
    return schema


def when(key, schema):
    if schema:
        return {key: schema}
    return {}


def enumeration(cls):
    values = [member.value for member in cls]
    title = "one of " + ", ".join(map(str, values))
    if not any("_missing_" in base.__dict__ for base in cls.__mro__ if base.__module__ != "enum"):
        return {"title": title, "enum": values}
    alternatives = "|".join("".join(map(caseless, value)) for value in values)
    return {"title": title, "type": "string", "pattern": f"^({alternatives})$"}


def caseless(letter):
    if letter.isalpha():
        return f"[{letter.lower()}{letter.upper()}]"
    return re.escape(letter)


def sequence(item):
    """Return a schema that accepts any iterable.

    If an item may be text, a string yields its characters and an object its keys.
    """
    rule = {"title": "a list", "type": ["array", "object", "string"], **when("items", item)}
    if takes_text(item):
        return rule
    return {**rule, "maxProperties": 0, "maxLength": 0}


def takes_text(rule):
    return not rule or (
        "string" in rule.get("type", ()) and not {"maxLength", "format", "pattern"} & rule.keys()
    )


def nullable(schema):
    if not schema or None in schema.get("enum", ()) or "null" in schema.get("type", ()):
        return schema
    if "enum" in schema:
        return {**schema, "title": schema["title"] + ", or null", "enum": [*schema["enum"], None]}
    if "type" in schema:
        kinds = schema["type"]
        if isinstance(kinds, str):
            kinds = [kinds]
        return {
            **schema,
            "title": schema.get("title", kinds[0]) + " or null",
            "type": [*kinds, "null"],
        }
    return {"anyOf": [{"type": "null"}, schema]}


def check_hooks(cls):
    for base in cls.__mro__:
        for name in HOOKS:
            ours = (
                name in base.__dict__
                and base.__module__.startswith("dbt")
                and base is not dbtClassMixin
            )
            if ours and f"{base.__name__}.{name}" not in KNOWN_HOOKS:
                raise TypeError(f"{base.__name__}.{name} is new: read it, and write its rule here")


def manifest(before=None):
    """Return the schema for one range of schema versions: 12, or at most 11, 10 or 9."""
    walk = Walk(before)
    top = walk.fields(WritableManifest)
    walks = [walk]
    if before:
        optional = {"groups", "group_map", "unit_tests", "semantic_models", "saved_queries"}
        inside = Walk(before, disabled=True)
        entry = inside.value(list[DisabledManifestResource])
        top["properties"]["disabled"] = {
            "title": "an object",
            "type": "object",
            "additionalProperties": entry,
        }
        walks.append(inside)
        if before <= 9:
            optional |= {"metrics", "disabled"}
            del top["properties"]["metrics"]
        top["required"] = [name for name in top["required"] if name not in optional]
    definitions = {}
    for part in walks:
        definitions.update({name + part.suffix: rule for name, rule in part.defs.items()})
    return top, definitions


def share(result):
    """Move equal rules of variants and classes to shared definitions."""
    while True:
        text = {name: json.dumps(rule, sort_keys=True) for name, rule in result["$defs"].items()}
        same = {}
        for name in sorted(text):
            twin = next((other for other in sorted(text) if text[other] == text[name]), name)
            if twin != name:
                same[name] = twin
        if not same:
            return result
        kept = {name: rule for name, rule in result["$defs"].items() if name not in same}
        classes = {name: same.get(rule, rule) for name, rule in result["classes"].items()}
        renamed = {f"#/$defs/{old}": f"#/$defs/{new}" for old, new in same.items()}
        result = {**rename({**result, "$defs": kept}, renamed), "classes": classes}


def rename(value, names):
    if isinstance(value, dict):
        return {key: rename(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [rename(inner, names) for inner in value]
    if isinstance(value, str):
        return names.get(value, value)
    return value


def main():
    result = {"dbt_version": __version__, "variants": {}, "$defs": {}, "classes": {}}
    for before in (None, 11, 10, 9):
        top, definitions = manifest(before)
        result["variants"][str(before or 12)] = top
        result["$defs"].update(definitions)
        result["classes"].update({name: name for name in definitions if before is None})
    json.dump(share(result), sys.stdout)


main()
