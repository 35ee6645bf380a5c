"""The PTX emulator on single instructions, and what it refuses."""

from typing import Any

import numpy as np
import pytest

from tests.cuda.emulator import Diverged, PtxError, launch, why_unavailable

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))

HEAD = """.version 8.0
.target sm_80
.address_size 64
.visible .entry k(.param .u64 k_1, .param .u64 k_2, .param .u64 k_3, .param .u64 k_4, .param .u64 k_out,
    .param .u64 k_7, .param .u64 k_8)
{
.reg .b16 %h<9>; .reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .pred %p<9>; .reg .f32 %f<9>; .reg .f64 %fd<9>;
ld.param.u64 %rd1, [k_out];
"""


def run_ptx(body: str, threads: int = 1) -> np.ndarray[Any, Any]:
    """Run PTX statements that may store to the eight 64-bit words at %rd1; return these."""
    out = np.zeros(8, np.uint64)
    launch(HEAD + body + "\nret;\n}\n", blocks=1, threads=threads, arguments=[out])
    return out


def test_an_unknown_instruction_is_named() -> None:
    with pytest.raises(PtxError, match=r"PTX line 9: .* does not know: tex\.2d"):
        run_ptx("tex.2d.v4.f32 %f1, [%rd1];")
    with pytest.raises(PtxError, match=r"PTX line 9: .*add\.strange"):
        run_ptx("add.strange.s32 %r1, %r1, %r1;")


# labels belong to their braces, as inline asm needs it
TWO_LABELS = """
    mov.u32 %r1, 0;
    { L: add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 3; @%p1 bra L; }
    { L: add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 7; @%p1 bra L; }
"""
ATOMICS = """
    mov.u32 %r2, 9; st.global.u32 [%rd1+16], %r2; atom.global.cas.b32 %r3, [%rd1+16], 9, 4;
    atom.global.max.u32 %r4, [%rd1+16], 6; atom.global.inc.u32 %r5, [%rd1+16], 6;
    mad.lo.u32 %r1, %r3, 1000, %r4; mad.lo.u32 %r1, %r1, 100, %r5;
"""
NAN, INF, DENORMAL = "0f7FC00000", "0f7F800000", "0f00000001"


@pytest.mark.parametrize(
    ("statement", "want"),
    [
        ("cvt.rni.s32.f32 %r1, 0f40200000;", 2),  # 2.5, to even
        ("cvt.rzi.s32.f32 %r1, 0fC0200000;", 2**32 - 2),
        ("cvt.rmi.s32.f32 %r1, 0fC0200000;", 2**32 - 3),
        ("cvt.rpi.s32.f32 %r1, 0f40200000;", 3),
        (f"cvt.rzi.s32.f32 %r1, {NAN};", 0),
        (f"cvt.rzi.s32.f32 %r1, {INF};", 2**31 - 1),
        ("cvt.rzi.u32.f32 %r1, 0fC0200000;", 0),
        ("cvt.rzi.s32.f64 %r1, 0d7FF8000000000000;", 2**31),
        ("cvt.rz.f32.f64 %f1, 0d3FF00000FFFFFFFF; mov.b32 %r1, %f1;", 0x3F800007),
        ("cvt.rn.f32.f64 %f1, 0d3FF00000FFFFFFFF; mov.b32 %r1, %f1;", 0x3F800008),
        ("cvt.rn.f32.s32 %f1, -3; mov.b32 %r1, %f1;", 0xC0400000),
        ("cvt.rp.f32.u32 %f1, 16777217; mov.b32 %r1, %f1;", 0x4B800001),
        ("mov.u32 %r2, 300; cvt.u32.u8 %r1, %r2;", 44),
        ("mov.u32 %r2, 200; cvt.s32.s8 %r1, %r2;", 2**32 - 56),
        ("mov.u32 %r2, -5; cvt.sat.u8.s32 %r1, %r2;", 0),
        ("fma.rn.f32 %f1, 0f3F800001, 0f3F800001, 0fBF800002; mov.b32 %r1, %f1;", 0x28800000),  # one rounding: 2^-46
        ("fma.rn.sat.f32 %f1, 0f40000000, 0f40000000, 0f00000000; mov.b32 %r1, %f1;", 0x3F800000),
        ("fma.rm.f32 %f1, 0f3F800000, 0f3F800000, 0f33000000; mov.b32 %r1, %f1;", 0x3F800000),
        ("fma.rp.f32 %f1, 0f3F800000, 0f3F800000, 0f33000000; mov.b32 %r1, %f1;", 0x3F800001),
        ("add.rz.f32 %f1, 0f3F800000, 0f33FFFFFF; mov.b32 %r1, %f1;", 0x3F800000),
        (f"min.f32 %f1, {NAN}, 0f40000000; mov.b32 %r1, %f1;", 0x40000000),
        (f"max.NaN.f32 %f1, 0f40000000, {NAN}; mov.b32 %r1, %f1;", 0x7FC00000),
        ("min.f32 %f1, 0f00000000, 0f80000000; mov.b32 %r1, %f1;", 0x80000000),
        (f"add.ftz.f32 %f1, {DENORMAL}, 0f00000000; mov.b32 %r1, %f1;", 0),
        (f"add.f32 %f1, {DENORMAL}, 0f00000000; mov.b32 %r1, %f1;", 1),
        ("div.rn.f32 %f1, 0f3F800000, 0f40400000; mov.b32 %r1, %f1;", 0x3EAAAAAB),
        ("sqrt.rn.f32 %f1, 0f40000000; mov.b32 %r1, %f1;", 0x3FB504F3),
        (f"setp.lt.f32 %p1, {NAN}, 0f00000000; selp.u32 %r1, 1, 0, %p1;", 0),
        (f"setp.ltu.f32 %p1, {NAN}, 0f00000000; selp.u32 %r1, 1, 0, %p1;", 1),
        (f"setp.ne.f32 %p1, {NAN}, 0f00000000; selp.u32 %r1, 1, 0, %p1;", 0),
        (f"setp.neu.f32 %p1, {NAN}, 0f00000000; selp.u32 %r1, 1, 0, %p1;", 1),
        (f"setp.num.f32 %p1, {NAN}, 0f00000000; selp.u32 %r1, 1, 0, %p1;", 0),
        (f"setp.geu.f32 %p1|%p2, {NAN}, 0f00000000; selp.u32 %r1, 1, 0, %p2;", 0),
        ("setp.eq.s32 %p2, 1, 1; setp.gt.and.s32 %p1, 1, -1, !%p2; selp.u32 %r1, 1, 0, %p1;", 0),
        ("setp.gt.u32 %p1, 1, -1; selp.u32 %r1, 1, 0, %p1;", 0),
        ("mov.u32 %r2, 3; shl.b32 %r1, %r2, 40;", 0),
        ("mov.u32 %r2, -8; shr.s32 %r1, %r2, 40;", 2**32 - 1),
        ("mul.hi.u32 %r1, 0x80000000, 6;", 3),
        ("mul.hi.s32 %r1, -1, 6;", 2**32 - 1),
        ("mul.wide.s32 %rd2, -2, 3; cvt.u32.u64 %r1, %rd2;", 2**32 - 6),
        ("mad.lo.s32 %r1, 7, -3, 30;", 9),
        ("add.cc.u32 %r2, -1, 2; addc.u32 %r1, 5, 6;", 12),
        ("sub.cc.u32 %r2, 1, 2; subc.u32 %r1, 5, 1;", 3),
        ("mad.lo.cc.u32 %r2, -1, 2, 2; madc.hi.u32 %r1, -1, 2, 10;", 12),
        ("bfe.u32 %r1, 0xABCD1234, 8, 8;", 0x12),
        ("bfe.s32 %r1, 0x0000F000, 12, 4;", 2**32 - 1),
        ("bfe.s32 %r1, 0x80000000, 28, 20;", 0xFFFFFFF8),
        ("bfi.b32 %r1, 0xF, 0x11111111, 8, 8;", 0x11110F11),
        ("prmt.b32 %r1, 0x33221100, 0x77665544, 0x7610;", 0x77661100),
        ("prmt.b32 %r1, 0x80, 0, 0x8888;", 0xFFFFFFFF),
        ("lop3.b32 %r1, 0xF0F0F0F0, 0xCCCCCCCC, 0xAAAAAAAA, 0xE8;", 0xE8E8E8E8),
        ("shf.l.wrap.b32 %r1, 0x80000001, 0x1, 33;", 3),
        ("shf.r.clamp.b32 %r1, 0x80000001, 0x1, 1;", 0xC0000000),
        ("bfind.u32 %r1, 0x00010000;", 16),
        ("bfind.shiftamt.u32 %r1, 0x00010000;", 15),
        ("bfind.s32 %r1, -1;", 2**32 - 1),
        ("mov.b64 %rd2, {5, 6}; mov.b64 {_, %r1}, %rd2;", 6),
        ("mov.b32 %r2, 0x00050006; mov.b32 {%h1, %h2}, %r2; cvt.u32.u16 %r1, %h2;", 5),
        ("{ .reg .b32 %r1; mov.u32 %r1, 4; } { .reg .b32 t; mov.u32 t, 8; mov.u32 %r1, t; }", 8),
        (TWO_LABELS, 7),
        ("mov.u32 %r2, 1; t: .branchtargets A, B; brx.idx %r2, t; A: mov.u32 %r1, 1; bra C; B: mov.u32 %r1, 2; C:", 2),
        ("mov.u32 %r1, %r7;", 2**32 - 1),  # nobody has set it
        (ATOMICS, 900406),
    ],
)  # fmt: skip
def test_instructions(statement: str, want: int) -> None:
    assert run_ptx(f"{statement}\nst.global.u32 [%rd1], %r1;")[0] == want


def test_divergent_barriers_of_one_warp() -> None:
    body = "mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 5; @%p1 bra A; bar.sync 0;\n bra B; A: bar.sync 0; B:"
    with pytest.raises(Diverged, match=r"different bar\.sync"):
        run_ptx(body, threads=32)


def test_barriers_by_name_and_number_of_threads() -> None:
    """One warp of three produces and goes on without waiting; another takes; all three count themselves."""
    body = """
    .shared .align 8 .b64 cell;
    mov.u32 %r1, %tid.x; shr.u32 %r2, %r1, 5; setp.eq.u32 %p1, %r2, 0; setp.eq.u32 %p2, %r2, 1;
    setp.eq.u32 %p3, %r1, 0; setp.eq.u32 %p4, %r1, 40; setp.lt.u32 %p5, %r1, 33;
    mov.u64 %rd2, 77; @%p3 st.shared.u64 [cell], %rd2; @%p1 bar.arrive 3, 64;
    @%p2 bar.sync 3, 64; @%p4 ld.shared.u64 %rd3, [cell]; @%p4 st.global.u64 [%rd1], %rd3;
    bar.red.popc.u32 %r3, 0, %p5; cvt.u64.u32 %rd4, %r3; @%p4 st.global.u64 [%rd1+8], %rd4;
    """
    assert run_ptx(body, threads=96)[:2].tolist() == [77, 33]


def test_arguments_are_checked() -> None:
    ptx = HEAD.replace(".param .u64 k_8", ".param .u64 k_8, .param .u32 n") + "ret;\n}\n"
    x = np.zeros(32, np.float32)
    launch(ptx, blocks=1, threads=32, arguments=[x, 1])
    with pytest.raises(TypeError, match=r"8 parameters .* make 14"):
        launch(ptx, blocks=1, threads=32, arguments=[x, x])
    with pytest.raises(TypeError, match="argument 1: an integer"):
        launch(ptx, blocks=1, threads=32, arguments=[x, 1.5])
    with pytest.raises(OverflowError, match="argument 1"):
        launch(ptx, blocks=1, threads=32, arguments=[x, 1 << 40])
    with pytest.raises(ValueError, match="argument 0: a contiguous array"):
        launch(ptx, blocks=1, threads=32, arguments=[np.zeros(64, np.float32)[::2], 1])
    with pytest.raises(TypeError, match="argument 1 is an array"):
        launch(ptx, blocks=1, threads=32, arguments=[1, x])
    with pytest.raises(ValueError, match="no dynamic shared memory"):
        launch(ptx, blocks=1, threads=32, arguments=[x, 1], shared=4)
    with pytest.raises(ValueError, match="at most 1024 threads"):
        launch(ptx, blocks=1, threads=1025, arguments=[x, 1])
