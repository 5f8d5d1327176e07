"""Display of grey levels as a DICOM file asks: Modality LUT, then window or VOI LUT (PS3.3, C.11.2)."""

import numpy as np
from pydicom import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi

MOST = 65535  # of the 16 bits of the result


def has_window(header: Dataset) -> bool:
    """Whether a file has a window or a VOI LUT."""
    return bool(header.get("VOILUTSequence")) or _first(header, "WindowWidth") is not None


def tabulated(header: Dataset, pixels: np.ndarray) -> tuple[np.ndarray, int]:
    """Stored values through the file's Modality LUT, (R, C) of whole numbers, and their bits."""
    values = apply_modality_lut(pixels, header)
    return values.astype(np.int32), header.ModalityLUTSequence[0].LUTDescriptor[2]


def shown(header: Dataset, pixels: np.ndarray) -> np.ndarray:
    """Stored values as the file's VOI LUT, else its first window, shows them: (R, C) uint16, 0 to 65535."""
    values = apply_modality_lut(pixels, header)
    if header.get("VOILUTSequence"):
        entry = header.VOILUTSequence[0].LUTDescriptor[2]
        return (apply_voi(np.rint(values).astype(np.int32), header).astype(np.uint32) * MOST // (2**entry - 1)).astype(
            np.uint16
        )
    return _windowed(header, values.astype(np.float32))


def _windowed(header: Dataset, values: np.ndarray) -> np.ndarray:
    centre, width = _first(header, "WindowCenter"), _first(header, "WindowWidth")
    assert centre is not None and width is not None, "only files with a window are shown through it"
    function = header.get("VOILUTFunction") or "LINEAR"
    if function == "SIGMOID":
        share = 1 / (1 + np.exp(-4 * (values - centre) / width))
    elif function == "LINEAR_EXACT":
        share = (values - centre) / width + 0.5
    else:
        share = (values - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5
    return np.rint(np.clip(share, 0, 1) * MOST).astype(np.uint16)


def _first(header: Dataset, name: str) -> float | None:
    """The first value of an element that may have several or none."""
    value = header.get(name)
    several = value is not None and not isinstance(value, str) and hasattr(value, "__iter__")
    if several:
        value = value[0] if len(value) else None
    return None if value in (None, "") else float(value)
