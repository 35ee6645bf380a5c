"""Names and operands of PTX as C expressions of a type.

A register is a C variable of its declared type; a reading or writing at another type of the same bits goes through the
bits, as PTX's untyped registers do.
"""

import re
import struct
from dataclasses import dataclass

from tests.cuda.emulator.parse import WIDTH, Instruction, PtxError, Variable

SPECIAL = {
    "%tid.x": "t->tid", "%tid.y": "0u", "%tid.z": "0u",
    "%ntid.x": "R.launch->threads", "%ntid.y": "1u", "%ntid.z": "1u",
    "%ctaid.x": "t->block->id", "%ctaid.y": "0u", "%ctaid.z": "0u",
    "%nctaid.x": "R.launch->blocks", "%nctaid.y": "1u", "%nctaid.z": "1u",
    "%laneid": "t->lane", "%warpid": "(t->tid / 32)", "%nwarpid": "((R.launch->threads + 31) / 32)", "WARP_SZ": "32u",
    "%lanemask_eq": "(1u << t->lane)", "%lanemask_lt": "((1u << t->lane) - 1)", "%lanemask_le": "((2u << t->lane) - 1)",
    "%lanemask_ge": "(~((1u << t->lane) - 1))", "%lanemask_gt": "(~((2u << t->lane) - 1))",
    "%dynamic_smem_size": "R.launch->shared_dynamic", "%total_smem_size": "R.shared_size",
    "%smid": "t->block->id", "%clock": "((uint32_t)R.steps)", "%clock64": "((uint64_t)R.steps)",
    "%globaltimer": "((uint64_t)(R.launch->steps - R.steps))",
}  # fmt: skip


def c_name(name: str) -> str:
    """Return a C identifier for a PTX name, one for one."""
    return "v_" + re.sub(r"\W", lambda m: f"_{ord(m.group()):x}_", name)


def is_float(kind: str) -> bool:
    """Say whether a PTX type is a floating-point type."""
    return kind in ("f32", "f64")


def c_type(kind: str) -> str:
    """Return the C type of a PTX type."""
    if is_float(kind):
        return "float" if kind == "f32" else "double"
    if kind == "pred":
        return "uint8_t"
    return f"{'' if kind[0] == 's' else 'u'}int{8 * WIDTH[kind]}_t"


@dataclass(frozen=True)
class Place:
    """What a name stands for: a register of a type, or a variable at a C expression."""

    space: str  # "reg", or a state space
    type: str
    c: str  # the variable's C name, or the C expression of its address in its space


class Names:
    """The scopes of a function, innermost last."""

    def __init__(self, module: dict[str, Place]) -> None:
        self.scopes: list[dict[str, Place]] = [module]

    def __getitem__(self, name: str) -> Place | None:
        return next((scope[name] for scope in reversed(self.scopes) if name in scope), None)

    def add(self, name: str, place: Place) -> None:
        """Declare a name in the innermost scope."""
        self.scopes[-1][name] = place

    def parameter(self, variable: Variable) -> None:
        """Declare a .param: its C variable is a pointer to its bytes."""
        self.add(variable.name, Place("param", variable.type, c_name(variable.name)))


def literal(text: str, kind: str) -> str | None:
    """Return a number as a C expression of a type; None: the text is no number."""
    width = 8 * WIDTH[kind]
    if bits := re.fullmatch(r"0([fdFD])([0-9A-Fa-f]{8,16})", text):
        single = f"f32_of(0x{bits[2]}u)" if bits[1] in "fF" else f"f64_of(0x{bits[2]}ull)"
        return single if is_float(kind) else f"(({c_type(kind)})0x{bits[2]}ull)"
    if re.fullmatch(r"-?(0[xX][0-9A-Fa-f]+|\d+)U?", text):
        number = text.rstrip("U")
        sign, digits = (-1, number[1:]) if number[0] == "-" else (1, number)
        octal = len(digits) > 1 and digits[0] == "0" and digits[1] not in "xX"
        value = sign * int(digits, 8 if octal else 0)
        return (
            f"(({c_type(kind)})0x{value % (1 << width):x}ull)" if not is_float(kind) else f"(({c_type(kind)}){value})"
        )
    if re.fullmatch(r"-?\d*\.\d*([eE][-+]?\d+)?", text) and is_float(kind):
        code, name = ("f", "f32_of(0x{:x}u)") if kind == "f32" else ("d", "f64_of(0x{:x}ull)")
        return name.format(int.from_bytes(struct.pack(">" + code, float(text)), "big"))
    return None


def convert(c: str, have: str, want: str) -> str:
    """Return the bits of a C expression of PTX type `have` as type `want`."""
    if have == want or {have, want} <= {"f32"}:
        return c
    if have == "pred" or want == "pred":
        return f"({c} != 0)" if want == "pred" else f"(({c_type(want)}){c})"
    if is_float(have):
        bits = f"bits_{have}({c})"
        return f"{want}_of({bits})" if is_float(want) else f"(({c_type(want)}){bits})"
    if is_float(want):
        return f"{want}_of((uint{8 * WIDTH[want]}_t){c})"
    return f"(({c_type(want)}){c})"


class Operands:
    """Reads and writes of one instruction's operands."""

    def __init__(self, names: Names, instruction: Instruction) -> None:
        self.names, self.instruction = names, instruction

    def error(self, what: str) -> PtxError:
        """Return an error that names the instruction."""
        return PtxError(self.instruction.line, what, self.instruction.text)

    def read(self, operand: str, kind: str) -> str:
        """Return an operand as a C expression of PTX type `kind`."""
        if kind == "pred" and operand.startswith("!"):
            return f"(!{self.read(operand[1:].strip(), 'pred')})"
        if operand in SPECIAL:
            return f"(({c_type(kind)}){SPECIAL[operand]})"
        if (number := literal(operand, "u8" if kind == "pred" else kind)) is not None:
            return number
        name, _, offset = operand.partition("+")
        place = self.names[name.strip()]
        if place is None:
            raise self.error(f"an unknown operand {operand!r}")
        if place.space == "reg":
            if offset:
                raise self.error(f"an operand of unknown form {operand!r}")
            return convert(place.c, place.type, kind)
        if place.space == "param":
            raise self.error(f"the address of parameter {operand!r}")
        return f"(({c_type(kind)})({place.c} + {int(offset or '0', 0)}))"

    def write(self, operand: str, kind: str, c: str) -> str:
        """Return the C statement that gives a register a C expression of PTX type `kind`."""
        if operand == "_":
            return f"(void)({c});"
        place = self.names[operand]
        if place is None or place.space != "reg":
            raise self.error(f"{operand!r} is no register")
        if place.type != "pred" and is_float(place.type) and WIDTH[place.type] != WIDTH[kind]:
            raise self.error(f"a value of type {kind} for the register {operand!r} of type {place.type}")
        return f"{place.c} = {convert(f'({c})', kind, place.type)};"

    def address(self, operand: str) -> tuple[Place | None, str]:
        """Return what an address [name+offset] names, and the address as a C expression."""
        match = re.fullmatch(r"\[\s*([%\w$.]+)\s*(?:\+\s*(-?\s*\w+))?\s*\]", operand)
        if not match:
            raise self.error(f"an address of unknown form {operand!r}")
        offset = int((match[2] or "0").replace(" ", ""), 0)
        place = self.names[match[1]]
        if place is None:
            number = literal(match[1], "u64")
            if number is None:
                raise self.error(f"an unknown name in {operand!r}")
            return None, f"({number} + {offset})"
        if place.space == "reg":
            return None, f"({convert(place.c, place.type, 'u64')} + (uint64_t){offset})"
        return place, f"({place.c} + {offset})"

    def vector(self, operand: str) -> list[str]:
        """Return the elements of {a, b}, or the operand alone."""
        return [e.strip() for e in operand[1:-1].split(",")] if operand.startswith("{") else [operand]
