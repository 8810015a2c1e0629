"""What is shown of a run where there is no terminal."""

import pytest

from training.progress import TrainingProgress

RECORD = {"loss": 0.5, "grad_norm": 1.25, "step_seconds": 0.8, "data_wait_share": 0.01}
TEXT = "loss 0.5000  grad 1.25  0.80 s/step  waiting for data 1%"


@pytest.mark.parametrize("first", [0, 1000])
def test_the_time_left_is_told_from_the_second_logged_step_on_however_far_apart_they_are(capsys, first):
    """80 s lie between the lines; the first of them took 300 s more, to compile."""
    now = 0.0
    progress = TrainingProgress("tiny", first, first + 1000, clock=lambda: now)
    for seconds, done in ((380, 100), (80, 200), (80, 300)):
        now += seconds
        progress.show({"step": first + done - 1, **RECORD})
    assert capsys.readouterr().err.splitlines() == [
        f"tiny: from step {first} to {first + 1000}; compiling the first step",
        f"step {first + 100}/{first + 1000}  {TEXT}",
        f"step {first + 200}/{first + 1000}  {TEXT}  0:10:40 left",
        f"step {first + 300}/{first + 1000}  {TEXT}  0:09:20 left",
    ]
