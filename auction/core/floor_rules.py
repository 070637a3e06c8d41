# The exchange's own floors (`floors:`), compiled when rules are loaded, so that a lookup does not feel their number.
#
# A rule names some of seven keys and leaves the others open. Which keys it names is its pattern, and there are at most
# 128 of those however many rules there are. A value becomes a number once per rule; at a lookup seven numbers are put
# side by side into one integer, and each pattern that is still possible is one masked look into one dict, the most
# specific first.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from auction.core.kernels.fold import fold
from auction.model.draws import mix64
from auction.model.money import CpmMicros
from auction.model.rules import FloorModel, FloorRule, FloorRules

# In the order of precedence: of two rules as specific, the one with a value at the first of these where they differ.
KEYS: Final = ("media_type", "size", "domain", "tagid", "country", "device_type", "bidder")

Values = tuple[str, str, str, str, str, str, str]


class Column(msgspec.Struct, frozen=True):
    """One key: of each value its number, in place, and the patterns that a rule with it has or that leave it open."""

    values: dict[str, tuple[int, int]]
    open: int


class Model(msgspec.Struct, frozen=True):
    """One model: per pattern, most specific first, the mask of its keys and the floors of its rules."""

    default: CpmMicros | None
    columns: tuple[Column, ...]
    patterns: tuple[tuple[int, dict[int, CpmMicros]], ...]

    def floor(self, values: Values) -> CpmMicros | None:
        """Look up the floor for the values of the seven keys, empty for unknown; None where there is none."""
        found = 0
        possible = (1 << len(self.patterns)) - 1
        for column, value in zip(self.columns, values, strict=True):
            known = column.values.get(value)
            if known is None:
                possible &= column.open
            else:
                found |= known[0]
                possible &= known[1]
        while possible:
            first = possible & -possible
            mask, floors = self.patterns[first.bit_length() - 1]
            floor = floors.get(found & mask)
            if floor is not None:
                return floor
            possible ^= first
        return self.default


class FloorTable(msgspec.Struct, frozen=True):
    """All models with what draws one; `bidders` are those that some rule names."""

    floor_min: CpmMicros
    skipped_below: int
    models: tuple[Model, ...]
    weights: tuple[int, ...]
    bidders: frozenset[str]

    def model(self, auction: str) -> Model | None:
        """Draw the model of an auction from its id; None where there is none, or where this one is left alone."""
        if not self.models:
            return None
        if not self.skipped_below and len(self.models) == 1:
            return self.models[0]
        begun = fold(auction)
        if self.skipped_below and mix64(fold("floor.skip", begun)) < self.skipped_below:
            return None
        if len(self.models) > 1:
            draw = mix64(fold("floor.model", begun)) * self.weights[-1]
            return next(model for model, weight in zip(self.models, self.weights, strict=True) if draw < weight << 64)
        return self.models[0]

    def floor(self, model: Model, values: Values) -> CpmMicros:
        """Give what a model asks for, at least `floor_min`; 0 where it says nothing."""
        floor = model.floor(values)
        return CpmMicros(0) if floor is None else max(floor, self.floor_min)


def compiled(rules: FloorRules) -> FloorTable:
    """Make the table; ValueError for two rules of one model with the same keys."""
    weights = []
    total = 0
    for model in rules.models:
        assert model.weight > 0
        total += model.weight
        weights.append(total)
    numerator, denominator = Decimal(rules.skip_rate).as_integer_ratio()
    return FloorTable(
        rules.floor_min,
        (numerator << 64) // denominator,
        tuple(_model(place, model) for place, model in enumerate(rules.models)),
        tuple(weights),
        frozenset(rule.bidder for model in rules.models for rule in model.rules if rule.bidder is not None),
    )


def _model(place: int, model: FloorModel) -> Model:
    # True where a rule leaves a key open: sorted, the fewest first, and of as many those whose values come first.
    shapes = sorted({_shape(rule) for rule in model.rules}, key=lambda shape: (sum(shape), shape))
    numbers: list[dict[str, int]] = [{} for _ in KEYS]
    for rule in model.rules:
        for key, known in zip(KEYS, numbers, strict=True):
            value = getattr(rule, key)
            if value is not None:
                known.setdefault(value, len(known) + 1)
    shifts = list(_shifts(numbers))
    patterns: list[tuple[int, dict[int, CpmMicros]]] = [
        (sum(((1 << len(known).bit_length()) - 1) << shift
             for known, shift, left_open in zip(numbers, shifts, shape, strict=True) if not left_open), {})
        for shape in shapes
    ]  # fmt: skip
    opens = [sum(1 << row for row, shape in enumerate(shapes) if shape[key]) for key in range(len(KEYS))]
    columns = [
        {value: [number << shift, left_open] for value, number in known.items()}
        for known, shift, left_open in zip(numbers, shifts, opens, strict=True)
    ]
    first: dict[tuple[int, int], int] = {}
    rows = {shape: row for row, shape in enumerate(shapes)}
    for number, rule in enumerate(model.rules):
        row = rows[_shape(rule)]
        code = 0
        for key, column in zip(KEYS, columns, strict=True):
            value = getattr(rule, key)
            if value is not None:
                code |= column[value][0]
                column[value][1] |= 1 << row
        before = first.setdefault((row, code), number)
        if before != number:
            path = f"floors.models[{place}].rules"
            raise ValueError(f"{path}[{number}]: expected keys of its own, has those of {path}[{before}]")
        patterns[row][1][code] = rule.floor
    return Model(
        model.default,
        tuple(
            Column({value: (code, mask) for value, (code, mask) in column.items()}, left_open)
            for column, left_open in zip(columns, opens, strict=True)
        ),
        tuple(patterns),
    )


def _shape(rule: FloorRule) -> tuple[bool, ...]:
    return tuple(getattr(rule, key) is None for key in KEYS)


def _shifts(numbers: Sequence[dict[str, int]]) -> Iterator[int]:
    shift = 0
    for known in numbers:
        yield shift
        shift += len(known).bit_length()
