"""Stage ``train_transformer``: a Transformer over the last T rows."""

from __future__ import annotations

from flows.stages.common import Say, run
from flows.stages.training import train_stage
from models.transformer import train


def main(say: Say) -> None:
    train_stage("transformer", train, say)


if __name__ == "__main__":
    run("train_transformer", main)
