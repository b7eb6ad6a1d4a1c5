"""Types of options that several configurations have."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_bytes(value: object) -> object:
    """Bytes from a number or from a string such as '512MiB'."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)
    if match is None or match[2].upper() not in UNITS:
        raise ValueError("give bytes as a number or as in '512MiB' or '2GB'")
    return int(Decimal(match[1]) * UNITS[match[2].upper()])


Bytes = Annotated[int, Field(gt=0, lt=2**63), BeforeValidator(parse_bytes)]
Count = Annotated[int, Field(gt=0, lt=2**31)]
LookupLength = Annotated[int, Field(gt=0, le=64)]
Quantization = Literal["int8", "int4"]
SchedulingPolicy = Literal["fcfs", "priority"]
