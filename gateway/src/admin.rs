//! The operator's listener: health, metrics, status and explain.
//!
//! | path | who | what |
//! |---|---|---|
//! | `/health/live` | anybody | 200 while the process answers |
//! | `/health/ready` | anybody | 200 when reads and writes would work, else 503 with what does not |
//! | `/metrics` | anybody who reaches the port | Prometheus text |
//! | `/admin/v1/status` | root | nodes, disks, groups, redundancy, capacity |
//! | `/admin/v1/risk` | root | what would be lost or unreadable if one more disk, node or zone failed |
//! | `/admin/v1/layout/plan?op=&targets=` | root | what a change of the cluster would move |
//! | POST `/admin/v1/layout/apply?op=&targets=` | root | makes the change |
//! | POST `/admin/v1/settings?rebuild_after_seconds=&scrub_cycle_seconds=` | root | sets what holds for the whole cluster |
//! | `/admin/v1/verify?bucket=&prefix=&next=` | root | reads every shard of a stretch of a bucket, and tells what is bad |
//! | `/admin/v1/explain?bucket=&key=` | root | where every shard of an object is, why, and what it could bear |
//!
//! What needs no signature tells nothing about configuration, buckets or users (A22). The rest is signed with S3 credentials
//! (SigV4, service `s3`), and refused to all but root. No request has a body: what it says stands in its signed query.

mod explain;
mod health;
mod layout;
mod server;
mod signature;
mod status;
mod upkeep;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use gateway_s3::Credentials;
use metrics_exporter_prometheus::PrometheusHandle;
use placement_map::ClusterSettings;
use placement_map::system::{SystemChange, SystemOutcome};
use serde::Deserialize;

use crate::authorize::{Action, Resource, authorize};
use crate::gateway::Gateway;
use health::Readiness;
use layout::{LayoutError, LayoutQuery};
use verify::VerifyQuery;

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
        .route("/admin/v1/risk", get(risk))
        .route("/admin/v1/verify", get(verify_page))
        .route("/admin/v1/layout/plan", get(plan_layout))
        .route("/admin/v1/layout/apply", post(apply_layout))
        .route("/admin/v1/settings", post(set_settings))
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

async fn risk(State(admin): State<Arc<Admin>>) -> Response {
    axum::Json(upkeep::risk(&admin.gateway).await).into_response()
}

async fn plan_layout(State(admin): State<Arc<Admin>>, Query(query): Query<LayoutQuery>) -> Response {
    layout_reply(layout::plan(&admin.gateway, &query).await)
}

async fn apply_layout(State(admin): State<Arc<Admin>>, Query(query): Query<LayoutQuery>) -> Response {
    layout_reply(layout::apply(&admin.gateway, &query).await)
}

fn layout_reply(verdict: Result<serde_json::Value, LayoutError>) -> Response {
    let (status, code, message) = match verdict {
        Ok(report) => return axum::Json(report).into_response(),
        Err(error @ LayoutError::Invalid(_)) => (StatusCode::BAD_REQUEST, "InvalidArgument", error.to_string()),
        Err(error @ LayoutError::Refused(_)) => (StatusCode::CONFLICT, "Refused", error.to_string()),
        Err(error @ (LayoutError::NoMap | LayoutError::Unavailable)) => {
            (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", error.to_string())
        }
        Err(error @ LayoutError::Unknown) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError", error.to_string()),
    };
    refusal(status, code, &message)
}

#[derive(Deserialize)]
struct SettingsQuery {
    rebuild_after_seconds: Option<u64>,
    scrub_cycle_seconds: Option<u64>,
}

async fn set_settings(State(admin): State<Arc<Admin>>, Query(query): Query<SettingsQuery>) -> Response {
    let Some(map) = admin.gateway.maps.borrow().clone() else {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "This process has no cluster map yet.");
    };
    if query.scrub_cycle_seconds == Some(0) {
        return refusal(StatusCode::BAD_REQUEST, "InvalidArgument", "A scrub takes at least a second.");
    }
    // What is not said stays as it is.
    let settings = ClusterSettings {
        rebuild_after: query.rebuild_after_seconds.map_or(map.settings.rebuild_after, Duration::from_secs),
        scrub_cycle: query.scrub_cycle_seconds.map_or(map.settings.scrub_cycle, Duration::from_secs),
    };
    match admin.gateway.system.propose(SystemChange::SetSettings { settings }).await {
        Ok(SystemOutcome::Done) => axum::Json(serde_json::json!({ "applied": true })).into_response(),
        Ok(outcome) => refusal(StatusCode::CONFLICT, "Refused", &outcome.into_reason()),
        Err(error) => refusal(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", &error.to_string()),
    }
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

async fn verify_page(State(admin): State<Arc<Admin>>, Query(query): Query<VerifyQuery>) -> Response {
    match verify::verify(&admin.gateway, &query).await {
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
