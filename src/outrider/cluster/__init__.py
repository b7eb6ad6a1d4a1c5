"""One server in front of several engines: replicas of a model on Ray (extra `cluster`)."""
