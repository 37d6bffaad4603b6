//! The operator's listener: health, metrics, status and explain.
//!
//! | path | who | what |
//! |---|---|---|
//! | `/health/live` | anybody | 200 while the process answers |
//! | `/health/ready` | anybody | 200 when reads and writes would work, else 503 with what does not |
//! | `/metrics` | anybody who reaches the port | Prometheus text |
//! | `/admin/v1/status` | root | nodes, disks, groups, redundancy, capacity |
//! | `/admin/v1/explain?bucket=&key=` | root | where every shard of an object is, why, and what it could bear |
//!
//! What needs no signature tells nothing about configuration, buckets or users (A22). The rest is signed with S3 credentials
//! (SigV4, service `s3`), and refused to all but root.

mod explain;
mod health;
mod server;
mod signature;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use gateway_s3::Credentials;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Deserialize;

use crate::authorize::{Action, Resource, authorize};
use crate::gateway::Gateway;
use health::Readiness;

pub use server::AdminServer;

#[cfg(test)]
mod tests;

/// What the admin surface is made of.
pub struct AdminParts {
    pub gateway: Arc<Gateway>,
    pub credentials: Arc<dyn Credentials>,
    pub metrics: PrometheusHandle,
}

struct Admin {
    gateway: Arc<Gateway>,
    credentials: Arc<dyn Credentials>,
    metrics: PrometheusHandle,
    readiness: Readiness,
}

/// The routes, ready to be served.
pub fn router(parts: AdminParts) -> Router {
    let AdminParts { gateway, credentials, metrics } = parts;
    let admin = Arc::new(Admin { gateway, credentials, metrics, readiness: Readiness::default() });
    let signed = Router::new()
        .route("/admin/v1/status", get(status))
        .route("/admin/v1/explain", get(explain))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&admin), require_root));
    Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics_text))
        .merge(signed)
        .with_state(admin)
}

async fn live() -> &'static str {
    "live\n"
}

async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    let verdict = admin.readiness.check(&admin.gateway).await;
    let code = if verdict.failing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let ready = verdict.failing.is_empty();
    let body = serde_json::json!({ "ready": ready, "failing": verdict.failing });
    (code, axum::Json(body)).into_response()
}

async fn metrics_text(State(admin): State<Arc<Admin>>) -> Response {
    ([("content-type", "text/plain; version=0.0.4")], admin.metrics.render()).into_response()
}

async fn status(State(admin): State<Arc<Admin>>) -> Response {
    axum::Json(status::status(&admin.gateway).await).into_response()
}

#[derive(Deserialize)]
struct ExplainQuery {
    bucket: String,
    key: String,
}

async fn explain(State(admin): State<Arc<Admin>>, Query(query): Query<ExplainQuery>) -> Response {
    match explain::explain(&admin.gateway, &query.bucket, &query.key).await {
        Ok(report) => axum::Json(report).into_response(),
        Err(failure) => {
            let error = gateway_s3::S3Error::from(failure);
            refusal(error.code.status(), error.code.name(), &error.message)
        }
    }
}

/// Lets a request pass that is signed by root, and nothing else.
async fn require_root(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let now = admin.gateway.env.now();
    let caller = match signature::verify(&head, now, admin.credentials.as_ref()).await {
        Ok(caller) => caller,
        Err(error) => {
            tracing::debug!(%error, "an admin request was refused");
            return refusal(StatusCode::FORBIDDEN, "AccessDenied", "The request is not properly signed.");
        }
    };
    if authorize(&caller, Action::Administrate, Resource::Account).is_err() {
        return refusal(StatusCode::FORBIDDEN, "AccessDenied", "Only root may do this.");
    }
    next.run(Request::from_parts(head, body)).await
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    (status, axum::Json(serde_json::json!({ "error": code, "message": message }))).into_response()
}
