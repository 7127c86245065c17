"""What a scorer's log has besides the columns of ``requests/``, labels apart."""

from collections.abc import Mapping

import pyarrow as pa

from torchrec_mm.columns.parquet import INT64, STRING

SERVED_AT = "served_at"  # Unix seconds, by the scorer's clock
SERVED_BY = "served_by"  # checkpoint
SERVED = "click_probabilities"  # as long as the candidates
OF_SERVER: Mapping[str, pa.DataType] = {
    SERVED_AT: INT64,
    SERVED_BY: STRING,
    SERVED: pa.list_(pa.float32()),
}
