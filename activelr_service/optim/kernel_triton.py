"""The kernels of the compiled step on a GPU, in Triton, which comes with torch's CUDA builds.

They take the steps of :file:`kernel.c`, whose comments explain them; functions and modes have the same names there. Sums
over a tensor are taken piece by piece, in one order, so results are the same to the last bit in every run on a kind of GPU.

A table has rows of 8 bytes for each of n tensors: addresses as int64, and numbers as the bits of a float64. ``tasks`` is
int64 (k, 3): of each piece the number of its tensor, its first element, and how many. ``spans`` is int64 (n, 2): of each
tensor its first piece, and how many.
"""
# mypy: ignore-errors

import triton
import triton.language as tl

from activelr_service.optim.places import KINDS

PLACES = ("param", "grad", "avg", "avg_sq", "sum", "gains", "half", "a", "b", "decay")  # rows of the table of a step
ENDS = ("sum", "half", "previous", "gains")  # rows of the table of the end of the sums
BLOCK = tl.constexpr(1024)  # elements that a program takes at once
DITHER_BY_ELEMENT = tl.constexpr(0x9E3779B1)
LARGEST_FIRST_MOVE = tl.constexpr(16.0)
ADAM, BELIEF, SGD, NESTEROV = (tl.constexpr(KINDS[kind]) for kind in ("adam", "belief", "sgd", "nesterov"))
PAPER, HOLD, MEASURE, MOVE = (tl.constexpr(mode) for mode in range(4))


@triton.jit
def _float(table, at):
    """A number of the table, which has all its rows in 8 bytes: numbers as the bits of a float64."""
    return tl.load(table + at).to(tl.float64, bitcast=True).to(tl.float32)


@triton.jit
def _task(tasks):
    """The piece of this program: the number of its tensor, its first element, and how many."""
    own = tasks + 3 * tl.program_id(0)
    return tl.load(own), tl.load(own + 1), tl.load(own + 2)


@triton.jit
def _place(table, at, offset, dtype: tl.constexpr):
    return tl.load(table + at).to(tl.pointer_type(dtype)) + offset


@triton.jit
def _at(place, j, ALIGNED: tl.constexpr):
    """The addresses of elements. Where tensors begin at a multiple of 16 bytes, so do blocks: then loads are wide."""
    return tl.multiple_of(place + j, (16,)) if ALIGNED else place + j


@triton.jit
def _add_half(total, grad, dither):
    """kernel.c's add_half: a sum in bfloat16, as its bits in uint16, with one more gradient."""
    x = (total.to(tl.uint32) << 16).to(tl.float32, bitcast=True) + grad
    bits = (x.to(tl.uint32, bitcast=True) + (dither >> 16)) >> 16
    return tl.where(x == x, bits, 0x7FC0).to(tl.uint16)


@triton.jit
def _within(x, limit):
    y = tl.where(x > limit, limit, x)
    return tl.where(y < -limit, -limit, y)


@triton.jit
def _lr_of(rms, gain, weight_rms, update_rms, largest, lr_decay, fall):
    """robust_formulas.lr_of of one tensor: the learning rate, update_rms and clip_coef. Comparisons let NaN through."""
    fallen = update_rms + fall * (rms - update_rms)
    size = tl.where(rms > fallen, rms, fallen)
    known = tl.where(size < 1e-30, 1e-30, size)
    ratio = gain * rms / known
    room = largest / tl.where(ratio < 1e-30, 1e-30, ratio)
    clip_coef = tl.where(room > 1, 1.0, room)
    return tl.where(size == 0, 0.0, gain * clip_coef * weight_rms / known * lr_decay), size, clip_coef


@triton.jit
def _walk(
    table, n, i, at, length, dither, rate, held, furthest, decay, weight1, beta2, weight2, eps, momentum, sign, l2,
    KIND: tl.constexpr, MODE: tl.constexpr, L2: tl.constexpr, ALIGNED: tl.constexpr, FULL: tl.constexpr,
    PIECE: tl.constexpr,
):  # fmt: skip
    """kernel.c's walk over one piece of a tensor. FULL: the piece has all its elements, and loads need no mask. Returns the
    squares of the direction, and how many elements would have moved too far."""
    half, a, b = tl.load(table + 6 * n + i), _float(table, 7 * n + i), _float(table, 8 * n + i)
    param, grad = _place(table, i, at, tl.float32), _place(table, n + i, at, tl.float32)
    avg, avg_sq = _place(table, 2 * n + i, at, tl.float32), _place(table, 3 * n + i, at, tl.float32)
    total, half_total = _place(table, 4 * n + i, at, tl.float32), _place(table, 4 * n + i, at, tl.uint16)
    gains = _place(table, 5 * n + i, at, tl.float32)
    squares, cut = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.int32)
    for begin in range(0, PIECE, BLOCK):
        j = begin + tl.arange(0, BLOCK)
        is_there = None if FULL else j < length
        p, x = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
        if MODE != MEASURE or L2:
            p = tl.load(_at(param, j, ALIGNED), is_there)
        if MODE != MOVE or KIND >= NESTEROV:
            g = tl.load(_at(grad, j, ALIGNED), is_there)
            x = sign * g + l2 * p if L2 else sign * g
            if MODE != MOVE:
                if half != 0:
                    own = dither + (at + j).to(tl.uint32) * DITHER_BY_ELEMENT
                    old = tl.load(_at(half_total, j, ALIGNED), is_there)
                    tl.store(_at(half_total, j, ALIGNED), _add_half(old, g, own), is_there)
                else:
                    tl.store(_at(total, j, ALIGNED), tl.load(_at(total, j, ALIGNED), is_there) + g, is_there)
        d = x
        if KIND <= BELIEF:
            m, v = tl.load(_at(avg, j, ALIGNED), is_there), tl.load(_at(avg_sq, j, ALIGNED), is_there)
            if MODE != MOVE:
                m += weight1 * (x - m)
                y = x - m if KIND == BELIEF else x
                v = beta2 * v + weight2 * y * y
                if KIND == BELIEF:
                    v += eps
                tl.store(_at(avg, j, ALIGNED), m, is_there)
                tl.store(_at(avg_sq, j, ALIGNED), v, is_there)
            d = m / (tl.sqrt_rn(v) * a + b)
        elif KIND <= NESTEROV:
            m = tl.load(_at(avg, j, ALIGNED), is_there)
            if MODE != MOVE:
                m = a * m + b * x
                tl.store(_at(avg, j, ALIGNED), m, is_there)
            d = x + momentum * m if KIND == NESTEROV else m
        if MODE == PAPER:
            gain = tl.load(_at(gains, j, ALIGNED), is_there)
            tl.store(_at(param, j, ALIGNED), p * decay - rate * (gain * d), is_there)
        elif MODE == MOVE:
            moved = rate * d - _within(held * d, furthest)
            tl.store(_at(param, j, ALIGNED), p * decay - moved, is_there)
        else:
            counted = d if FULL else tl.where(is_there, d, 0.0)
            squares += counted * counted
            if MODE == HOLD:
                moved = _within(held * counted, furthest)
                cut += (moved != held * counted).to(tl.int32)
                tl.store(_at(param, j, ALIGNED), p * decay - moved, is_there)
    return tl.sum(squares), tl.sum(cut)


@triton.jit
def _walk_piece(
    table, tasks, n, dither, rate, held, furthest, decay, weight1, beta2, weight2, eps, momentum, sign, l2,
    KIND: tl.constexpr, MODE: tl.constexpr, L2: tl.constexpr, ALIGNED: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    """The walk over the piece of this program."""
    i, at, length = _task(tasks)
    if length == PIECE:
        squares, cut = _walk(
            table, n, i, at, length, dither, rate, held, furthest, decay, weight1, beta2, weight2, eps, momentum, sign, l2,
            KIND, MODE, L2, ALIGNED, True, PIECE,
        )  # fmt: skip
    else:
        squares, cut = _walk(
            table, n, i, at, length, dither, rate, held, furthest, decay, weight1, beta2, weight2, eps, momentum, sign, l2,
            KIND, MODE, L2, ALIGNED, False, PIECE,
        )  # fmt: skip
    return squares, cut


@triton.jit(do_not_specialize=["n", "dither"])
def first_pass(
    table, tasks, n, gain, weight_rms, update_rms, last_rms, rates, squares, cuts, largest, lr_decay, fall, lr, dither,
    weight1, beta2, weight2, eps, momentum, sign, l2,
    KIND: tl.constexpr, MODE: tl.constexpr, L2: tl.constexpr, ALIGNED: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    """The whole step of one piece (PAPER), or its first pass (HOLD, MEASURE)."""
    i, _, _ = _task(tasks)
    rate, furthest = lr, 0.0
    if MODE == HOLD:
        last, size = tl.load(last_rms + i), tl.load(weight_rms + i)
        held, _, _ = _lr_of(last, tl.load(gain + i), size, tl.load(update_rms + i), largest, lr_decay, fall)
        rate, furthest = tl.where(last > 0, held, 0.0), LARGEST_FIRST_MOVE * size
    found, cut = _walk_piece(
        table, tasks, n, dither.to(tl.uint32), rate, rate, furthest, _float(table, 9 * n + i),
        weight1, beta2, weight2, eps, momentum, sign, l2, KIND, MODE, L2, ALIGNED, PIECE,
    )  # fmt: skip
    if MODE != PAPER:
        k = tl.program_id(0)
        tl.store(squares + k, found)
        tl.store(cuts + k, cut)
        tl.store(rates + k, rate)


@triton.jit
def _total(values, stride, first, count):
    """The sum of the values of a tensor's pieces, float64, in one order."""
    found, j = tl.zeros((128,), tl.float64), tl.arange(0, 128)
    for begin in range(0, count, 128):
        found += tl.load(values + (first + begin + j) * stride, begin + j < count, 0.0).to(tl.float64)
    return tl.sum(found)


@triton.jit
def measure(
    spans, gain, weight_rms, update_rms, last_rms, elements_seen, clip_coef, steps_clipped, effective_lr, update_ratio,
    rates, squares, largest, lr_decay, fall, hold,
):  # fmt: skip
    """robust_formulas.scale_updates of one tensor."""
    i = tl.program_id(0)
    first, count = tl.load(spans + 2 * i), tl.load(spans + 2 * i + 1)
    rms = tl.sqrt_rn(_total(squares, 1, first, count).to(tl.float32) / tl.load(elements_seen + i))
    held, size = tl.load(rates + first, count > 0, 0.0), tl.load(weight_rms + i)
    exact, known, clip = _lr_of(rms, tl.load(gain + i), size, tl.load(update_rms + i), largest, lr_decay, fall)
    rate = tl.where(tl.abs(held - exact) <= hold * exact, held, exact)
    tl.store(update_rms + i, known)
    tl.store(last_rms + i, rms)
    tl.store(clip_coef + i, clip)
    tl.store(steps_clipped + i, tl.load(steps_clipped + i) + tl.where(clip < 1, 1.0, 0.0))
    tl.store(effective_lr + i, rate)
    tl.store(update_ratio + i, rate * rms / size)


@triton.jit(do_not_specialize=["n"])
def second_pass(
    table, tasks, n, weight_rms, effective_lr, rates, cuts,
    weight1, beta2, weight2, eps, momentum, sign, l2,
    KIND: tl.constexpr, HELD: tl.constexpr, L2: tl.constexpr, ALIGNED: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    """What is left of the step of one piece, now that the size of the direction is known. HELD: the first pass was HOLD."""
    k = tl.program_id(0)
    i, _, _ = _task(tasks)
    rate, furthest = tl.load(effective_lr + i), LARGEST_FIRST_MOVE * tl.load(weight_rms + i)
    if HELD:
        held = tl.load(rates + k)
        if (tl.load(cuts + k) != 0) | (rate != held):
            _walk_piece(
                table, tasks, n, i.to(tl.uint32), rate, held, furthest, 1.0, weight1, beta2, weight2, eps, momentum, sign,
                l2, KIND, MOVE, L2, ALIGNED, PIECE,
            )  # fmt: skip
    else:
        _walk_piece(
            table, tasks, n, i.to(tl.uint32), rate, 0.0, furthest, _float(table, 9 * n + i), weight1, beta2, weight2, eps,
            momentum, sign, l2, KIND, MOVE, L2, ALIGNED, PIECE,
        )  # fmt: skip


@triton.jit
def _sum_of(place, half_place, half, j, is_there):
    """Elements of a gradient sum, float32."""
    if half != 0:
        found = (tl.load(half_place + j, is_there, 0).to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    else:
        found = tl.load(place + j, is_there, 0.0)
    return found


@triton.jit(do_not_specialize=["n"])
def compare(table, tasks, n, counts, PIECE: tl.constexpr):
    """kernel.c's compare of one piece. The sum before is cleared."""
    i, at, length = _task(tasks)
    half = tl.load(table + n + i)
    total, half_total = _place(table, i, at, tl.float32), _place(table, i, at, tl.uint16)
    previous, half_previous = _place(table, 2 * n + i, at, tl.float32), _place(table, 2 * n + i, at, tl.uint16)
    nothing = tl.zeros((BLOCK,), tl.float32)
    dot, squares, before, equal, signs, seen = nothing, nothing, nothing, nothing, nothing, nothing
    for begin in range(0, PIECE, BLOCK):
        j = begin + tl.arange(0, BLOCK)
        is_there = j < length
        x, y = _sum_of(total, half_total, half, j, is_there), _sum_of(previous, half_previous, half, j, is_there)
        dot += x * y
        squares += x * x
        before += y * y
        equal += (((x > 0) & (y > 0)) | ((x < 0) & (y < 0))).to(tl.float32)
        signs += (((x > 0) | (x < 0)) & ((y > 0) | (y < 0))).to(tl.float32)
        seen += (x != 0).to(tl.float32)
        if half != 0:
            tl.store(half_previous + j, tl.zeros((BLOCK,), tl.uint16), is_there)
        else:
            tl.store(previous + j, nothing, is_there)
    own = counts + 6 * tl.program_id(0)
    tl.store(own, tl.sum(dot))
    tl.store(own + 1, tl.sum(squares))
    tl.store(own + 2, tl.sum(before))
    tl.store(own + 3, tl.sum(equal))
    tl.store(own + 4, tl.sum(signs))
    tl.store(own + 5, tl.sum(seen))


@triton.jit(do_not_specialize=["n"])
def move_gains(table, tasks, n, counts, gain_increment, gain_decay, HOLDS: tl.constexpr, PIECE: tl.constexpr):
    """kernel.c's move_gains of one piece: the paper's rule."""
    i, at, length = _task(tasks)
    total, previous = _place(table, i, at, tl.float32), _place(table, 2 * n + i, at, tl.int8)
    gains = _place(table, 3 * n + i, at, tl.float32)
    grown, non_finite = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for begin in range(0, PIECE, BLOCK):
        j = begin + tl.arange(0, BLOCK)
        is_there = j < length
        x, before, old = (
            tl.load(total + j, is_there, 0.0),
            tl.load(previous + j, is_there, 0),
            tl.load(gains + j, is_there),
        )
        is_number = tl.abs(x) < float("inf")
        sign = tl.where(is_number, (x > 0).to(tl.int32) - (x < 0).to(tl.int32), 2)
        is_finite = is_number & (before != 2)
        agreement = sign * before.to(tl.int32)
        grows = is_finite & (agreement > 0)
        moves = is_finite & (agreement != 0) if HOLDS else is_finite
        moved = tl.where(grows, old + gain_increment, old * gain_decay)
        tl.store(gains + j, tl.where(moves, moved, old), is_there)
        tl.store(previous + j, sign.to(tl.int8), is_there)
        tl.store(total + j, tl.zeros((BLOCK,), tl.float32), is_there)
        grown += (grows & is_there).to(tl.float32)
        non_finite += (is_there & (is_finite == 0)).to(tl.float32)
    tl.store(counts + 6 * tl.program_id(0), tl.sum(grown))
    tl.store(counts + 6 * tl.program_id(0) + 1, tl.sum(non_finite))


@triton.jit
def add_up(counts, spans, totals):
    """The counts of one tensor, float64, from those of its pieces."""
    i, which = tl.program_id(0), tl.program_id(1)
    first, count = tl.load(spans + 2 * i), tl.load(spans + 2 * i + 1)
    tl.store(totals + 6 * i + which, _total(counts + which, 6, first, count))
