"""What the axes of a tensor stand for after it is reshaped, combined, joined, cut or padded: by hand."""

import pytest

from era_support_packages.gradcam.axes import (
    CHANNEL,
    COLUMN,
    OTHER,
    ROW,
    Axes,
    Axis,
    Part,
    Tokens,
    broadcast,
    coarsened,
    image_axes,
    is_places,
    joined,
    padded,
    reshaped,
    sliced,
    whole,
)

N, C, H, W = image_axes((2, 3, 8, 6))
PLACES = (*H, *W)
TOKENS = whole(Tokens(1, PLACES, 0), 49)
FOUR_ROWS, TWO_ROWS = Part(ROW, 8, 2, 4), Part(ROW, 8, 1, 2)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((2, 3, 8, 6), (N, C, H, W)),
        ((2, 3, 48), (N, C, PLACES)),
        ((2, 24, 6), (N, (*C, *H), W)),
        ((2, 1, 3, 8, 6), (N, (), C, H, W)),
        ((2, 3, 4, 2, 6), (N, C, (FOUR_ROWS,), (TWO_ROWS,), W)),
        ((2, 3, 4, 12), (N, C, (FOUR_ROWS,), (TWO_ROWS, *W))),
        ((2, 3, 16, 3), (N, C, (*H, Part(COLUMN, 6, 3, 2)), (Part(COLUMN, 6, 1, 3),))),
        ((2, 3, 2, 2, 2, 6), (N, C, (Part(ROW, 8, 4, 2),), (Part(ROW, 8, 2, 2),), (TWO_ROWS,), W)),
        ((2, 3, 3, 16), OTHER),  # three of eight rows
        ((2, 3, 8, 6, 2), OTHER),  # more than there is
    ],
)
def test_a_reshape_splits_and_joins_digits_of_an_index(shape: tuple[int, ...], axes: Axes) -> None:
    assert reshaped((N, C, H, W), shape) == axes
    if axes != OTHER:
        assert reshaped(axes, (2, 3, 8, 6)) == (N, C, H, W)


@pytest.mark.parametrize(
    ("axis", "places"),
    [(H, True), (W, True), (C, False), (N, False), (PLACES, False), ((), False), ((TWO_ROWS,), False), ((FOUR_ROWS,), False)],
)
def test_only_all_rows_or_all_columns_are_places(axis: Axis, places: bool) -> None:
    assert is_places(axis) is places


@pytest.mark.parametrize(
    ("rows", "left"),
    [
        ((FOUR_ROWS,), whole(ROW, 4)),
        ((Part(ROW, 8, 4, 2), Part(ROW, 8, 2, 2)), (Part(ROW, 4, 2, 2), Part(ROW, 4, 1, 2))),
        ((Part(ROW, 8, 2, 2),), (Part(ROW, 8, 2, 2),)),  # the slowest digit is gone
        ((TWO_ROWS,), (TWO_ROWS,)),
        (H, H),
    ],
)
def test_where_the_fastest_digit_is_gone_places_are_larger(rows: Axis, left: Axis) -> None:
    assert coarsened((N, rows, W, C)) == (N, left, W, C)


@pytest.mark.parametrize(
    ("inputs", "shape", "axes"),
    [
        ([((N, C, H, W), (2, 3, 8, 6)), (None, (3, 1, 1))], (2, 3, 8, 6), (N, C, H, W)),
        ([((N, (), H, W), (2, 1, 8, 6)), ((N, C, (), ()), (2, 3, 1, 1))], (2, 3, 8, 6), (N, C, H, W)),
        ([((N, C, H), (2, 3, 6)), ((N, C, W), (2, 3, 6))], (2, 3, 6), OTHER),  # rows are not columns
        ([(OTHER, (2, 3)), (None, (2, 3))], (2, 3), OTHER),
        ([(None, (2, 3)), (None, (1,))], (2, 3), None),
    ],
)
def test_what_is_known_of_one_holds_for_what_is_computed_with_it(
    inputs: list[tuple[Axes | None, tuple[int, ...]]], shape: tuple[int, ...], axes: Axes | None
) -> None:
    assert broadcast(inputs, shape) == axes


CLASS_TOKEN, PATCHES = (None, (2, 1, 3)), ((N, PLACES, C), (2, 48, 3))


@pytest.mark.parametrize(
    ("inputs", "dim", "shape", "new", "axes"),
    [
        ([CLASS_TOKEN, PATCHES], 1, (2, 49, 3), False, (N, TOKENS, C)),
        ([PATCHES, CLASS_TOKEN], -2, (2, 49, 3), False, (N, whole(Tokens(0, PLACES, 1), 49), C)),
        ([CLASS_TOKEN, ((N, TOKENS, C), (2, 49, 3))], 1, (2, 50, 3), False, (N, whole(Tokens(2, PLACES, 0), 50), C)),
        ([PATCHES, PATCHES], 2, (2, 48, 6), False, (N, PLACES, whole(CHANNEL, 6))),
        ([PATCHES, PATCHES], 1, (2, 96, 3), False, OTHER),  # two images behind each other
        ([PATCHES, PATCHES], 0, (4, 48, 3), False, None),  # twice as many images
        ([PATCHES, PATCHES], 1, (2, 2, 48, 3), True, (N, whole(CHANNEL, 2), PLACES, C)),
    ],
)
def test_joined_tensors(
    inputs: list[tuple[Axes | None, tuple[int, ...]]], dim: int, shape: tuple[int, ...], new: bool, axes: Axes | None
) -> None:
    assert joined(inputs, dim, shape, new) == axes


@pytest.mark.parametrize(
    ("axis", "size", "cut", "left", "kept"),
    [
        (TOKENS, 49, (1, 49, 1), 48, PLACES),
        (TOKENS, 49, (0, 1, 1), 1, whole(CHANNEL, 1)),
        (TOKENS, 49, (0, 48, 1), 48, None),  # a patch is missing
        (TOKENS, 49, (2, 49, 1), 47, None),
        (H, 8, (0, 7, 1), 7, whole(ROW, 7)),
        (H, 8, (1, 8, 1), 7, whole(ROW, 7)),
        (H, 8, (0, 6, 1), 6, None),
        (H, 8, (0, 8, 2), 4, whole(ROW, 4)),
        (H, 8, (1, 8, 2), 4, whole(ROW, 4)),
        (H, 8, (2, 8, 2), 3, None),
        (C, 3, (0, 2, 1), 2, whole(CHANNEL, 2)),
        ((TWO_ROWS, *W), 12, (0, 6, 1), 6, None),
        ((TWO_ROWS, *W), 12, (0, 12, 1), 12, (TWO_ROWS, *W)),
    ],
)
def test_a_cut_axis_stands_for_what_it_did_only_where_all_of_the_image_is_left(
    axis: Axis, size: int, cut: tuple[int, int, int], left: int, kept: Axis | None
) -> None:
    assert sliced(axis, size, *cut, left) == kept


@pytest.mark.parametrize(
    ("axis", "size", "ends", "found"),
    [
        (H, 8, (0, 0), H),
        (H, 8, (1, 1), whole(ROW, 10)),
        (H, 8, (3, 3), whole(ROW, 14)),
        (H, 8, (0, 1), whole(ROW, 9)),
        (H, 8, (-1, -1), whole(ROW, 6)),
        (H, 8, (4, 4), None),
        (H, 8, (0, 2), None),
        (H, 8, (-2, -2), None),
        (C, 3, (0, 5), whole(CHANNEL, 8)),
        (N, 2, (0, 1), None),
    ],
)
def test_a_padded_axis(axis: Axis, size: int, ends: tuple[int, int], found: Axis | None) -> None:
    assert padded(axis, size, *ends) == found
