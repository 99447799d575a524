/* The optimizer step for float32 parameters on the CPU: one pass over memory under the paper's rule, two under the robust rule.

   Plain C with OpenMP, called through ctypes by fused.py, which also has the layout of `Step` and `Ends`. The list form in
   base.py, robust_formulas.py and paper_rule.py is the reference: both take the same steps up to rounding.

   A task is a piece of one tensor of at most 16,384 elements. Sums over a tensor are taken task by task, in the order of
   the tasks, so results are the same to the last bit for any number of threads. */

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef float f32;
typedef double f64;
typedef int32_t i32;
typedef int64_t i64;
typedef uint32_t u32;

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define EVERY_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EVERY_CPU
#endif
#define KERNEL_VERSION 1  /* goes up with each change of what the functions do; fused.py has the same number */
#define INLINE static inline __attribute__((always_inline))

enum { ADAM, BELIEF, SGD, NESTEROV, PLAIN };  /* directions: PLAIN is SGD without momentum */
enum { PAPER, MEASURE, MEASURE_L2, MOVE };  /* what a walk over the elements does: see below */

typedef struct { i64 tensor, start, len; } Task;

typedef struct {  /* one step of many tensors; the same fields in the same order as fused.Step */
    i64 num_tensors, num_tasks;
    const Task *tasks;
    f32 *const *param, *const *grad, *const *avg, *const *avg_sq;  /* one pointer for each tensor */
    f32 *const *sum;
    f32 *const *gains;  /* paper's rule: a gain for each element */
    const f32 *a, *b;   /* of each tensor: see fused.Direction */
    const f32 *decay;   /* of each tensor: what multiplies the weights */
    f32 *gain, *weight_rms, *update_rms, *elements_seen, *clip_coef, *steps_clipped, *effective_lr, *update_ratio;
    f64 *squares;       /* robust rule: scratch, one for each task */
    f32 weight1, beta2, weight2, eps, momentum, sign, l2, lr;
    f32 max_update_ratio, lr_decay, fall;
    i32 kind, rule_is_paper, threads;
} Step;

typedef struct {  /* what one walk needs, besides the pointers */
    f32 a, b, rate, decay;
} Own;

/* Walks over the elements of one task. PAPER takes a whole step. The robust rule must know the size of a direction before it
   moves along it: MEASURE updates the averages and the sum, and returns the sum of the squares of the direction (MEASURE_L2
   where a penalty needs the weights); MOVE computes the direction once more and moves the weights. `kind` and `mode` are
   constants where this is called, so each call compiles to a loop of its own. */
INLINE f32 walk(const i32 kind, const i32 mode, const Step *restrict h, const Task *restrict t, Own own) {
    const i64 i = t->tensor, at = t->start, n = t->len;
    f32 *restrict param = h->param[i] + at;
    const f32 *restrict grad = h->grad[i] + at;
    f32 *restrict avg = kind == PLAIN ? 0 : h->avg[i] + at;
    f32 *restrict avg_sq = kind <= BELIEF ? h->avg_sq[i] + at : 0;
    f32 *restrict sum = h->sum[i] + at;
    const f32 *restrict gains = mode == PAPER ? h->gains[i] + at : 0;
    const f32 w1 = h->weight1, b2 = h->beta2, w2 = h->weight2, eps = h->eps, momentum = h->momentum;
    const f32 sign = h->sign, l2 = h->l2, a = own.a, b = own.b, rate = own.rate, decay = own.decay;
    const int reads_param = mode != MEASURE, reads_grad = mode != MOVE || kind >= NESTEROV;
    f32 squares = 0;
#pragma omp simd reduction(+ : squares)
    for (i64 j = 0; j < n; j++) {
        f32 p = reads_param ? param[j] : 0, g = reads_grad ? grad[j] : 0, d;
        f32 x = mode == MEASURE ? sign * g : sign * g + l2 * p;
        if (mode != MOVE) sum[j] += g;
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
        else if (mode == MOVE) param[j] = p * decay - rate * d;
        else squares += d * d;
    }
    return squares;
}

#define WALK(name, kind, mode) \
    EVERY_CPU static f32 name(const Step *h, const Task *t, Own own) { return walk(kind, mode, h, t, own); }
#define WALKS(name, kind) \
    WALK(name##_paper, kind, PAPER) \
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
static const Walk MEASURES[] = OF_EVERY_KIND(measure);
static const Walk MEASURES_L2[] = OF_EVERY_KIND(measure_l2);
static const Walk MOVES[] = OF_EVERY_KIND(move);

/* robust_formulas.scale_updates of one tensor, in the same order of operations. Comparisons let NaN through. */
static void scale_update(const Step *h, i64 i, f64 squares) {
    const f32 rms = (f32)sqrt(squares) / sqrtf(h->elements_seen[i]);
    const f32 fallen = h->update_rms[i] + h->fall * (rms - h->update_rms[i]);
    const f32 update_rms = rms > fallen ? rms : fallen, known = update_rms < 1e-30f ? 1e-30f : update_rms;
    const f32 ratio = h->gain[i] * rms / known, room = h->max_update_ratio / (ratio < 1e-30f ? 1e-30f : ratio);
    const f32 clip_coef = room > 1 ? 1 : room;
    const f32 scale = h->gain[i] * clip_coef * h->weight_rms[i] / known;
    h->update_rms[i] = update_rms;
    h->clip_coef[i] = clip_coef;
    h->steps_clipped[i] += clip_coef < 1;
    h->effective_lr[i] = update_rms == 0 ? 0 : scale * h->lr_decay;
    h->update_ratio[i] = h->effective_lr[i] * rms / h->weight_rms[i];
}

static void paper_step(const Step *h) {
    const Walk step = PAPER_WALKS[h->kind];
#pragma omp parallel for schedule(static) num_threads(h->threads)
    for (i64 k = 0; k < h->num_tasks; k++) {
        const Task *t = h->tasks + k;
        step(h, t, (Own){h->a[t->tensor], h->b[t->tensor], h->lr, h->decay[t->tensor]});
    }
}

static void robust_step(const Step *h) {
    const Walk measure = (h->l2 != 0 ? MEASURES_L2 : MEASURES)[h->kind], move = MOVES[h->kind];
#pragma omp parallel for schedule(static) num_threads(h->threads)
    for (i64 k = 0; k < h->num_tasks; k++) {
        const Task *t = h->tasks + k;
        h->squares[k] = measure(h, t, (Own){h->a[t->tensor], h->b[t->tensor], 0, 1});
    }
    i64 k = 0;
    for (i64 i = 0; i < h->num_tensors; i++) {
        f64 squares = 0;
        for (; k < h->num_tasks && h->tasks[k].tensor == i; k++) squares += h->squares[k];
        scale_update(h, i, squares);
    }
#pragma omp parallel for schedule(static) num_threads(h->threads)
    for (k = 0; k < h->num_tasks; k++) {
        const Task *t = h->tasks + k;
        const i64 i = t->tensor;
        move(h, t, (Own){h->a[i], h->b[i], h->effective_lr[i], h->decay[i]});
    }
}

void take_step(const Step *h) {
    if (h->rule_is_paper) paper_step(h);
    else robust_step(h);
}

typedef struct {  /* the end of the sums of many tensors; the same fields in the same order as fused.Ends */
    i64 num_tensors, num_tasks;
    const Task *tasks;
    f32 *const *sum;
    void *const *previous;               /* robust rule: the sum before, float32; paper's rule: its signs, int8 */
    f32 *const *gains;                   /* paper's rule */
    f64 *counts;                         /* six for each task: see the two functions */
    f32 gain_increment, gain_decay;
    i32 hold_on_zero, threads;
} Ends;

/* Dot product, both square sums, equal signs, signs in all, elements of the sum that are not zero. Clears the sum before. */
EVERY_CPU static void compare(const Ends *h, const Task *t, f64 *counts) {
    const f32 *restrict sum = h->sum[t->tensor] + t->start;
    f32 *restrict previous = (f32 *)h->previous[t->tensor] + t->start;
    f32 dot = 0, squares = 0, previous_squares = 0;
    i32 equal = 0, signs = 0, seen = 0;
#pragma omp simd reduction(+ : dot, squares, previous_squares, equal, signs, seen)
    for (i64 j = 0; j < t->len; j++) {
        const f32 x = sum[j], y = previous[j];
        dot += x * y;
        squares += x * x;
        previous_squares += y * y;
        equal += (x > 0 && y > 0) || (x < 0 && y < 0);
        signs += (x > 0 || x < 0) && (y > 0 || y < 0);
        seen += x != 0;
        previous[j] = 0;
    }
    counts[0] = dot; counts[1] = squares; counts[2] = previous_squares;
    counts[3] = equal; counts[4] = signs; counts[5] = seen;
}

/* The paper's rule on the elements of a task; counts those that grew and those whose sum is not finite. The sign of the sum
   (2 where it is not finite) replaces that of the one before, and the sum begins anew. */
EVERY_CPU static void move_gains(const Ends *h, const Task *t, f64 *counts) {
    f32 *restrict sum = h->sum[t->tensor] + t->start, *restrict gain = h->gains[t->tensor] + t->start;
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

/* fused.py refuses a kernel of another version or layout: that of another installation. */
i64 layout(void) { return 1000000 * KERNEL_VERSION + 1000 * (i64)sizeof(Step) + (i64)sizeof(Ends); }
