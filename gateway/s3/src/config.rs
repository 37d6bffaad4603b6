//! What an operator may choose about the S3 surface.

/// Plain data; checked by whoever reads it from the outside.
#[derive(Debug, Clone)]
pub struct S3Config {
    /// The region answered to clients. Signatures for any region are accepted unless `region_strict`.
    pub region: String,
    /// Refuse signatures and location constraints of other regions.
    pub region_strict: bool,
    /// Domains under which a bucket may be the first label of the host (`bucket.s3.example.org`). Empty: path style only.
    pub domains: Vec<String>,
    /// Accept presigned URLs signed with version 2 for GET, HEAD and PUT: aws cli and boto3 still make them.
    pub sig_v2_presigned: bool,
    /// Connections served at once; more wait to be accepted.
    pub connections_max: usize,
    /// Requests served at once; more are answered 503 `SlowDown` (G17).
    pub requests_max: usize,
}

impl Default for S3Config {
    fn default() -> Self {
        Self {
            region: "us-east-1".to_owned(),
            region_strict: false,
            domains: Vec::new(),
            sig_v2_presigned: true,
            connections_max: 4096,
            requests_max: 512,
        }
    }
}
