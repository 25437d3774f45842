"""Convolutions, products and attention: against definitions in NumPy, and coremltools' own constant folding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mil_draws import along, each, few, flags, numbers, seeds, shapes
from mil_programs import Array, check, interpret

from edgesam_mobile.runtime.coreml.types import ProgramError


def convolved(x: Array, weight: Array, strides: Sequence[int], dilations: Sequence[int], groups: int) -> Array:
    """The definition, window by window; ``x`` is padded already."""
    kernel = weight.shape[2:]
    wide = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    sides = [(n - w) // s + 1 for n, w, s in zip(x.shape[2:], wide, strides, strict=True)]
    out = np.zeros((len(x), len(weight), *sides))
    made, taken = len(weight) // groups, x.shape[1] // groups
    for place in np.ndindex(*sides):
        cut = [slice(p * s, p * s + w, d) for p, s, w, d in zip(place, strides, wide, dilations, strict=True)]
        for group in range(groups):
            window = x[(slice(None), slice(group * taken, (group + 1) * taken), *cut)].reshape(len(x), -1)
            filters = weight[group * made : (group + 1) * made].reshape(made, -1)
            out[(slice(None), slice(group * made, (group + 1) * made), *place)] = window @ filters.T
    return out


def spread(x: Array, weight: Array, strides: Sequence[int], dilations: Sequence[int], groups: int) -> Array:
    """The transposed convolution: every value stamps the kernel."""
    wide = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    sides = [(n - 1) * s + w for n, s, w in zip(x.shape[2:], strides, wide, strict=True)]
    made, taken = weight.shape[1], x.shape[1] // groups
    out = np.zeros((len(x), made * groups, *sides))
    for place in np.ndindex(*x.shape[2:]):
        cut = [slice(p * s, p * s + w, d) for p, s, w, d in zip(place, strides, wide, dilations, strict=True)]
        for channel in range(x.shape[1]):
            group = channel // taken
            stamp = x[(slice(None), channel, *place)].reshape(-1, *[1] * (weight.ndim - 1)) * weight[channel]
            out[(slice(None), slice(group * made, (group + 1) * made), *cut)] += stamp
    return out


@few
@given(seed=seeds, rank=st.integers(1, 2), groups=st.integers(1, 2), with_bias=flags, even=flags, data=st.data())
def test_a_convolution_pads_strides_dilates_and_groups(
    seed: int, rank: int, groups: int, with_bias: bool, even: bool, data: st.DataObject
) -> None:
    kernel, strides, dilations = (each(data, rank, 1, 3) for _ in range(3))
    before = each(data, rank, 0, 2)
    after = before if even else each(data, rank, 0, 2)
    x = numbers(seed, 2, 2 * groups, *each(data, rank, 7, 9))
    weight = numbers(seed + 1, 3 * groups, 2, *kernel)
    bias = numbers(seed + 2, 3 * groups) if with_bias else None
    padded = np.pad(x, [(0, 0), (0, 0), *zip(before, after, strict=True)])
    expected = convolved(padded, weight, strides, dilations, groups)
    if bias is not None:
        expected += along(bias, rank + 2, 1)
    options: dict[str, Any] = {"strides": strides, "dilations": dilations, "groups": groups}
    pad = [n for pair in zip(before, after, strict=True) for n in pair]
    check(
        lambda mb, x: mb.conv(x=x, weight=weight, bias=bias, pad_type="custom", pad=pad, **options),
        x,
        expected=expected,
        tolerance=1e-4,
    )


@few
@given(seed=seeds, kernel=st.sampled_from([1, 3, 5]), dilation=st.integers(1, 2))
def test_a_convolution_that_keeps_the_size_pads_both_ends_alike(seed: int, kernel: int, dilation: int) -> None:
    x, weight = numbers(seed, 1, 2, 6, 7), numbers(seed + 1, 2, 2, kernel, kernel)
    around = (kernel - 1) * dilation // 2
    padded = np.pad(x, [(0, 0), (0, 0), (around, around), (around, around)])
    for pad_type in ("same", "same_lower"):
        check(
            lambda mb, x, kind=pad_type: mb.conv(x=x, weight=weight, pad_type=kind, dilations=[dilation] * 2),
            x,
            expected=convolved(padded, weight, [1, 1], [dilation] * 2, 1),
            tolerance=1e-4,
        )


@pytest.mark.parametrize(("kernel", "stride"), [(2, 1), (3, 2)])
def test_padding_whose_documentation_contradicts_itself_is_refused(kernel: int, stride: int) -> None:
    weight = numbers(0, 2, 2, kernel, kernel)
    with pytest.raises(ProgramError, match="with these sides, pad_type 'same' is not supported"):
        interpret(
            lambda mb, x: mb.conv(x=x, weight=weight, pad_type="same", strides=[stride] * 2), numbers(1, 1, 2, 6, 6)
        )


@few
@given(seed=seeds, rank=st.integers(1, 2), groups=st.integers(1, 2), with_bias=flags, cut=flags, data=st.data())
def test_a_transposed_convolution_stamps_its_kernel_and_cuts_the_padding(
    seed: int, rank: int, groups: int, with_bias: bool, cut: bool, data: st.DataObject
) -> None:
    kernel, strides, dilations = each(data, rank, 2, 3), each(data, rank, 1, 3), each(data, rank, 1, 2)
    x = numbers(seed, 2, 2 * groups, *each(data, rank, 3, 4))
    weight = numbers(seed + 1, 2 * groups, 3, *kernel)
    bias = numbers(seed + 2, 3 * groups) if with_bias else None
    expected = spread(x, weight, strides, dilations, groups)
    options: dict[str, Any] = {"strides": strides, "dilations": dilations, "groups": groups, "pad_type": "valid"}
    if cut:
        ends = each(data, 2 * rank, 0, 1)
        for side, (before, after) in enumerate(zip(ends[::2], ends[1::2], strict=True), start=2):
            expected = np.take(expected, range(before, expected.shape[side] - after), side)
        options |= {"pad_type": "custom", "pad": ends}
    if bias is not None:
        expected = expected + along(bias, rank + 2, 1)
    check(
        lambda mb, x: mb.conv_transpose(x=x, weight=weight, bias=bias, **options),
        x,
        expected=expected,
        tolerance=1e-4,
    )


@few
@given(seed=seeds, lead=shapes.filter(lambda s: len(s) < 4), with_bias=flags)
def test_a_linear_layer_multiplies_by_the_transposed_weight(
    seed: int, lead: tuple[int, ...], with_bias: bool
) -> None:
    x, weight = numbers(seed, *lead, 5), numbers(seed + 1, 4, 5)
    bias = numbers(seed + 2, 4) if with_bias else np.zeros(4, np.float32)
    expected = np.einsum("...i,oi->...o", x, weight) + bias
    check(lambda mb, x: mb.linear(x=x, weight=weight, bias=bias), x, expected=expected, folds=True, tolerance=1e-4)


@few
@given(seed=seeds, turn_x=flags, turn_y=flags, batch=st.sampled_from([((), ()), ((2,), (1,)), ((1, 3), (2, 1))]))
def test_a_product_of_matrices_turns_either_and_repeats_batches(
    seed: int, turn_x: bool, turn_y: bool, batch: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    x = numbers(seed, *batch[0], *((4, 3) if turn_x else (3, 4)))
    y = numbers(seed + 1, *batch[1], *((5, 4) if turn_y else (4, 5)))
    letters = ("ki" if turn_x else "ik", "jk" if turn_y else "kj")
    check(
        lambda mb, x, y: mb.matmul(x=x, y=y, transpose_x=turn_x, transpose_y=turn_y),
        x,
        y,
        expected=np.einsum(f"...{letters[0]},...{letters[1]}->...ij", x, y),
        folds=True,
        tolerance=1e-4,
    )


@few
@given(seed=seeds)
def test_einsum_sums_over_the_letters_that_disappear(seed: int) -> None:
    x, y = numbers(seed, 2, 3, 4, 5), numbers(seed + 1, 2, 5, 4, 6)
    check(
        lambda mb, x, y: mb.einsum(values=(x, y), equation="nchw,nwhu->nchu"),
        x,
        y,
        expected=np.einsum("nchw,nwhu->nchu", x, y),
        folds=True,
        tolerance=1e-4,
    )


@few
@given(seed=seeds, mask=st.sampled_from(["none", "added", "kept"]))
def test_attention_is_a_softmax_of_scaled_products(seed: int, mask: str) -> None:
    q, k, v = numbers(seed, 1, 2, 3, 4), numbers(seed + 1, 1, 2, 5, 4), numbers(seed + 2, 1, 2, 5, 6)
    scores = q @ k.swapaxes(-1, -2) / 2
    added = numbers(seed + 3, 1, 2, 3, 5)
    if mask == "added":
        scores = scores + added
    if mask == "kept":
        scores = np.where(np.maximum(added, 0) + np.eye(3, 5) > 0, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))

    def attend(mb: Any, q: Any, k: Any, v: Any) -> Any:
        kept = np.maximum(added, 0) + np.eye(3, 5) > 0
        attn_mask = {"none": None, "added": added, "kept": kept}[mask]
        return mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=attn_mask)

    expected = weights / weights.sum(-1, keepdims=True) @ v
    check(attend, q, k, v, expected=expected, system="iOS18", tolerance=1e-4)
