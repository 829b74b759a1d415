"""What others report on FI-2010: macro-F1 in percent for the labels of the next 10, 20, 30, 50, 100 events.

Taken from the papers and repositories named in each row; none of it was measured by this program. ``None``
where a source has no figure. ``ANCHORED`` is another protocol and must never be read beside the rest.
"""

from __future__ import annotations

from collections.abc import Mapping

Row = tuple[float | None, ...]

LOBCAST: Mapping[str, Row] = {
    "BiN-CTABL": (81.1, 71.5, 80.8, 87.7, 92.1),
    "DLA": (79.4, 69.3, 78.9, 87.1, 52.2),
    "AxialLOB": (73.2, 63.4, 72.8, 78.3, 79.2),
    "DeepLOB": (71.1, 62.4, 70.8, 75.4, 77.6),
    "DeepLOB-Attention": (70.6, 54.8, 66.0, 73.6, 71.6),
    "CTABL": (69.5, 62.4, 70.4, 71.6, 73.9),
    "LSTM": (66.5, 58.8, 65.3, 66.9, 59.4),
    "CNN-LSTM": (63.5, 49.1, 63.3, 69.2, 71.0),
    "TransLOB": (61.4, 54.7, 59.8, 60.6, 60.5),
    "DAIN-MLP": (53.9, 46.7, 53.5, 61.2, 62.8),
    "CNN1": (49.3, 46.1, 62.3, 65.8, 67.2),
    "MLP": (48.2, 44.0, 47.2, 49.0, 51.6),
    "TLONBoF": (36.5, 51.7, 41.6, 52.4, 66.2),
    "ATNBoF": (32.9, 34.2, 38.2, 48.1, 51.0),
    "CNN2": (27.6, 35.4, 53.2, 67.9, 68.5),
}
"""Prata et al. 2024 (arXiv 2308.01915): one re-evaluation of all, five seeds. Setup 2."""

CLAIMED: Mapping[str, Row] = {
    "SVM, linear (Tsantekidis 2017)": (35.9, 43.2, None, 49.4, None),
    "MLP (Tsantekidis 2017)": (48.3, 51.1, None, 56.0, None),
    "CNN-I (Tsantekidis 2017)": (55.2, 59.2, None, 59.4, None),
    "LSTM (Tsantekidis 2017)": (66.3, 62.4, None, 61.4, None),
    "C(TABL) (Tran 2019)": (77.6, 66.9, None, 78.4, None),
    "DeepLOB (Zhang 2019)": (83.4, 72.8, None, 80.4, 76.8),
    "DeepLOB-Attention (Zhang 2021)": (82.4, 73.7, 76.9, 79.4, 81.5),
    "TransLOB (Wallbridge 2020; not reproduced)": (88.7, 80.7, None, 88.2, 91.6),
    "BiN-C(TABL) (Tran 2021)": (81.0, 71.2, None, 88.1, None),
    "DLA (Guo 2023)": (77.8, None, 79.4, 79.0, None),
    "AxialLOB (Kisiel 2022)": (85.1, 75.8, 80.1, 83.3, 85.9),
    "MLPLOB (Berti 2025)": (81.6, 84.9, None, 91.4, 92.6),
    "TLOB (Berti 2025)": (81.6, 82.7, None, 90.0, 92.8),
}
"""As claimed by the authors, setup 2."""

LEVELS: Mapping[str, Row] = {
    "bronze: DeepLOB as re-run": (71.1, 62.4, 70.8, 75.4, 77.6),
    "silver: BiN-CTABL as re-run": (81.1, 71.5, 80.8, 87.7, 92.1),
    "gold: the best claimed": (81.6, 84.9, None, 91.4, 92.8),
}
MAJORITY: Row = (27.6, 25.5, 24.0, 14.4, 17.1)
"""The class that is commonest in training, on the real test days."""

ANCHORED: Mapping[str, tuple[float, float | None]] = {
    "MLP (Passalis 2020)": (36.9, 0.13),
    "CNN (Passalis 2020)": (47.2, 0.22),
    "LSTM (Passalis 2020)": (49.5, 0.24),
    "GRU (Passalis 2020)": (50.6, 0.26),
    "TLo-NBoF (Passalis 2020)": (53.0, 0.29),
    "DAIN (September 2024)": (57.8, 0.36),
    "BiN (September 2024)": (58.9, 0.37),
    "EDAIN (September 2024)": (59.5, 0.38),
}
"""Setup 1, k = 10, 144 features: macro-F1 in percent and Cohen's kappa, means over nine folds."""

TRAIN_ROWS, TEST_ROWS = 254_750, 139_587
"""Rows of the real files of setup 2; other counts are another data set, and the report says so."""
