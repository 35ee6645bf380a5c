"""One PTX instruction of arithmetic, logic or movement as C statements."""

from collections.abc import Callable

from tests.cuda.emulator.operands import Operands, c_type, is_float
from tests.cuda.emulator.parse import WIDTH, PtxError

Translated = str
ROUNDINGS = ("rz", "rm", "rp")


class Arithmetic:
    """An instruction taken apart: its type, its modifiers and its operands."""

    def __init__(self, operands: Operands) -> None:
        self.o, self.i = operands, operands.instruction
        self.name, self.modifiers = self.i.parts[0], list(self.i.parts[1:])
        self.types = [m for m in self.modifiers if m in WIDTH]
        self.flags = [m for m in self.modifiers if m not in WIDTH]

    @property
    def type(self) -> str:
        if not self.types:
            raise self.unknown()
        return self.types[-1]

    def unknown(self) -> PtxError:
        return self.o.error("an instruction that the emulator does not know")

    def allow(self, *flags: str) -> None:
        """Refuse modifiers that nobody has thought of."""
        if set(self.flags) - set(flags):
            raise self.unknown()

    def read(self, k: int, kind: str | None = None) -> str:
        """Operand k, flushed where .ftz says so."""
        kind = kind or self.type
        c = self.o.read(self.i.operands[k], kind)
        return f"ftz_{kind}({c})" if "ftz" in self.flags and is_float(kind) else c

    def result(self, c: str, kind: str | None = None) -> str:
        """The statement that writes operand 0, after .ftz and .sat."""
        kind = kind or self.type
        if is_float(kind):
            if "sat" in self.flags:
                c = f"sat_{kind}({c})"
            if "ftz" in self.flags:
                c = f"ftz_{kind}({c})"
        return self.o.write(self.i.operands[0], kind, c)

    def rounded(self, c: str, count: int) -> str:
        """An operation on the first operands: C's own where it rounds to nearest, else the function for the mode."""
        mode = next((f for f in self.flags if f in ROUNDINGS), None)
        if mode is None:
            return c
        arguments = [self.read(k + 1) for k in range(count)] + ["0"] * (3 - count)
        return f"{self.name}_{self.type}_{mode}({', '.join(arguments)})"


FLOAT_FLAGS = ("rn", "rz", "rm", "rp", "ftz", "sat", "approx", "full")


def _binary(sign: str) -> Callable[[Arithmetic], Translated]:
    def translate(a: Arithmetic) -> Translated:
        kind = a.type
        x, y = a.read(1), a.read(2)
        if is_float(kind):
            a.allow(*FLOAT_FLAGS)
            return a.result(a.rounded(f"{x} {sign} {y}", 2))
        carry = "cc" in a.flags or a.name.endswith("c")
        if not carry and a.name != "mul":
            if "sat" in a.flags and kind == "s32":
                wide = f"(int64_t){x} {sign} {y}"
                return (
                    f"{{ int64_t s = {wide}; {a.result('s > INT32_MAX ? INT32_MAX : s < INT32_MIN ? INT32_MIN : s')} }}"
                )
            a.allow()
            return a.result(f"({c_type(kind)})({x} {sign} {y})")
        a.allow("cc")
        w = 8 * WIDTH[kind]
        carried = " + carry" if a.name == "addc" else " - carry" if a.name == "subc" else ""
        keep = f"carry = (s >> {w}) & 1;" if "cc" in a.flags else ""
        x, y = (f"(unsigned __int128)(uint{w}_t){v}" for v in (x, y))
        return f"{{ unsigned __int128 s = {x} {sign} {y}{carried}; {keep} {a.result(f'(uint{w}_t)s', f'u{w}')} }}"

    return translate


def _product(a: Arithmetic, x: str, y: str) -> tuple[str, str]:
    """The product that .lo, .hi or .wide asks for, with its type."""
    kind = a.type
    w, sign = 8 * WIDTH[kind], "" if kind[0] == "s" else "unsigned "
    full = f"(({sign}__int128){x} * ({sign}__int128){y})"
    if "wide" in a.flags:
        wide = f"{kind[0]}{2 * w}"
        return f"({c_type(wide)})({c_type(wide)}){x} * ({c_type(wide)}){y}", wide
    if "hi" in a.flags:
        return f"({c_type(kind)})({full} >> {w})", kind
    return f"({c_type(kind)})((uint64_t){x} * (uint64_t){y})", kind


def _mul(a: Arithmetic) -> Translated:
    if is_float(a.type):
        return _binary("*")(a)
    a.allow("lo", "hi", "wide")
    c, kind = _product(a, a.read(1), a.read(2))
    return a.result(c, kind)


def _mad(a: Arithmetic) -> Translated:
    if is_float(a.type):
        return _fma(a)
    a.allow("lo", "hi", "wide", "cc")
    c, kind = _product(a, a.read(1), a.read(2))
    third = a.read(3, kind)
    if a.name == "mad" and "cc" not in a.flags:
        return a.result(f"({c_type(kind)})({c} + {third})", kind)
    w = 8 * WIDTH[kind]
    carried = " + carry" if a.name == "madc" else ""
    keep = f"carry = (s >> {w}) & 1;" if "cc" in a.flags else ""
    total = f"(unsigned __int128)(uint{w}_t)({c}) + (uint{w}_t){third}{carried}"
    return f"{{ unsigned __int128 s = {total}; {keep} {a.result(f'(uint{w}_t)s', f'u{w}')} }}"


def _fma(a: Arithmetic) -> Translated:
    a.allow(*FLOAT_FLAGS)
    a.name = "fma"
    call = "fmaf" if a.type == "f32" else "fma"
    return a.result(a.rounded(f"{call}({a.read(1)}, {a.read(2)}, {a.read(3)})", 3))


def _quotient(a: Arithmetic) -> Translated:
    kind = a.type
    if is_float(kind):
        a.allow(*FLOAT_FLAGS)
        return a.result(a.rounded(f"{a.read(1)} / {a.read(2)}", 2))
    a.allow()
    return a.result(f"{a.name}_{kind}({a.read(1)}, {a.read(2)})")


def _function(single: str, double: str = "") -> Callable[[Arithmetic], Translated]:
    """A function of one operand: its C for f32 and for f64."""

    def translate(a: Arithmetic) -> Translated:
        a.allow(*FLOAT_FLAGS)
        form = {"f32": single, "f64": double}.get(a.type)
        if not form:
            raise a.unknown()
        if a.type == "f64" and "approx" in a.flags and a.name in ("rcp", "rsqrt"):
            return a.result(f"{a.name}_approx_f64({a.read(1)})")
        return a.result(a.rounded(form.format(a.read(1)), 1))

    return translate


def _extreme(a: Arithmetic) -> Translated:
    kind = a.type
    a.allow("ftz", "NaN")
    x, y = a.read(1), a.read(2)
    if is_float(kind):
        return a.result(f"{a.name}{'_nan' if 'NaN' in a.flags else ''}_{kind}({x}, {y})")
    return a.result(f"{x} {'<' if a.name == 'min' else '>'} {y} ? {x} : {y}")


def _sign(a: Arithmetic) -> Translated:
    a.allow("ftz")
    kind, x = a.type, a.read(1)
    if a.name == "neg":
        return a.result(f"-{x}" if is_float(kind) else f"({c_type(kind)})-{x}")
    call = "fabsf" if kind == "f32" else "fabs"
    return a.result(f"{call}({x})" if is_float(kind) else f"{x} < 0 ? ({c_type(kind)})-{x} : {x}")


def _logic(a: Arithmetic) -> Translated:
    a.allow()
    kind = a.type
    if a.name == "not":
        return a.result(f"!{a.read(1)}" if kind == "pred" else f"({c_type(kind)})~{a.read(1)}")
    if a.name == "cnot":
        return a.result(f"{a.read(1)} == 0")
    return a.result(f"{a.read(1)} { {'and': '&', 'or': '|', 'xor': '^'}[a.name] } {a.read(2)}")


def _shift(a: Arithmetic) -> Translated:
    a.allow()
    sign = "b" if a.name == "shl" else "s" if a.type[0] == "s" else "u"
    kind = sign + a.type[1:]
    return a.result(f"{a.name}_{kind}({a.read(1, kind)}, {a.read(2, 'u32')})", kind)


def _funnel(a: Arithmetic) -> Translated:
    a.allow("l", "r", "wrap", "clamp")
    n = a.read(3, "u32")
    n = f"({n} & 31)" if "wrap" in a.flags else n
    return a.result(f"shf_{'l' if 'l' in a.flags else 'r'}({a.read(1)}, {a.read(2)}, {n})")


def _counted(a: Arithmetic) -> Translated:
    """popc, clz and brev."""
    a.allow()
    return a.result(f"{a.name}_{a.type}({a.read(1)})", "b32" if a.name != "brev" else a.type)


def _highest(a: Arithmetic) -> Translated:
    """bfind: the highest bit that differs from the sign, or how far to shift it to the top."""
    a.allow("shiftamt")
    w, x = 8 * WIDTH[a.type], a.read(1)
    bits = f"(uint64_t)({x} < 0 ? ({c_type(a.type)})~{x} : {x})" if a.type[0] == "s" else f"(uint64_t){x}"
    place = f"{w - 64} + (int)clz_b64(x)" if "shiftamt" in a.flags else "63 - (int)clz_b64(x)"
    return f"{{ uint64_t x = {bits}; {a.result(f'x ? {place} : -1', 's32')} }}"


def _bit_field(a: Arithmetic) -> Translated:
    a.allow()
    kind, w = a.type, 8 * WIDTH[a.type]
    if a.name == "bfi":
        return a.result(f"bfi({a.read(1)}, {a.read(2)}, {a.read(3, 'u32')}, {a.read(4, 'u32')}, {w})")
    arguments = f"{a.read(1)}, {a.read(2, 'u32')}, {a.read(3, 'u32')}"
    return a.result(f"bfe_s({arguments}, {w})" if kind[0] == "s" else f"bfe_u({arguments})")


def _of_three_words(a: Arithmetic) -> Translated:
    """prmt and lop3."""
    a.allow()
    return a.result(f"{a.name}({', '.join(a.read(k, 'u32') for k in range(1, len(a.i.operands)))})")


def _copysign(a: Arithmetic) -> Translated:
    a.allow()
    return a.result(f"{'copysignf' if a.type == 'f32' else 'copysign'}({a.read(2)}, {a.read(1)})")


ORDERED = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
           "lo": "<", "ls": "<=", "hi": ">", "hs": ">="}  # fmt: skip
OPPOSITE = {"equ": "ne", "neu": "eq", "ltu": "ge", "leu": "gt", "gtu": "le", "geu": "lt"}


def _comparison(a: Arithmetic, how: str, x: str, y: str) -> str:
    """A comparison; one of floats with a NaN is false, and true where it ends in u."""
    if not is_float(a.type):
        return f"({x} {ORDERED[how]} {y})"
    if how in ("num", "nan"):
        return f"({'' if how == 'nan' else '!'}(isnan({x}) || isnan({y})))"
    if how in OPPOSITE:
        return f"(!{_comparison(a, OPPOSITE[how], x, y)})"
    return f"({x} < {y} || {x} > {y})" if how == "ne" else f"({x} {ORDERED[how]} {y})"


def _setp(a: Arithmetic) -> Translated:
    how = a.flags[0]
    if how not in ORDERED and how not in OPPOSITE and how not in ("num", "nan"):
        raise a.unknown()
    joined = next((f for f in a.flags[1:] if f in ("and", "or", "xor")), None)
    a.allow(how, "ftz", *([joined] if joined else []))
    c = _comparison(a, how, a.read(1), a.read(2))

    def with_third(c: str) -> str:
        return (
            f"({c} { {'and': '&', 'or': '|', 'xor': '^'}[joined] } {a.o.read(a.i.operands[3], 'pred')})"
            if joined
            else c
        )

    if a.name == "set":
        kind = a.types[0]
        return a.o.write(a.i.operands[0], kind, f"{with_third(c)} ? {'1.0f' if kind == 'f32' else '-1'} : 0")
    targets = a.i.operands[0].split("|")
    writes = [a.o.write(target.strip(), "pred", value) for target, value in zip(targets, ("yes", "no"), strict=False)]
    return f"{{ uint8_t yes = {with_third(c)}, no = {with_third(f'(!{c})')}; (void)no; {' '.join(writes)} }}"


def _selp(a: Arithmetic) -> Translated:
    a.allow()
    return a.result(f"{a.read(3, 'pred')} ? {a.read(1)} : {a.read(2)}")


def _slct(a: Arithmetic) -> Translated:
    a.allow("ftz")
    kind = a.types[0]
    return a.result(f"{a.read(3, a.types[1])} >= 0 ? {a.read(1, kind)} : {a.read(2, kind)}", kind)


def _mov(a: Arithmetic) -> Translated:
    a.allow()
    target, source = a.i.operands
    if not target.startswith("{") and not source.startswith("{"):
        return a.result(a.read(1))
    low, high = a.o.vector(target), a.o.vector(source)
    w = 8 * WIDTH[a.type] // max(len(low), len(high))
    if len(high) > 1:
        parts = [f"((uint64_t){a.o.read(e, f'b{w}')} << {w * k})" for k, e in enumerate(high)]
        return a.result(" | ".join(parts), f"b{8 * WIDTH[a.type]}")
    writes = [a.o.write(e, f"b{w}", f"(uint{w}_t)(bits >> {w * k})") for k, e in enumerate(low)]
    return f"{{ uint64_t bits = {a.o.read(source, f'b{8 * WIDTH[a.type]}')}; {' '.join(writes)} }}"


WHOLE = {"rni": "rint", "rzi": "trunc", "rmi": "floor", "rpi": "ceil"}


def _cvt(a: Arithmetic) -> Translated:
    if len(a.types) != 2:
        raise a.unknown()
    to, of = a.types
    a.allow("rn", *ROUNDINGS, *WHOLE, "ftz", "sat")
    x = a.read(1, of)
    whole = next((WHOLE[f] for f in a.flags if f in WHOLE), None)
    mode = next((f for f in a.flags if f in ROUNDINGS), None)
    if is_float(of):
        if whole:
            x = f"{whole}{'f' if of == 'f32' else ''}({x})"
        if is_float(to):
            return a.result(f"narrow_{mode}({x})" if mode and (to, of) == ("f32", "f64") else f"({c_type(to)}){x}", to)
        if WIDTH[to] < 4:
            raise a.unknown()
        return a.result(f"{to}_of_{of}({x})", to)
    if is_float(to):
        wide = f"{'s' if of[0] == 's' else 'u'}64"
        return a.result(f"{to}_of_{wide}_{mode}({x})" if mode else f"({c_type(to)}){x}", to)
    if "sat" in a.flags:
        w = 8 * WIDTH[to]
        low, high = (-(1 << w - 1), (1 << w - 1) - 1) if to[0] == "s" else (0, (1 << w) - 1)
        ends = f"s < {low} ? (__int128){low} : s > {high}ull ? (__int128){high}ull : s"
        return f"{{ __int128 s = {x}; {a.result(f'({c_type(to)})({ends})', to)} }}"
    return a.result(f"({c_type(to)}){x}", to)


def _cvta(a: Arithmetic) -> Translated:
    a.allow("to", "global", "shared", "local", "const", "param")
    shared = "shared" in a.flags
    window = "" if not shared else " & ~SHARED_WINDOW" if "to" in a.flags else " | SHARED_WINDOW"
    return a.result(a.read(1) + window)


TABLE: dict[str, Callable[[Arithmetic], Translated]] = {
    "add": _binary("+"), "sub": _binary("-"), "addc": _binary("+"), "subc": _binary("-"), "mul": _mul, "mad": _mad,
    "madc": _mad, "fma": _fma, "div": _quotient, "rem": _quotient, "min": _extreme, "max": _extreme, "abs": _sign,
    "neg": _sign, "and": _logic, "or": _logic, "xor": _logic, "not": _logic, "cnot": _logic, "shl": _shift,
    "shr": _shift, "shf": _funnel, "popc": _counted, "clz": _counted, "brev": _counted, "bfind": _highest,
    "bfi": _bit_field, "bfe": _bit_field, "prmt": _of_three_words, "lop3": _of_three_words, "copysign": _copysign,
    "setp": _setp, "set": _setp, "selp": _selp, "slct": _slct, "mov": _mov, "cvt": _cvt, "cvta": _cvta,
    "rcp": _function("1.0f / {}", "1.0 / {}"), "sqrt": _function("sqrtf({})", "sqrt({})"),
    "rsqrt": _function("1.0f / sqrtf({})", "1.0 / sqrt({})"), "sin": _function("sinf({})"),
    "cos": _function("cosf({})"), "lg2": _function("log2f({})"), "ex2": _function("exp2f({})"),
    "tanh": _function("tanhf({})"),
}  # fmt: skip
