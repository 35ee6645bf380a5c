"""PTX instructions on memory, and those by which threads meet, as C statements."""

from collections.abc import Callable

from tests.cuda.emulator.arithmetic import Arithmetic, Translated
from tests.cuda.emulator.operands import c_type, is_float
from tests.cuda.emulator.parse import WIDTH

SPACES = ("global", "shared", "local", "const", "param")
STRONG = ("volatile", "relaxed", "acquire", "release", "acq_rel", "mmio", "cv")
ORDERS = (*STRONG, "weak", "cta", "cluster", "gpu", "sys")
HINTS = ("nc", "ca", "cg", "cs", "lu", "wb", "wt", "L1::no_allocate", "L1::evict_first", "L1::evict_last",
         "L1::evict_normal", "L2::128B", "L2::64B", "L2::256B")  # fmt: skip
SHUFFLES = {"up": "SHFL_UP", "down": "SHFL_DOWN", "bfly": "SHFL_BFLY", "idx": "SHFL_IDX"}


def _space(a: Arithmetic, named: str | None) -> str:
    """The state space of an access: as written, or that of the variable it names, or generic."""
    flags = [f.removesuffix("::cta").removesuffix("::entry").removesuffix("::func") for f in a.flags]
    a.flags = flags
    return next((f for f in flags if f in SPACES), named if named in SPACES else "generic")


def _pointer(a: Arithmetic, operand: str, size: int, access: str) -> tuple[str, str, str]:
    """What goes before an access, the pointer to its bytes, and what goes after it where others may watch it."""
    place, c = a.o.address(operand)
    space = _space(a, place.space if place else None)
    if space == "param":
        if place is None:
            raise a.o.error("a parameter is reached by its name only")
        return "", c, ""
    if place is not None and place.space != space and space != "generic":
        raise a.o.error(f"a variable of space {place.space} in an access of space {space}")
    strong = any(f in STRONG for f in a.flags) and space != "local"
    space = "global" if space == "const" else space
    pointer = f"at_{space}(t, {c}, {size}, {'STRONG_' if strong else ''}{access}, {a.i.line})"
    return (f"give_way(t, {a.i.line}); ", pointer, _order(a, access)) if strong else ("", pointer, "")


def _order(a: Arithmetic, access: str) -> str:
    """What a strong access at p means for the order of others, as C; .cta orders nothing between blocks."""
    wide = "cta" not in a.flags
    acquires = wide and ("acquire" in a.flags or "acq_rel" in a.flags)
    releases = wide and ("release" in a.flags or "acq_rel" in a.flags)
    reads, writes = access != "WRITE", access != "READ"
    before = "acquire(t, p); " if acquires else "read_relaxed(t, p); "
    after = "release(t, p); " if releases else "write_relaxed(t, p); "
    return (before if reads else "") + (after if writes else "")


def _lanes(a: Arithmetic) -> int:
    return next((int(f[1:]) for f in a.flags if f in ("v2", "v4", "v8")), 1)


def _load(a: Arithmetic) -> Translated:
    kind, n = a.type, _lanes(a)
    elements = a.o.vector(a.i.operands[0])
    if len(elements) != n:
        raise a.o.error(f"{len(elements)} registers for {n} values")
    before, pointer, after = _pointer(a, a.i.operands[1], n * WIDTH[kind], "READ")
    a.allow(*SPACES, *ORDERS, *HINTS, "v2", "v4", "v8")
    target = [a.o.write(e, kind, f"x[{k}]") for k, e in enumerate(elements)]
    load = f"{before}{c_type(kind)} x[{n}]; const uint8_t *p = {pointer}; memcpy(x, p, sizeof x); {after}"
    return f"{{ {load}{' '.join(target)} }}"


def _store(a: Arithmetic) -> Translated:
    kind, n = a.type, _lanes(a)
    elements = a.o.vector(a.i.operands[1])
    if len(elements) != n:
        raise a.o.error(f"{len(elements)} registers for {n} values")
    before, pointer, after = _pointer(a, a.i.operands[0], n * WIDTH[kind], "WRITE")
    a.allow(*SPACES, *ORDERS, *HINTS, "v2", "v4", "v8")
    values = ", ".join(a.o.read(e, kind) for e in elements)
    store = f"uint8_t *p = {pointer}; memcpy(p, x, sizeof x); {after}"
    return f"{{ {before}{c_type(kind)} x[{n}] = {{{values}}}; {store}}}"


def _updated(a: Arithmetic, how: str, value: str) -> str:
    """What an atomic leaves behind, of the old value x and its operand."""
    kind = a.type
    if how in ("add", "exch", "and", "or", "xor"):
        return value if how == "exch" else f"x {dict(add='+', xor='^', **{'and': '&', 'or': '|'})[how]} {value}"
    if how in ("min", "max"):
        return (
            f"{how}_{kind}(x, {value})" if is_float(kind) else f"x {'<' if how == 'min' else '>'} {value} ? x : {value}"
        )
    if how == "inc":
        return f"x >= {value} ? 0 : x + 1"
    if how == "dec":
        return f"x == 0 || x > {value} ? {value} : x - 1"
    raise a.unknown()


def _atomic(a: Arithmetic) -> Translated:
    kind, returns = a.type, a.name == "atom"
    operands = a.i.operands if returns else ("_", *a.i.operands)
    place, c = a.o.address(operands[1])
    space = _space(a, place.space if place else None)
    a.allow("global", "shared", *ORDERS, "add", "exch", "cas", "min", "max", "and", "or", "xor", "inc", "dec", "noftz")
    how = next((f for f in a.flags if f not in ("global", "shared", *ORDERS, "noftz")), "")
    value = a.o.read(operands[2], kind)
    new = f"x == {value} ? {a.o.read(operands[3], kind)} : x" if how == "cas" else _updated(a, how, value)
    pointer = f"at_{space}(t, {c}, {WIDTH[kind]}, STRONG_WRITE, {a.i.line})"
    keep = "(void)x;" if operands[0] == "_" else a.o.write(operands[0], kind, "x")
    return (
        f"{{ give_way(t, {a.i.line}); {c_type(kind)} x, y; uint8_t *p = {pointer}; memcpy(&x, p, sizeof x); "
        f"y = ({c_type(kind)})({new}); memcpy(p, &y, sizeof y); {_order(a, 'BOTH')}{keep} }}"
    )


def _fence(a: Arithmetic) -> Translated:
    a.allow("gl", "cta", "sys", "gpu", "cluster", "sc", "acq_rel", "acquire", "release")
    return ";" if "cta" in a.flags else "fence(t);"


def _barrier(a: Arithmetic) -> Translated:
    """bar.sync, bar.arrive and bar.red, under both of their names."""
    if a.flags[:1] == ["warp"]:
        a.allow("warp", "sync")
        return f"meet(t, WARP_SYNC, {a.o.read(a.i.operands[0], 'u32')}, 0, 0, 0, {a.i.line});"
    a.allow("cta", "sync", "arrive", "red", "and", "or", "popc", "aligned")
    operands = list(a.i.operands)
    if "red" in a.flags:
        how = next(f for f in a.flags if f in ("and", "or", "popc"))
        kind = "u32" if how == "popc" else "pred"
        count = a.o.read(operands[2], "u32") if len(operands) == 4 else "0"
        brought = a.o.read(operands[-1], "pred")
        call = f"barrier(t, {a.o.read(operands[1], 'u32')}, {count}, RED_{how.upper()}, {brought}, {a.i.line})"
        return a.o.write(operands[0], kind, call)
    name = a.o.read(operands[0], "u32")
    count = a.o.read(operands[1], "u32") if len(operands) == 2 else "0"
    if "arrive" in a.flags:
        return f"barrier_arrive(t, {name}, {count}, {a.i.line});"
    return f"barrier(t, {name}, {count}, NO_REDUCTION, 0, {a.i.line});"


def _shuffle(a: Arithmetic) -> Translated:
    a.allow("sync", *SHUFFLES)
    how = next(f for f in a.flags if f in SHUFFLES)
    value, b, c, mask = (a.o.read(x, "u32") for x in a.i.operands[1:5])
    target, _, flag = a.i.operands[0].partition("|")
    writes = a.o.write(target.strip(), "b32", "x") + (a.o.write(flag.strip(), "pred", "t->flag") if flag else "")
    return f"{{ uint32_t x = meet(t, {SHUFFLES[how]}, {mask}, {value}, {b}, {c}, {a.i.line}); {writes} }}"


def _vote(a: Arithmetic) -> Translated:
    a.allow("sync", "all", "any", "uni", "ballot")
    how = next(f for f in a.flags if f in ("all", "any", "uni", "ballot"))
    brought, mask = a.o.read(a.i.operands[1], "pred"), a.o.read(a.i.operands[2], "u32")
    call = f"meet(t, VOTE_{how.upper()}, {mask}, {brought}, 0, 0, {a.i.line})"
    return a.o.write(a.i.operands[0], "b32" if how == "ballot" else "pred", call)


def _activemask(a: Arithmetic) -> Translated:
    """Threads of a warp run apart here: each sees itself only, which a machine may do as well."""
    return a.o.write(a.i.operands[0], "b32", "1u << t->lane")


def _copy_async(a: Arithmetic) -> Translated:
    """cp.async copies at once, the earliest that a machine may do it; commits and waits are nothing then."""
    if "commit_group" in a.flags or "wait_group" in a.flags or "wait_all" in a.flags:
        return ";"
    a.flags = [f.removesuffix("::cta") for f in a.flags]
    a.allow("async", "ca", "cg", "shared", "global", *HINTS)
    size = int(a.i.operands[2], 0)
    target, source = a.o.address(a.i.operands[0])[1], a.o.address(a.i.operands[1])[1]
    read = a.o.read(a.i.operands[3], "u32") if len(a.i.operands) > 3 else str(size)
    return (
        f"{{ uint8_t x[{size}] = {{0}}; uint32_t n = {read}; "
        f"if (n) memcpy(x, at_global(t, {source}, {size}, READ, {a.i.line}), n); "
        f"memcpy(at_shared(t, {target}, {size}, WRITE, {a.i.line}), x, {size}); }}"
    )


TABLE: dict[str, Callable[[Arithmetic], Translated]] = {
    "ld": _load, "ldu": _load, "st": _store, "atom": _atomic, "red": _atomic, "membar": _fence, "fence": _fence,
    "bar": _barrier, "barrier": _barrier, "shfl": _shuffle, "vote": _vote, "activemask": _activemask,
    "prefetch": lambda a: ";", "prefetchu": lambda a: ";", "cp": _copy_async,
    "nanosleep": lambda a: f"give_way(t, {a.i.line});",
}  # fmt: skip
