/* What PTX's arithmetic means, as C.  Included before the runtime and the translated kernel. */
#include <fenv.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static inline float f32_of(uint32_t b) { float f; memcpy(&f, &b, 4); return f; }
static inline double f64_of(uint64_t b) { double f; memcpy(&f, &b, 8); return f; }
static inline uint32_t bits_f32(float f) { uint32_t b; memcpy(&b, &f, 4); return b; }
static inline uint64_t bits_f64(double f) { uint64_t b; memcpy(&b, &f, 8); return b; }

/* .ftz: a subnormal is a zero of its sign; .sat: into [0, 1], NaN to 0 */
static inline float ftz_f32(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x; }
static inline double ftz_f64(double x) { return fabs(x) < 0x1p-1022 ? copysign(0.0, x) : x; }
static inline float sat_f32(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
static inline double sat_f64(double x) { return x > 0.0 ? (x < 1.0 ? x : 1.0) : 0.0; }

/* min and max: a NaN gives way to a number, -0 is below +0; .NaN: a NaN wins */
#define EXTREMES(T, S)                                                                                                 \
    static inline T min_##S(T a, T b) {                                                                                \
        return a != a ? b : b != b ? a : a < b ? a : b < a ? b : signbit(a) ? a : b; }                                 \
    static inline T max_##S(T a, T b) {                                                                                \
        return a != a ? b : b != b ? a : a > b ? a : b > a ? b : signbit(a) ? b : a; }                                 \
    static inline T min_nan_##S(T a, T b) { return a != a ? a : b != b ? b : min_##S(a, b); }                          \
    static inline T max_nan_##S(T a, T b) { return a != a ? a : b != b ? b : max_##S(a, b); }
EXTREMES(float, f32)
EXTREMES(double, f64)

/* Rounding other than to nearest: rare, so the mode is set around the one operation. */
#define IN_MODE(NAME, T, MODE, EXPRESSION)                                                                             \
    static __attribute__((noinline)) T NAME(T a_, T b_, T c_) {                                                        \
        volatile T a = a_, b = b_, c = c_;                                                                             \
        (void)b, (void)c;                                                                                              \
        fesetround(MODE);                                                                                              \
        volatile T result = EXPRESSION;                                                                                \
        fesetround(FE_TONEAREST);                                                                                      \
        return result; }
#define MODES(NAME, T, EXPRESSION)                                                                                     \
    IN_MODE(NAME##_rz, T, FE_TOWARDZERO, EXPRESSION)                                                                   \
    IN_MODE(NAME##_rm, T, FE_DOWNWARD, EXPRESSION)                                                                     \
    IN_MODE(NAME##_rp, T, FE_UPWARD, EXPRESSION)
MODES(add_f32, float, a + b)
MODES(add_f64, double, a + b)
MODES(sub_f32, float, a - b)
MODES(sub_f64, double, a - b)
MODES(mul_f32, float, a * b)
MODES(mul_f64, double, a * b)
MODES(div_f32, float, a / b)
MODES(div_f64, double, a / b)
MODES(rcp_f32, float, 1.0f / a)
MODES(rcp_f64, double, 1.0 / a)
MODES(sqrt_f32, float, sqrtf(a))
MODES(sqrt_f64, double, sqrt(a))
MODES(fma_f32, float, fmaf(a, b, c))
MODES(fma_f64, double, fma(a, b, c))
#define NARROW(MODE, FLAG)                                                                                             \
    static __attribute__((noinline)) float narrow_##MODE(double a_) {                                                  \
        volatile double a = a_;                                                                                        \
        fesetround(FLAG);                                                                                              \
        volatile float result = (float)a;                                                                              \
        fesetround(FE_TONEAREST);                                                                                      \
        return result; }
NARROW(rz, FE_TOWARDZERO)
NARROW(rm, FE_DOWNWARD)
NARROW(rp, FE_UPWARD)
#define FROM_INTEGER(NAME, T, FROM, MODE, FLAG)                                                                        \
    static __attribute__((noinline)) T NAME##_##MODE(FROM a_) {                                                        \
        volatile FROM a = a_;                                                                                          \
        fesetround(FLAG);                                                                                              \
        volatile T result = (T)a;                                                                                      \
        fesetround(FE_TONEAREST);                                                                                      \
        return result; }
#define FROM_INTEGER_MODES(NAME, T, FROM)                                                                              \
    FROM_INTEGER(NAME, T, FROM, rz, FE_TOWARDZERO)                                                                     \
    FROM_INTEGER(NAME, T, FROM, rm, FE_DOWNWARD)                                                                       \
    FROM_INTEGER(NAME, T, FROM, rp, FE_UPWARD)
FROM_INTEGER_MODES(f32_of_s64, float, int64_t)
FROM_INTEGER_MODES(f32_of_u64, float, uint64_t)
FROM_INTEGER_MODES(f64_of_s64, double, int64_t)
FROM_INTEGER_MODES(f64_of_u64, double, uint64_t)

/* rcp.approx.ftz.f64 and rsqrt: the upper word of the operand gives the upper word of the result */
static inline double upper(double x) { return f64_of(bits_f64(x) & 0xFFFFFFFF00000000ull); }
static inline double rcp_approx_f64(double x) { return upper(1.0 / ftz_f64(upper(x))); }
static inline double rsqrt_approx_f64(double x) { return upper(1.0 / sqrt(ftz_f64(upper(x)))); }

/* Float to integer: out of range to the nearest end; NaN to 0, or to 1 << 63 where 64 bits take part. */
#define TO_INTEGER(NAME, T, F, LOW, HIGH, BELOW, NOTHING)                                                              \
    static inline T NAME(F x) {                                                                                        \
        return x != x ? (T)(NOTHING) : x <= (F)(LOW) ? (T)(BELOW) : x >= (F)(HIGH) ? (T)~(T)(BELOW) : (T)x; }
TO_INTEGER(s32_of_f32, int32_t, float, -0x1p31f, 0x1p31f, INT32_MIN, 0)
TO_INTEGER(u32_of_f32, uint32_t, float, 0.0f, 0x1p32f, 0, 0)
TO_INTEGER(s64_of_f32, int64_t, float, -0x1p63f, 0x1p63f, INT64_MIN, INT64_MIN)
TO_INTEGER(u64_of_f32, uint64_t, float, 0.0f, 0x1p64f, 0, 1ull << 63)
TO_INTEGER(s32_of_f64, int32_t, double, -0x1p31, 0x1p31, INT32_MIN, INT32_MIN)
TO_INTEGER(u32_of_f64, uint32_t, double, 0.0, 0x1p32, 0, 1u << 31)
TO_INTEGER(s64_of_f64, int64_t, double, -0x1p63, 0x1p63, INT64_MIN, INT64_MIN)
TO_INTEGER(u64_of_f64, uint64_t, double, 0.0, 0x1p64, 0, 1ull << 63)

/* Shifts clamp their amount; a division by zero gives all ones, as machines do, and the remainder its dividend. */
#define INTEGERS(W)                                                                                                    \
    static inline uint##W##_t shl_b##W(uint##W##_t a, uint32_t n) { return n >= W ? 0 : (uint##W##_t)(a << n); }       \
    static inline uint##W##_t shr_u##W(uint##W##_t a, uint32_t n) { return n >= W ? 0 : (uint##W##_t)(a >> n); }       \
    static inline int##W##_t shr_s##W(int##W##_t a, uint32_t n) { return (int##W##_t)(a >> (n >= W ? W - 1 : n)); }    \
    static inline uint##W##_t div_u##W(uint##W##_t a, uint##W##_t b) { return b ? a / b : (uint##W##_t)-1; }           \
    static inline uint##W##_t rem_u##W(uint##W##_t a, uint##W##_t b) { return b ? a % b : a; }                         \
    static inline int##W##_t div_s##W(int##W##_t a, int##W##_t b) { return b == 0 ? -1 : b == -1 ? -a : a / b; }       \
    static inline int##W##_t rem_s##W(int##W##_t a, int##W##_t b) { return b == 0 ? a : b == -1 ? 0 : a % b; }
INTEGERS(16)
INTEGERS(32)
INTEGERS(64)

static inline uint32_t popc_b32(uint32_t a) { return (uint32_t)__builtin_popcount(a); }
static inline uint32_t popc_b64(uint64_t a) { return (uint32_t)__builtin_popcountll(a); }
static inline uint32_t clz_b32(uint32_t a) { return a ? (uint32_t)__builtin_clz(a) : 32; }
static inline uint32_t clz_b64(uint64_t a) { return a ? (uint32_t)__builtin_clzll(a) : 64; }
static inline uint64_t brev_b64(uint64_t a) {
    uint64_t r = 0;
    for (int k = 0; k < 64; k++) r |= (a >> k & 1) << (63 - k);
    return r; }
static inline uint32_t brev_b32(uint32_t a) { return (uint32_t)(brev_b64(a) >> 32); }

/* bit fields: position and length are eight bits wide */
static inline uint64_t field_mask(uint32_t length) { return length >= 64 ? ~0ull : (1ull << length) - 1; }
static inline uint64_t bfe_u(uint64_t a, uint32_t pos, uint32_t len) {
    pos &= 255, len &= 255;
    return (pos >= 64 ? 0 : a >> pos) & field_mask(len); }
static inline int64_t bfe_s(int64_t a, uint32_t pos, uint32_t len, uint32_t width) {
    pos &= 255, len &= 255;
    if (len == 0) return 0;
    uint32_t last = pos + len - 1 < width - 1 ? pos + len - 1 : width - 1; /* the bit that gives the sign */
    uint64_t sign = (uint64_t)a >> last & 1, field = pos >= width ? 0 : (uint64_t)a >> pos;
    uint32_t kept = pos >= width ? 0 : last - pos + 1;
    return (int64_t)((field & field_mask(kept)) | (sign ? ~field_mask(kept) : 0)); }
static inline uint64_t bfi(uint64_t a, uint64_t b, uint32_t pos, uint32_t len, uint32_t width) {
    pos &= 255, len &= 255;
    if (pos >= width || len == 0) return b;
    uint64_t mask = field_mask(len) << pos;
    return (b & ~mask) | (a << pos & mask); }
static inline uint32_t prmt(uint32_t a, uint32_t b, uint32_t c) {
    uint64_t bytes = (uint64_t)b << 32 | a;
    uint32_t d = 0;
    for (int k = 0; k < 4; k++) {
        uint32_t selector = c >> 4 * k & 15, byte = bytes >> 8 * (selector & 7) & 255;
        d |= (selector & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * k;
    }
    return d; }
static inline uint32_t lop3(uint32_t a, uint32_t b, uint32_t c, uint32_t table) {
    uint32_t d = 0;
    for (int k = 0; k < 8; k++)
        if (table >> k & 1) d |= (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
    return d; }
static inline uint32_t shf_l(uint32_t a, uint32_t b, uint32_t n) {
    return n == 0 ? b : n >= 32 ? a : b << n | a >> (32 - n); }
static inline uint32_t shf_r(uint32_t a, uint32_t b, uint32_t n) {
    return n == 0 ? a : n >= 32 ? b : b << (32 - n) | a >> n; }
