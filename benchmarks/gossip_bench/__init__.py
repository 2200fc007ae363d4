"""The parts of the benchmarks; ``benchmarks/run.py`` is the way in. Nothing of the daemon depends on them."""
