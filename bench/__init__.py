"""Measurements that anyone can repeat. Each prints a table and writes JSON to bench/results."""
