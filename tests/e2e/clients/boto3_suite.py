"""What boto3 users do, checked byte for byte. Prints a line per check; exits non-zero at the first that fails."""

import hashlib
import io
import os
import sys
import tempfile
import threading
import time
import urllib.request
import uuid

import boto3
import urllib3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT = os.environ["AWS_ENDPOINT_URL"]


def client(**config):
    return boto3.client("s3", config=Config(retries={"max_attempts": 5, "mode": "standard"}, **config))


S3 = client()
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def fails(code, status, call, **arguments):
    """The call must fail with exactly this error code and HTTP status."""
    try:
        call(**arguments)
    except ClientError as error:
        found = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        assert found == (code, status), f"expected {(code, status)}, got {found}: {error}"
        return error.response
    raise AssertionError(f"expected {code}, but the call succeeded")


def pattern(size, seed=b"x"):
    block = hashlib.sha256(seed).digest() * 2048
    return (block * (size // len(block) + 1))[:size]


@check
def buckets(bucket):
    assert bucket in [b["Name"] for b in S3.list_buckets()["Buckets"]]
    S3.head_bucket(Bucket=bucket)
    assert S3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    fails("NoSuchBucket", 404, S3.list_objects_v2, Bucket="absent-" + bucket)
    fails("404", 404, S3.head_bucket, Bucket="absent-" + bucket)
    fails("InvalidBucketName", 400, client(parameter_validation=False).create_bucket, Bucket="UPPER-" + bucket)


@check
def put_get_head_delete(bucket):
    for size in (0, 1, 16 * 1024, 16 * 1024 + 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (16 << 20) + 3, 40_000_001):
        body = pattern(size, str(size).encode())
        put = S3.put_object(Bucket=bucket, Key=f"size/{size}", Body=body, ContentType="text/x-test",
                            CacheControl="no-store", Metadata={"Color": "red", "empty": ""})
        assert put["ETag"] == f'"{hashlib.md5(body).hexdigest()}"', put["ETag"]
        head = S3.head_object(Bucket=bucket, Key=f"size/{size}")
        assert (head["ContentLength"], head["ContentType"], head["CacheControl"]) == (size, "text/x-test", "no-store")
        assert head["Metadata"] == {"color": "red", "empty": ""}, head["Metadata"]
        got = S3.get_object(Bucket=bucket, Key=f"size/{size}")
        assert got["Body"].read() == body and got["ETag"] == put["ETag"]
    S3.delete_object(Bucket=bucket, Key="size/1")
    S3.delete_object(Bucket=bucket, Key="size/1")
    fails("NoSuchKey", 404, S3.get_object, Bucket=bucket, Key="size/1")
    fails("404", 404, S3.head_object, Bucket=bucket, Key="size/1")


@check
def ranges(bucket):
    body = pattern(3_500_000)
    S3.put_object(Bucket=bucket, Key="range", Body=body)
    for header, start, end in (("bytes=0-0", 0, 1), ("bytes=-7", len(body) - 7, len(body)), ("bytes=1048570-1048600", 1048570, 1048601),
                               ("bytes=3400000-", 3400000, len(body)), ("bytes=5-99999999", 5, len(body))):
        got = S3.get_object(Bucket=bucket, Key="range", Range=header)
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert got["ContentRange"] == f"bytes {start}-{end - 1}/{len(body)}", got["ContentRange"]
        assert got["Body"].read() == body[start:end], header
    fails("InvalidRange", 416, S3.get_object, Bucket=bucket, Key="range", Range=f"bytes={len(body)}-")
    fails("InvalidRange", 416, S3.get_object, Bucket=bucket, Key="range", Range="bytes=-0")
    whole = S3.get_object(Bucket=bucket, Key="range", Range="bytes=9-3")
    assert whole["ResponseMetadata"]["HTTPStatusCode"] == 200 and whole["Body"].read() == body


@check
def awkward_keys(bucket):
    keys = ["a", "a/", "a//b", "/lead", " ", "_", "%", "%2F", "+", "a+b c", "?versionId", "a/./b", "ü", "日本", "é/ñ", "x\ty", "q\"'<>&",
            "end ", "k" * 1024, "💾", "a=b&c=d", "semi;colon", "#", "*", "back\\slash", "new\nline"]
    for key in keys:
        S3.put_object(Bucket=bucket, Key="keys/"[:1024 - len(key.encode())] + key, Body=key.encode())
    for key in keys:
        key_sent = "keys/"[:1024 - len(key.encode())] + key
        assert S3.get_object(Bucket=bucket, Key=key_sent)["Body"].read() == key.encode(), key
    listed = [o["Key"] for page in S3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="keys/", PaginationConfig={"PageSize": 3})
              for o in page.get("Contents", [])]
    expected = sorted(("keys/" + k for k in keys if len(k) < 1000), key=lambda k: k.encode())
    assert listed == expected, (listed, expected)
    fails("KeyTooLongError", 400, S3.put_object, Bucket=bucket, Key="k" * 1025, Body=b"x")


@check
def listing(bucket):
    keys = [f"l/{a}/{b}" for a in ("x", "y", "y+", "z") for b in range(7)] + ["l/plain", "l/y", "l/zz"]
    for key in keys:
        S3.put_object(Bucket=bucket, Key=key, Body=b"1")
    for size in (1, 2, 3, 5, 1000):
        prefixes, contents, token = [], [], None
        while True:
            arguments = dict(Bucket=bucket, Prefix="l/", Delimiter="/", MaxKeys=size)
            if token:
                arguments["ContinuationToken"] = token
            page = S3.list_objects_v2(**arguments)
            assert page["KeyCount"] == len(page.get("Contents", [])) + len(page.get("CommonPrefixes", [])) <= size
            prefixes += [p["Prefix"] for p in page.get("CommonPrefixes", [])]
            contents += [o["Key"] for o in page.get("Contents", [])]
            if not page["IsTruncated"]:
                break
            token = page["NextContinuationToken"]
        assert prefixes == ["l/x/", "l/y+/", "l/y/", "l/z/"], (size, prefixes)
        assert contents == ["l/plain", "l/y", "l/zz"], (size, contents)
        marker, v1 = "", []
        while True:
            page = S3.list_objects(Bucket=bucket, Prefix="l/", MaxKeys=size, Marker=marker)
            v1 += [o["Key"] for o in page.get("Contents", [])]
            assert "NextMarker" not in page
            if not page["IsTruncated"]:
                break
            marker = v1[-1]
        assert v1 == sorted(keys, key=lambda k: k.encode())
    assert not S3.list_objects_v2(Bucket=bucket, MaxKeys=0)["IsTruncated"]
    after = S3.list_objects_v2(Bucket=bucket, Prefix="l/", StartAfter="l/z/6")
    assert [o["Key"] for o in after["Contents"]] == ["l/zz"]
    fails("InvalidArgument", 400, S3.list_objects_v2, Bucket=bucket, ContinuationToken="rubbish!")


@check
def conditions(bucket):
    first = S3.put_object(Bucket=bucket, Key="cond", Body=b"one", IfNoneMatch="*")
    fails("PreconditionFailed", 412, S3.put_object, Bucket=bucket, Key="cond", Body=b"two", IfNoneMatch="*")
    second = S3.put_object(Bucket=bucket, Key="cond", Body=b"two", IfMatch=first["ETag"])
    fails("PreconditionFailed", 412, S3.put_object, Bucket=bucket, Key="cond", Body=b"three", IfMatch=first["ETag"])
    fails("NoSuchKey", 404, S3.put_object, Bucket=bucket, Key="cond-absent", Body=b"three", IfMatch=first["ETag"])
    assert S3.get_object(Bucket=bucket, Key="cond", IfMatch=second["ETag"])["Body"].read() == b"two"
    fails("PreconditionFailed", 412, S3.get_object, Bucket=bucket, Key="cond", IfMatch=first["ETag"])
    fails("304", 304, S3.get_object, Bucket=bucket, Key="cond", IfNoneMatch=second["ETag"])
    modified = S3.head_object(Bucket=bucket, Key="cond")["LastModified"]
    fails("304", 304, S3.get_object, Bucket=bucket, Key="cond", IfModifiedSince=modified)
    assert S3.get_object(Bucket=bucket, Key="cond", IfUnmodifiedSince=modified)["Body"].read() == b"two"


@check
def multipart_by_upload_file(bucket):
    body = pattern(21 * (1 << 20) + 12345)
    with tempfile.NamedTemporaryFile() as source, tempfile.NamedTemporaryFile() as target:
        source.write(body)
        source.flush()
        config = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20, max_concurrency=4)
        S3.upload_file(source.name, bucket, "multi", Config=config, ExtraArgs={"ContentType": "text/multi"})
        head = S3.head_object(Bucket=bucket, Key="multi")
        assert head["ETag"].endswith('-5"') and head["ContentType"] == "text/multi", head
        S3.download_file(bucket, "multi", target.name, Config=config)
        assert open(target.name, "rb").read() == body
    part = S3.get_object(Bucket=bucket, Key="multi", PartNumber=2)
    assert part["PartsCount"] == 5 and part["Body"].read() == body[5 << 20:10 << 20]
    fails("InvalidPartNumber", 416, S3.get_object, Bucket=bucket, Key="multi", PartNumber=6)


@check
def multipart_rules(bucket):
    key = "rules"
    upload = S3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    one = S3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=pattern(5 << 20))
    nine = S3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=9, Body=b"end")
    S3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=20, Body=b"not listed")
    assert [p["PartNumber"] for p in S3.list_parts(Bucket=bucket, Key=key, UploadId=upload)["Parts"]] == [1, 9, 20]
    assert key in [u["Key"] for u in S3.list_multipart_uploads(Bucket=bucket)["Uploads"]]

    def complete(*parts):
        return dict(Bucket=bucket, Key=key, UploadId=upload,
                    MultipartUpload={"Parts": [{"PartNumber": n, "ETag": e} for n, e in parts]})

    fails("InvalidPartOrder", 400, S3.complete_multipart_upload, **complete((9, nine["ETag"]), (1, one["ETag"])))
    fails("InvalidPart", 400, S3.complete_multipart_upload, **complete((1, nine["ETag"])))
    fails("EntityTooSmall", 400, S3.complete_multipart_upload, **complete((9, nine["ETag"]), (20, hashlib.md5(b"not listed").hexdigest())))
    fails("404", 404, S3.head_object, Bucket=bucket, Key=key)
    done = S3.complete_multipart_upload(**complete((1, one["ETag"]), (9, nine["ETag"].strip('"'))))
    again = S3.complete_multipart_upload(**complete((1, one["ETag"]), (9, nine["ETag"])))
    assert done["ETag"] == again["ETag"]
    assert S3.get_object(Bucket=bucket, Key=key)["Body"].read() == pattern(5 << 20) + b"end"
    fails("NoSuchUpload", 404, S3.list_parts, Bucket=bucket, Key=key, UploadId=upload)
    other = S3.create_multipart_upload(Bucket=bucket, Key="aborted")["UploadId"]
    S3.upload_part(Bucket=bucket, Key="aborted", UploadId=other, PartNumber=1, Body=b"x")
    S3.abort_multipart_upload(Bucket=bucket, Key="aborted", UploadId=other)
    fails("NoSuchUpload", 404, S3.upload_part, Bucket=bucket, Key="aborted", UploadId=other, PartNumber=1, Body=b"x")


@check
def copies(bucket):
    body = pattern(2_000_003)
    S3.put_object(Bucket=bucket, Key="copy/from +é", Body=body, Metadata={"a": "1"}, ContentType="text/a")
    S3.copy_object(Bucket=bucket, Key="copy/to", CopySource={"Bucket": bucket, "Key": "copy/from +é"})
    head = S3.head_object(Bucket=bucket, Key="copy/to")
    assert head["Metadata"] == {"a": "1"} and head["ContentType"] == "text/a"
    assert S3.get_object(Bucket=bucket, Key="copy/to")["Body"].read() == body
    S3.copy_object(Bucket=bucket, Key="copy/to", CopySource={"Bucket": bucket, "Key": "copy/to"}, MetadataDirective="REPLACE", Metadata={"b": "2"})
    assert S3.head_object(Bucket=bucket, Key="copy/to")["Metadata"] == {"b": "2"}
    fails("InvalidRequest", 400, S3.copy_object, Bucket=bucket, Key="copy/to", CopySource={"Bucket": bucket, "Key": "copy/to"})
    fails("NoSuchKey", 404, S3.copy_object, Bucket=bucket, Key="copy/to", CopySource={"Bucket": bucket, "Key": "absent"})
    upload = S3.create_multipart_upload(Bucket=bucket, Key="copy/parts")["UploadId"]
    part = S3.upload_part_copy(Bucket=bucket, Key="copy/parts", UploadId=upload, PartNumber=1,
                               CopySource={"Bucket": bucket, "Key": "copy/from +é"}, CopySourceRange="bytes=10-1500009")
    S3.complete_multipart_upload(Bucket=bucket, Key="copy/parts", UploadId=upload,
                                 MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["CopyPartResult"]["ETag"]}]})
    assert S3.get_object(Bucket=bucket, Key="copy/parts")["Body"].read() == body[10:1500010]


@check
def checksums(bucket):
    for algorithm in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"):
        try:
            put = S3.put_object(Bucket=bucket, Key="sum/" + algorithm, Body=b"checked", ChecksumAlgorithm=algorithm)
        except Exception as error:  # CRC32C and CRC64NVME need an optional package of the client.
            if "awscrt" in str(error).lower() or "crt" in str(error).lower():
                continue
            raise
        name = "Checksum" + algorithm
        got = S3.get_object(Bucket=bucket, Key="sum/" + algorithm, ChecksumMode="ENABLED")
        assert got[name] == put[name] and got["Body"].read() == b"checked"
        attributes = S3.get_object_attributes(Bucket=bucket, Key="sum/" + algorithm, ObjectAttributes=["Checksum", "ObjectSize", "ETag"])
        assert attributes["ObjectSize"] == 7 and attributes["Checksum"][name] == put[name]
    fails("BadDigest", 400, S3.put_object, Bucket=bucket, Key="sum/bad", Body=b"checked", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==")
    fails("InvalidDigest", 400, S3.put_object, Bucket=bucket, Key="sum/bad", Body=b"checked", ContentMD5="bad")
    fails("BadDigest", 400, S3.put_object, Bucket=bucket, Key="sum/bad", Body=b"checked", ChecksumSHA256="A" * 43 + "=")
    fails("404", 404, S3.head_object, Bucket=bucket, Key="sum/bad")


@check
def presigned(bucket):
    for version in ("s3v4", "s3"):
        signer = client(signature_version=version)
        put = signer.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "signed/ü+"}, ExpiresIn=60)
        # Not urllib.request: it adds a Content-Type, which version 2 signs.
        assert urllib3.PoolManager().request("PUT", put, body=b"by url").status == 200, version
        get = signer.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "signed/ü+"}, ExpiresIn=60)
        assert urllib.request.urlopen(get).read() == b"by url"
        try:
            urllib.request.urlopen(get.replace("signed/", "signee/"))
            raise AssertionError("another key's URL was accepted")
        except urllib.error.HTTPError as error:
            assert error.code == 403, error.code


@check
def delete_many(bucket):
    for number in range(30):
        S3.put_object(Bucket=bucket, Key=f"many/{number}", Body=b"x")
    reply = S3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": f"many/{n}"} for n in range(30)] + [{"Key": "many/absent"}]})
    assert len(reply["Deleted"]) == 31 and "Errors" not in reply, reply
    assert S3.list_objects_v2(Bucket=bucket, Prefix="many/")["KeyCount"] == 0
    quiet = S3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "many/0"}], "Quiet": True})
    assert "Deleted" not in quiet


@check
def refused(bucket):
    bad = boto3.client("s3", aws_access_key_id="nobody", aws_secret_access_key="x" * 20)
    fails("InvalidAccessKeyId", 403, bad.list_buckets)
    wrong = boto3.client("s3", aws_access_key_id=os.environ["AWS_ACCESS_KEY_ID"], aws_secret_access_key="x" * 20)
    fails("SignatureDoesNotMatch", 403, wrong.put_object, Bucket=bucket, Key="refused", Body=b"x")
    from botocore import UNSIGNED
    anonymous = client(signature_version=UNSIGNED)
    fails("AccessDenied", 403, anonymous.get_object, Bucket=bucket, Key="cond")
    fails("AccessDenied", 403, anonymous.put_object, Bucket=bucket, Key="refused", Body=b"x")
    fails("404", 404, S3.head_object, Bucket=bucket, Key="refused")
    for call in (S3.get_bucket_acl, S3.get_bucket_lifecycle_configuration, S3.get_bucket_encryption, S3.get_bucket_versioning):
        fails("NotImplemented", 501, call, Bucket=bucket)


@check
def race(bucket):
    wins, lock = [], threading.Lock()

    def attempt(number):
        try:
            S3.put_object(Bucket=bucket, Key="race", Body=str(number).encode(), IfNoneMatch="*")
            with lock:
                wins.append(number)
        except ClientError as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412), error

    threads = [threading.Thread(target=attempt, args=(n,)) for n in range(16)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(wins) == 1, wins
    assert S3.get_object(Bucket=bucket, Key="race")["Body"].read() == str(wins[0]).encode()


@check
def empty_objects_do_not_stall_the_connection(bucket):
    started = time.monotonic()
    for number in range(5):
        S3.put_object(Bucket=bucket, Key=f"empty/{number}", Body=b"")
        S3.put_object(Bucket=bucket, Key=f"full/{number}", Body=b"x")
    # A stall lasts until the server drops the idle connection, ten seconds later: this is about hanging, not about speed.
    assert time.monotonic() - started < 9, "a request after an empty PUT hung"


@check
def streaming_body(bucket):
    body = pattern(7_000_000)
    S3.upload_fileobj(io.BytesIO(body), bucket, "stream")
    assert b"".join(S3.get_object(Bucket=bucket, Key="stream")["Body"].iter_chunks(65536)) == body


def main():
    bucket = "suite-" + uuid.uuid4().hex[:12]
    S3.create_bucket(Bucket=bucket)
    failed = 0
    for function in CHECKS:
        try:
            function(bucket)
            print("ok", function.__name__, flush=True)
        except Exception as error:  # noqa: BLE001: every failure is reported, then the next check runs
            import traceback
            traceback.print_exc()
            print("FAILED", function.__name__, repr(error), flush=True)
            failed += 1
    fails("BucketNotEmpty", 409, S3.delete_bucket, Bucket=bucket)
    for page in S3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", []):
            S3.delete_object(Bucket=bucket, Key=entry["Key"])
    S3.delete_bucket(Bucket=bucket)
    print("ok emptied and deleted the bucket")
    sys.exit(1 if failed else 0)


main()
