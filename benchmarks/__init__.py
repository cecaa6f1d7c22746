"""Throughput, memory and training cost of fastsdm beside its peers; `python -m benchmarks` runs it all."""
