"""TOML tables into frozen dataclasses and back: unknown keys and wrong types are named, nothing is guessed."""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from edgesam_mobile.errors import UsageError

T = TypeVar("T")
_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def from_table(kind: type[T], table: object, where: str = "") -> T:
    """Build a dataclass from a TOML table; ``where`` is the table's own name, for messages.

    Raises:
        UsageError: a key is unknown (the nearest known one is given) or missing, a value has the wrong type, or
            the dataclass itself refuses it.
    """
    if not isinstance(table, Mapping):
        raise UsageError(f"{where or 'the recipe'} must be a table, not {_told(table)}")
    types = get_type_hints(kind)
    for key in sorted(table.keys() - types.keys()):
        near = difflib.get_close_matches(key, types, n=1)
        hint = f"did you mean {_join(where, near[0])}?" if near else f"known: {', '.join(types)}"
        raise UsageError(f"unknown option {_join(where, key)}", hint=hint)
    for option in dataclasses.fields(kind):  # type: ignore[arg-type]
        if option.name not in table and option.default is option.default_factory is dataclasses.MISSING:
            raise UsageError(f"{_join(where, option.name)} is missing", hint="see the recipes that are shipped")
    return kind(**{key: _value(types[key], value, _join(where, key)) for key, value in table.items()})


def to_table(recipe: Any) -> dict[str, Any]:
    """The inverse of :func:`from_table`, in plain dicts, lists and scalars; every option is there."""
    plain = json.loads(json.dumps(dataclasses.asdict(recipe)))
    assert isinstance(plain, dict)
    return plain


def to_toml(table: Mapping[str, Any], name: str = "") -> str:
    """TOML text of nested tables; lists of tables are written inline."""
    own = [f"{key} = {_literal(value)}" for key, value in table.items() if not isinstance(value, Mapping)]
    text = "\n".join(([f"[{name}]"] if name and own else []) + own) + "\n" if own else ""
    deeper = (to_toml(value, _join(name, key)) for key, value in table.items() if isinstance(value, Mapping))
    return "\n".join(part for part in (text, *deeper) if part)


def override(table: dict[str, Any], assignment: str) -> None:
    """Apply ``section.option=value`` to nested tables; the value is TOML, or a text without its quotes.

    Raises:
        UsageError: there is no ``=`` or no option in it, or the option lies inside something that is no table.
    """
    path, equals, text = assignment.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or len(keys) < 2 or not all(keys):
        raise UsageError(f"cannot read the setting {assignment!r}", hint="write it as section.option=value")
    for key in keys[:-1]:
        inner = table.setdefault(key, {})
        if not isinstance(inner, dict):
            raise UsageError(f"cannot set {path.strip()}: {key} is no table")
        table = inner
    try:
        # TOML allows no line break inside an inline value but many statements in a text: only one is taken.
        (table[keys[-1]],) = tomllib.loads(f"value = {text}").values()
    except ValueError:
        table[keys[-1]] = text.strip()


def differences(before: Mapping[str, Any], after: Mapping[str, Any], where: str = "") -> list[str]:
    """What differs between two nested tables, as ``option: old -> new``."""
    found = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, _join(where, key))
        elif old != new:
            found.append(f"{_join(where, key)}: {_literal(old)} -> {_literal(new)}")
    return found


def _value(kind: Any, value: object, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        assert isinstance(kind, type)
        return from_table(kind, value, where)
    if get_origin(kind) is Literal:
        return _choice(get_args(kind), value, where)
    if get_origin(kind) is tuple:
        return _sequence(get_args(kind), value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise UsageError(f"{where} must be {_NAMES[kind]}, not {_told(value)}")
    return value


def _choice(choices: Sequence[str], value: object, where: str) -> object:
    if value in choices:
        return value
    near = difflib.get_close_matches(str(value), choices, n=1)
    told = " or ".join(map(repr, choices))
    raise UsageError(f"{where} must be {told}, not {_told(value)}", hint=f"did you mean {near[0]}?" if near else None)


def _sequence(kinds: Sequence[Any], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise UsageError(f"{where} must be a list, not {_told(value)}")
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise UsageError(f"{where} must have {len(kinds)} values, not {len(value)}")
    return tuple(_value(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _told(value: object) -> str:
    return "a table" if isinstance(value, Mapping) else _literal(value)


def _literal(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_literal(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, str):
        # TOML's basic strings take JSON's escapes, but no pairs of surrogates and no bare DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
