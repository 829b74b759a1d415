"""One file for each stage of ``dvc.yaml``: ``python -m flows.stages.<stage>``, run in the folder of
``params.yaml``.

The environment below is set before NumPy or TensorFlow is first imported, because both read it only then: one
BLAS thread, since the order of a parallel sum changes its last bits and the same inputs must give the same
bytes on any number of cores. Waiting OpenMP threads sleep instead of spinning: on a machine whose cores are
busy with something else, spinning ones made a training ten times slower.
"""

from __future__ import annotations

import os

for _name, _value in {
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "CUDA_VISIBLE_DEVICES": "",
    "MPLBACKEND": "Agg",
}.items():
    os.environ.setdefault(_name, _value)
