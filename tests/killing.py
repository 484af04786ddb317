"""Runs in processes of their own that are killed at random moments and started again, until they end by themselves.

``RUAC_KILLS=50 pytest tests -k killed_at_random`` kills that often in each test instead of a few times.
"""

import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

KILLS = int(os.environ.get("RUAC_KILLS", "3"))


def killed_at_random(run: Callable[[Path], object], check: Callable[[Path], object], folder: Path, seed: int) -> None:
    """Start ``run(out)`` again and again, each time killed at some moment, until it is done; then ``check(out)``.

    Once done, it begins again in another folder below `folder`, until `KILLS` processes were killed; the last run is
    then left to end. The moments are drawn evenly from the time of an undisturbed run, so that a run is met in its
    first and in its last writes alike. That run comes first, in a process like the others: one of the test's own would
    count what is loaded and compiled only once, and most moments would come after the end.
    """
    started = time.monotonic()
    _, status = os.waitpid(_start(run, folder / "undisturbed"), 0)
    seconds = time.monotonic() - started
    assert status == 0, "an undisturbed run failed"
    check(folder / "undisturbed")
    moments, killed, ended, begun = random.Random(seed), 0, 0, 0
    while killed < KILLS or begun:
        process = _start(run, folder / f"{ended}")
        begun += 1
        if killed < KILLS:
            time.sleep(moments.uniform(0, seconds))
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        if os.WIFSIGNALED(status):
            killed += 1
            continue
        assert os.WEXITSTATUS(status) == 0, f"a run that was not killed failed, the start number {begun}"
        check(folder / f"{ended}")
        print(f"run {ended}: begun {begun} times, as it should be; {killed} killed so far", flush=True)
        ended, begun = ended + 1, 0


def _start(run: Callable[[Path], object], out: Path) -> int:
    process = os.fork()
    if not process:
        try:
            run(out)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return process
