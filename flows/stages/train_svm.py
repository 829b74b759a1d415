"""Stage ``train_svm``: an RBF support vector machine on random features, without torch."""

from __future__ import annotations

from flows.stages.common import Say, run
from flows.stages.training import train_stage
from models.svm import train


def main(say: Say) -> None:
    train_stage("svm", train, say)


if __name__ == "__main__":
    run("train_svm", main)
