//! Workers, progress, and the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use http::Method;
use placement_types::Env;

use super::report::{Report, Tally};
use super::workload::{Target, Workload};
use crate::client::S3Client;

pub struct Plan {
    pub workload: Workload,
    pub endpoint: String,
    pub bucket: String,
    pub object_bytes: usize,
    pub part_bytes: usize,
    pub concurrency: usize,
    pub duration: Duration,
    /// How many objects are there before a reading workload starts.
    pub objects: u64,
    /// Whether the objects stay after the run.
    pub keep: Keep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    Objects,
    Nothing,
}

/// Bytes that bodies are filled with.
const NOISE_BYTES: usize = 1 << 20;

/// Errors past this stop the run: the figures would mean nothing.
const ERRORS_MAX: u64 = 1000;

/// Runs the plan: makes the bucket if it is missing, uploads objects when the workload reads, measures, cleans up.
///
/// # Errors
/// When the endpoint cannot be used at all. Errors of measured operations are counted in the report.
pub async fn run(env: &Env, client: S3Client, plan: &Plan) -> anyhow::Result<Report> {
    let created = client.send(Method::PUT, &format!("/{}", plan.bucket), &[], Bytes::new()).await?;
    if !matches!(created.status.as_u16(), 200 | 409) {
        bail!("CreateBucket answered {}: {}", created.status, String::from_utf8_lossy(&created.body));
    }
    let target = Target {
        env: env.clone(),
        client,
        bucket: plan.bucket.clone(),
        object_bytes: plan.object_bytes,
        part_bytes: plan.part_bytes,
        key_prefix: format!("bench-{:08x}/", env.random_u64() as u32),
    };
    let mut noise = vec![0; NOISE_BYTES];
    env.random.fill(&mut noise);
    let noise = Bytes::from(noise);

    let written = Arc::new(AtomicU64::new(0));
    if plan.workload.reads_objects() {
        eprintln!("uploading {} objects of {} bytes", plan.objects, plan.object_bytes);
        for_each_object(&target, plan, plan.objects, super::workload::Operation::Put, &noise).await?;
        written.store(plan.objects, Ordering::Relaxed);
    }
    let (tally, seconds) = measure(env, &target, plan, &noise, &written).await;
    if plan.keep == Keep::Nothing {
        eprintln!("removing what was uploaded");
        for_each_object(&target, plan, written.load(Ordering::Relaxed), super::workload::Operation::Delete, &noise).await?;
    }
    let workload = format!("{:?}", plan.workload).to_lowercase();
    Ok(tally.into_report(workload, plan.endpoint.clone(), plan.object_bytes as u64, plan.concurrency, seconds))
}

async fn for_each_object(
    target: &Target,
    plan: &Plan,
    count: u64,
    operation: super::workload::Operation,
    noise: &Bytes,
) -> anyhow::Result<()> {
    let mut running = stream::iter(0..count)
        .map(|number| async move { target.perform(operation, number, noise).await })
        .buffer_unordered(plan.concurrency);
    while let Some(result) = running.next().await {
        result?;
    }
    Ok(())
}

async fn measure(env: &Env, target: &Target, plan: &Plan, noise: &Bytes, written: &Arc<AtomicU64>) -> (Tally, f64) {
    let start = env.monotonic();
    let end = start + plan.duration;
    let done = Arc::new(AtomicU64::new(0));
    let moved = Arc::new(AtomicU64::new(0));
    let deleted = Arc::new(AtomicU64::new(0));
    let (sender, mut tallies) = tokio::sync::mpsc::channel(plan.concurrency);
    let mut workers = Vec::new();
    for _ in 0..plan.concurrency {
        let (target, noise, sender, worker_env) = (target.clone(), noise.clone(), sender.clone(), env.clone());
        let (workload, objects) = (plan.workload, plan.objects.max(1));
        let (done, moved, deleted, written) = (done.clone(), moved.clone(), deleted.clone(), written.clone());
        workers.push(env.spawn("bench-worker", async move {
            let mut tally = Tally::new();
            while worker_env.monotonic() < end && tally.errors < ERRORS_MAX {
                let operation = workload.pick(&worker_env);
                let number = match operation {
                    super::workload::Operation::Put | super::workload::Operation::Multipart => {
                        written.fetch_add(1, Ordering::Relaxed)
                    }
                    super::workload::Operation::Delete => {
                        let number = deleted.fetch_add(1, Ordering::Relaxed);
                        if workload == Workload::Delete && number >= objects {
                            break;
                        }
                        number
                    }
                    _ => worker_env.random_below(objects),
                };
                let began = worker_env.monotonic();
                match target.perform(operation, number, &noise).await {
                    Ok(bytes) => {
                        let micros = u64::try_from((worker_env.monotonic() - began).as_micros()).unwrap_or(u64::MAX);
                        tally.latencies.record(micros.max(1)).expect("the histogram grows by itself");
                        tally.bytes += bytes;
                        done.fetch_add(1, Ordering::Relaxed);
                        moved.fetch_add(bytes, Ordering::Relaxed);
                    }
                    Err(error) => {
                        tally.errors += 1;
                        tally.first_error.get_or_insert_with(|| format!("{error:#}"));
                    }
                }
            }
            let _ = sender.send(tally).await;
        }));
    }
    drop(sender);
    let progress_env = env.clone();
    let progress = env.spawn("bench-progress", async move {
        let (mut last_done, mut last_moved) = (0, 0);
        loop {
            progress_env.sleep(Duration::from_secs(1)).await;
            let (now_done, now_moved) = (done.load(Ordering::Relaxed), moved.load(Ordering::Relaxed));
            let elapsed = (progress_env.monotonic() - start).as_secs();
            eprintln!("{elapsed:>4} s  {:>8} op/s  {:>8.1} MB/s", now_done - last_done, (now_moved - last_moved) as f64 / 1e6);
            (last_done, last_moved) = (now_done, now_moved);
        }
    });
    let mut total = Tally::new();
    while let Some(tally) = tallies.recv().await {
        total.add(tally);
    }
    let seconds = (env.monotonic() - start).as_secs_f64();
    progress.stop().await;
    for worker in workers {
        worker.join().await;
    }
    (total, seconds)
}
