"""Stage ``train_lstm``: an LSTM whose state is carried through the day."""

from __future__ import annotations

from flows.stages.common import Say, run
from flows.stages.training import train_stage
from models.lstm import train


def main(say: Say) -> None:
    train_stage("lstm", train, say)


if __name__ == "__main__":
    run("train_lstm", main)
