"""Gradients of autoencoders at a cost in proportion to their active latents (numba, CPU).

After the encoder's matrix product only active latents take part: in a token's reconstruction, in
the signal that its error sends back, and in the weights' gradient. All three read rows of a matrix
in an order that active latents dictate, so they take a block of columns at a time, whose rows stay
in the second-level cache, and four rows at once, which reads and writes their sum a quarter as
often.
"""

from __future__ import annotations

import numpy as np
from numba import njit

#: Sums may be taken in any order and products fused; NaN and infinity keep their meaning.
_FAST = {"reassoc", "contract", "nsz", "arcp"}
#: Elements of a block of the decoder, and of a tile's errors.
BLOCK, TILE = 2**19, 2**16
#: Rows that inner loops take at a time; a token's list of active latents is filled up for that,
#: with zeros.
ROWS = 4


@njit(nogil=True, cache=True)
def _blocks(matrix, columns):
    """`matrix` [row, d] as one block of `columns` after the other; see `_block`."""
    n, d = matrix.shape
    out = np.empty(n * d, matrix.dtype)
    for first in range(0, d, columns):
        _block(out, n, d, first, columns)[:] = matrix[:, first : first + columns]
    return out


@njit(nogil=True, cache=True)
def _block(blocks, n, d, first, columns):
    """The block [n, <= columns] of `blocks` that begins with column `first`."""
    last = min(d, first + columns)
    return blocks[n * first : n * last].reshape(n, last - first)


@njit(nogil=True, cache=True)
def _lists(pre, b_enc, start, count):
    """Active latents of all tokens and their values.

    Token t has `count[t]` of them from `start[t]` on.
    """
    n, m = pre.shape
    size = 0
    for t in range(n):
        start[t], count[t] = size, 0
        for i in range(m):
            count[t] += pre[t, i] + b_enc[i] > 0
        size += -(-count[t] // ROWS) * ROWS
    # There is one element more: a latent's place is written before it is known to be active, so
    # that nothing branches.
    index, value = np.zeros(size + 1, np.int32), np.zeros(size + 1, pre.dtype)
    for t in range(n):
        at = start[t]
        for i in range(m):
            v = pre[t, i] + b_enc[i]
            index[at], value[at] = i, v
            at += v > 0
        index[at : at + ROWS], value[at : at + ROWS] = 0, 0
    return index, value


@njit(fastmath=_FAST, nogil=True, cache=True)
def _tokens(start, count, index, value, x, directions, b_dec, scale, zero, error, sent, d_b_dec):
    """On a block of columns: every token's scaled `error`, and the signal to its active latents."""
    for t in range(x.shape[0]):
        e, row = error[t], x[t]
        first, last = start[t], start[t] + count[t]
        for j in range(e.shape[0]):
            e[j] = b_dec[j] - row[j]
        for a in range(first, last, ROWS):
            w0, w1, w2, w3 = (
                directions[index[a]],
                directions[index[a + 1]],
                directions[index[a + 2]],
                directions[index[a + 3]],
            )
            v0, v1, v2, v3 = value[a], value[a + 1], value[a + 2], value[a + 3]
            for j in range(e.shape[0]):
                e[j] += (v0 * w0[j] + v1 * w1[j]) + (v2 * w2[j] + v3 * w3[j])
        for j in range(e.shape[0]):
            e[j] *= scale
            d_b_dec[j] += e[j]
        for a in range(first, last, ROWS):
            w0, w1, w2, w3 = (
                directions[index[a]],
                directions[index[a + 1]],
                directions[index[a + 2]],
                directions[index[a + 3]],
            )
            s0 = s1 = s2 = s3 = zero
            for j in range(e.shape[0]):
                s0 += w0[j] * e[j]
                s1 += w1[j] * e[j]
                s2 += w2[j] * e[j]
                s3 += w3[j] * e[j]
            sent[a] += s0
            sent[a + 1] += s1
            sent[a + 2] += s2
            sent[a + 3] += s3


@njit(fastmath=_FAST, nogil=True, cache=True)
def _weights(ends, token, weight, rows, first_column, grads):
    """Add to every latent's row of `grads`, from `first_column` on, its tokens' `rows`.

    The tokens of a latent end at `ends`.
    """
    first = 0
    for i in range(grads.shape[0]):
        last = ends[i]
        grad = grads[i][first_column : first_column + rows.shape[1]]
        fours = last - (last - first) % ROWS
        for p in range(first, fours, ROWS):
            r0, r1, r2, r3 = (
                rows[token[p]],
                rows[token[p + 1]],
                rows[token[p + 2]],
                rows[token[p + 3]],
            )
            w0, w1, w2, w3 = weight[p], weight[p + 1], weight[p + 2], weight[p + 3]
            for j in range(grad.shape[0]):
                grad[j] += (w0 * r0[j] + w1 * r1[j]) + (w2 * r2[j] + w3 * r3[j])
        for p in range(fours, last):
            row, w = rows[token[p]], weight[p]
            for j in range(grad.shape[0]):
                grad[j] += w * row[j]
        first = last


@njit(nogil=True, cache=True)
def _by_feature(start, count, index, value, sent, l1, m, d_b_enc):
    """Active pairs in the order of their latents.

    Returns the end of each latent, the tokens, `value` and `sent`.
    """
    place = np.zeros(m + 1, np.int64)
    for t in range(len(start)):
        for a in range(start[t], start[t] + count[t]):
            place[index[a] + 1] += 1
    for i in range(m):
        place[i + 1] += place[i]
    total = place[m]
    token, by_value, by_sent = (
        np.empty(total, np.int32),
        np.empty(total, value.dtype),
        np.empty(total, value.dtype),
    )
    for t in range(len(start)):
        for a in range(start[t], start[t] + count[t]):
            i = index[a]
            p = place[i]
            token[p], by_value[p], by_sent[p] = t, value[a], sent[a] + l1
            d_b_enc[i] += by_sent[p]
            place[i] = p + 1
    return place, token, by_value, by_sent  # a latent's place has moved to its end


@njit(nogil=True, cache=True)
def _sent(start, count, index, value, inputs, blocks, b_dec, scale, columns, m, errors, d_b_dec):
    """The signals to all listed latents; the scaled `errors` of the tokens are written."""
    d, n = len(b_dec), len(start)
    sent = np.zeros_like(value)
    for c in range(0, d, columns):
        rows, error = _block(inputs, n, d, c, columns), _block(errors, n, d, c, columns)
        _tokens(
            start, count, index, value, rows, _block(blocks, m, d, c, columns),
            b_dec[c : c + columns], scale, scale - scale, error, sent, d_b_dec[c : c + columns],
        )  # fmt: skip
    return sent


@njit(nogil=True, cache=True)
def gradients(pre, b_enc, x, directions, b_dec, l1, scale, d_dec, d_enc, d_b_enc, d_b_dec):
    """Add the gradients of one batch to the arrays that begin with ``d_``.

    Parameters
    ----------
    pre
        Pre-activations without `b_enc` [token, d_sae].
    b_enc, b_dec
        Biases of encoder [d_sae] and decoder [d_in].
    x
        Activations [token, d_in].
    directions
        Unit rows of the decoder [d_sae, d_in].
    l1
        The penalty's derivative per active latent.
    scale
        Twice the weight of a squared error.
    d_dec, d_enc
        Gradients by decoder and (transposed) encoder [d_sae, d_in]; of a tied autoencoder they are
        one array.
    d_b_enc, d_b_dec
        Gradients by the biases.
    """
    m, d = directions.shape
    columns = min(d, max(64, BLOCK // m // 64 * 64))
    tile = max(64, TILE // columns)
    blocks = _blocks(directions, columns)
    for t in range(0, len(x), tile):
        n = min(tile, len(x) - t)
        start, count = np.empty(n, np.int64), np.empty(n, np.int64)
        index, value = _lists(pre[t : t + n], b_enc, start, count)
        inputs, errors = _blocks(x[t : t + n], columns), np.empty(n * d, x.dtype)
        sent = _sent(
            start, count, index, value, inputs, blocks, b_dec, scale, columns, m, errors, d_b_dec
        )
        ends, token, by_value, by_sent = _by_feature(
            start, count, index, value, sent, l1, m, d_b_enc
        )
        for c in range(0, d, columns):
            _weights(ends, token, by_value, _block(errors, n, d, c, columns), c, d_dec)
            _weights(ends, token, by_sent, _block(inputs, n, d, c, columns), c, d_enc)


# ------------------------------------------------------------- architectures that choose latents


@njit(nogil=True, cache=True)
def _count_above(row, level):
    """The number of values of a `row` above a `level`."""
    count = np.int32(0)
    for i in range(len(row)):
        count += np.int32(row[i] > level)
    return count


@njit(nogil=True, cache=True)
def keep_largest(pre, k):
    """Set all but the `k` largest of every row of `pre` [token, d_sae] to minus infinity.

    A level with k values above it is searched by halving the span in which it lies, which counts a
    row a dozen times and moves nothing.
    """
    for t in range(len(pre)):
        row = pre[t]
        high = row.max()
        if _count_above(row, -np.inf) <= k:
            continue
        low = row.min()
        if _count_above(row, low) < k:  # values that equal the smallest are among the k largest
            _drop(row, low, low, k)
            continue
        while True:
            level = low + (high - low) / 2
            if not low < level < high:  # nothing lies between: values at `high` are equal
                _drop(row, low, high, k)
                break
            count = _count_above(row, level)
            if count == k:
                _drop(row, level, level, k)
                break
            if count > k:
                low = level
            else:
                high = level


@njit(nogil=True, cache=True)
def _drop(row, low, high, k):
    """Set the values of a `row` to minus infinity but those above `high`, and the first ones in
    (`low`, `high`], or at both where these are equal, that make them `k`.
    """
    left = k - _count_above(row, high)
    for i in range(len(row)):
        if row[i] > high:
            continue
        if left > 0 and (row[i] > low or row[i] == high):
            left -= 1
        else:
            row[i] = -np.inf


@njit(nogil=True, cache=True)
def _between(values, low, high):
    """The number of `values` above `high`, and those in (`low`, `high`]."""
    above, count = 0, 0
    for i in range(len(values)):
        above += values[i] > high
        count += values[i] > low
    result, at = np.empty(count - above + 1, values.dtype), 0
    for i in range(len(values)):
        result[at] = values[i]
        at += (values[i] > low) & (values[i] <= high)
    return above, result[: count - above]


#: One value of so many is looked at for the span of a batch's level: a prime number, so that they
#: are of all latents.
_STRIDE = 61


def largest(pre, kept):
    """The smallest of the `kept` largest of all positive values in `pre`; 0 where there are fewer.

    A sample gives a span in which it lies but for rare chance; few values lie in that.
    """
    values = pre.reshape(-1)
    nothing, sample = values.dtype.type(0), np.sort(values[::_STRIDE])[::-1]
    rank = kept / _STRIDE
    slack = 8 + 5 * np.sqrt(rank)
    first, last = int(rank - slack), int(rank + slack)
    high = sample[first] if first >= 0 else values.dtype.type(np.inf)
    low = max(sample[last], nothing) if last < len(sample) else nothing
    above, candidates = _between(values, low, high)
    if not above < kept <= above + len(candidates):
        above, candidates = _between(values, nothing, values.dtype.type(np.inf))
    if not 0 < kept <= above + len(candidates):
        return nothing
    return np.partition(candidates, above - kept)[above - kept]


@njit(nogil=True, cache=True)
def keep_from(pre, level, active):
    """Set what is below `level` in `pre` [token, d_sae] to minus infinity.

    Latents that keep a positive value become true in `active` [d_sae].
    """
    for t in range(len(pre)):
        row = pre[t]
        for i in range(len(row)):
            if row[i] < level:
                row[i] = -np.inf
            active[i] |= row[i] > 0


@njit(nogil=True, cache=True)
def _near(pre, floor, height, start, count):
    """Latents of all tokens whose pre-activation exceeds `floor` [d_sae]: indices and values.

    A value is 0 unless it exceeds `height` [d_sae]. Token t has `count[t]` of them from `start[t]`
    on. `raw` has their pre-activations.
    """
    n, m = pre.shape
    size = 0
    for t in range(n):
        start[t], count[t] = size, 0
        for i in range(m):
            count[t] += pre[t, i] > floor[i]
        size += -(-count[t] // ROWS) * ROWS
    index, raw = np.zeros(size + 1, np.int32), np.zeros(size + 1, pre.dtype)
    value = np.zeros(size + 1, pre.dtype)
    for t in range(n):
        at = start[t]
        for i in range(m):
            v = pre[t, i]
            index[at], raw[at], value[at] = i, v, v * (v > height[i])
            at += v > floor[i]
        index[at : at + ROWS], raw[at : at + ROWS], value[at : at + ROWS] = 0, 0, 0
    return index, raw, value


@njit(nogil=True, cache=True)
def jump_gradients(
    pre, threshold, x, directions, b_dec, scale, half, d_dec, d_enc, d_b_enc, d_b_dec, in_band
):
    """Add the gradients of one batch to arrays, for latents with thresholds.

    Parameters
    ----------
    pre
        Pre-activations [token, d_sae].
    threshold
        Thresholds [d_sae]; below 0 they stand for 0.
    x, directions, b_dec, scale, d_dec, d_enc, d_b_enc, d_b_dec
        As of :func:`gradients`.
    half
        Half of the width of the band about a threshold.
    in_band
        Sums over the tokens in a latent's band [2, d_sae]: of the derivative of the squared error
        by the latent, and of 1.

    Returns
    -------
    int
        The number of active latents of all tokens together.
    """
    m, d = directions.shape
    columns = min(d, max(64, BLOCK // m // 64 * 64))
    tile = max(64, TILE // columns)
    blocks, active = _blocks(directions, columns), 0
    floor, height = threshold - half, np.maximum(threshold, 0)
    for t in range(0, len(x), tile):
        n = min(tile, len(x) - t)
        start, count = np.empty(n, np.int64), np.empty(n, np.int64)
        index, raw, value = _near(pre[t : t + n], floor, height, start, count)
        inputs, errors = _blocks(x[t : t + n], columns), np.empty(n * d, x.dtype)
        sent = _sent(
            start, count, index, value, inputs, blocks, b_dec, scale, columns, m, errors, d_b_dec
        )
        active += _of_band(start, count, index, raw, value, sent, threshold, half, in_band)
        ends, token, by_value, by_sent = _by_feature(
            start, count, index, value, sent, scale - scale, m, d_b_enc
        )
        for c in range(0, d, columns):
            _weights(ends, token, by_value, _block(errors, n, d, c, columns), c, d_dec)
            _weights(ends, token, by_sent, _block(inputs, n, d, c, columns), c, d_enc)
    return active


@njit(nogil=True, cache=True)
def _of_band(start, count, index, raw, value, sent, threshold, half, in_band):
    """Add what is in the bands to `in_band`, drop what is not active; count what is."""
    active = 0
    for t in range(len(start)):
        kept = start[t]
        for a in range(start[t], start[t] + count[t]):
            i = index[a]
            if abs(raw[a] - threshold[i]) < half:
                in_band[0, i] += sent[a]
                in_band[1, i] += 1
            if value[a] > 0:
                index[kept], value[kept], sent[kept] = i, value[a], sent[a]
                kept += 1
        count[t] = kept - start[t]
        active += count[t]
    return active
