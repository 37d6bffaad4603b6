//! The catalogue: every fault that must be survived, what is required then, and how often it happened in a run.

use std::collections::BTreeMap;

macro_rules! rows {
    ($($row:ident $fault:literal => $required:literal,)*) => {
        /// A row of the catalogue.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Row {
            $(#[doc = $fault] $row,)*
        }

        impl Row {
            pub const ALL: &[Row] = &[$(Row::$row,)*];

            pub fn id(self) -> &'static str {
                match self {
                    $(Row::$row => stringify!($row),)*
                }
            }

            /// What happens.
            pub fn fault(self) -> &'static str {
                match self {
                    $(Row::$row => $fault,)*
                }
            }

            /// How Dozo must behave.
            pub fn required(self) -> &'static str {
                match self {
                    $(Row::$row => $required,)*
                }
            }
        }
    };
}

rows! {
    // Process death at every step.
    P1 "gateway dies after auth, before any shard" => "connection reset; key unchanged; nothing staged",
    P2 "gateway dies with 1..k-1 shards staged" => "key unchanged; staged shards reclaimed within 2x lease; counted in orphan_bytes until then",
    P3 "gateway dies with all shards durable, before propose" => "not visible; reclaimed. GC vs slow commit race: apply must reject a commit whose lease expired/was reclaimed (fencing)",
    P4 "gateway dies after propose, before reply" => "unknown: fully visible or fully absent, decided by Raft",
    P5 "gateway dies after commit, before 200" => "visible; client retry gives the same content (a second version in a versioned bucket is allowed)",
    P6 "storage node dies during append" => "PUT succeeds with >= k+1 others, else 503; restart truncates the torn tail by record CRC, never beyond the last fsynced record",
    P7 "dies after chunk fsync, before index put" => "restart: scan-from-checkpoint re-indexes or drops; never 'indexed but absent'",
    P8 "dies after index put, before ack" => "re-send of the same shard id is idempotent",
    P9 "meta leader dies before quorum" => "new leader decides; client retry through lease/request id makes no duplicate commit",
    P10 "meta leader dies after commit, before apply" => "applied after restart; read index prevents stale read",
    P11 "a failed/short shard writer is still counted toward W" => "must not be counted or committed",
    P12 "UploadPart dies at each step; same part number re-sent in parallel" => "last completed part wins; ETag in Complete selects exactly the bytes listed; loser reclaimed",
    P13 "CompleteMultipartUpload dies at validate / propose / commit / reply / part cleanup" => "atomic; retry returns the same ETag or NoSuchUpload, never a second object version; parts listed are never GC'd; unlisted parts are",
    P14 "AbortMultipartUpload dies half-way; abort races complete" => "exactly one wins; then bytes reclaimed",
    P15 "DELETE dies at propose / commit / GC enqueue / shard delete" => "after 204 never visible again; before: either. GC idempotent, survives restart",
    P16 "re-PUT of the key while old shards are being deleted" => "new version untouched (GC by shard id)",
    P17 "CopyObject / UploadPartCopy, source node or gateway dies" => "all or nothing; source unchanged; copy of a version being deleted either completes with its bytes or fails",
    P18 "rebalance dies at copy / verify / publish location / delete old" => "at every instant >= k readable, target k+m; old copy deleted only after the new one is fsynced and its location committed",
    P19 "repair dies at read / decode / write / commit" => "no half-repaired shard served; repair never lowers redundancy; heal resumes",
    P20 "segment-file compaction dies at copy-live / fsync / index swap / unlink" => "every live shard readable before and after; no live record only in the unlinked file",
    P21 "RocksDB flush/compaction killed" => "reopen ok, index equals the segment-file scan",
    P22 "Raft snapshot build / install / log purge killed" => "no gap between snapshot and log; no half-installed snapshot used",
    P23 "CreateBucket/DeleteBucket killed; DeleteBucket races PUT" => "no bucket deleted with a committed object; no object in a missing bucket",
    P24 "poison entry: apply panics" => "validated before propose; apply is total; a node that panics twice on the same entry stops with a clear error instead of looping",
    P25 "rolling upgrade n -> n+1 killed mid-way, then rolled back" => "mixed versions interoperate or refuse with a version error; on-disk format is versioned and n still opens what n+1 wrote within the declared window",
    P26 "client of a response lost after commit" => "see P5; conditional create retry gives 412, documented",
    // Disks.
    D1 "power cut of one node, unsynced pages lost" => "all acked data readable; node rejoins; under-redundant objects repaired",
    D2 "simultaneous power cut of all nodes" => "K1 holds for every ack; cluster forms again without operator",
    D3 "lying fsync on <= m disks, then power cut" => "objects survive by EC; loss is detected (missing shard) and repaired; on a metadata node: see D11",
    D4 "torn write at chunk tail / in mid-record at 512 B" => "detected by CRC + length + footer; truncated or quarantined; never served",
    D5 "bit flip in one shard's data" => "GET returns correct bytes (reconstruct), heal queued, metric bitrot_detected +1",
    D6 "bit flips in m+1 shards of one object" => "5xx before first byte or connection abort; never wrong bytes, never 200 with short body; object listed by fsck",
    D7 "corrupt record header (length = 2^63)" => "no panic, no huge allocation; record quarantined",
    D8 "corrupt SST of the shard index" => "RocksDB checksum error -> node marks disk degraded, serves from peers, rebuilds index from segment files",
    D9 "WAL of the index damaged in the middle / tail / missing file" => "open fails or detects the gap, then the index is rebuilt; no silent rollback",
    D10 "MANIFEST/CURRENT missing or empty" => "same, with an actionable message",
    D11 "Raft log or vote damaged/rolled back on one meta node" => "node refuses to vote/serve, is removed and re-added with a new id; never rejoins with forgotten votes",
    D12 "misdirected write/read: another shard's valid record at this offset" => "record header carries shard id, object version, generation; mismatch = corrupt",
    D13 "lost write: old content with valid CRC" => "generation/epoch in header and in metadata catches it",
    D14 "ENOSPC on a data disk" => "disk goes read-only in the ring, PUTs move elsewhere, reads and deletes/GC still work; 507/503 SlowDown-class error only when the cluster is full",
    D15 "ENOSPC on the metadata disk" => "leader steps down/refuses proposals cleanly; no torn Raft log; deletes still possible from a reserved headroom",
    D16 "ENOSPC during compaction/heal" => "aborts, keeps old data",
    D17 "inodes exhausted / EMFILE / EDQUOT" => "as D14; no accept-loop exit",
    D18 "EIO on one read" => "reconstruct, mark block bad, rewrite elsewhere",
    D19 "EIO on write or fsync" => "that file/disk is dead: no retry of fsync, no ack, fail over; RocksDB background error => node leaves the ring until restart",
    D20 "fs remounted read-only" => "node keeps serving reads, refuses writes, alarms",
    D21 "slow disk 100 ms..5 s per IO" => "hedged/alternate shard reads keep p99 bounded; slow disk leaves the write set",
    D22 "hung disk, IO never returns" => "deadline; threads bounded; health turns red; process can still be stopped",
    D23 "disk vanishes (umount): path now on the root fs" => "must not create data on the root fs: identity file + st_dev pinned at open",
    D24 "wrong disk mounted (two disks swapped)" => "disk UUID file mismatch: refuse, or accept as the other slot if config allows; never serve wrong shards",
    D25 "two processes on one data dir" => "second exits with a lock error",
    D26 "disk restored from a week-old image" => "extra old shards are garbage (not resurrected, K4), missing ones repaired",
    D27 "disk cloned: same node id twice" => "see M1",
    D28 "blank replacement disk" => "joins as new disk id, heals to k+m within T_heal",
    D29 "foreign files, symlinks, unreadable dirs, names with newline in data dir" => "ignored or refused; never followed outside the root",
    D30 "corrupt snapshot/backup file of Raft state machine" => "checksum refuses it; other replica used",
    D31 "page-cache corruption after failed fsync (read returns data that is not on disk)" => "covered by 'disk is dead' rule D19",
    D32 "scrub finds mismatch between index and segment files both ways" => "'dark data' reported then reclaimed after grace; missing data repaired",
    // Network.
    N1 "symmetric partition, leader in minority" => "minority serves no stale reads and acks no writes; majority elects within 5 s",
    N2 "asymmetric: leader can send but not receive, and the reverse" => "leader steps down by lease/check-quorum; no election storm (pre-vote); no stale reads",
    N3 "bridge / partial (A-B, B-C, not A-C)" => "progress; no split-brain",
    N4 "flapping every 1 s" => "throughput degrades, safety holds, recovers within 15 s",
    N5 "1..30 % loss" => "ok",
    N6 "50..500 ms + jitter, reordering" => "ok; timeouts adapt; no false node death below 200 ms",
    N7 "1 Mbit/s to one node" => "PUT latency bounded by progress deadline; node leaves the write set",
    N8 "peer accepts TCP then never reads" => "per-block progress deadline fails that shard only",
    N9 "slow-drip peer (1 byte/s)" => "absolute cap per object as backstop",
    N10 "RST mid-stream, each direction" => "retried on another shard/node; GET either complete or aborted",
    N11 "byte flip inside RPC payload" => "caught by end-to-end shard checksum computed at the gateway before sending",
    N12 "duplicated / replayed / reordered RPC" => "idempotent by shard id and request id; old-epoch requests rejected",
    N13 "gateway cut from meta but not from storage" => "503 within deadline; no success; staged shards reclaimed",
    N14 "gateway cut from > m storage nodes" => "PUT 503; GET 503 for affected objects only",
    N15 "half-open connections after a 60 s freeze" => "keepalive detects; no leak",
    N16 "peer IP/DNS changes" => "reconnect by node id, cert checked",
    N17 "fd/port exhaustion, accept() errors" => "accept loop survives, 503, recovers",
    N18 "whole-cluster cut, then heal" => "forms again, K1",
    // Time and pauses.
    C1 "wall clock +-1 h on one node, on all" => "no effect on ordering, leases, GC; LastModified comes from the leader, never decides which write wins",
    C2 "monotonic drift x0.5..x2 between nodes" => "lease reads stay safe within the declared drift bound; beyond it fall back to read-index",
    C3 "SIGSTOP leader 5..60 s, then CONT" => "no stale read and no stale commit after wake (check lease with a fresh clock after the read)",
    C4 "SIGSTOP gateway between shard write and propose, longer than the write lease" => "commit rejected (P3)",
    C5 "SIGSTOP storage node holding a shard; GET in progress" => "hedge to parity",
    C6 "clock at 1970 or 2106, leap second" => "starts or refuses with a message; no panic in subtraction",
    C7 "GC/lifecycle clock jump +1 year" => "nothing mass-expires: lifecycle uses a cluster clock with a jump guard",
    // Membership and placement.
    M1 "two live nodes with one node id" => "second refused: id bound to certificate and to a per-boot nonce registered in Raft",
    M2 "removed node comes back with old data" => "refused by membership epoch; its shards ignored; can be re-added as new",
    M3 "wiped node reuses its Raft id" => "refused: ids are allocated once from the log and never reused",
    M4 "all nodes restart at once, any order, one late" => "up within 15 s after quorum; K1",
    M5 "meta quorum permanently lost" => "unavailable, says so; recovery only by an explicit offline command that writes a new cluster epoch; old members then refused",
    M6 "quorum lost then back" => "nothing lost, no duplicates",
    M7 "gateway with stale ring epoch" => "rejected with newer epoch, retries once; never writes to a node that is no longer owner without that being recorded",
    M8 "two ring changes at once; change during partition" => "serialised by Raft; second sees a conflict",
    M9 "node removed while holding the only k-th shard" => "removal blocked until drained unless --force-lossy",
    M10 "add/remove node under load, repeatedly" => "K1..K5 hold at every moment",
    M11 "node from another cluster, right port" => "refused by cluster id and CA",
    M12 "different EC/chunk config on one node" => "refuses to start or uses the cluster's value",
    M13 "follower far behind, log purged" => "snapshot install while writes go on",
    M14 "leader transfer during commit" => "no lost/duplicated commit",
    M15 "rolling restart, one at a time, under load" => "zero failed GETs after client retry, PUT 503 rate < 1 %",
    M16 "all replicas of one metadata group on one rack die" => "clear per-object unavailability; others unaffected",
    // HTTP edge and limits.
    G1 "client disconnects mid-PUT (each 10 % of the body)" => "not committed; staged bytes reclaimed; cancellation after the commit point must finish, not half-stop (commit runs in a spawned task)",
    G2 "body shorter / longer than Content-Length; decoded length lie" => "400 IncompleteBody, nothing committed",
    G3 "malformed HTTP: bad request line, CL+TE, two CLs, negative CL, bare LF, obs-fold" => "400 and close; no smuggling through a keep-alive pair",
    G4 "slowloris headers, slow body, slow reader on GET" => "header timeout 10 s; body min-rate/idle timeout 60 s; slow readers hold bounded memory; 1,000 such clients leave normal latency within 2x",
    G5 "giant headers (> 8 KiB AWS limit, 1 MiB, 10,000 headers), URI 64 KiB" => "400/431, no allocation proportional to claim",
    G6 "oversized XML: billion laughs, external entity, nesting 100k, one tag with 800k attributes" => "400 MalformedXML in < 100 ms and < 8 MiB, whatever the document claims",
    G7 "size limits: PUT of 5 GiB exactly / +1; part 5 GiB / +1; part < 5 MiB not last" => "EntityTooLarge, EntityTooSmall, InvalidArgument, InvalidPartOrder, InvalidPart",
    G8 "LIST with hostile input: 1,024-byte prefix, prefix of U+10FFFF, delimiter of 1 KiB" => "400 or correct page; token is authenticated or validated, never a raw RocksDB seek outside the bucket; work per page bounded",
    G9 "key with NUL, invalid UTF-8 (%ff), ../, /.., //, ., leading /, trailing space, newline" => "NUL and invalid UTF-8 -> 400; all others are opaque bytes that round-trip exactly through PUT/GET/LIST/DELETE/Copy/POST form",
    G10 "bucket names: upper case, 63/64, IP-like, .., reserved internal prefix, unicode" => "InvalidBucketName; internal namespaces unreachable",
    G11 "CRLF / non-ASCII in metadata values, > 2 KB user metadata, response-header overrides" => "MetadataTooLarge; no header injection; overrides only on signed requests",
    G12 "Range: bytes=-0, 5-2, 10^20, 1,000 ranges, on empty object, suffix > size" => "416/200/206 per RFC; bounded",
    G13 "HTTP/2 rapid reset, CONTINUATION flood, empty-DATA flood, 2^31 window" => "h2 >= 0.4.16; stream caps; memory flat",
    G14 "empty or malformed special headers: x-amz-copy-source: , bad date, duplicate host" => "400",
    G15 "POST form upload: missing policy, condition mismatch, content-length-range" => "per policy; nothing accepted without all conditions",
    G16 "100 x signed aws-chunked with 256 MiB chunks" => "signed chunks are bounded in size, concurrent uploads capped; memory stays under its limit",
    G17 "overload: 2,000 concurrent requests on a 512 MiB container" => "503 SlowDown + Retry-After; no OOM; recovers at once",
    G18 "unknown sub-resource / method / API not implemented" => "501 NotImplemented, never silently treated as GET/PUT object (would overwrite!)",
    G19 "Expect: 100-continue rejected early; keep-alive reuse after an error with unread body" => "connection closed or drained; next request not corrupted",
    G20 "decompression/Content-Encoding tricks" => "stored opaque, returned byte-identical",
    // Authentication, integrity, authorisation.
    A1 "signature mismatch (every signed component mutated one at a time)" => "403 SignatureDoesNotMatch; constant-time compare",
    A2 "chunk-signature tamper; swapped/dropped/duplicated chunk; claimed chunk size larger than sent" => "400/403 and nothing committed",
    A3 "unsigned x-amz-* header added to a signed or presigned request" => "403 'headers present which were not signed'",
    A4 "replayed presigned URL: same request inside expiry -> allowed (S3 semantics)" => "other method, bucket, key, query or host: 403",
    A5 "expired presigned URL; Expires=0; > 604,800; date in the future" => "403/400",
    A6 "expired, revoked, foreign or missing session token; token of another key" => "400/403; mid-stream revocation: request already authorised may finish, next fails within 5 s cluster-wide",
    A7 "client clock skewed > 15 min" => "403 RequestTimeTooSkewed; server clock wrong is visible in health",
    A8 "STREAMING-UNSIGNED-PAYLOAD-TRAILER with fabricated signature" => "403. One auth choke point before routing; table-driven test over the whole operation list, so a new operation cannot forget it",
    A9 "Content-MD5 mismatch / malformed" => "400 BadDigest / InvalidDigest, nothing committed",
    A10 "x-amz-content-sha256 mismatch" => "400 XAmzContentSHA256Mismatch, nothing committed",
    A11 "x-amz-checksum-{crc32,crc32c,crc64nvme,sha1,sha256} mismatch, two checksums, wrong length" => "400 BadDigest/InvalidRequest; composite vs full-object at Complete checked",
    A12 "trailer checksum mismatch, declared but missing, undeclared, duplicated, after error" => "400, nothing committed: commit strictly after trailers",
    A13 "anonymous conditional GET/HEAD on a private object" => "403 before any conditional evaluation; same 403/404 shape and timing for existing and missing keys",
    A14 "multipart/form-data POST treated as pre-authenticated" => "403",
    A15 "UploadPartCopy / CopyObject without read permission on the source, versioned source" => "403, source never read",
    A16 "client sends internal headers (x-dozo-internal-*, replication, SSE sealed key)" => "stripped/refused",
    A17 "X-Forwarded-For spoof with aws:SourceIp policy" => "peer address used unless the peer is a configured proxy",
    A18 "policy store unavailable or unparsable" => "fail closed, 503/403; object-lock unknown = locked",
    A19 "Deny vs Allow precedence, NotAction/NotPrincipal, ForAllValues, empty lists" => "golden matrix generated against a reference evaluator",
    A20 "restricted session/service account creates another account" => "inherits at most its own rights",
    A21 "internal RPC: no cert, S3-CA cert, other cluster's cert, expired cert, removed node's cert" => "refused before dispatch; fields are typed ids, never paths",
    A22 "admin/metrics/pprof/bootstrap endpoints without credentials" => "403 or not bound; no config or env content in any unauthenticated answer",
    A23 "brute force on keys, user enumeration" => "uniform answers, rate limit per source",
    A24 "malformed JWT, alg:none, HS/RS confusion (if we ever add OIDC)" => "refused",
    // Concurrency.
    X1 "100 concurrent PUTs of one key" => "linearizable; final content is one of them, whole",
    X2 "concurrent CompleteMultipartUpload: same upload id; two ids on one key; Complete vs PUT" => "one commit per id; order by Raft index",
    X3 "DELETE during a running GET" => "GET finishes with the old bytes or aborts; never a mix. GC grace >= max GET time or reader pin",
    X4 "overwrite between ranged GETs" => "If-Match gives 412; without it each response is self-consistent",
    X5 "100 x PUT If-None-Match: *" => "exactly one 200; others 412 or 409 ConditionalRequestConflict",
    X6 "counter with If-Match CAS" => "no lost update, WGL-checked",
    X7 "LIST while 10k keys are inserted and deleted" => "stable keys all present, exactly once, across pages",
    X8 "same part number uploaded twice while Complete runs" => "Complete pins the ETag it listed",
    X9 "heal/rebalance vs overwrite vs delete of one object" => "no resurrection, no repair of a deleted version",
    X10 "bucket delete vs put vs create by another owner" => "see P23",
    X11 "versioning toggled/suspended under load; null version" => "matches a model; no version lost",
    X12 "copy object onto itself, copy with new metadata/SSE under load" => "atomic; data rewritten if encryption changes",
    X13 "lifecycle expiry vs overwrite; object-lock retention vs delete/overwrite/lifecycle/force" => "newer object never expired by an older decision; locked never lost",
    X14 "two gateways, IAM/bucket-policy change on one" => "other enforces within 5 s; documented bound is tested",
}

impl Row {
    pub fn parse(id: &str) -> Option<Row> {
        Row::ALL.iter().copied().find(|row| row.id() == id)
    }
}

/// How often faults of each row really happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<Row, u64>);

impl Tally {
    pub fn hit(&mut self, row: Row) {
        self.add(row, 1);
    }

    pub fn add(&mut self, row: Row, times: u64) {
        if times > 0 {
            *self.0.entry(row).or_default() += times;
        }
    }

    pub fn merge(&mut self, other: &Tally) {
        other.iter().for_each(|(row, times)| self.add(row, times));
    }

    pub fn iter(&self) -> impl Iterator<Item = (Row, u64)> + '_ {
        self.0.iter().map(|(row, times)| (*row, *times))
    }

    /// How many rows there are of which anything happened.
    pub fn rows(&self) -> usize {
        self.0.len()
    }

    pub fn has(&self, row: Row) -> bool {
        self.0.contains_key(&row)
    }
}
