"""Stage ``train_gbdt``: gradient-boosted trees on single feature rows."""

from __future__ import annotations

from flows.stages.common import Say, run
from flows.stages.training import train_stage
from models.gbdt import train


def main(say: Say) -> None:
    train_stage("gbdt", train, say)


if __name__ == "__main__":
    run("train_gbdt", main)
