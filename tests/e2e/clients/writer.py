"""Writes numbered objects until it is stopped, and prints a line for each acknowledged one: key, MD5, size.

What it printed must be readable afterwards, whatever happened in between; `reader.py` checks that."""

import hashlib
import os
import sys
import time

import boto3
from botocore.config import Config

bucket, prefix, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
s3 = boto3.client("s3", config=Config(retries={"max_attempts": 1, "mode": "standard"}, connect_timeout=5, read_timeout=20))
end = time.monotonic() + seconds
number = 0
while time.monotonic() < end:
    number += 1
    size = (0, 100, 16384, 70_000, 1_200_000, 2_500_001)[number % 6]
    body = os.urandom(size)
    key = f"{prefix}{number:06}"
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=body)
    except Exception as error:  # noqa: BLE001: an error is not an acknowledgement, whatever it is
        print(f"{key}: {error}", file=sys.stderr)
        time.sleep(0.2)
        continue
    print(key, hashlib.md5(body).hexdigest(), size, flush=True)
