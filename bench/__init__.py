"""Measurements that anybody can repeat: each prints a table and leaves JSON in bench/results."""
