"""One server in front of several engines: replicas of a model on Ray (extra `cluster`)."""

import os

DIRECT = {
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**31 - 1),
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}
"""Has a token pass fewer threads and no object store, an answer with many log-probabilities pass at all, and
engines compute at the priority of other processes, where Ray would give them the least but four. What the
environment says goes before."""

for _name, _value in DIRECT.items():  # here, since Ray Serve reads them when it is imported
    os.environ.setdefault(_name, _value)
