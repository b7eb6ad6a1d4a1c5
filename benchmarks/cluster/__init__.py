"""Replicas on Ray: streams that outlive theirs, throughput, latency, and where conversations go."""
