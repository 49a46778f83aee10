"""YAML as study files use it: the plain values of YAML 1.2, and no surprises.

What PyYAML (YAML 1.1) would read otherwise: `1e-4` is a number, not text; `no` and `off` are text, not
false; `2024-01-01` is text, not a date; `010` and `1:30` are text, not 8 and 90. Keys are text as written.
Repeated keys, tags such as `!!python/name`, and files that stand for more than they show are refused.
"""

import re
from typing import Any

import yaml

_VALUES = 100_000
"""In one file, aliases expanded. Ten lists of ten aliases of the list before stand for 10^10 values."""
_DEPTH = 50
"""Of nested brackets and indents, aliases expanded: parser and validation recurse on each."""


class YamlError(ValueError):
    """The text is not YAML as study files use it; `where` (line and column from 1) may be empty."""

    def __init__(self, problem: str, mark: yaml.Mark | None) -> None:
        self.problem = problem
        self.where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        super().__init__(f"{self.where}: {problem}" if mark else problem)


def read_yaml(text: str) -> Any:
    """The value of the one document in `text`; None when there is none.

    Raises:
        YamlError: the text is not YAML, or not of the kind described above.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {})
        return loader.construct_document(node)
    except yaml.reader.ReaderError as error:
        raise YamlError(f"character {error.character:#x} at position {error.position}", None) from error
    except yaml.MarkedYAMLError as error:
        raise YamlError(_problem(error), error.problem_mark or error.context_mark) from error


def write_yaml(content: Any) -> str:
    """`content` so that `read_yaml` reads it back, and any reader of YAML 1.1 or 1.2 too."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Quotes text that PyYAML would leave plain, but a reader of YAML 1.2 take for a number."""

    def represent_text(self, text: str) -> yaml.Node:
        plain = _Loader("").resolve(yaml.ScalarNode, text, (True, False)) == f"{_TAG}str"  # type: ignore[no-untyped-call]
        return self.represent_scalar(f"{_TAG}str", text, style=None if plain else "'")

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _problem(error: yaml.MarkedYAMLError) -> str:
    if "'\\t'" in str(error.problem):
        return "a tab; indent with spaces"
    context = f" ({error.context})" if error.context else ""
    return f"{error.problem}{context}"


class _Loader(yaml.SafeLoader):
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None):
            raise YamlError(f"the tag {event.tag} is not for study files", event.start_mark)
        self.depth += 1
        if self.depth > _DEPTH:
            raise YamlError(f"more than {_DEPTH} levels deep", event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or not key.value:
                raise YamlError("a key must be a plain name", key.start_mark)
            if key.value in seen:
                problem = f"key {key.value!r} stands twice (first in line {seen[key.value]})"
                raise YamlError(problem, key.start_mark)
            seen[key.value] = key.start_mark.line + 1
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}

    def construct_number(self, node: yaml.ScalarNode) -> int:
        try:
            return int(node.value.replace("_", ""), base=0)
        except ValueError as error:  # Python reads at most 4,300 digits
            raise YamlError(f"a number of {len(node.value)} digits", node.start_mark) from error


_TAG = "tag:yaml.org,2002:"
_Dumper.add_representer(str, _Dumper.represent_text)
_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
_Loader.yaml_implicit_resolvers = {}
for _kind, _pattern, _starts in (
    ("null", r"(~|null|Null|NULL)?", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+)", list("-+0123456789")),
    ("str", r"[-+]?0[0-9]+", list("-+0")),  # 010 is 8 to some and 10 to others
    ("float", _FLOAT, list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(f"^(?:{_pattern})$"), _starts)
_Loader.add_constructor(f"{_TAG}int", _Loader.construct_number)


def _measure(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """How many values `node` stands for, and how many levels deep; `known` by id, None meanwhile."""
    if id(node) in known:
        measured = known[id(node)]
        if measured is None:
            raise YamlError("an alias of what it stands in", node.start_mark)
        return measured
    known[id(node)] = None
    values, depth = 1, 1
    for child in _children(node):
        child_values, child_depth = _measure(child, known)
        values, depth = values + child_values, max(depth, child_depth + 1)
    if values > _VALUES or depth > _DEPTH:
        problem = f"stands for more than {_VALUES} values or {_DEPTH} levels, aliases expanded"
        raise YamlError(problem, node.start_mark)
    known[id(node)] = values, depth
    return values, depth


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return []
