"""Rows: arrays, tables, groups and shards."""
