"""A parsed PTX module as C: a function for each function, a variable for each register, a goto for each branch."""

from dataclasses import dataclass

from tests.cuda.emulator import arithmetic, memory
from tests.cuda.emulator.operands import Names, Operands, Place, c_name, c_type, is_float
from tests.cuda.emulator.parse import (
    WIDTH,
    Function,
    Instruction,
    Label,
    Module,
    PtxError,
    Registers,
    Scope,
    Targets,
    Variable,
    split,
)

SHARED_BASE = 1024  # as in runtime.c: shared address 0 is nobody's


@dataclass(frozen=True)
class Translation:
    """C text, and what a launch must know of the kernel."""

    c: str
    parameters: tuple[str, ...]  # PTX types of the kernel's parameters
    shared: int  # bytes of static shared memory; dynamic memory follows
    dynamic: bool  # the kernel has .extern .shared memory
    frame: int  # bytes of stack that the largest function may need


def _aligned(at: int, align: int) -> int:
    return -(-at // align) * align


def _layout(variables: list[Variable]) -> tuple[dict[str, int], int]:
    """Byte offsets of variables one behind the other, and their end."""
    offsets, end = {}, 0
    for v in variables:
        end = offsets[v.name] = _aligned(end, v.align)
        end += v.size or 0
    return offsets, end


class _Body:
    """The translation of one function's body."""

    def __init__(self, function: Function, names: Names, functions: dict[str, Function]) -> None:
        self.function, self.names, self.functions = function, names, functions
        self.lines: list[str] = []
        self.labels: list[dict[str, str]] = [{}]  # of each open scope: PTX name to C name
        self.tables: dict[str, tuple[str, ...]] = {}
        self.passed: set[str] = set()  # C names of labels that stand above: a branch to one goes round a loop
        self.scope_count = self.size = 0
        items = function.body
        self.locals, self.local_size = _layout([i for i in items if isinstance(i, Variable) and i.space == "local"])

    def translate(self) -> str:
        """Return the C statements."""
        items = self.function.body
        self._declare_labels(0)
        for k, item in enumerate(items):
            match item:
                case Scope(opens=True):
                    self.names.scopes.append({})
                    self.scope_count += 1
                    self._declare_labels(k + 1)
                    self.lines.append("{")
                case Scope():
                    self.names.scopes.pop()
                    self.labels.pop()
                    self.lines.append(";}")
                case Registers():
                    self._registers(item)
                case Variable():
                    self._variable(item)
                case Label():
                    label = self._label(item.name, item.line)
                    self.passed.add(label)
                    self.lines.append(f"{label}: ;")
                case Targets():
                    self.tables[item.name] = item.labels
                case Instruction():
                    self.lines.append(self._guarded(item))
        return "\n".join(self.lines)

    def _declare_labels(self, start: int) -> None:
        """Give the labels of the scope that opens before item `start` their C names: two scopes may have the same."""
        depth, mine = 0, {}
        for item in self.function.body[start:]:
            depth += (1 if item.opens else -1) if isinstance(item, Scope) else 0
            if depth < 0:
                break
            if isinstance(item, Label) and depth == 0:
                mine[item.name] = f"L{self.scope_count}_{c_name(item.name)}"
        if start:
            self.labels.append(mine)
        else:
            self.labels = [mine]

    def _label(self, name: str, line: int) -> str:
        for scope in reversed(self.labels):
            if name in scope:
                return scope[name]
        raise PtxError(line, f"no label {name}")

    def _registers(self, item: Registers) -> None:
        for name in item.names:
            c = f"{c_name(name)}_{self.scope_count}"
            self.names.add(name, Place("reg", item.type, c))
            self.size += max(8, WIDTH[item.type])
            nothing = f"{item.type}_of(-1)" if is_float(item.type) else "-1"  # uninitialised: all bits set
            nothing = "1" if item.type == "pred" else nothing
            self.lines.append(f"{c_type(item.type)} {c} = {nothing};")

    def _variable(self, item: Variable) -> None:
        if item.space == "local":
            self.names.add(item.name, Place("local", item.type, f"((uint64_t)locals + {self.locals[item.name]})"))
        elif item.space == "param":
            self.names.parameter(item)
            self.size += _aligned(item.size or 0, 16)
            self.lines.append(f"_Alignas(16) uint8_t {c_name(item.name)}[{item.size}];")
        elif item.space != "shared":  # shared ones have their place in the module
            raise PtxError(item.line, f"a .{item.space} variable inside of a function")

    def _guarded(self, i: Instruction) -> str:
        try:
            c = self._instruction(i)
            guard = Operands(self.names, i).read(i.guard, "pred") if i.guard else ""
        except (IndexError, KeyError, ValueError, StopIteration) as error:
            raise PtxError(i.line, "an instruction that the emulator does not understand", i.text) from error
        return f"if ({guard}) {{ {c} }}" if guard else c

    def _instruction(self, i: Instruction) -> str:
        name = i.parts[0]
        if name in ("bra", "brx"):
            return self._branch(i)
        if name in ("ret", "exit"):
            return "return;" if name == "ret" else "exit_thread(t);"
        if name == "call":
            return self._call(i)
        if name == "trap":
            return f'FAULT(TRAP, {i.line}, "trap");'
        a = arithmetic.Arithmetic(Operands(self.names, i))
        handler = arithmetic.TABLE.get(name) or memory.TABLE.get(name)
        if handler is None:
            raise a.unknown()
        return handler(a)

    def _goto(self, name: str, line: int) -> str:
        label = self._label(name, line)
        return f"{{ step(t, {line}, 1); goto {label}; }}" if label in self.passed else f"goto {label};"

    def _branch(self, i: Instruction) -> str:
        if i.parts[0] == "bra":
            return self._goto(i.operands[0], i.line)
        index = Operands(self.names, i).read(i.operands[0], "u32")
        cases = [f"case {k}: {self._goto(x, i.line)}" for k, x in enumerate(self.tables[i.operands[1]])]
        return f'switch ({index}) {{ {" ".join(cases)} default: FAULT(TRAP, {i.line}, "brx.idx beyond its table"); }}'

    def _call(self, i: Instruction) -> str:
        """`call (retval0), name, (param0, param1)`; results and arguments are the addresses of .param variables."""
        operands = list(i.operands)
        results = split(operands.pop(0)[1:-1]) if operands[0].startswith("(") else []
        name = operands.pop(0)
        arguments = split(operands.pop(0)[1:-1]) if operands else []
        if name not in self.functions:
            raise PtxError(i.line, f"a call of {name}, which the PTX does not define", i.text)
        places = [self.names[x] for x in (*results, *arguments)]
        if any(p is None or p.space != "param" for p in places):
            raise PtxError(i.line, "a call with operands that are no .param variables", i.text)
        return f"f_{c_name(name)}({', '.join(['t', *(p.c for p in places if p)])});"


def _head(f: Function) -> str:
    pointers = "".join(f", uint8_t *{c_name(p.name)}" for p in (*f.returns, *f.parameters)) if not f.entry else ""
    return f"static void f_{c_name(f.name)}(Thread *t{pointers})"


def translate(module: Module) -> Translation:
    """Translate a module with one kernel."""
    entry = module.entry()
    inner = [i for f in module.functions for i in f.body if isinstance(i, Variable) and i.space == "shared"]
    shared = [v for v in (*module.variables, *inner) if v.space == "shared"]
    offsets, shared_size = _layout([v for v in shared if v.size is not None])
    shared_size = _aligned(shared_size, 16)
    places = {name: Place("shared", "b8", f"(uint64_t){SHARED_BASE + at}") for name, at in offsets.items()}
    dynamic = [v.name for v in shared if v.size is None]
    places |= {name: Place("shared", "b8", f"(uint64_t){SHARED_BASE + shared_size}") for name in dynamic}
    parts, ranges = [], []
    for v in module.variables:
        if v.space in ("global", "const"):
            name = c_name(v.name)
            data = ", ".join(str(b) for b in v.data or b"\0")
            parts.append(f"static uint8_t {name}[{v.size}] __attribute__((aligned({max(v.align, 16)}))) = {{{data}}};")
            ranges.append(f"{{{name}, {name} + {v.size}, {int(v.space == 'global')}, -1}}")
            places[v.name] = Place(v.space, v.type, f"(uint64_t){name}")
    parts.append(f"Range module_ranges[] = {{{', '.join([*ranges, '{0}'])}}};")
    parts.append(f"const uint32_t module_range_count = {len(ranges)};")
    functions = {f.name: f for f in module.functions if not f.entry}
    parts += [_head(f) + ";" for f in module.functions]
    frame = 0
    for f in module.functions:
        names = Names(places)
        names.scopes.append({})
        at, prologue = 0, ["uint32_t carry = 0; (void)carry;"]
        for p in (*f.returns, *f.parameters):
            names.parameter(p)
            at = _aligned(at, p.align)
            if f.entry:
                prologue.append(f"const uint8_t *{c_name(p.name)} = R.launch->parameters + {at};")
            at += p.size or 0
        body = _Body(f, names, functions)
        c = body.translate()
        if body.local_size:
            prologue.append(f"_Alignas(16) uint8_t locals[{body.local_size}]; memset(locals, 0xFF, sizeof locals);")
        parts.append("\n".join([_head(f) + " {", *prologue, c, "}"]))
        frame += 2 * body.size + body.local_size + 1024
    parts.append(f"static void kernel(Thread *t) {{ f_{c_name(entry.name)}(t); }}")
    types = tuple(p.type if p.size == WIDTH[p.type] else f"{p.size} bytes" for p in entry.parameters)
    return Translation("\n".join(parts), types, shared_size, bool(dynamic), frame)
