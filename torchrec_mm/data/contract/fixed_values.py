"""One value of a feature for all impressions, whatever files say: `--at '{candidate_place: 0}'`.

What is only known once something was shown, as its place, is not there when it is scored.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from torchrec_mm.columns.numbers import in_one
from torchrec_mm.columns.parquet import FLOAT64, INT64, STRING
from torchrec_mm.data.contract.features import Feature
from torchrec_mm.errors import InputError

WANTED = {INT64: (int,), STRING: (str,), FLOAT64: (int, float)}


@dataclass(frozen=True)
class FixedValues:
    """Values by feature, None for null.

    kinds: types of their columns, lists. values: by the same names.
    """

    kinds: Mapping[str, pa.DataType]
    values: Mapping[str, Any]

    @classmethod
    def of(cls, values: Mapping[str, Any], features: Mapping[str, Feature]) -> "FixedValues":
        """Hold values to the features of impressions that a model has.

        Raises:
            InputError: a name that none of them has, a value of another kind.
        """
        for name, value in values.items():
            if name not in features:
                known = ", ".join(features) or "none"
                rule = f"at must name features of impressions that the run has, {known}"
                raise InputError(f"{rule}, got {name}")
            kind = features[name].kind.value_type
            is_fit = type(value) in WANTED[kind] and (kind == STRING or math.isfinite(value))
            if value is not None and not is_fit:
                raise InputError(f"at {name} must be {kind} or null, got {value!r}")
        return cls({name: features[name].kind for name in values}, values)

    def put(self, table: pa.Table) -> pa.Table:
        """Requests with these columns, in place of those of their names or beside the others."""
        lists = in_one(table["candidate_item_ids"])
        count = pc.sum(pc.list_value_length(lists)).as_py() or 0
        offsets = pc.subtract(lists.offsets, lists.offsets[0])
        for name, value in self.values.items():
            values = pa.repeat(pa.scalar(value, self.kinds[name].value_type), count)
            column = pa.ListArray.from_arrays(offsets, values)
            if name in table.column_names:
                table = table.drop_columns(name)
            table = table.append_column(name, column)
        return table
