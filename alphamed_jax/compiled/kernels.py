"""What splash attention's kernels cost, read from how the optimised HLO of a TPU calls them.

A Pallas kernel is a custom call into which no cost analysis looks. Its name says what it computes,
its operands' shapes how much of it, and the kernel's grid how often it reads each of them.
"""

import math
from typing import NamedTuple

from alphamed_jax.compiled.hlo import Instruction, Shape

FORWARD, BACKWARD = "splash_mha_fwd", "splash_mha_dkv"
# Of a block of queries and keys, two FLOPs for each pair and feature in each product: scores and
# output; backward the scores again, and the gradients of weights, values, keys and queries.
_PRODUCTS = {FORWARD: 2, BACKWARD: 5}


class Call(NamedTuple):
    """A call of one of the kernels on one device."""

    kernel: str
    batch: int
    """Sequences of queries."""
    sharing: int
    """Of them with the same keys."""
    heads: int
    kv_heads: int
    width: int
    """Of a head."""
    queries: int
    keys: int
    query_blocks: int
    key_blocks: int
    causal: bool
    """Blocks of keys that lie after all queries of a block are passed over."""

    @property
    def blocks(self) -> int:
        """Pairs of a block of queries and one of keys that are computed, of one head."""
        if not self.causal:
            return self.query_blocks * self.key_blocks
        assert self.query_blocks == self.key_blocks, "a causal kernel has as many keys as queries"
        return self.query_blocks * (self.query_blocks + 1) // 2

    @property
    def pairs(self) -> int:
        """Pairs of a query and a key that are computed, of one head and sequence."""
        return self.blocks * self.queries * self.keys // (self.query_blocks * self.key_blocks)


def attention_call(instruction: Instruction, operands: list[tuple[Shape, ...]]) -> Call | None:
    """How an instruction calls a splash kernel; None: it does not.

    Args:
      operands: shapes of the instruction's operands, in order.
    """
    kernel = next((name for name in _PRODUCTS if instruction.name.startswith(name)), None)
    if kernel is None or instruction.opcode != "custom-call":
        return None
    shapes = [shape for (shape,) in operands]
    # Two small maps of blocks [1, query blocks, key blocks], then q, k and v; ids of segments and
    # places of queries follow: a causal kernel compares places.
    q, k = [shape for shape in shapes if _is_float(shape)][:2]
    whole = [shape for shape in shapes if not _is_float(shape)]
    places = len(whole) - 2 - (2 if "_segmented" in instruction.name else 0)
    assert places in (0, 1), instruction
    batch = math.prod(q.dims[:-3])
    return Call(
        kernel,
        batch,
        batch // math.prod(k.dims[:-3]),
        *(q.dims[-3], k.dims[-3], q.dims[-1], q.dims[-2], k.dims[-2]),
        *whole[0].dims[-2:],
        causal=places == 1,
    )


def attention_flops(call: Call) -> int:
    """FLOPs of a call's matrix products: those of every block that it does not pass over."""
    products = _PRODUCTS[call.kernel]
    return products * 2 * call.batch * call.heads * call.pairs * call.width


def attention_bytes(
    call: Call, instruction: Instruction, operands: list[tuple[Shape, ...]]
) -> tuple[int, int]:
    """Bytes of HBM that a call reads and writes.

    Forward, a block of queries stays on the core while the blocks of keys that it sees pass by, for
    each query head anew; backward the other way round. What is next again is not read again.
    """
    of_queries, of_keys = 1.0, float(call.sharing)
    if call.kernel == BACKWARD:
        of_queries = call.blocks / call.query_blocks
    elif call.key_blocks > 1:
        of_keys *= call.heads / call.kv_heads * call.blocks / call.key_blocks
    read, position = 0, 0
    for (shape,) in operands:
        times = 1.0
        if _is_float(shape):
            times = of_keys if position in (1, 2) else of_queries
            position += 1
        read += round(times * shape.size) if shape.space == 0 else 0
    return read, sum(shape.size for shape in instruction.shapes if shape.space == 0)


def _is_float(shape: Shape) -> bool:
    return shape.kind.startswith(("f", "bf"))
