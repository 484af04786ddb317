"""Several gloo processes that are forks of the test's own, so that nothing is imported or built again."""

import os
import socket
import traceback
from collections.abc import Callable

import torch.distributed as dist
from accelerate.state import AcceleratorState, GradientState


def together(count: int, body: Callable[[], object]) -> None:
    """Run ``body()`` in `count` processes, as torchrun starts them; in one of its own where `count` is 1."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [_start(rank, count, port, body) for rank in range(count)]
    ended = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in started]
    assert ended == [0] * count


def _start(rank: int, count: int, port: int, body: Callable[[], object]) -> int:
    process = os.fork()
    if process:
        return process
    try:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        if count > 1:
            places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in places.items()} | {"MASTER_ADDR": "127.0.0.1"})
        body()
        if dist.is_initialized():
            dist.barrier()  # the first holds the store of all
            dist.destroy_process_group()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)
