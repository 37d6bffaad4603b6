"""Reads `key md5 size` lines from a file and checks that each object is there with exactly these bytes."""

import hashlib
import sys

import boto3
from botocore.config import Config

bucket, manifest = sys.argv[1:]
s3 = boto3.client("s3", config=Config(retries={"max_attempts": 8, "mode": "standard"}))
listed = {entry["Key"] for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket) for entry in page.get("Contents", [])}
count = 0
for line in open(manifest):
    key, md5, size = line.split()
    body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    assert (hashlib.md5(body).hexdigest(), len(body)) == (md5, int(size)), f"{key} has other bytes"
    assert key in listed, f"{key} is not listed"
    count += 1
assert count > 0, "nothing was acknowledged"
print("verified", count)
