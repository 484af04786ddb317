"""Runs in processes of their own that are killed at random moments and started again, until one ends by itself.

``RUAC_KILLS=50 pytest tests -k killed_at_random`` kills that often in each test instead of a few times.
"""

import os
import random
import signal
import time
from collections.abc import Callable

KILLS = int(os.environ.get("RUAC_KILLS", "3"))


def until_done(run: Callable[[], object], seconds: float, seed: int) -> int:
    """Start ``run()`` again and again, the first `KILLS` times killed within `seconds`; returns how many were killed.

    The moments are drawn evenly, so that a run is met in its first and in its last writes alike.
    """
    moments, killed = random.Random(seed), 0
    for number in range(KILLS + 1):
        process = os.fork()
        if not process:
            try:
                run()
                os._exit(0)
            finally:
                os._exit(1)
        if number < KILLS:
            time.sleep(moments.uniform(0, seconds))
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        if os.WIFSIGNALED(status):
            killed += 1
        else:
            assert os.WEXITSTATUS(status) == 0, "a run that was not killed failed"
    return killed
