"""Gradients of the ReLU autoencoder at a cost in proportion to its active features (numba, CPU).

After the encoder's matrix product only active features take part: in a token's reconstruction, in what its error sends
back, and in the weights' gradient. Tokens are taken in tiles; within a tile the weights' gradient goes feature by
feature, so that a row of it is read and written once per tile rather than once per active token. Inner loops take four
rows at a time; a token's list of active features is filled up with zeros for that.
"""

from __future__ import annotations

import numpy as np
from numba import njit

#: Sums may be taken in any order and products fused; NaN and infinity keep their meaning.
_FAST = {"reassoc", "contract", "nsz", "arcp"}
#: Tokens per tile: their errors and inputs stay in the second-level cache at the widths of the paper's models.
TILE = 64


@njit(fastmath=_FAST, nogil=True, cache=True)
def _token(pre, b_enc, x, directions, b_dec, scale, zero, index, value, sent, error, d_b_dec):
    """One token: its active features and their values, its scaled `error`, and what that sends back to them."""
    d = x.shape[0]
    count = 0
    for i in range(pre.shape[0]):
        v = pre[i] + b_enc[i]
        index[count] = i
        value[count] = v
        count += v > 0
    for a in range(count, count + 3):
        index[a] = 0
        value[a] = zero
    for j in range(d):
        error[j] = b_dec[j] - x[j]
    for a in range(0, count, 4):
        w0, w1, w2, w3 = (
            directions[index[a]], directions[index[a + 1]], directions[index[a + 2]], directions[index[a + 3]]
        )  # fmt: skip
        v0, v1, v2, v3 = value[a], value[a + 1], value[a + 2], value[a + 3]
        for j in range(d):
            error[j] += (v0 * w0[j] + v1 * w1[j]) + (v2 * w2[j] + v3 * w3[j])
    for j in range(d):
        error[j] *= scale
        d_b_dec[j] += error[j]
    for a in range(0, count, 4):
        w0, w1, w2, w3 = (
            directions[index[a]], directions[index[a + 1]], directions[index[a + 2]], directions[index[a + 3]]
        )  # fmt: skip
        s0 = s1 = s2 = s3 = zero
        for j in range(d):
            s0 += w0[j] * error[j]
            s1 += w1[j] * error[j]
            s2 += w2[j] * error[j]
            s3 += w3[j] * error[j]
        sent[a], sent[a + 1], sent[a + 2], sent[a + 3] = s0, s1, s2, s3
    return count


@njit(fastmath=_FAST, nogil=True, cache=True)
def _weights(ends, token, value, sent, errors, x, d_dec, d_enc, d_b_enc, tied):
    """The tile's part of the weights' gradients; a feature's active tokens end at `ends`."""
    first = 0
    for i in range(d_dec.shape[0]):
        dec, enc = d_dec[i], d_enc[i]
        for p in range(first, ends[i], 2):
            # An odd token out is paired with itself, at weight 0.
            q = min(p + 1, ends[i] - 1)
            both = q > p
            e0, e1, x0, x1 = errors[token[p]], errors[token[q]], x[token[p]], x[token[q]]
            v0, v1, s0, s1 = value[p], value[q] * both, sent[p], sent[q] * both
            d_b_enc[i] += s0 + s1
            if tied:
                for j in range(dec.shape[0]):
                    dec[j] += (v0 * e0[j] + v1 * e1[j]) + (s0 * x0[j] + s1 * x1[j])
            else:
                for j in range(dec.shape[0]):
                    dec[j] += v0 * e0[j] + v1 * e1[j]
                    enc[j] += s0 * x0[j] + s1 * x1[j]
        first = ends[i]


@njit(nogil=True, cache=True)
def gradients(pre, b_enc, x, directions, b_dec, l1, scale, d_dec, d_enc, d_b_enc, d_b_dec, tied):
    """Add the gradients of one batch to the arrays that begin with ``d_``.

    `pre` [token, d_sae] are the pre-activations without `b_enc`; `x` [token, d_in]; `directions` [d_sae, d_in] are the
    unit rows of the decoder; `l1` is the penalty's derivative per active feature and `scale` twice the weight of a
    squared error. `d_dec` and `d_enc` [d_sae, d_in] are the gradients by decoder and (transposed) encoder; where
    `tied`, both go into `d_dec`.
    """
    n, m = pre.shape
    size = TILE * m + 4
    errors = np.empty((TILE, x.shape[1]), x.dtype)
    index, token, by_token = np.empty(size, np.int32), np.empty(size, np.int32), np.empty(size, np.int32)
    value, sent = np.empty(size, x.dtype), np.empty(size, x.dtype)
    by_value, by_sent = np.empty(size, x.dtype), np.empty(size, x.dtype)
    place = np.empty(m + 1, np.int64)
    for start in range(0, n, TILE):
        stop = min(n, start + TILE)
        place[:] = 0
        total = 0
        for t in range(start, stop):
            lists = (index[total:], value[total:], sent[total:])
            count = _token(
                pre[t], b_enc, x[t], directions, b_dec, scale, l1 - l1, *lists, errors[t - start], d_b_dec
            )  # fmt: skip
            for a in range(total, total + count):
                token[a] = t - start
                place[index[a] + 1] += 1
            total += count
        # A counting sort of the tile's active pairs by feature; afterwards place[i] is where feature i ends.
        for i in range(m):
            place[i + 1] += place[i]
        for a in range(total):
            p = place[index[a]]
            place[index[a]] = p + 1
            by_token[p], by_value[p], by_sent[p] = token[a], value[a], sent[a] + l1
        _weights(place, by_token, by_value, by_sent, errors, x[start:stop], d_dec, d_enc, d_b_enc, tied)
