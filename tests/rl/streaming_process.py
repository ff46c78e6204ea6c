"""One of two processes that stream together: the completions it is given, as JSON.

python streaming_process.py ADDRESS PROCESS
"""

import json
import sys

import jax


def main(address: str, process: str) -> None:
    jax.distributed.initialize(address, num_processes=2, process_id=int(process))
    # Only now: they make arrays, and so the devices.
    from dummy_model import TABLE
    from test_stream import KEY, by_sequence, made_requests, sampler

    from alphamed_jax.model.mesh import make_mesh
    from alphamed_jax.rl.sampler import Sampler

    this = Sampler(sampler(slots=16).config, make_mesh("4x2"))
    stream = this.stream(this.load(TABLE), made_requests(21), KEY)
    print(json.dumps(by_sequence(stream)))


if __name__ == "__main__":
    main(*sys.argv[1:])
