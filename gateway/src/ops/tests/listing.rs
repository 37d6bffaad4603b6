use std::collections::BTreeSet;

use futures::future::join_all;
use gateway_s3::{CreateMultipartUpload, ListEntry, ListMultipartUploads, ListObjects, UploadsEntry};
use placement_types::Env;

use super::*;

/// What S3 says a listing is: keys and common prefixes in one order, strictly after `after`.
fn model(keys: &BTreeSet<String>, prefix: &str, delimiter: &str, after: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    for key in keys.iter().filter(|key| key.starts_with(prefix)) {
        let rest = &key[prefix.len()..];
        let item = match rest.find(delimiter).filter(|_| !delimiter.is_empty()) {
            Some(at) => key[..prefix.len() + at + delimiter.len()].to_owned(),
            None => key.clone(),
        };
        if item.as_str() > after && items.last() != Some(&item) {
            items.push(item);
        }
    }
    items
}

fn random_key(env: &Env) -> String {
    let alphabet = ["a", "b", "/", "foo", "foo/", "é", "+", "0"];
    let length = 1 + env.random_below(5);
    let pick = |_| alphabet[usize::try_from(env.random_below(alphabet.len() as u64)).unwrap()];
    (0..length).map(pick).collect()
}

#[tokio::test(start_paused = true)]
async fn pages_agree_with_the_model_whatever_their_size() {
    for seed in 0..4 {
        let bench = Bench::new(200 + seed).await;
        let env = &bench.cluster.env;
        let keys: BTreeSet<String> = (0..150).map(|_| random_key(env)).collect();
        for key in &keys {
            bench.put(key, &bytes(1, 0)).await.unwrap();
        }
        for _ in 0..40 {
            let prefix = if env.random_below(2) == 0 { String::new() } else { random_key(env) };
            let delimiter = ["", "/", "o", "/f"][usize::try_from(env.random_below(4)).unwrap()];
            let mut after = (env.random_below(3) == 0).then(|| random_key(env));
            let max_keys = 1 + u16::try_from(env.random_below(30)).unwrap();
            let expected = model(&keys, &prefix, delimiter, after.as_deref().unwrap_or_default());
            let mut listed = Vec::new();
            loop {
                let request = ListObjects {
                    bucket: bucket(),
                    prefix: prefix.clone(),
                    delimiter: (!delimiter.is_empty()).then(|| delimiter.to_owned()),
                    after: after.clone(),
                    max_keys,
                };
                let page = bench.gw.list_objects(&root(), request).await.unwrap();
                assert!(page.entries.len() <= usize::from(max_keys));
                listed.extend(page.entries.into_iter().map(|entry| match entry {
                    ListEntry::Object(object) => object.key.as_str().to_owned(),
                    ListEntry::Prefix(prefix) => prefix,
                }));
                assert_eq!(page.next.is_some(), listed.len() < expected.len(), "truncation is exact");
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
            assert_eq!(listed, expected, "seed {seed}, prefix {prefix:?}, delimiter {delimiter:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_of_no_keys_is_empty_and_still_knows_whether_there_is_a_bucket() {
    let bench = Bench::new(41).await;
    bench.put("k", &bytes(1, 0)).await.unwrap();
    let list = |name: &str| ListObjects {
        bucket: BucketName::parse(name).unwrap(),
        prefix: String::new(),
        delimiter: None,
        after: None,
        max_keys: 0,
    };
    let page = bench.gw.list_objects(&root(), list("bench")).await.unwrap();
    assert_eq!((page.entries.len(), page.next), (0, None));
    refused(bench.gw.list_objects(&root(), list("absent")).await, S3ErrorCode::NoSuchBucket);
}

#[tokio::test(start_paused = true)]
async fn a_page_has_every_key_that_existed_throughout() {
    let bench = Bench::new(42).await;
    let stable: BTreeSet<String> = (0..60).map(|number| format!("stable/{number}")).collect();
    for name in &stable {
        bench.put(name, &bytes(1, 0)).await.unwrap();
    }
    let churn = async {
        for number in 0..60 {
            bench.put(&format!("stable/{number}-churn"), &bytes(1, 0)).await.unwrap();
            bench.delete(&format!("stable/{}-churn", number / 2)).await.unwrap();
        }
    };
    let list = async {
        for _ in 0..10 {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let request =
                    ListObjects { bucket: bucket(), prefix: "stable/".into(), delimiter: None, after: after.take(), max_keys: 7 };
                let page = bench.gw.list_objects(&root(), request).await.unwrap();
                seen.extend(page.entries.into_iter().filter_map(|entry| match entry {
                    ListEntry::Object(object) => Some(object.key.as_str().to_owned()),
                    ListEntry::Prefix(_) => None,
                }));
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
            let distinct: BTreeSet<String> = seen.iter().cloned().collect();
            assert_eq!(distinct.len(), seen.len(), "nothing twice");
            assert!(stable.is_subset(&distinct));
        }
    };
    futures::join!(churn, list);
}

#[tokio::test(start_paused = true)]
async fn uploads_are_listed_by_key_then_by_initiation() {
    let bench = Bench::new(43).await;
    let mut expected = Vec::new();
    for name in ["b/1", "a", "c", "b/2", "a", "a"] {
        let request =
            CreateMultipartUpload { bucket: bucket(), key: key(name), headers: WriteHeaders::default(), checksum: None };
        let id = bench.gw.create_multipart_upload(&root(), request).await.unwrap();
        expected.push((name, expected.len(), id));
        bench.cluster.env.sleep(Duration::from_secs(1)).await;
    }
    expected.sort_unstable_by_key(|(name, order, _)| (*name, *order));
    for max_uploads in 1..8 {
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let request = ListMultipartUploads {
                bucket: bucket(),
                prefix: String::new(),
                delimiter: None,
                after: after.take(),
                max_uploads,
            };
            let page = bench.gw.list_multipart_uploads(&root(), request).await.unwrap();
            listed.extend(page.entries.into_iter().map(|entry| match entry {
                UploadsEntry::Upload(upload) => upload.upload,
                UploadsEntry::Prefix(prefix) => panic!("no delimiter, yet {prefix}"),
            }));
            assert_eq!(page.next.is_some(), listed.len() < expected.len());
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(listed, expected.iter().map(|(_, _, id)| *id).collect::<Vec<_>>(), "pages of {max_uploads}");
    }
    let request = ListMultipartUploads {
        bucket: bucket(),
        prefix: String::new(),
        delimiter: Some("/".into()),
        after: None,
        max_uploads: 10,
    };
    let page = bench.gw.list_multipart_uploads(&root(), request).await.unwrap();
    assert_eq!(page.entries.iter().filter(|entry| matches!(entry, UploadsEntry::Prefix(prefix) if prefix == "b/")).count(), 1);
    assert_eq!(page.entries.len(), 5);
    // A listing is no write: nothing waits for it.
    join_all((0..3).map(|_| bench.get("absent"))).await;
}
