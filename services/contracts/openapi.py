"""A vendor's published description, OpenAPI 3 or Swagger 2, asked what a call takes and what its answer holds. Pure.

Descriptions are cut, old and loose, so every question has three answers: it is there, it cannot be there, or the
description does not say. An object that lists its properties and says nothing of further ones has no others, though
JSON Schema means otherwise: vendors write it so.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from services.contracts.hints import did_you_mean

Schema: TypeAlias = Mapping[str, Any]
Verdict = Literal["confirmed", "contradicted", "not described"]

REFERENCES_MAX = 40  # `$ref` and combinators on the way to one schema; a description that turns in a circle ends here
_VARIABLE = re.compile(r"\{[^{}]*\}")
_MOST = re.compile(r"\b(?:max(?:imum)?|up to|at most)\b\D{0,24}(\d+)", re.IGNORECASE)
_ANSWERS = ("200", "201", "202", "206", "2XX", "2xx", "default")


class Parameter(msgspec.Struct, frozen=True):
    """What an operation takes. `most` is the largest number that is allowed, `values` the only ones; None: any."""

    name: str
    most: float | None = None
    values: frozenset[str] | None = None


class Found(msgspec.Struct, frozen=True):
    """The answer to a question; `says` is what the description has instead. `place` is there only if confirmed."""

    verdict: Verdict
    says: str = ""
    place: "Place | None" = None


class Place(msgspec.Struct, frozen=True):
    """What the description says of one JSON value: all its schemas, without references, and examples of it."""

    document: Schema
    schemas: tuple[Schema, ...] = ()
    examples: tuple[Any, ...] = ()

    def at(self, path: str) -> Found:
        """What lies at a dotted path: keys, positions, `*` for any item. A key may itself have dots in it."""
        if not path:
            return Found("confirmed", place=self)
        parts = path.split(".")
        for count in range(len(parts), 1, -1):
            whole = self._property(".".join(parts[:count]))
            if whole is not None:
                return whole.at(".".join(parts[count:]))
        found = self._step(parts[0])
        return found.place.at(".".join(parts[1:])) if found.place is not None else found

    def items(self) -> Found:
        """One item of the list that stands here."""
        return self._step("*")

    @property
    def kinds(self) -> frozenset[str]:
        """The JSON types that may stand here, as far as the description tells."""
        told = frozenset(kind for schema in self.schemas for kind in _types(schema))
        return told or frozenset(_type_of(example) for example in self.examples)

    def parameter(self, name: str) -> Parameter:
        """This value as something that is sent."""
        return _parameter(name, self.schemas, "")

    def _step(self, key: str) -> Found:
        wants_item = key == "*" or key.isdecimal()
        found = self._item() if wants_item else self._property(key)
        if found is None and key.isdecimal():
            found = self._property(key)
        if found is not None:
            return Found("confirmed", place=found)
        if self._open(wants_item):
            return Found("not described")
        if wants_item or not self.kinds & {"object"}:
            kinds = " or ".join(sorted(self.kinds))
            return Found("contradicted", f"{key!r} is asked of {'an' if kinds[:1] in 'aeiou' else 'a'} {kinds}")
        known = {name for schema in self.schemas for name in schema.get("properties", ())}
        if f"{key}Id" in known:  # records as flat rows name what they refer to; queries may go through it
            return Found("not described", f"what {key}Id refers to")
        hint = did_you_mean(key, known)
        return Found("contradicted", f"there is no {key!r} here. {hint}".rstrip())

    def _property(self, key: str) -> "Place | None":
        inside = [schema["properties"][key] for schema in self.schemas if key in schema.get("properties", ())]
        if not inside:
            extra = (schema.get("additionalProperties") for schema in self.schemas)
            inside = [schema for schema in extra if isinstance(schema, Mapping) and schema]
        examples = tuple(example[key] for example in self.examples if isinstance(example, Mapping) and key in example)
        return place_of(self.document, inside, examples) if inside or examples else None

    def _item(self) -> "Place | None":
        inside = [schema["items"] for schema in self.schemas if isinstance(schema.get("items"), Mapping)]
        examples = tuple(item for example in self.examples if isinstance(example, list) for item in example)
        return place_of(self.document, inside, examples) if inside or examples else None

    def _open(self, wants_item: bool) -> bool:
        """Whether more may stand here than the description tells."""
        if not self.schemas:
            return True
        wanted = "array" if wants_item else "object"
        fitting = [schema for schema in self.schemas if not _types(schema) or wanted in _types(schema)]
        if not fitting:
            return False
        if wants_item:
            return True
        listed = any(schema.get("properties") for schema in fitting)
        return not listed or any(schema.get("additionalProperties") for schema in fitting)


class Operation(msgspec.Struct, frozen=True):
    """One call: what it takes, by where it stands (`query`, `header`), what is sent in its body, what it answers."""

    method: str
    path: str
    parameters: Mapping[tuple[str, str], Parameter]
    body: Place
    answer: Place
    headers: frozenset[str]


class Description:
    """A whole description. Errors: ValueError where it is none."""

    def __init__(self, document: object) -> None:
        if not isinstance(document, Mapping) or not isinstance(document.get("paths"), Mapping):
            raise ValueError("this is neither OpenAPI nor Swagger: it has no `paths`")
        self._document = document
        servers = [str(server.get("url", "")) for server in document.get("servers", ())]
        bases = [_without_host(server) for server in servers] or [str(document.get("basePath", ""))]
        self._paths = [
            (path, segments)
            for path in document["paths"]
            for segments in {_segments(path), *(_segments(f"{base}/{path}") for base in bases)}
        ]

    def path_like(self, *candidates: str) -> str | None:
        """The described path that is one of ours: variables match whatever stands there, the plainest match counts."""
        wanted = [_segments(candidate) for candidate in candidates]
        scored = [(_alike(ours, theirs), path) for path, theirs in self._paths for ours in wanted]
        best = max(scored, default=(0, ""), key=lambda pair: pair[0])
        return best[1] if best[0] else None

    def nearest(self, path: str) -> str:
        """`Did you mean '/users'?`, or nothing."""
        return did_you_mean("/" + _anonymous(path).strip("/"), self._document["paths"])

    def methods(self, path: str) -> list[str]:
        """The methods of a described path, in capitals."""
        return [name.upper() for name in self._document["paths"][path] if name in _METHODS]

    def operation(self, path: str, method: str) -> Operation | None:
        """A described path's operation."""
        item = self._document["paths"][path]
        call = item.get(method.lower())
        if call is None:
            return None
        given = [self._opened(each) for each in [*item.get("parameters", ()), *call.get("parameters", ())]]
        taken = {(each.get("in", ""), each.get("name", "")): self._taken(each) for each in given}
        answers = call.get("responses", {})
        answer = self._opened(next((answers[status] for status in _ANSWERS if status in answers), {}))
        return Operation(
            method=method.upper(),
            path=path,
            parameters=taken,
            body=self._sent(call, given),
            answer=self._content(answer),
            headers=frozenset(name.lower() for name in answer.get("headers", ())),
        )

    def schema(self, name: str) -> Place | None:
        """One of the named schemas."""
        named = self._document.get("components", {}).get("schemas", {}) or self._document.get("definitions", {})
        return place_of(self._document, [named[name]]) if name in named else None

    def schema_named_like(self, name: str) -> str:
        """`Did you mean 'Account'?`, or nothing."""
        named = self._document.get("components", {}).get("schemas", {}) or self._document.get("definitions", {})
        return did_you_mean(name, named)

    def _taken(self, parameter: Schema) -> Parameter:
        schemas = place_of(self._document, [parameter.get("schema", parameter)]).schemas
        return _parameter(parameter.get("name", ""), schemas, str(parameter.get("description", "")))

    def _sent(self, call: Schema, given: Iterable[Schema]) -> Place:
        if "requestBody" in call:
            return self._content(self._opened(call["requestBody"]))
        bodies = [each["schema"] for each in given if each.get("in") == "body" and "schema" in each]
        return place_of(self._document, bodies)

    def _content(self, holder: Schema) -> Place:
        if "content" not in holder:  # Swagger 2
            schema = [holder["schema"]] if isinstance(holder.get("schema"), Mapping) else []
            return place_of(self._document, schema, tuple(_by_media(holder.get("examples", {}))))
        for media in _by_media(holder["content"]):
            named = (self._opened(each) for each in media.get("examples", {}).values())
            shown = [media["example"]] if "example" in media else [each["value"] for each in named if "value" in each]
            schema = [media["schema"]] if isinstance(media.get("schema"), Mapping) else []
            return place_of(self._document, schema, tuple(shown))
        return Place(self._document)

    def _opened(self, value: Any) -> Schema:
        return _resolved(self._document, value) or {}


_METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})


def place_of(document: Schema, schemas: Iterable[Any], examples: tuple[Any, ...] = ()) -> Place:
    """A place from schemas as they are written."""
    flat = tuple(each for schema in schemas for each in _flat(document, schema, REFERENCES_MAX))
    shown = [example for schema in flat for example in (schema.get("example"), *_listed(schema.get("examples")))]
    return Place(document, flat, examples + tuple(example for example in shown if example is not None))


def _flat(document: Schema, schema: Any, depth: int) -> Iterator[Schema]:
    """A schema and all it is made of, without references and combinators; nothing for one that was cut away."""
    opened = _resolved(document, schema)
    if opened is None or depth == 0:
        return
    parts = [part for word in ("allOf", "anyOf", "oneOf") for part in _listed(opened.get(word))]
    for part in parts:
        yield from _flat(document, part, depth - 1)
    if not parts or "properties" in opened:
        yield opened


def _resolved(document: Schema, value: Any) -> Schema | None:
    """What a `$ref` leads to; None where it leads nowhere."""
    for _ in range(REFERENCES_MAX):
        if not isinstance(value, Mapping):
            return None
        if not isinstance(value.get("$ref"), str):
            return value
        found: Any = document if value["$ref"].startswith("#") else None
        for part in value["$ref"].lstrip("#").strip("/").split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            found = found.get(key) if isinstance(found, Mapping) else None
        value = found
    return None


_MISSPELT = {"int": "integer", "bool": "boolean", "float": "number", "double": "number", "decimal": "number"}


def _types(schema: Schema) -> frozenset[str]:
    told = schema.get("type")
    kinds = frozenset({told} if isinstance(told, str) else told or ()) - {"null"}
    if kinds:
        return frozenset(_MISSPELT.get(kind, kind) for kind in kinds)
    return frozenset({"object"} if "properties" in schema else {"array"} if "items" in schema else ())


def _type_of(value: Any) -> str:
    names: dict[type, str] = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer"}
    return names.get(type(value), "number" if isinstance(value, float) else "null")


def _parameter(name: str, schemas: Iterable[Schema], description: str) -> Parameter:
    opened = list(schemas)
    opened += [each["items"] for each in opened if isinstance(each.get("items"), Mapping)]
    bounds = [each["maximum"] for each in opened if isinstance(each.get("maximum"), int | float)]
    said = _MOST.search(" ".join([description, *(str(each.get("description", "")) for each in opened)]))
    values = [value for each in opened for value in _listed(each.get("enum"))]
    if not bounds and said is not None:
        bounds = [float(said.group(1))]
    return Parameter(name, max(bounds, default=None), frozenset(map(_text, values)) if values else None)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _by_media(content: Mapping[str, Any]) -> Iterator[Any]:
    """JSON itself first, then what is made of it, then the rest."""
    yield from (
        content[name] for name in sorted(content, key=lambda name: (name != "application/json", "json" not in name))
    )


# -- paths ------------------------------------------------------------------------------------------------------------
def _without_host(address: str) -> str:
    """`https://{x}.example.com/api/v2` -> `/api/v2`; `{api_url}/v4` -> `/v4`."""
    return re.sub(r"^(?:[a-z]+:)?//[^/]*|^\{[^{}]*\}", "", address)


def _anonymous(path: str) -> str:
    return _VARIABLE.sub("{}", path.partition("?")[0])


def _segments(path: str) -> tuple[str, ...]:
    """`//V1/Users/{id}/delta()` -> `("V1", "Users", "{}", "delta")`; the host of an address is left out."""
    plain = _anonymous(_without_host(path)).replace("//", "/").strip("/")
    return tuple(part.removesuffix("()") for part in plain.split("/"))


def _alike(ours: tuple[str, ...], theirs: tuple[str, ...]) -> int:
    """0 where they differ, else the more the plainer they agree."""
    if len(ours) != len(theirs):
        return 0
    score = 0
    for our, their in zip(ours, theirs, strict=True):
        if our == their:
            score += 3
        elif "{}" in their:
            score += 2
        elif "{}" in our:
            score += 1
        else:
            return 0
    return score
