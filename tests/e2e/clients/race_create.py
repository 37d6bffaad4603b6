"""One contender of a race: PUT If-None-Match: * on a key. Prints `won` or `lost`."""

import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

bucket, key, body = sys.argv[1:]
s3 = boto3.client("s3", config=Config(retries={"max_attempts": 1, "mode": "standard"}))
try:
    s3.put_object(Bucket=bucket, Key=key, Body=body.encode(), IfNoneMatch="*")
    print("won")
except ClientError as error:
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    assert status in (409, 412), error
    print("lost")
