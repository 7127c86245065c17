"""CSV files with a header: names as in ``names.py``, values of the promised type."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from torchrec_mm.columns.names import place_of
from torchrec_mm.columns.reading import input_errors
from torchrec_mm.errors import InputError

RULE = "must be a CSV file in UTF-8 with a header"


def read_csv(path: Path, columns: Mapping[str, pa.DataType]) -> pa.Table:
    """Read some columns of a CSV file, under the names given in ``columns``.

    Names in the file may differ by case and the spaces around them.

    Raises:
        InputError: no such file, no header, not one column of a name, or a value has the wrong type
            or is missing in a column that is not a string.
    """
    header = _header(path)
    places = {name: place_of(path, header, name) for name in columns}
    found = {header[places[name]]: kind for name, kind in columns.items()}
    with input_errors(path, RULE):
        table = pa_csv.read_csv(
            path,
            convert_options=pa_csv.ConvertOptions(
                column_types=found, include_columns=list(found), strings_can_be_null=False
            ),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        ).rename_columns(list(columns))
    for name in columns:
        if table[name].null_count:
            raise InputError(f"{path} column {name} must not be empty in any row")
    return table


def _header(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"{path} must be a CSV file: no such file")
    with input_errors(path, RULE), pa_csv.open_csv(path) as reader:
        return reader.schema.names
