use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::http;
use bytes::Bytes;
use gateway_s3::{
    Caller, CreateBucket, Credential, PutObject, S3Api as _, S3Error, SecretKey, Signer, UploadBody, WriteCondition, WriteHeaders,
};
use metrics_exporter_prometheus::PrometheusBuilder;
use placement_map::DiskState;
use placement_types::{BucketName, GroupId, ObjectKey};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower::ServiceExt as _;

use super::*;
use crate::double::{Cluster, root};

struct TwoKeys;

#[async_trait]
impl Credentials for TwoKeys {
    async fn lookup(&self, access_key: &str) -> Result<Option<Credential>, S3Error> {
        let caller = match access_key {
            "root" => Caller::Root { access_key: "root".into() },
            "user" => Caller::AccessKey { access_key: "user".into() },
            _ => return Ok(None),
        };
        Ok(Some(Credential { secret: SecretKey::new("secret"), caller }))
    }
}

struct Bench {
    cluster: Cluster,
    gateway: Arc<Gateway>,
    router: Router,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let cluster = Cluster::new(seed);
        let gateway = cluster.gateway();
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let parts = AdminParts { gateway: Arc::clone(&gateway), credentials: Arc::new(TwoKeys), metrics };
        Self { cluster, gateway, router: router(parts) }
    }

    async fn get(&self, path: &str, signer: Option<&Signer>) -> (StatusCode, Value) {
        let uri = format!("http://admin:9001{path}");
        let mut request = http::Request::get(uri).header("host", "admin:9001").body(Body::empty()).unwrap();
        if let Some(signer) = signer {
            signer.sign(&mut request, self.cluster.env.now());
        }
        let reply = self.router.clone().oneshot(request).await.unwrap();
        let status = reply.status();
        let body = to_bytes(reply.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn ready(&self) -> (StatusCode, Value) {
        // Past the time a verdict is repeated.
        self.cluster.env.sleep(crate::limits::READY_FRESH * 2).await;
        self.get("/health/ready", None).await
    }
}

fn signer(access_key: &str, secret: &str) -> Signer {
    Signer { access_key: access_key.into(), secret: SecretKey::new(secret), region: "us-east-1".into() }
}

#[tokio::test(start_paused = true)]
async fn readiness_is_what_requests_would_find() {
    let bench = Bench::new(1);
    assert_eq!(bench.ready().await.0, StatusCode::OK);
    bench.cluster.groups.stop(GroupId(2));
    let (status, body) = bench.ready().await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body["failing"], serde_json::json!(["metadata group 2 does not answer"]));

    let bench = Bench::new(2);
    bench.cluster.set_map(|map| {
        let mut changed = map.as_deref().unwrap().clone();
        changed.disks.values_mut().next().unwrap().state = DiskState::ReadOnly;
        *map = Some(Arc::new(changed));
    });
    let (status, body) = bench.ready().await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body["failing"], serde_json::json!(["2 disks take shards, 3 are needed for a write"]));
    bench.cluster.set_map(|map| *map = None);
    assert_eq!(bench.ready().await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(bench.get("/health/live", None).await.0, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn the_admin_paths_answer_root_alone() {
    let bench = Bench::new(3);
    for path in ["/admin/v1/status", "/admin/v1/explain?bucket=bench&key=k"] {
        assert_eq!(bench.get(path, None).await.0, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(bench.get(path, Some(&signer("user", "secret"))).await.0, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(bench.get(path, Some(&signer("root", "wrong"))).await.0, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(bench.get(path, Some(&signer("nobody", "secret"))).await.0, StatusCode::FORBIDDEN, "{path}");
        assert_ne!(bench.get(path, Some(&signer("root", "secret"))).await.0, StatusCode::FORBIDDEN, "{path}");
    }
    let (status, body) = bench.get("/admin/v1/status", Some(&signer("root", "secret"))).await;
    assert_eq!((status, &body["profile"], body["nodes"].as_array().unwrap().len()), (StatusCode::OK, &Value::from("2+1"), 3));
    assert!(body["groups"].as_array().unwrap().iter().all(|group| group["leader"].is_string()));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_votes_somewhere_is_not_removed() {
    let bench = Bench::new(6);
    let path = "/admin/v1/layout/plan?op=remove-node&targets=node-1:9100";
    let (status, body) = bench.get(path, Some(&signer("root", "secret"))).await;
    assert!(status.is_client_error() && body.to_string().contains("still votes in group"), "{status} {body}");
}

#[tokio::test(start_paused = true)]
async fn explain_says_where_the_shards_are_and_what_they_could_bear() {
    let bench = Bench::new(4);
    let bucket = BucketName::parse("bench").unwrap();
    bench.gateway.create_bucket(&root(), CreateBucket { bucket: bucket.clone(), location: None }).await.unwrap();
    for (name, length) in [("a key/with spaces", 100_000), ("small", 10)] {
        let request = PutObject {
            bucket: bucket.clone(),
            key: ObjectKey::parse(name).unwrap(),
            headers: WriteHeaders::default(),
            condition: WriteCondition::None,
            body: UploadBody::from_pieces(bench.cluster.env.clone(), vec![Bytes::from(vec![1; length])]),
        };
        bench.gateway.put_object(&root(), request).await.unwrap();
    }
    let root = signer("root", "secret");
    let (status, body) = bench.get("/admin/v1/explain?key=a%20key%2Fwith%20spaces&bucket=bench", Some(&root)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let chunk = &body["versions"][0]["data"]["records"][0]["chunks"][0];
    assert_eq!((chunk["shards"].as_array().unwrap().len(), &chunk["readable_shards"]), (3, &Value::from(3)));
    assert_eq!(chunk["may_be_lost"], serde_json::json!({ "disks": 1, "nodes": 1, "zones": 0 }));
    let (_, body) = bench.get("/admin/v1/explain?key=small&bucket=bench", Some(&root)).await;
    assert!(body["versions"][0]["data"]["records"][0]["placed"].as_str().unwrap().starts_with("inline"));
    assert_eq!(bench.get("/admin/v1/explain?key=absent&bucket=bench", Some(&root)).await.0, StatusCode::NOT_FOUND);
}

async fn put(bench: &Bench, key: &str, length: usize) {
    let request = PutObject {
        bucket: BucketName::parse("bench").unwrap(),
        key: ObjectKey::parse(key).unwrap(),
        headers: WriteHeaders::default(),
        condition: WriteCondition::None,
        body: UploadBody::from_pieces(bench.cluster.env.clone(), vec![Bytes::from(vec![1; length])]),
    };
    bench.gateway.put_object(&root(), request).await.unwrap();
}

/// All pages: the keys verified, in the order they came, and what is bad.
async fn verify(bench: &Bench, prefix: &str) -> (Vec<String>, Vec<Value>, usize) {
    let (mut keys, mut bad, mut pages) = (Vec::new(), Vec::new(), 0);
    let mut next = String::new();
    loop {
        let path = format!("/admin/v1/verify?bucket=bench&prefix={prefix}{next}");
        let (status, page) = bench.get(&path, Some(&signer("root", "secret"))).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        pages += 1;
        keys.extend(page["verified"].as_array().unwrap().iter().map(|version| version["key"].as_str().unwrap().to_owned()));
        bad.extend(page["bad"].as_array().unwrap().iter().cloned());
        let Some(place) = page["next"].as_str() else { return (keys, bad, pages) };
        next = format!("&next={}", percent_encoded(place));
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test(start_paused = true)]
async fn verify_goes_through_a_bucket_page_by_page_and_names_what_is_bad() {
    let bench = Bench::new(6);
    let bucket = BucketName::parse("bench").unwrap();
    bench.gateway.create_bucket(&root(), CreateBucket { bucket, location: None }).await.unwrap();
    let small: Vec<String> = (0..crate::limits::VERIFY_PAGE_VERSIONS + 5).map(|number| format!("a/{number:05}")).collect();
    for key in &small {
        put(&bench, key, 10).await;
    }
    put(&bench, "large", 33 << 20).await;
    let (keys, bad, pages) = verify(&bench, "").await;
    assert_eq!((keys.len(), keys.last().unwrap().as_str(), bad.len(), pages), (small.len() + 1, "large", 0, 2));
    assert_eq!(keys[..small.len()], small);
    assert_eq!(verify(&bench, "a/0000").await.0, small[..10]);
    assert_eq!(verify(&bench, "nothing").await.0, [""; 0]);

    bench.cluster.chunks.lose_slot(2);
    let (keys, bad, _) = verify(&bench, "l").await;
    assert_eq!((keys, bad.len()), (vec!["large".to_owned()], 3), "a shard of each of three chunks");
    for (number, shard) in bad.iter().enumerate() {
        let found = (&shard["what"], &shard["state"], &shard["kind"], &shard["slot"], &shard["may_be_lost"]);
        let [two, none] = [Value::from(2), Value::from(0)];
        assert_eq!(found, (&"shard".into(), &"missing".into(), &"parity".into(), &two, &none), "{shard}");
        assert_eq!((&shard["key"], &shard["chunk"]), (&"large".into(), &Value::from(number)));
    }
    // A page that ended inside the object goes on there.
    let inside = percent_encoded(r#"{"key":"large","version":"null","inside":[0,2]}"#);
    let path = format!("/admin/v1/verify?bucket=bench&next={inside}");
    let (_, page) = bench.get(&path, Some(&signer("root", "secret"))).await;
    assert_eq!((page["bad"].as_array().unwrap().len(), page["verified"].as_array().unwrap().len()), (1, 1), "{page}");
    bench.cluster.chunks.lose_slot(1);
    let (_, bad, _) = verify(&bench, "large").await;
    assert_eq!(bad.iter().filter(|bad| bad["what"] == "chunk" && bad["state"] == "lost").count(), 3);

    for (query, expected) in [
        ("bucket=absent", StatusCode::NOT_FOUND),
        ("bucket=no", StatusCode::BAD_REQUEST),
        ("bucket=bench&next=nonsense", StatusCode::BAD_REQUEST),
        ("prefix=bench", StatusCode::BAD_REQUEST),
    ] {
        let path = format!("/admin/v1/verify?{query}");
        assert_eq!(bench.get(&path, Some(&signer("root", "secret"))).await.0, expected, "{query}");
    }
    (1..=crate::double::GROUPS).for_each(|group| bench.cluster.groups.stop(GroupId(group)));
    let path = "/admin/v1/verify?bucket=bench";
    assert_eq!(bench.get(path, Some(&signer("root", "secret"))).await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn the_listener_serves_the_routes() {
    let env = placement_env::system();
    let bench = Bench::new(5);
    let listener = env.net.listen("127.0.0.1:0").await.unwrap();
    let server = AdminServer::start(&env, listener, bench.router.clone());
    for _ in 0..3 {
        let mut stream = env.net.connect(server.address()).await.unwrap();
        stream.write_all(b"GET /health/live HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n") && reply.ends_with("live\n"), "{reply}");
    }
}
