"""What is wrong with a row that has no code or no distance, in words.

Not responsible for finding such rows: `data.row_checks`, `encoder.inputs`, `rerank`.
"""

import numpy as np


def why_bad(x: np.ndarray, row: int) -> str:
    """What is wrong with a row `x [d]` that float32 cannot hold or compute with.

    A row of zeros is asked about only where a direction is needed.
    """
    if not np.any(x):
        return f"row {row} is all zeros, which have no cosine; remove it"
    if np.isfinite(np.asarray(x, np.float64)).all():
        with np.errstate(over="ignore"):
            zeros = not np.any(np.asarray(x, np.float32))
        if zeros:
            return f"row {row} holds values so small that float32 makes zeros of them; scale it"
        return f"row {row} holds values so large that float32 overflows; scale or repair it"
    return f"row {row} holds NaN or infinity; remove or repair it"
