"""The flags that a script takes on its command line, with type, default and choices.

The source is parsed, never run. Read are argparse and its kin (`add_argument`), click, typer, fire,
absl, and parsers of dataclasses (tyro, HfArgumentParser, simple_parsing). What only the running
script can know (hydra's tree, names that are made in loops, ``sys.argv``) is named as such.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pgolf_sweep.script.knobs.knobs import Knob

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pgolf_sweep.script.knobs.conversions import KnobKind

_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_KINDS: dict[str, KnobKind] = {
    "int": "int",
    "float": "float",
    "bool": "bool",
    "str": "str",
    "INT": "int",
    "IntRange": "int",
    "FLOAT": "float",
    "FloatRange": "float",
    "BOOL": "bool",
}
_ABSL: dict[str, KnobKind] = {
    "DEFINE_integer": "int",
    "DEFINE_float": "float",
    "DEFINE_bool": "bool",
    "DEFINE_boolean": "bool",
    "DEFINE_string": "str",
    "DEFINE_enum": "str",
    "DEFINE_list": "str",
    "DEFINE_multi_integer": "int",
    "DEFINE_multi_float": "float",
    "DEFINE_multi_string": "str",
}
_OF_CLASSES = {
    "tyro.cli",
    "HfArgumentParser",
    "simple_parsing.parse",
    "add_arguments",
    "pyrallis.parse",
    "draccus.parse",
}
_OPEN_CALLS = {
    "OmegaConf.from_cli": "OmegaConf's command line",
    "DEFINE_config_file": "a configuration file of ml_collections",
    "DEFINE_config_dict": "a configuration of ml_collections",
    "LightningCLI": "Lightning's command line",
}
_EMPTY_BASES = {"object", "Tap", "ABC", "Protocol", "Serializable"}
_SWITCHES = {"store_true": "", "store_false": "", "store_const": "", "count": ""}


@dataclass(slots=True)
class Flags:
    """What a script takes on its command line.

    Attributes:
        known: By name, without the dashes in front.
        beyond: What else may be read there that only the running script knows.
        config_names: Names that may be read from ``wandb.config``; empty where it is not used.
    """

    known: dict[str, Knob] = field(default_factory=dict)
    beyond: list[str] = field(default_factory=list)
    config_names: frozenset[str] = frozenset()

    def add(self, name: str, knob: Knob, *, either: bool = False) -> None:
        """Note a flag; with `either`, ``-`` and ``_`` in its name are the same to the parser."""
        spellings = {name, name.replace("_", "-"), name.replace("-", "_")} if either else {name}
        for spelling in sorted(spellings, key=lambda one: one != name):
            self.known.setdefault(spelling, knob)

    def open(self, why: str) -> None:
        """Note that more may be read."""
        if why not in self.beyond:
            self.beyond.append(why)


def read_flags(trees: Sequence[ast.Module]) -> Flags:
    """The flags of syntax trees that belong together, the script's own first."""
    found = Flags()
    reader = _Reader(trees, found)
    reader.read()
    found.config_names = _config_names(reader.nodes)
    return found


class _Reader:
    def __init__(self, trees: Sequence[ast.Module], found: Flags) -> None:
        self.nodes = [node for tree in trees for node in ast.walk(tree)]
        self._found = found
        self._functions = {n.name: n for n in reversed(self.nodes) if isinstance(n, _FUNCTION)}
        self._classes = {n.name: n for n in reversed(self.nodes) if isinstance(n, ast.ClassDef)}
        self._constants: dict[str, ast.expr] = {}
        for tree in trees:
            for node in tree.body:
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    self._constants.setdefault(node.targets[0].id, node.value)
        self._imported = {
            alias.name.partition(".")[0]
            for node in self.nodes
            if isinstance(node, ast.Import)
            for alias in node.names
        } | {
            (node.module or "").partition(".")[0]
            for node in self.nodes
            if isinstance(node, ast.ImportFrom)
        }

    def read(self) -> None:
        """Note every flag."""
        for node in self.nodes:
            match node:
                case ast.Call():
                    self._call(node)
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    self._decorated(node)
                case ast.ClassDef(bases=bases) if any(_dotted(b).endswith("Tap") for b in bases):
                    self._fields(node, "")
                case _:
                    pass
        if not self._found.known and self._reads_argv():
            self._found.open("sys.argv")

    # Calls

    def _call(self, call: ast.Call) -> None:
        name = _dotted(call.func)
        last = name.rpartition(".")[2]
        if last == "add_argument":
            self._add_argument(call)
        elif last in _ABSL and call.args:
            self._absl(call, _ABSL[last])
        elif name in {"fire.Fire", "Fire"} and "fire" in self._imported:
            self._fire(call)
        elif name == "typer.run" and call.args:
            self._typer(self._functions.get(_dotted(call.args[0])))
        elif (
            name in _OF_CLASSES
            or last in _OF_CLASSES
            or (last in {"cli", "parse"} and name.partition(".")[0] in {"tyro", "simple_parsing"})
        ):
            self._classes_of(call)
        for known, why in _OPEN_CALLS.items():
            if name.endswith(known):
                self._found.open(why)

    def _add_argument(self, call: ast.Call) -> None:
        words = [self._value(one) for one in call.args]
        if any(word is None for word in words):
            self._found.open(f"a flag whose name is made at run time (line {call.lineno})")
            return
        names = [word[2:] for word in words if isinstance(word, str) and word.startswith("--")]
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        kind, default = self._kind(keywords.get("type")), self._value(keywords.get("default"))
        action = keywords.get("action")
        switch = None
        if action is not None:
            said = self._value(action)
            if _dotted(action).endswith("BooleanOptionalAction"):
                switch = f"--no-{names[0]}" if names else ""
            elif said in _SWITCHES:
                switch = ""
        strict_bool = _dotted(keywords.get("type")) == "bool"
        for name in names:
            knob = Knob(
                name=name,
                kind="bool" if switch is not None or strict_bool else kind,
                default=_plain(default),
                line=call.lineno,
                choices=_texts(self._value(keywords.get("choices"))),
                switch=switch,
                any_text_is_true=strict_bool,
            )
            self._found.add(name, knob)

    def _absl(self, call: ast.Call, kind: KnobKind) -> None:
        name = self._value(call.args[0])
        if not isinstance(name, str):
            self._found.open(f"a flag whose name is made at run time (line {call.lineno})")
            return
        default = self._value(call.args[1]) if len(call.args) > 1 else None
        is_enum = _dotted(call.func).endswith("DEFINE_enum") and len(call.args) > 2
        choices = _texts(self._value(call.args[2])) if is_enum else ()
        self._found.add(
            name,
            Knob(name=name, kind=kind, default=_plain(default), line=call.lineno, choices=choices),
        )

    def _fire(self, call: ast.Call) -> None:
        target = _dotted(call.args[0]) if call.args else ""
        function = self._functions.get(target)
        if function is None and target in self._classes:
            inits = (n for n in self._classes[target].body if isinstance(n, _FUNCTION))
            function = next((n for n in inits if n.name == "__init__"), None)
        if function is None:
            self._found.open("fire, which takes whatever the script offers it")
            return
        for parameter, default in _parameters(function):
            knob = self._of_annotation(parameter, parameter.annotation, default)
            self._found.add(parameter.arg, knob, either=True)
        if function.args.kwarg is not None:
            self._found.open(f"**{function.args.kwarg.arg} of {function.name}")

    def _classes_of(self, call: ast.Call) -> None:
        """Dataclasses, or a function, that a parser is made from."""
        given = [*call.args[:1], *(k.value for k in call.keywords if k.arg == "config_class")]
        targets = [
            part
            for one in given
            for part in (one.elts if isinstance(one, ast.Tuple | ast.List) else [one])
        ]
        for target in targets:
            name = _dotted(target)
            if name in self._classes:
                self._fields(self._classes[name], "")
            elif name in self._functions:
                for parameter, default in _parameters(self._functions[name]):
                    knob = self._of_annotation(parameter, parameter.annotation, default)
                    self._found.add(parameter.arg, knob, either=True)
            else:
                self._found.open(f"the fields of {name or 'a class'} that is not in the script")

    def _fields(self, cls: ast.ClassDef, prefix: str, depth: int = 0) -> None:
        for base in cls.bases:
            name = _dotted(base)
            if name in self._classes and depth < 8:
                self._fields(self._classes[name], prefix, depth + 1)
            elif name.rpartition(".")[2] not in _EMPTY_BASES:
                self._found.open(f"the fields of {name} that is not in the script")
        for node in cls.body:
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
                continue
            name = f"{prefix}{node.target.id}"
            inner = self._classes.get(_dotted(node.annotation))
            if inner is not None and depth < 8:
                self._fields(inner, f"{name}.", depth + 1)  # tyro
                self._fields(inner, "", depth + 1)  # simple_parsing
                continue
            knob = self._of_annotation(node, node.annotation, node.value)
            self._found.add(name, knob, either=True)

    # Decorators

    def _decorated(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for decorator in function.decorator_list:
            call = decorator if isinstance(decorator, ast.Call) else None
            name = _dotted(call.func if call is not None else decorator)
            last = name.rpartition(".")[2]
            if name in {"hydra.main", "hydra_main"} or (last == "main" and "hydra" in name):
                self._found.open("hydra's configuration")
            elif last == "option" and call is not None and "click" in self._imported:
                self._click(call)
            elif last == "command" and "typer" in self._imported:
                self._typer(function)
            elif name in {"pyrallis.wrap", "draccus.wrap"} and function.args.args:
                target = function.args.args[0].annotation
                if target is not None:
                    self._classes_of(ast.Call(func=target, args=[target], keywords=[]))

    def _click(self, call: ast.Call) -> None:
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        default = self._value(keywords.get("default"))
        given = keywords.get("type")
        kind = self._kind(given)
        choices: tuple[str, ...] = ()
        if isinstance(given, ast.Call):
            kind = _KINDS.get(_dotted(given.func).rpartition(".")[2], "str")
            if _dotted(given.func).endswith("Choice") and given.args:
                choices = _texts(self._value(given.args[0]))
        elif given is None and default is not None:
            kind = _kind_of(default)
        for word in (self._value(one) for one in call.args):
            if not isinstance(word, str) or not word.startswith("--"):
                continue
            name, slash, negation = word.partition("/")
            is_flag = bool(slash) or self._value(keywords.get("is_flag")) is True
            knob = Knob(
                name=name[2:],
                kind="bool" if is_flag else kind,
                default=_plain(default),
                line=call.lineno,
                choices=choices,
                switch=negation.strip() if is_flag else None,
            )
            self._found.add(name[2:], knob)

    def _typer(self, function: ast.FunctionDef | ast.AsyncFunctionDef | None) -> None:
        if function is None:
            self._found.open("a function of typer that is not in the script")
            return
        for parameter, default in _parameters(function):
            option = _typer_info(parameter.annotation, default)
            is_option = _dotted(option.func).endswith("Option") if option is not None else False
            if not is_option and (default is None or option is not None):
                continue  # an argument, which has no flag
            words = [self._value(one) for one in (option.args if option is not None else [])]
            names = [w for w in words if isinstance(w, str) and w.startswith("--")]
            value = default
            if isinstance(default, ast.Call):
                value = default.args[0] if default.args else None
            knob = self._of_annotation(parameter, parameter.annotation, value)
            for word in names or [f"--{parameter.arg.replace('_', '-')}"]:
                name, slash, negation = word.partition("/")
                switch = knob.switch
                if knob.kind == "bool":
                    switch = negation if slash else "" if names else f"--no-{name[2:]}"
                self._found.add(
                    name[2:],
                    Knob(
                        name=name[2:],
                        kind=knob.kind,
                        default=knob.default,
                        line=knob.line,
                        choices=knob.choices,
                        switch=switch,
                    ),
                )

    # Values and types

    def _of_annotation(
        self, node: ast.arg | ast.AnnAssign, annotation: ast.expr | None, default: ast.expr | None
    ) -> Knob:
        name = node.arg if isinstance(node, ast.arg) else ast.unparse(node.target)
        if isinstance(default, ast.Call):  # field(default=3)
            default = next((k.value for k in default.keywords if k.arg == "default"), None)
        value = self._value(default)
        kind, choices = self._annotated(annotation)
        if kind is None:
            kind = "str" if annotation is not None or value is None else _kind_of(value)
        return Knob(name=name, kind=kind, default=_plain(value), line=node.lineno, choices=choices)

    def _annotated(self, node: ast.expr | None) -> tuple[KnobKind | None, tuple[str, ...]]:
        match node:
            case ast.Constant(value=str(text)):
                try:
                    return self._annotated(ast.parse(text, mode="eval").body)
                except SyntaxError:
                    return None, ()
            case ast.Name(id=name):
                return _KINDS.get(name), ()
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                sides = [s for s in (left, right) if not _is_none(s)]
                return self._annotated(sides[0]) if len(sides) == 1 else (None, ())
            case ast.Subscript(value=outer, slice=inner):
                last = _dotted(outer).rpartition(".")[2]
                if last == "Optional":
                    return self._annotated(inner)
                if last == "Annotated" and isinstance(inner, ast.Tuple):
                    return self._annotated(inner.elts[0])
                if last == "Literal":
                    values = self._value(inner)
                    listed = values if isinstance(values, tuple) else (values,)
                    kinds = {_kind_of(one) for one in listed}
                    return kinds.pop() if len(kinds) == 1 else "str", _texts(listed)
                return None, ()
            case _:
                return None, ()

    def _kind(self, node: ast.expr | None) -> KnobKind:
        """The type that ``type=`` names; what is no plain type takes any text."""
        last = _dotted(node).rpartition(".")[2]
        return _KINDS.get(last, "str")

    def _value(self, node: ast.expr | None, depth: int = 0) -> Any:
        """A literal, or a name of one at the script's top; None if only the script knows."""
        if node is None:
            return None
        if isinstance(node, ast.Name) and node.id in self._constants and depth < 8:
            return self._value(self._constants[node.id], depth + 1)
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return None

    def _reads_argv(self) -> bool:
        """Whether more of ``sys.argv`` is read than the script's own name."""
        names = {
            id(node.value)
            for node in self.nodes
            if isinstance(node, ast.Subscript) and self._value(node.slice) == 0
        }
        return any(
            (_dotted(node) == "sys.argv" and id(node) not in names)
            or (
                isinstance(node, ast.ImportFrom)
                and node.module == "sys"
                and any(alias.name == "argv" for alias in node.names)
            )
            for node in self.nodes
        )


def _config_names(nodes: Iterable[ast.AST]) -> frozenset[str]:
    """Names that a script which uses ``wandb.config`` may read there."""
    nodes = list(nodes)
    runs = {"wandb", "run"}
    uses = False
    for node in nodes:
        match node:
            case ast.Attribute(value=owner, attr="config") if _dotted(owner).rpartition(".")[2] in (
                runs
            ):
                uses = True
            case _:
                pass
    imports = any(
        isinstance(node, ast.Import) and any(alias.name == "wandb" for alias in node.names)
        for node in nodes
    )
    if not (uses and imports):
        return frozenset()
    names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    texts = {
        node.value for node in nodes if isinstance(node, ast.Constant) and type(node.value) is str
    }
    return frozenset(names | {text for text in texts if len(text) < 100})


def _parameters(
    function: ast.FunctionDef | ast.AsyncFunctionDef,
) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    """Parameters with their defaults, without ``self``."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    missing = len(positional) - len(arguments.defaults)
    defaults = [*[None] * missing, *arguments.defaults]
    pairs = [*zip(positional, defaults, strict=True)]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return (pair for pair in pairs if pair[0].arg not in {"self", "cls"})


def _typer_info(annotation: ast.expr | None, default: ast.expr | None) -> ast.Call | None:
    """The ``typer.Option(...)`` or ``typer.Argument(...)`` of a parameter."""
    candidates: list[ast.expr] = [default] if default is not None else []
    if isinstance(annotation, ast.Subscript) and isinstance(annotation.slice, ast.Tuple):
        candidates += annotation.slice.elts
    for one in candidates:
        if isinstance(one, ast.Call) and _dotted(one.func).endswith(("Option", "Argument")):
            return one
    return None


def _dotted(node: ast.AST | None) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=owner, attr=attr):
            outer = _dotted(owner)
            return f"{outer}.{attr}" if outer else attr
        case ast.Constant(value=str(text)):
            return text
        case _:
            return ""


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _kind_of(value: Any) -> KnobKind:
    kinds: dict[type, KnobKind] = {bool: "bool", int: "int", float: "float"}
    return kinds.get(type(value), "str")


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else None


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, tuple | list | set | range | dict):
        return ()
    return tuple(str(value) for value in values)
