"""PTX text into a module: variables, functions, and the items of each function's body in order.

Only the form is understood here; what an instruction means is translate.py's. An item is a Scope (opened or closed), a
Registers, Variable, Label, Targets or Instruction, each with its line in the text.
"""

import re
from dataclasses import dataclass, field

WIDTH = {"pred": 1, "b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "s16": 2, "b32": 4, "u32": 4, "s32": 4, "f32": 4,
         "b64": 8, "u64": 8, "s64": 8, "f64": 8, "b128": 16}  # fmt: skip


class PtxError(Exception):
    """The PTX text has a form or an instruction that the emulator does not know."""

    def __init__(self, line: int, what: str, text: str = "") -> None:
        super().__init__(f"PTX line {line}: {what}" + (f": {text.strip()}" if text else ""))


@dataclass(frozen=True)
class Variable:
    """A variable of a state space: .shared, .global, .const, .local or .param."""

    space: str
    name: str
    type: str
    align: int
    size: int | None  # bytes; None: .extern .shared, as large as the launch says
    data: bytes | None
    line: int


@dataclass(frozen=True)
class Registers:
    """Virtual registers of one type."""

    type: str
    names: tuple[str, ...]
    line: int


@dataclass(frozen=True)
class Scope:
    """A brace."""

    opens: bool
    line: int


@dataclass(frozen=True)
class Label:
    """A place to jump to."""

    name: str
    line: int


@dataclass(frozen=True)
class Targets:
    """The table of labels of a brx.idx."""

    name: str
    labels: tuple[str, ...]
    line: int


@dataclass(frozen=True)
class Instruction:
    """`@!%p1 setp.lt.f32 %p2, %f1, %f2` has the guard "!%p1", the parts setp, lt, f32 and three operands."""

    guard: str
    parts: tuple[str, ...]
    operands: tuple[str, ...]
    line: int
    text: str


Item = Registers | Variable | Scope | Label | Targets | Instruction


@dataclass
class Function:
    """A .entry or a .func with its body."""

    name: str
    entry: bool
    returns: list[Variable]
    parameters: list[Variable]
    body: list[Item] = field(default_factory=list)


@dataclass
class Module:
    """What one PTX text defines."""

    variables: list[Variable] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)

    def entry(self) -> Function:
        """Return the only kernel."""
        entries = [f for f in self.functions if f.entry]
        if len(entries) != 1:
            raise PtxError(0, f"one .entry expected, {len(entries)} found")
        return entries[0]


def split(text: str, separator: str = ",") -> list[str]:
    """Split at separators outside of brackets."""
    parts, depth, start = [], 0, 0
    for k, c in enumerate(text):
        depth += (c in "([{") - (c in ")]}")
        if c == separator and depth == 0:
            parts.append(text[start:k].strip())
            start = k + 1
    parts.append(text[start:].strip())
    return [p for p in parts if p]


def _without_comments(text: str) -> str:
    """Blank comments out, and the lines of debug information; lines keep their numbers."""
    blank = lambda match: re.sub(r"[^\n]", " ", match.group())  # noqa: E731
    text = re.sub(r"//[^\n]*|/\*.*?\*/", blank, text, flags=re.DOTALL)
    return re.sub(r"^[ \t]*\.(loc|file|version|target|address_size)\b[^\n]*", blank, text, flags=re.MULTILINE)


class _Reader:
    """The text, read statement by statement."""

    def __init__(self, text: str) -> None:
        self.text, self.at = _without_comments(text), 0

    @property
    def line(self) -> int:
        return self.text.count("\n", 0, self.at) + 1

    def skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def match(self, pattern: str) -> re.Match[str] | None:
        found = re.compile(pattern, re.DOTALL).match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def until(self, stops: str) -> str:
        """Return the text up to the first of `stops` outside of brackets; the reader stands behind it."""
        depth, start = 0, self.at
        while self.at < len(self.text):
            c = self.text[self.at]
            if depth == 0 and c in stops:
                self.at += 1
                return self.text[start : self.at - 1]
            depth += (c in "([{") - (c in ")]}")
            self.at += 1
        raise PtxError(self.line, f"the text ends where one of {stops!r} is due")


def _variable(text: str, line: int) -> Variable:
    """Read `.visible .shared .align 4 .b8 name[256] = {…}`."""
    head, _, tail = text.partition("=")
    match = re.fullmatch(
        r"((?:\.\w+\s+)*?)\.(shared|global|const|local|param)\s+((?:\.\w+(?:\s+\d+)?\s+)*?)\.(\w+)\s+([^\s\[]+)\s*(\[\s*(\d*)\s*\])?\s*",
        head.strip() + " ",
    )
    if not match or match[4] not in WIDTH:
        raise PtxError(line, "a variable of unknown form", text)
    linkage, space, attributes, kind, name, array, count = match.groups()
    width = WIDTH[kind]
    align = re.search(r"\.align\s+(\d+)", attributes)
    size = None if array and not count else width * int(count or 1)
    if size is None and not (space == "shared" and ".extern" in linkage):
        raise PtxError(line, "an array of unknown size", text)
    data = None
    if tail:
        values = split(tail.strip().removeprefix("{").removesuffix("}"))
        try:
            data = b"".join((int(v.rstrip("U"), 0) % (1 << 8 * width)).to_bytes(width, "little") for v in values)
        except ValueError:
            if not all(re.fullmatch(r"0[fd][0-9A-Fa-f]+", v) for v in values):
                raise PtxError(line, "initial values that are no numbers", text) from None
            data = b"".join(int(v[2:], 16).to_bytes(width, "little") for v in values)
    return Variable(space, name, kind, int(align[1]) if align else width, size, data, line)


def _registers(text: str, line: int) -> Registers:
    """Read `.reg .b32 %r<59>` and `.reg .pred p, q`."""
    match = re.fullmatch(r"\.reg\s+\.(\w+)\s+(.*)", text, re.DOTALL)
    if not match or match[1] not in WIDTH:
        raise PtxError(line, "registers of unknown form", text)
    names: list[str] = []
    for name in split(match[2]):
        many = re.fullmatch(r"(.*)<(\d+)>", name)
        names += [f"{many[1]}{k}" for k in range(int(many[2]))] if many else [name]
    return Registers(match[1], tuple(names), line)


def _instruction(text: str, line: int) -> Instruction:
    match = re.fullmatch(r"(?:@\s*(!?\s*[%\w$]+)\s+)?([a-z][\w.:]*)\s*(.*)", text, re.DOTALL)
    if not match:
        raise PtxError(line, "a statement of unknown form", text)
    one_line = re.sub(r"\s+", " ", text)
    return Instruction(
        (match[1] or "").replace(" ", ""), tuple(match[2].split(".")), tuple(split(match[3])), line, one_line
    )


def _body(reader: _Reader) -> list[Item]:
    """Read the items between a function's braces; the opening one is behind the reader."""
    items: list[Item] = []
    depth = 1
    while True:
        reader.skip()
        line = reader.line
        if reader.match(r"\{"):
            depth += 1
            items.append(Scope(True, line))
        elif reader.match(r"\}"):
            depth -= 1
            if depth == 0:
                return items
            items.append(Scope(False, line))
        elif targets := reader.match(r"([%\w$]+)\s*:\s*\.branchtargets\s+([^;]*);"):
            items.append(Targets(targets[1], tuple(split(targets[2])), line))
        elif label := reader.match(r"([%\w$]+)\s*:"):
            items.append(Label(label[1], line))
        elif not reader.match(r";"):
            text = reader.until(";").strip()
            if text.startswith(".reg"):
                items.append(_registers(text, line))
            elif text.startswith(".pragma"):
                continue
            elif text.startswith("."):
                items.append(_variable(text, line))
            else:
                items.append(_instruction(text, line))


def _parameters(text: str, line: int) -> list[Variable]:
    return [_variable(p, line) for p in split(text.strip().removeprefix("(").removesuffix(")"))]


def parse(ptx: str) -> Module:
    """Parse one PTX text."""
    reader, module = _Reader(ptx), Module()
    while True:
        reader.skip()
        line = reader.line
        if reader.at >= len(reader.text):
            return module
        head = reader.match(
            r"((?:\.(?:visible|extern|weak)\s+)*)\.(entry|func)\s*(\((?:[^()]*)\))?\s*([%\w$]+)\s*(\([^()]*\))?"
        )
        if head:
            function = Function(
                head[4], head[2] == "entry", _parameters(head[3] or "", line), _parameters(head[5] or "", line)
            )
            reader.match(r"(\s*\.(maxntid|minnctapersm|reqntid|maxnreg|noreturn|pragma)\b[^\n{;]*)*\s*")
            if reader.match(r";"):  # a declaration: the definition comes later, or a call of it is an error
                continue
            if not reader.match(r"\{"):
                raise PtxError(reader.line, "a function's body expected", reader.text[reader.at : reader.at + 60])
            function.body = _body(reader)
            module.functions.append(function)
        else:
            module.variables.append(_variable(reader.until(";"), line))
