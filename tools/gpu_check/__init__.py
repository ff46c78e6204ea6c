"""What can only be seen on a GPU: `tools/gpu_check.sh`, docs/gpu.md.

`__main__` runs the checks of `table`, each in a process of its own (`child`), and prints one JSON
object. These three and `packages` need the standard library alone, so that they can say what is
missing.
"""
