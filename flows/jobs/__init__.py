"""The Prefect flows: each module is one flow, deployed by ``flows.serve`` and runnable alone
(``python -m flows.jobs.retrain``).

A flow knows when, who asked, and what a person wants to read afterwards. It does not know the DAG (DVC does)
and decides nothing (the gate does).
"""
