/* The optimizer step for float32 parameters on the CPU: one pass over memory. Under the robust rule a second one follows for
   the tensors whose size of a step could not be known before.

   Plain C with OpenMP, called through ctypes by cpu_kernel.py, which also has the layout of `Step` and `Ends`. The list form in
   base.py, robust_formulas.py and paper_rule.py is the reference: both take the same steps up to rounding.

   A task is a piece of one tensor of at most 16,384 elements. Sums over a tensor are taken task by task, in the order of
   the tasks, so results are the same to the last bit for any number of threads.

   Gradient sums are float32, or bfloat16 where `half` says so: those are the upper 16 bits of a float32. */

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef float f32;
typedef double f64;
typedef int32_t i32;
typedef int64_t i64;
typedef uint16_t u16;
typedef uint32_t u32;

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define EVERY_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EVERY_CPU
#endif
#define KERNEL_VERSION 2  /* goes up with each change of what the functions do; cpu_kernel.py has the same number */
#define INLINE static inline __attribute__((always_inline))

enum { ADAM, BELIEF, SGD, NESTEROV, PLAIN };  /* directions: PLAIN is SGD without momentum */
enum { PAPER, HOLD, MEASURE, MEASURE_L2, MOVE };  /* what a walk over the elements does: see below */

#define DITHER_BY_ELEMENT 0x9E3779B1u /* the golden ratio of 2**32: see sums.add_to_sums */
#define LARGEST_FIRST_MOVE 16 /* times weight_rms: how far the first pass moves an element, so that few bits are lost */

typedef struct { i64 tensor, start, len; } Task;

typedef struct {  /* one step of many tensors; the same fields in the same order as cpu_kernel.Step */
    i64 num_tensors, num_tasks;
    const Task *tasks;
    f32 *const *param, *const *grad, *const *avg, *const *avg_sq;  /* one pointer for each tensor */
    void *const *sum;
    const uint8_t *half; /* of each tensor: whether its sum is bfloat16 */
    f32 *const *gains;  /* paper's rule: a gain for each element */
    const f32 *a, *b;   /* of each tensor: see places.Direction */
    const f32 *decay;   /* of each tensor: what multiplies the weights */
    f32 *gain, *weight_rms, *update_rms, *last_rms, *elements_seen, *clip_coef, *steps_clipped, *effective_lr, *update_ratio;
    f64 *squares;       /* robust rule: scratch, one for each task */
    f32 *rate;          /* robust rule: scratch, one for each task: what multiplied the direction in the first pass */
    i32 *cut;           /* robust rule: scratch, one for each task: elements that would have moved too far in it */
    f32 weight1, beta2, weight2, eps, momentum, sign, l2, lr;
    f32 max_update_ratio, lr_decay, fall, hold;
    i32 kind, rule_is_paper, threads;
    u32 dither;         /* of this step: see sums.add_to_sums */
} Step;

typedef struct {  /* what one walk needs, besides the pointers */
    f32 a, b, rate, decay;
    f32 held, furthest;  /* HOLD and MOVE: the rate of the first pass, and how far it moves an element */
    i32 *cut;            /* HOLD: counts the elements that would have moved further */
} Own;

INLINE f32 of_bits(u32 bits) { f32 x; memcpy(&x, &bits, 4); return x; }
INLINE u32 bits_of(f32 x) { u32 bits; memcpy(&bits, &x, 4); return bits; }
INLINE f32 widen(u16 half) { return of_bits((u32)half << 16); }

/* A sum in bfloat16 with one more gradient. It is rounded up or down by the `dither`, whose upper 16 bits say how much of a
   last place must be there to round up. */
INLINE u16 add_half(u16 sum, f32 grad, u32 dither) {
    const f32 x = widen(sum) + grad;
    return x == x ? (u16)((bits_of(x) + (dither >> 16)) >> 16) : 0x7fc0;
}

INLINE f32 within(f32 x, f32 limit) {
    const f32 y = x > limit ? limit : x;
    return y < -limit ? -limit : y;
}

/* Walks over the elements of one task. PAPER takes a whole step. The robust rule must know the size of a direction before it
   knows how far to move along it. MEASURE updates the averages and the sum, and returns the sum of the squares of the
   direction (MEASURE_L2 where a penalty needs the weights). HOLD does the same, and moves the weights at the rate `held`.
   MOVE computes the direction once more and moves the weights by what HOLD left. `kind`, `mode` and `half` are constants
   where this is called, so each call compiles to a loop of its own. */
INLINE f32 walk(
    const i32 kind, const i32 mode, const i32 half, const Step *restrict h, const Task *restrict t, Own own
) {
    const i64 i = t->tensor, at = t->start;
    const i32 n = (i32)t->len;
    f32 *restrict param = h->param[i] + at;
    const f32 *restrict grad = h->grad[i] + at;
    f32 *restrict avg = kind == PLAIN ? 0 : h->avg[i] + at;
    f32 *restrict avg_sq = kind <= BELIEF ? h->avg_sq[i] + at : 0;
    f32 *restrict sum = mode == MOVE || half ? 0 : (f32 *)h->sum[i] + at;
    u16 *restrict half_sum = mode == MOVE || !half ? 0 : (u16 *)h->sum[i] + at;
    const f32 held = own.held, furthest = own.furthest;
    const u32 dither = h->dither + (u32)at * DITHER_BY_ELEMENT;
    const f32 *restrict gains = mode == PAPER ? h->gains[i] + at : 0;
    const f32 w1 = h->weight1, b2 = h->beta2, w2 = h->weight2, eps = h->eps, momentum = h->momentum;
    const f32 sign = h->sign, l2 = h->l2, a = own.a, b = own.b, rate = own.rate, decay = own.decay;
    const int reads_param = mode != MEASURE, reads_grad = mode != MOVE || kind >= NESTEROV;
    f32 squares = 0;
    i32 cut = 0;
#pragma omp simd reduction(+ : squares, cut)
    for (i32 j = 0; j < n; j++) {
        f32 p = reads_param ? param[j] : 0, g = reads_grad ? grad[j] : 0, d;
        f32 x = mode == MEASURE ? sign * g : sign * g + l2 * p;
        if (mode != MOVE && half) half_sum[j] = add_half(half_sum[j], g, dither + (u32)j * DITHER_BY_ELEMENT);
        else if (mode != MOVE) sum[j] += g;
        if (kind <= BELIEF) {
            f32 m = avg[j], v = avg_sq[j];
            if (mode != MOVE) {
                m += w1 * (x - m);
                f32 y = kind == BELIEF ? x - m : x;
                v = b2 * v + w2 * y * y + (kind == BELIEF ? eps : 0);
                avg[j] = m;
                avg_sq[j] = v;
            }
            d = m * (1 / (sqrtf(v) * a + b));
        } else if (kind == PLAIN) {
            d = x;
        } else {
            f32 m = avg[j];
            if (mode != MOVE) {
                m = a * m + b * x;
                avg[j] = m;
            }
            d = kind == NESTEROV ? x + momentum * m : m;
        }
        if (mode == PAPER) param[j] = p * decay - rate * (gains[j] * d);
        else if (mode == MOVE) param[j] = p * decay - (rate * d - within(held * d, furthest));
        else squares += d * d;
        if (mode == HOLD) {
            const f32 far = held * d, moved = within(far, furthest);
            param[j] = p * decay - moved;
            cut += moved != far;
        }
    }
    if (mode == HOLD) *own.cut = cut;
    return squares;
}

#define WALK(name, kind, mode) \
    EVERY_CPU static f32 name(const Step *h, const Task *t, Own own) { \
        return mode != MOVE && mode != PAPER && h->half[t->tensor] ? walk(kind, mode, 1, h, t, own) \
                                                                  : walk(kind, mode, 0, h, t, own); \
    }
#define WALKS(name, kind) \
    WALK(name##_paper, kind, PAPER) \
    WALK(name##_hold, kind, HOLD) \
    WALK(name##_measure, kind, MEASURE) \
    WALK(name##_measure_l2, kind, MEASURE_L2) \
    WALK(name##_move, kind, MOVE)
WALKS(adam, ADAM)
WALKS(belief, BELIEF)
WALKS(sgd, SGD)
WALKS(nesterov, NESTEROV)
WALKS(plain, PLAIN)

typedef f32 (*Walk)(const Step *, const Task *, Own);
#define OF_EVERY_KIND(mode) {adam_##mode, belief_##mode, sgd_##mode, nesterov_##mode, plain_##mode}
static const Walk PAPER_WALKS[] = OF_EVERY_KIND(paper);
static const Walk HOLDS[] = OF_EVERY_KIND(hold);
static const Walk MEASURES[] = OF_EVERY_KIND(measure);
static const Walk MEASURES_L2[] = OF_EVERY_KIND(measure_l2);
static const Walk MOVES[] = OF_EVERY_KIND(move);

/* robust_formulas.lr_of of one tensor, in the same order of operations. Comparisons let NaN through. */
static f32 lr_of(const Step *h, i64 i, f32 rms, f32 *update_rms, f32 *clip_coef) {
    const f32 fallen = h->update_rms[i] + h->fall * (rms - h->update_rms[i]);
    *update_rms = rms > fallen ? rms : fallen;
    const f32 known = *update_rms < 1e-30f ? 1e-30f : *update_rms;
    const f32 ratio = h->gain[i] * rms / known, room = h->max_update_ratio / (ratio < 1e-30f ? 1e-30f : ratio);
    *clip_coef = room > 1 ? 1 : room;
    const f32 scale = h->gain[i] * *clip_coef * h->weight_rms[i] / known;
    return *update_rms == 0 ? 0 : scale * h->lr_decay;
}

/* The learning rate of a tensor, if its direction is as large as in the step before; 0 where none is held. */
static f32 held_lr(const Step *h, i64 i) {
    f32 update_rms, clip_coef;
    return h->hold > 0 && h->last_rms[i] > 0 ? lr_of(h, i, h->last_rms[i], &update_rms, &clip_coef) : 0;
}

/* robust_formulas.scale_updates of one tensor: `squares` are those of its direction. */
static void scale_update(const Step *h, i64 i, f64 squares) {
    const f32 rms = (f32)sqrt(squares) / sqrtf(h->elements_seen[i]), held = held_lr(h, i);
    f32 update_rms, clip_coef;
    const f32 exact = lr_of(h, i, rms, &update_rms, &clip_coef);
    h->update_rms[i] = update_rms;
    h->last_rms[i] = rms;
    h->clip_coef[i] = clip_coef;
    h->steps_clipped[i] += clip_coef < 1;
    h->effective_lr[i] = fabsf(held - exact) <= h->hold * exact ? held : exact;
    h->update_ratio[i] = h->effective_lr[i] * rms / h->weight_rms[i];
}

static void paper_step(const Step *h) {
    const Walk step = PAPER_WALKS[h->kind];
#pragma omp parallel for schedule(static) num_threads(h->threads)
    for (i64 k = 0; k < h->num_tasks; k++) {
        const Task *t = h->tasks + k;
        step(h, t, (Own){h->a[t->tensor], h->b[t->tensor], h->lr, h->decay[t->tensor], 0, 0, 0});
    }
}

/* The first pass over a task. */
static void begin_task(const Step *h, i64 k, Walk walk) {
    const Task *t = h->tasks + k;
    const i64 i = t->tensor;
    const f32 held = held_lr(h, i), furthest = LARGEST_FIRST_MOVE * h->weight_rms[i];
    h->rate[k] = held;
    h->squares[k] = walk(h, t, (Own){h->a[i], h->b[i], 0, h->decay[i], held, furthest, h->cut + k});
}

/* The second pass over a task, for what is left of the step now that the size of the direction is known. */
static void end_task(const Step *h, i64 k, Walk move) {
    const Task *t = h->tasks + k;
    const i64 i = t->tensor;
    const f32 rate = h->effective_lr[i], held = h->rate[k], furthest = LARGEST_FIRST_MOVE * h->weight_rms[i];
    if (h->hold > 0 && !h->cut[k] && rate == held) return;
    move(h, t, (Own){h->a[i], h->b[i], rate, h->hold > 0 ? 1 : h->decay[i], held, furthest, 0});
}

static void robust_step(const Step *h) {
    const Walk measure = (h->l2 != 0 ? MEASURES_L2 : MEASURES)[h->kind], move = MOVES[h->kind];
    const Walk begin = h->hold > 0 ? HOLDS[h->kind] : measure;
#pragma omp parallel for schedule(static) num_threads(h->threads)
    for (i64 k = 0; k < h->num_tasks; k++) begin_task(h, k, begin);
    i64 k = 0;
    for (i64 i = 0; i < h->num_tensors; i++) {
        f64 squares = 0;
        for (; k < h->num_tasks && h->tasks[k].tensor == i; k++) squares += h->squares[k];
        scale_update(h, i, squares);
    }
#pragma omp parallel for schedule(static) num_threads(h->threads)
    for (k = 0; k < h->num_tasks; k++) end_task(h, k, move);
}

void take_step(const Step *h) {
    if (h->rule_is_paper) paper_step(h);
    else robust_step(h);
}

typedef struct {  /* the end of the sums of many tensors; the same fields in the same order as cpu_kernel.Ends */
    i64 num_tensors, num_tasks;
    const Task *tasks;
    void *const *sum;
    const uint8_t *half;                 /* of each tensor: whether both sums are bfloat16 */
    void *const *previous;               /* robust rule: the sum before, in the same dtype; paper's rule: its signs, int8 */
    f32 *const *gains;                   /* paper's rule */
    f64 *counts;                         /* six for each task: see the two functions */
    f32 gain_increment, gain_decay;
    i32 hold_on_zero, threads;
} Ends;

/* Dot product, both square sums, equal signs, signs in all, elements of the sum that are not zero. Clears the sum before. */
INLINE void compare_as(const i32 half, const void *sums, void *sums_before, i64 n, f64 *counts) {
    const f32 *restrict sum = sums;
    const u16 *restrict half_sum = sums;
    f32 *restrict previous = sums_before;
    u16 *restrict half_previous = sums_before;
    f32 dot = 0, squares = 0, previous_squares = 0;
    i32 equal = 0, signs = 0, seen = 0;
#pragma omp simd reduction(+ : dot, squares, previous_squares, equal, signs, seen)
    for (i64 j = 0; j < n; j++) {
        const f32 x = half ? widen(half_sum[j]) : sum[j], y = half ? widen(half_previous[j]) : previous[j];
        dot += x * y;
        squares += x * x;
        previous_squares += y * y;
        equal += (x > 0 && y > 0) || (x < 0 && y < 0);
        signs += (x > 0 || x < 0) && (y > 0 || y < 0);
        seen += x != 0;
        if (half) half_previous[j] = 0;
        else previous[j] = 0;
    }
    counts[0] = dot; counts[1] = squares; counts[2] = previous_squares;
    counts[3] = equal; counts[4] = signs; counts[5] = seen;
}

EVERY_CPU static void compare(const Ends *h, const Task *t, f64 *counts) {
    const i64 i = t->tensor, at = t->start;
    if (h->half[i]) compare_as(1, (const u16 *)h->sum[i] + at, (u16 *)h->previous[i] + at, t->len, counts);
    else compare_as(0, (const f32 *)h->sum[i] + at, (f32 *)h->previous[i] + at, t->len, counts);
}

/* The paper's rule on the elements of a task; counts those that grew and those whose sum is not finite. The sign of the sum
   (2 where it is not finite) replaces that of the one before, and the sum begins anew. */
EVERY_CPU static void move_gains(const Ends *h, const Task *t, f64 *counts) {
    f32 *restrict sum = (f32 *)h->sum[t->tensor] + t->start, *restrict gain = h->gains[t->tensor] + t->start;
    int8_t *restrict previous = (int8_t *)h->previous[t->tensor] + t->start;
    const f32 increment = h->gain_increment, decay = h->gain_decay;
    const int holds = h->hold_on_zero;
    i32 grown = 0, non_finite = 0;
#pragma omp simd reduction(+ : grown, non_finite)
    for (i64 j = 0; j < t->len; j++) {
        u32 bits; memcpy(&bits, &sum[j], 4);
        const i32 sign = (bits & 0x7f800000u) == 0x7f800000u ? 2 : (sum[j] > 0) - (sum[j] < 0);
        const i32 before = previous[j], is_finite = sign != 2 && before != 2, agreement = sign * before;
        const i32 grows = is_finite && agreement > 0, moves = is_finite && (!holds || agreement != 0);
        const f32 old = gain[j], moved = grows ? old + increment : old * decay;
        gain[j] = moves ? moved : old;
        grown += grows;
        non_finite += !is_finite;
        previous[j] = (int8_t)sign;
        sum[j] = 0;
    }
    counts[0] = grown; counts[1] = non_finite;
}

void end_sums(const Ends *h) {
#pragma omp parallel for schedule(static) num_threads(h->threads)
    for (i64 k = 0; k < h->num_tasks; k++) {
        f64 *counts = h->counts + 6 * k;
        if (h->gains) move_gains(h, h->tasks + k, counts);
        else compare(h, h->tasks + k, counts);
    }
}

/* cpu_kernel.py refuses a kernel of another version or layout: that of another installation. */
i64 layout(void) { return 1000000 * KERNEL_VERSION + 1000 * (i64)sizeof(Step) + (i64)sizeof(Ends); }
